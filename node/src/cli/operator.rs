//! `skep operator`

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use serde::Serialize;
use skep_client::command::Target;
use skep_client::convert::operator_to_proto;
use skep_client::v1::OperatorView;
use skep_client::{Allowed, Client, OperatorGrant, OperatorKey, Read};

use super::as_of::Pages;
use super::key::KeyPath;
use super::output::Row;
use super::resend::Resend;
use super::{Common, Failure};

/// Operators of one page.
const PAGE: u32 = 1_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Operator {
    /// Make the shard's first operator known: it may do everything, and grant it to others. Refused once there is one
    Install {
        /// The operator, as 'skep key show' names it
        operator: OperatorKey,
        /// Its name
        #[arg(long, default_value = "first")]
        name: String,
        #[command(flatten)]
        resend: Resend,
    },
    /// Grant an operator what it may do, in place of what it was granted before
    Add(Add),
    /// Take everything from an operator
    Revoke {
        /// The operator, as 'skep key show' names it
        operator: OperatorKey,
        #[command(flatten)]
        key: KeyPath,
        #[command(flatten)]
        resend: Resend,
    },
    /// Who may send commands
    List {
        /// Answer from this node's replica as it is
        #[arg(long)]
        stale: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The operator, as 'skep key show' names it
    operator: OperatorKey,
    /// Its name
    #[arg(long)]
    name: String,
    /// A verb that it may use; repeat for more; any if left out
    #[arg(long = "verb", value_name = "VERB")]
    verbs: Vec<String>,
    /// An agent that it may command; repeat for more; any if neither these nor groups are given
    #[arg(long = "to", value_name = "AGENT")]
    agents: Vec<String>,
    /// A group that it may command; repeat for more
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// It may command all agents at once
    #[arg(long)]
    broadcast: bool,
    /// Commands that it may send in a minute; as many as it likes if left out
    #[arg(long)]
    per_minute: Option<u32>,
    /// It may grant others what it likes
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    key: KeyPath,
    #[command(flatten)]
    resend: Resend,
}

#[derive(Serialize)]
struct View {
    operator: String,
    name: String,
    serial: u64,
    verbs: Vec<String>,
    targets: Vec<String>,
    broadcast: bool,
    /// Commands in a minute; none for as many as it likes.
    per_minute: Option<u32>,
    admin: bool,
    revoked: bool,
}

impl Row for View {
    const COLUMNS: &'static [&'static str] =
        &["operator", "name", "verbs", "targets", "all at once", "a minute", "admin", "revoked"];
    fn cells(&self) -> Vec<String> {
        let any = |names: &[String]| if names.is_empty() { "any".to_owned() } else { names.join(",") };
        let yes = |yes: bool| if yes { "yes".to_owned() } else { String::new() };
        vec![
            self.operator.clone(),
            self.name.clone(),
            any(&self.verbs),
            any(&self.targets),
            yes(self.broadcast),
            self.per_minute.map(|count| count.to_string()).unwrap_or_default(),
            yes(self.admin),
            yes(self.revoked),
        ]
    }
}

impl From<OperatorView> for View {
    fn from(view: OperatorView) -> Self {
        let OperatorView { operator, name, serial, verbs, targets, broadcast, per_minute, admin, revoked } = view;
        Self { operator, name, serial, verbs, targets, broadcast, per_minute, admin, revoked }
    }
}

fn allowed<T: Ord>(these: BTreeSet<T>) -> Allowed<T> {
    if these.is_empty() { Allowed::Any } else { Allowed::These(these) }
}

impl Add {
    fn grant(self, site: &str, shard: skep_client::ShardId) -> Result<OperatorGrant, Failure> {
        let verbs = self.verbs.iter().map(|verb| verb.parse().map_err(Failure::usage));
        let verbs = verbs.collect::<Result<BTreeSet<_>, _>>()?;
        let agents = self.agents.iter().map(|agent| agent.parse().map(Target::Agent).map_err(Failure::usage));
        let groups = self.groups.iter().map(|group| group.parse().map(Target::Group).map_err(Failure::usage));
        let targets = agents.chain(groups).collect::<Result<BTreeSet<_>, _>>()?;
        Ok(OperatorGrant {
            site: site.parse().map_err(Failure::failed)?,
            shard,
            operator: self.operator,
            name: self.name.parse().map_err(Failure::usage)?,
            serial: 1,
            verbs: allowed(verbs),
            targets: allowed(targets),
            broadcast: self.broadcast,
            per_minute: self.per_minute,
            admin: self.admin,
            revoked: false,
        })
    }
}

/// What is known of an operator.
async fn known(client: &Client, operator: OperatorKey) -> Result<Option<OperatorView>, Failure> {
    let (operator, mut after) = (operator.to_string(), String::new());
    loop {
        let page = client.operators(&after, PAGE, Read::Linearizable).await?;
        let known = page.operators.into_iter().find(|view| view.operator == operator);
        if known.is_some() || page.next.is_empty() {
            return Ok(known);
        }
        after = page.next;
    }
}

/// The number of the next statement about an operator. A request that is sent again states what it did the first time: if
/// that is known, it is under the number that it has.
fn serial(grant: &OperatorGrant, known: Option<OperatorView>, sent_again: bool) -> u64 {
    let Some(known) = known else { return 1 };
    let stated = OperatorView { serial: known.serial, ..operator_to_proto(grant) };
    if sent_again && stated == known { known.serial } else { known.serial + 1 }
}

async fn list(client: &Client, common: &Common, stale: bool) -> Result<(), Failure> {
    let read = if stale { Read::Stale } else { Read::Linearizable };
    let (mut pages, mut after) = (Pages::new(), String::new());
    loop {
        let page = client.operators(&after, PAGE, read).await?;
        pages.add(page.as_of, page.operators.into_iter().map(View::from));
        after = page.next;
        if after.is_empty() {
            return pages.print(common.output, "operators");
        }
    }
}

impl Operator {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let client = common.client()?;
        let (grant, key, resend) = match self {
            Self::List { stale } => return list(&client, common, stale).await,
            Self::Install { operator, name, resend } => {
                let site = client.node_status().await?.site;
                resend.client(&client).await?.install_operator(&site, operator, &name).await?;
                return list(&client, common, false).await;
            }
            Self::Add(add) => {
                let (key, resend) = (add.key.clone(), add.resend.clone());
                let site = client.node_status().await?.site;
                (add.grant(&site, client.shard())?, key, resend)
            }
            Self::Revoke { operator, key, resend } => {
                let site = client.node_status().await?.site.parse().map_err(Failure::failed)?;
                let name = "revoked".parse().map_err(Failure::failed)?;
                let whole = OperatorGrant::of_first(site, client.shard(), operator, name);
                (OperatorGrant { revoked: true, admin: false, broadcast: false, ..whole }, key, resend)
            }
        };
        let secret = key.load()?;
        let known = known(&client, grant.operator).await?;
        let serial = serial(&grant, known, resend.request_id.is_some());
        let signed = OperatorGrant { serial, ..grant }.sign(&secret).map_err(Failure::usage)?;
        resend.client(&client).await?.grant_operator(&signed).await?;
        list(&client, common, false).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_that_is_sent_again_is_the_same_statement() {
        // hashicorp/nomad#10641
        let operator = skep_client::OperatorSecret::from_seed(&[3; 32]).key();
        let (site, name) = ("s".parse().unwrap(), "n".parse().unwrap());
        let grant = OperatorGrant::of_first(site, skep_client::ShardId(1), operator, name);
        let known = |serial, admin| Some(OperatorView { serial, admin, ..operator_to_proto(&grant) });
        assert_eq!(serial(&grant, None, true), 1);
        assert_eq!(serial(&grant, known(4, true), true), 4, "it was done");
        assert_eq!(serial(&grant, known(4, false), true), 5, "another one was");
        assert_eq!(serial(&grant, known(4, true), false), 5, "it is stated anew");
    }
}
