//! `skep site`: who belongs together.

mod init;
mod view;

use clap::Subcommand;
use skep_consensus::Identity;
use skep_trust::PublicKey;

use super::{Common, Failure};
use crate::site::files::SiteFiles;

#[derive(Debug, Subcommand)]
pub(crate) enum Site {
    /// Make a site: its root keys, its first operator, and a node that votes and issues as its first member
    Init(init::Init),
    /// Show the site of a node's directory: its root document, and until when the node's certificate holds
    Show,
}

impl Site {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        match self {
            Self::Init(init) => init.run(common),
            Self::Show => show(common),
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
