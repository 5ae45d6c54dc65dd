//! `skep operator`

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use serde::Serialize;
use skep_client::command::Target;
use skep_client::v1::OperatorView;
use skep_client::{Allowed, Client, OperatorGrant, OperatorKey, Read};

use super::key::KeyPath;
use super::output::{Row, rows};
use super::{Common, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Operator {
    /// Make the shard's first operator known: it may do everything, and grant it to others. Refused once there is one
    Install {
        /// The operator, as 'skep key show' names it
        operator: OperatorKey,
        /// Its name
        #[arg(long, default_value = "first")]
        name: String,
    },
    /// Grant an operator what it may do, in place of what it was granted before
    Add(Add),
    /// Take everything from an operator
    Revoke {
        /// The operator, as 'skep key show' names it
        operator: OperatorKey,
        #[command(flatten)]
        key: KeyPath,
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
}

#[derive(Serialize)]
struct View {
    operator: String,
    name: String,
    serial: u64,
    verbs: Vec<String>,
    targets: Vec<String>,
    broadcast: bool,
    per_minute: u32,
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
            if self.per_minute == 0 { String::new() } else { self.per_minute.to_string() },
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
    fn grant(self, site: &str, shard: skep_client::ShardId, serial: u64) -> Result<OperatorGrant, Failure> {
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
            serial,
            verbs: allowed(verbs),
            targets: allowed(targets),
            broadcast: self.broadcast,
            per_minute: self.per_minute,
            admin: self.admin,
            revoked: false,
        })
    }
}

/// The number of the next statement about an operator.
async fn next_serial(client: &Client, operator: OperatorKey) -> Result<u64, Failure> {
    let known = client.operators(Read::Linearizable).await?.operators;
    let known = known.iter().find(|view| view.operator == operator.to_string());
    Ok(known.map_or(1, |view| view.serial + 1))
}

async fn list(client: &Client, common: &Common, stale: bool) -> Result<(), Failure> {
    let read = if stale { Read::Stale } else { Read::Linearizable };
    let views: Vec<View> = client.operators(read).await?.operators.into_iter().map(View::from).collect();
    rows(common.output, &views)
}

impl Operator {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let client = common.client()?;
        let (grant, key) = match self {
            Self::List { stale } => return list(&client, common, stale).await,
            Self::Install { operator, name } => {
                let site = client.node_status().await?.site;
                client.install_operator(&site, operator, &name).await?;
                return list(&client, common, false).await;
            }
            Self::Add(add) => {
                let (serial, key) = (next_serial(&client, add.operator).await?, add.key.clone());
                let site = client.node_status().await?.site;
                (add.grant(&site, client.shard(), serial)?, key)
            }
            Self::Revoke { operator, key } => {
                let serial = next_serial(&client, operator).await?;
                let site = client.node_status().await?.site.parse().map_err(Failure::failed)?;
                let name = "revoked".parse().map_err(Failure::failed)?;
                let whole = OperatorGrant::of_first(site, client.shard(), operator, name);
                (OperatorGrant { serial, revoked: true, admin: false, broadcast: false, ..whole }, key)
            }
        };
        let signed = grant.sign(&key.load()?).map_err(Failure::usage)?;
        client.grant_operator(&signed).await?;
        list(&client, common, false).await
    }
}
