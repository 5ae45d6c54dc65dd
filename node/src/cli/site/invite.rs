//! `skep site invite`

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use skep_client::v1::propose_request::Statement;
use skep_client::{Client, Directory, NodeId};
use skep_protocol::limits;
use skep_protocol::text::NodeName;
use skep_trust::{Invitation, InvitationCode, InvitationSecret, PublicKey, Role, Sealed, SiteTime};

use super::authority::Authority;
use super::members::Member;
use super::qr;
use super::wish::{Terms, Wish};
use crate::cli::key::KeyPath;
use crate::cli::output::{Format, json, json_line, parse_span, print, span, tell};
use crate::cli::{Common, Failure};

/// What to do about an invitation of which nobody knows whether the directory has it.
const IN_DOUBT: &str = "give the line again: an invitation of which nobody has the code ends by itself";

#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// Name of the new member: up to 64 letters, digits and any of . _ - / :
    #[arg(long, required_unless_present = "bulk", conflicts_with = "bulk")]
    name: Option<NodeName>,
    #[command(flatten)]
    terms: Terms,
    /// How long the invitation may be used, such as 1h, and at most 720h, in the site's time
    #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "1h")]
    valid_for: Duration,
    /// Address of the issuer's control plane as new machines reach it, such as 10.0.0.7:7341; repeat for up to 3
    /// [default: where the issuer listens]
    #[arg(long = "address", value_name = "ADDRESS")]
    addresses: Vec<SocketAddr>,
    /// File with a line for each new member. The first line names the columns: name, and any of role, can, agents and
    /// node. They are separated by commas, and values in one of them by spaces
    #[arg(long, value_name = "FILE")]
    bulk: Option<PathBuf>,
    #[command(flatten)]
    key: KeyPath,
}

/// Which node new members ask.
struct Issuer {
    node: NodeId,
    addresses: Vec<SocketAddr>,
}

/// An invitation that is open.
#[derive(Serialize)]
struct Invited {
    /// What the new machine is given. Whoever has it can become the member.
    code: String,
    name: String,
    roles: Vec<String>,
    /// The full id of the site: a machine without a network needs it.
    site: String,
    invitation: String,
    issuer: String,
    addresses: Vec<SocketAddr>,
    until_ms: u64,
    valid_for_ms: u64,
}

impl Invite {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let wishes = self.wishes()?;
        let client = common.client()?;
        let directory = client.directory();
        let authority = Authority::of(&self.key, &directory).await?;
        let issuer = self.issuer(&client, &authority.members).await?;
        let valid_for_ms = u64::try_from(self.valid_for.as_millis()).unwrap_or(u64::MAX);
        let (is_bulk, mut made) = (self.bulk.is_some(), Vec::new());
        let mut ended = Ok(());
        for wish in &wishes {
            let invited = invite(&directory, &authority, &issuer, wish, valid_for_ms).await;
            let told = invited.and_then(|invited| {
                invited.tell(common.output, is_bulk)?;
                Ok(invited)
            });
            match told {
                Ok(invited) => made.push(invited),
                Err(failure) if is_bulk => {
                    let (done, all) = (made.len(), wishes.len());
                    ended = Err(failure.advise(&format!("{done} of {all} were invited: give the others again")));
                    break;
                }
                Err(failure) => return Err(failure),
            }
        }
        match common.output {
            Format::Json if is_bulk => json(&made)?,
            Format::Table | Format::Json | Format::Jsonl => {}
        }
        ended
    }

    /// Whom to invite. A file is understood whole before anybody is invited.
    fn wishes(&self) -> Result<Vec<Wish>, Failure> {
        if self.addresses.len() > limits::INVITATION_ADDRESSES_MAX {
            return Err(Failure::usage(format!("give up to {} times --address", limits::INVITATION_ADDRESSES_MAX)));
        }
        match (&self.name, &self.bulk) {
            (_, Some(file)) => self.terms.of_file(file),
            (Some(name), None) => Ok(vec![self.terms.wish(name.clone())]),
            (None, None) => Err(Failure::usage("give --name or --bulk")),
        }
    }

    /// The node that new members ask: the one that is asked here if it issues, or the first issuer whose address is
    /// known.
    async fn issuer(&self, client: &Client, members: &[Member]) -> Result<Issuer, Failure> {
        let status = client.node_status().await?;
        let here: NodeId = status.node.parse().map_err(Failure::failed)?;
        let issuers: Vec<&Member> = members.iter().filter(|member| member.is(Role::Issuer)).collect();
        let is_here = issuers.iter().any(|member| member.key == PublicKey::from(here));
        let listens = status.control_addresses.iter().filter_map(|address| address.parse::<SocketAddr>().ok());
        let found = if is_here {
            Some(Issuer { node: here, addresses: listens.collect() })
        } else {
            let known = issuers.iter().find_map(|member| Some((member, member.control?)));
            let known = known.map(|(member, at)| Issuer { node: member.key.node(), addresses: vec![at] });
            known.or_else(|| Some(Issuer { node: issuers.first()?.key.node(), addresses: Vec::new() }))
        };
        let found = found.ok_or_else(|| Failure::failed("the site has no issuer: a root document has to name one"))?;
        let addresses = if self.addresses.is_empty() { found.addresses } else { self.addresses.clone() };
        if addresses.iter().any(|address| address.ip().is_unspecified()) {
            return Err(Failure::usage(format!(
                "the node {} listens on all of its addresses: give --address, by which new machines reach it",
                found.node
            )));
        }
        if addresses.is_empty() {
            tell("the code names no address: give one to 'skep join' by --address, or here");
        } else if addresses.iter().all(|address| address.ip().is_loopback()) {
            tell("the code names loopback addresses only: no other machine can use it; --address gives others");
        }
        Ok(Issuer { node: found.node, addresses })
    }
}

/// Makes a secret, and has the directory take in the invitation of which it is.
async fn invite(
    directory: &Directory,
    authority: &Authority,
    issuer: &Issuer,
    wish: &Wish,
    valid_for_ms: u64,
) -> Result<Invited, Failure> {
    let site = authority.site();
    let code = InvitationCode {
        site: site.half(),
        node: issuer.node,
        addresses: issuer.addresses.clone(),
        secret: InvitationSecret::from_bytes(rand::random()),
    };
    let text = code.to_text().map_err(Failure::usage)?;
    let until: SiteTime = authority.now().plus_ms(valid_for_ms);
    let invitation = Invitation {
        site,
        key: code.key().public(),
        grants: wish.grants.clone(),
        until,
        operator: authority.operator(),
        node: wish.node.map(PublicKey::from),
    };
    let sealed = Sealed::seal(&invitation, &[&authority.key]).map_err(Failure::usage)?;
    let proposed = directory.propose(Statement::Invitation(sealed.to_bytes())).await;
    proposed.map_err(|error| Failure::unknown(error, IN_DOUBT))?;
    Ok(Invited {
        code: text.to_string(),
        name: wish.grants.name.to_string(),
        roles: wish.grants.roles.iter().map(ToString::to_string).collect(),
        site: site.to_string(),
        invitation: invitation.key.to_string(),
        issuer: issuer.node.to_string(),
        addresses: issuer.addresses.clone(),
        until_ms: until.0,
        valid_for_ms,
    })
}

impl Invited {
    /// Tells of it as soon as it is there: of many, each in its turn.
    fn tell(&self, format: Format, is_bulk: bool) -> Result<(), Failure> {
        match format {
            Format::Jsonl => json_line(self),
            Format::Json if is_bulk => Ok(()),
            Format::Json => json(self),
            Format::Table if is_bulk => print(&format!("{} {}", self.name, self.code)),
            Format::Table => self.show(),
        }
    }

    /// The code alone on standard output, for people and for scripts, with its picture where there is a terminal.
    fn show(&self) -> Result<(), Failure> {
        print(&self.code)?;
        if std::io::stdout().is_terminal() {
            qr::lines(&self.code).iter().try_for_each(|line| print(line))?;
        }
        let (name, roles, rest) = (&self.name, self.roles.join(" and "), span(self.valid_for_ms));
        tell(&format!(
            "{name} may join as {roles} within {rest}, once: 'skep join' and the code on its machine. Whoever has the \
             code can join in its place"
        ));
        Ok(())
    }
}
