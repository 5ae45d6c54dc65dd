//! `skep site revoke`

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use skep_client::v1::propose_request::Statement;
use skep_client::v1::site_receipt::Done;
use skep_client::{Directory, NodeId, Read, pages, v1};
use skep_protocol::text::Reason;
use skep_trust::{PublicKey, Revocation, Revoked, Sealed, SignedRevocation};

use super::authority::Authority;
use super::members::Member;
use crate::cli::as_of::PAGE;
use crate::cli::key::KeyPath;
use crate::cli::output::{one, parse_span, tell};
use crate::cli::{Common, Failure};

/// How often the directory is asked whether a revocation holds.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// What to do about a revocation of which nobody knows whether the directory has it.
const IN_DOUBT: &str = "give the line again: what is revoked already is revoked";

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// Name or id of a member, or key of an operator or of an invitation
    #[arg(value_name = "MEMBER")]
    who: String,
    /// Why, for people
    #[arg(long)]
    reason: Reason,
    /// How long to wait until voters have left their office: until then a revocation that has them out does not hold
    #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "60s")]
    wait_for: Duration,
    #[command(flatten)]
    key: KeyPath,
}

/// What was revoked.
#[derive(Serialize)]
struct View {
    /// The key that is out.
    key: String,
    /// The member; empty if the key is of none.
    name: String,
    id: String,
    /// Members that were out by it at once.
    members: u32,
    /// Voters for which it had to wait.
    waited_for: Vec<String>,
}

/// Who is meant: a member, or a key that is of none.
fn meant<'a>(who: &str, members: &'a [Member]) -> Result<(PublicKey, Option<&'a Member>), Failure> {
    let named: Vec<&Member> = members.iter().filter(|member| member.grants.name.as_str() == who).collect();
    match named[..] {
        [] => {}
        [member] => return Ok((member.key, Some(member))),
        [..] => {
            let ids: Vec<String> = named.iter().map(|member| member.key.node().to_string()).collect();
            return Err(Failure::usage(format!(
                "{} members are named {who}; give an id: {}",
                ids.len(),
                ids.join(" ")
            )));
        }
    }
    let node = who.parse::<NodeId>().map(PublicKey::from).ok();
    let key = node.or_else(|| who.parse().ok());
    let none = || {
        Failure::not_found(format!(
            "no member is named {who:?}, and it is no id; 'skep site members' and 'skep site invitations' list them"
        ))
    };
    let key: PublicKey = key.ok_or_else(none)?;
    Ok((key, members.iter().find(|member| member.key == key)))
}

impl Revoke {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let directory = common.client()?.directory();
        let authority = Authority::of(&self.key, &directory).await?;
        let (key, member) = meant(&self.who, &authority.members)?;
        let stated = Revocation {
            site: authority.site(),
            what: Revoked::Key(key),
            // A member that renewed before the epoch rises has a certificate of the next one.
            epoch: member.map_or(0, |member| member.epoch).max(authority.summary.epoch_min),
            reason: self.reason.clone(),
            operator: authority.operator(),
        };
        let revocation = Sealed::seal(&stated, &[&authority.key]).map_err(Failure::usage)?;
        let bytes = SignedRevocation { revocation, chain: authority.chain() }.to_bytes();
        let proposed = directory.propose(Statement::Revocation(bytes.clone())).await;
        let receipt = proposed.map_err(|error| Failure::unknown(error, IN_DOUBT))?;
        let Some(Done::Revoked(done)) = receipt.done else {
            return Err(Failure::failed("the node answered another request"));
        };
        let names = authority.members.iter().map(|member| (member.key, member.grants.name.to_string())).collect();
        let waited_for =
            if done.waits_for == 0 { Vec::new() } else { self.waited_for(&directory, &bytes, &names).await? };
        let view = View {
            key: key.to_string(),
            name: member.map(|member| member.grants.name.to_string()).unwrap_or_default(),
            id: key.node().to_string(),
            members: done.members,
            waited_for,
        };
        let lines = [
            ("revoked", if view.name.is_empty() { view.key.clone() } else { format!("{} {}", view.name, view.id) }),
            ("members", view.members.to_string()),
            ("waited for", view.waited_for.join(" ")),
        ];
        one(common.output, &view, &lines)
    }

    /// Waits until the voters that a revocation has out have left their office. Gives who they were.
    async fn waited_for(
        &self,
        directory: &Directory,
        revocation: &[u8],
        names: &BTreeMap<PublicKey, String>,
    ) -> Result<Vec<String>, Failure> {
        let named = |key: &String| {
            let name = key.parse().ok().and_then(|key: PublicKey| names.get(&key));
            name.unwrap_or(key).clone()
        };
        let (begun, mut waited_for) = (Instant::now(), Vec::new());
        loop {
            let summary = directory.summary(Read::Linearizable).await?;
            let Some(pending) = summary.pending.into_iter().find(|pending| pending.revocation == revocation) else {
                break;
            };
            let voters: Vec<String> = pending.voters.iter().map(named).collect();
            if waited_for.is_empty() {
                tell(&format!("the revocation waits, since {} may vote", voters.join(" and ")));
                waited_for.clone_from(&voters);
            }
            if begun.elapsed() >= self.wait_for {
                return Err(Failure::failed(format!(
                    "the revocation is stated and does not hold: {} may vote, and no node tells the directory yet who \
                     votes in no shard. Members that it revokes get no new certificate; 'skep site members' shows who \
                     is in",
                    voters.join(" and ")
                )));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        if holds(directory, revocation).await? {
            return Ok(waited_for);
        }
        Err(Failure::failed("the directory dropped the revocation: its operator is none any more"))
    }
}

/// Whether the directory has a revocation that holds.
async fn holds(directory: &Directory, revocation: &[u8]) -> Result<bool, Failure> {
    let mut found = false;
    let ask = async |after: u64| directory.revocations(after, PAGE).await;
    let has = |page: v1::ListRevocationsReply| found |= page.revocations.iter().any(|of| of == revocation);
    pages(ask, has).await?;
    Ok(found)
}
