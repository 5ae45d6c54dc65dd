//! `skep site`: who belongs together.

mod authority;
mod init;
mod invite;
mod list;
mod members;
mod qr;
mod revoke;
mod sign;
mod view;
mod wish;

use clap::Subcommand;
use skep_consensus::Identity;
use skep_trust::PublicKey;

use super::{Common, Failure, block_on};
use crate::site::files::SiteFiles;

#[derive(Debug, Subcommand)]
pub(crate) enum Site {
    /// Make a site: its root keys, its first operator, and a node that votes and issues as its first member
    Init(init::Init),
    /// Show the site of a node's directory: its root document, and until when the node's certificate holds
    Show,
    /// Invite a new member: print the code that its machine joins with, once. The operator's key seals the invitation
    Invite(invite::Invite),
    /// List members: what each is, since when, whether this node sees it, and how long its certificate holds
    Members {
        /// Answer from this node's replica without asking the leader
        #[arg(long)]
        stale: bool,
    },
    /// List invitations that may be used
    Invitations {
        /// Answer from this node's replica without asking the leader
        #[arg(long)]
        stale: bool,
    },
    /// Revoke a member: it is out, its links are cut, and it stays out. A revocation of a voter or a witness is stated,
    /// and does not hold yet
    Revoke(revoke::Revoke),
    /// Answer the request of a machine without a network, at an issuer: the machine joins by the file that is written
    Sign(sign::Sign),
}

impl Site {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        match self {
            Self::Init(init) => init.run(common),
            Self::Show => show(common),
            Self::Invite(invite) => block_on(invite.run(common)),
            Self::Members { stale } => block_on(list::members(common, stale)),
            Self::Invitations { stale } => block_on(list::invitations(common, stale)),
            Self::Revoke(revoke) => block_on(revoke.run(common)),
            Self::Sign(sign) => block_on(sign.run(common)),
        }
    }
}

fn show(common: &Common) -> Result<(), Failure> {
    let node_dir = common.node_dir()?;
    let files = SiteFiles::of(&node_dir);
    if !files.are_there().map_err(Failure::failed)? {
        let dir = node_dir.dir.display();
        return Err(Failure::usage(format!("{dir}: there is no site here; 'skep site init' makes one")));
    }
    let kept = files.read().map_err(Failure::failed)?;
    let node = Identity::load(&node_dir.key()).map_err(Failure::failed)?.node();
    view::Shown::of(&kept, PublicKey::from(node)).print(common.output)
}
