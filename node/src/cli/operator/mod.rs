//! `skep operator`

mod view;

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args, Subcommand};
use skep_client::command::Target;
use skep_client::convert::operator_to_proto;
use skep_client::v1::{self, OperatorView};
use skep_client::{Allowed, Client, FirstReplacement, Genesis, OperatorGrant, OperatorKey, Place, Read, pages};
use skep_protocol::time::LogInstant;

use super::as_of::{PAGE, Pages};
use super::follow::follow;
use super::key::KeyPath;
use super::output::parse_span;
use super::resend::Resend;
use super::{Common, Failure};
use view::{Told, View};

#[derive(Debug, Subcommand)]
pub(crate) enum Operator {
    /// Make another key the shard's first operator; the present one signs. What the present one granted ends, and
    /// robots start no more of the commands that were sent under it
    ReplaceFirst {
        /// Public key of the new first operator, as 'skep key show' prints it
        operator: OperatorKey,
        /// Name of the new first operator
        #[arg(long, default_value = "first")]
        name: String,
        #[command(flatten)]
        key: KeyPath,
        #[command(flatten)]
        resend: Resend,
    },
    /// Grant an operator what it may send, in place of its earlier grant
    Add(Add),
    /// Revoke an operator. Robots start no more of its commands, nor of those of operators that it granted
    Revoke {
        /// Public key of the operator, as 'skep key show' prints it
        operator: OperatorKey,
        #[command(flatten)]
        key: KeyPath,
        #[command(flatten)]
        resend: Resend,
    },
    /// Let a key sign for another shard than the one for which it signed first
    Pin {
        /// The shard's genesis in hexadecimal digits, as 'skep shard status' prints it on a node that you trust
        #[arg(id = "pinned", value_name = "GENESIS")]
        genesis: Genesis,
        #[command(flatten)]
        key: KeyPath,
    },
    /// List operators and what they were granted
    List {
        /// Answer from this node's replica without asking the leader
        #[arg(long)]
        stale: bool,
    },
    /// Follow grants, revocations, refused statements and operators that the shard forgets, until Ctrl-C
    Watch {
        /// First log index to print [default: only what is new]
        #[arg(long)]
        from: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Public key of the operator, as 'skep key show' prints it
    operator: OperatorKey,
    /// Name of the operator
    #[arg(long)]
    name: String,
    /// Verb that the operator may send; repeat for more [default: any]
    #[arg(long = "verb", value_name = "VERB")]
    verbs: Vec<String>,
    /// Id of an agent that the operator may command; repeat for more [default: any, unless --group is given]
    #[arg(long = "to", value_name = "AGENT")]
    agents: Vec<String>,
    /// Group that the operator may command; repeat for more
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// The operator may send one command to all agents at once
    #[arg(long)]
    broadcast: bool,
    /// Most commands in a minute [default: no limit]
    #[arg(long)]
    per_minute: Option<u32>,
    /// The operator may grant others what it has itself, or less
    #[arg(long)]
    admin: bool,
    /// Levels of operators below this one that it may grant something: 1 is --admin, with 2 it may also make admins
    #[arg(long, value_name = "LEVELS", conflicts_with = "admin", default_value_t = 0, hide_default_value = true)]
    admin_depth: u32,
    /// How long the grant holds on the shard's clock, such as 720h; what it granted ends with it [default: no end]
    #[arg(long, value_parser = parse_span)]
    valid_for: Option<Duration>,
    #[command(flatten)]
    key: KeyPath,
    #[command(flatten)]
    resend: Resend,
}

fn allowed<T: Ord>(these: BTreeSet<T>) -> Allowed<T> {
    if these.is_empty() { Allowed::Any } else { Allowed::These(these) }
}

impl Add {
    /// The grant; `until` is its end, on the shard's clock.
    fn grant(self, place: Place, by: OperatorKey, until: Option<LogInstant>) -> Result<OperatorGrant, Failure> {
        let verbs = self.verbs.iter().map(|verb| verb.parse().map_err(Failure::usage));
        let verbs = verbs.collect::<Result<BTreeSet<_>, _>>()?;
        let agents = self.agents.iter().map(|agent| agent.parse().map(Target::Agent).map_err(Failure::usage));
        let groups = self.groups.iter().map(|group| group.parse().map(Target::Group).map_err(Failure::usage));
        let targets = agents.chain(groups).collect::<Result<BTreeSet<_>, _>>()?;
        Ok(OperatorGrant {
            place,
            by,
            operator: self.operator,
            name: self.name.parse().map_err(Failure::usage)?,
            serial: 1,
            verbs: allowed(verbs),
            targets: allowed(targets),
            broadcast: self.broadcast,
            per_minute: self.per_minute,
            admin_depth: if self.admin { 1 } else { self.admin_depth },
            revoked: false,
            until,
        })
    }
}

/// What the shard knows of an operator.
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

/// The statement that revokes an operator, made of one that would grant everything.
fn revocation(whole: OperatorGrant, by: OperatorKey) -> OperatorGrant {
    OperatorGrant { by, broadcast: false, admin_depth: 0, revoked: true, ..whole }
}

/// The instant, on the shard's clock, when a grant ends that is valid for so long from now.
async fn ends(client: &Client, valid_for: Option<Duration>) -> Result<Option<LogInstant>, Failure> {
    match valid_for {
        None => Ok(None),
        Some(span) => {
            let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            Ok(Some(client.deadline_in(ms).await?))
        }
    }
}

/// The next statement about an operator. The first one about a new operator has a number above `floor`. A request that
/// is sent again repeats its statement: if the shard has that, it keeps the number and the end that it has there.
fn numbered(grant: OperatorGrant, known: Option<OperatorView>, floor: u64, sent_again: bool) -> OperatorGrant {
    let Some(known) = known else { return OperatorGrant { serial: floor.saturating_add(1), ..grant } };
    let until = grant.until.map(|_| LogInstant::from_raw(known.until));
    let stated = OperatorGrant { serial: known.serial, until, ..grant.clone() };
    if sent_again && operator_to_proto(&stated) == known {
        return stated;
    }
    OperatorGrant { serial: known.serial.saturating_add(1), ..grant }
}

async fn list(client: &Client, common: &Common, stale: bool) -> Result<(), Failure> {
    let read = if stale { Read::Stale } else { Read::Linearizable };
    let mut listed = Pages::new();
    let ask = async |after: String| client.operators(&after, PAGE, read).await;
    pages(ask, |page: v1::ListOperatorsReply| listed.add(page.as_of, page.operators.into_iter().map(View::from)))
        .await?;
    listed.print(common.output, "operators")
}

async fn watch(common: &Common, from: Option<u64>) -> Result<(), Failure> {
    let client = common.watcher()?;
    let open = async |from| client.watch_operators(Some(from)).await;
    let print = |event: v1::OperatorEvent| Told::from(event).print(common.output);
    follow(&client, from, open, |event| event.index, print).await
}

impl Operator {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let client = common.client()?;
        let (grant, secret, key, resend) = match self {
            Self::Pin { genesis, key } => return key.pin(client.shard())?.pin(genesis, common),
            Self::List { stale } => return list(&client, common, stale).await,
            Self::Watch { from } => return watch(common, from).await,
            Self::ReplaceFirst { operator, name, key, resend } => {
                let (secret, place) = key.for_shard(&client).await?;
                let reply = client.shard_place(Read::Linearizable).await?;
                // A request that is sent again repeats its statement.
                let is_done = resend.request_id.is_some() && reply.first_operator == operator.to_string();
                let replacement = FirstReplacement {
                    place,
                    old: secret.key(),
                    new: operator,
                    name: name.parse().map_err(Failure::usage)?,
                    serial: reply.replaced.saturating_add(u64::from(!is_done)),
                };
                let signed = replacement.sign(&secret).map_err(Failure::usage)?;
                resend.client(&client).await?.replace_first(&signed).await?;
                return list(&client, common, false).await;
            }
            Self::Add(add) => {
                let (key, resend) = (add.key.clone(), add.resend.clone());
                let (secret, place) = key.for_shard(&client).await?;
                let until = ends(&client, add.valid_for).await?;
                (add.grant(place, secret.key(), until)?, secret, key, resend)
            }
            Self::Revoke { operator, key, resend } => {
                let (secret, place) = key.for_shard(&client).await?;
                let name = "revoked".parse().map_err(Failure::failed)?;
                (revocation(OperatorGrant::of_first(place, operator, name), secret.key()), secret, key, resend)
            }
        };
        let known = known(&client, grant.operator).await?;
        let named = match &known {
            // Lists keep the operator's name.
            Some(known) if grant.revoked => known.name.parse().map_err(Failure::failed)?,
            _ => grant.name.clone(),
        };
        let floor = client.shard_place(Read::Linearizable).await?.serial_floor;
        let stated = numbered(OperatorGrant { name: named, ..grant }, known, floor, resend.request_id.is_some());
        key.serials(stated.place.genesis)?.check(stated.serial)?;
        let signed = stated.sign(&secret).map_err(Failure::usage)?;
        resend.client(&client).await?.grant_operator(&signed).await?;
        list(&client, common, false).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Row as _;

    fn whole() -> OperatorGrant {
        let operator = skep_client::OperatorSecret::from_seed(&[3; 32]).key();
        let genesis = skep_client::Genesis::from_bytes([6; 16]);
        let place = Place { site: "s".parse().unwrap(), shard: skep_client::ShardId(1), genesis };
        OperatorGrant::of_first(place, operator, "n".parse().unwrap())
    }

    #[test]
    fn of_an_operator_that_is_revoked_nothing_is_shown_that_it_might_do() {
        let view = |grant: &OperatorGrant| View::from(operator_to_proto(grant));
        let by = whole().operator;
        let (granted, revoked) = (view(&whole()), view(&revocation(whole(), by)));
        assert_eq!(granted.cells()[2..4], ["any", "any"]);
        assert_eq!(revoked.cells()[1..9], ["n", "", "", "", "", "", "", "yes"]);
        assert!([granted.cells(), revoked.cells()].iter().all(|cells| cells.len() == View::COLUMNS.len()));
        let json = serde_json::to_value(&revoked).unwrap();
        assert_eq!((&json["revoked"], json.get("verbs"), json.get("until")), (&true.into(), None, None));
        assert_eq!(serde_json::to_value(&granted).unwrap()["verbs"], serde_json::json!([]));
    }

    #[test]
    fn a_grant_that_is_sent_again_is_the_same_statement() {
        // hashicorp/nomad#10641
        let grant = whole();
        let until = |ms| Some(LogInstant::from_raw(ms));
        let grant = OperatorGrant { until: until(700), ..grant };
        let known = |serial, admin_depth| {
            // The first grant ends as long after its sending as this one would after now.
            Some(OperatorView { serial, admin_depth, until: 500, ..operator_to_proto(&grant) })
        };
        let stated = |known, sent_again| {
            let stated = numbered(grant.clone(), known, 0, sent_again);
            (stated.serial, stated.until)
        };
        assert_eq!(stated(None, true), (1, until(700)));
        assert_eq!(stated(known(4, grant.admin_depth), true), (4, until(500)), "it was done");
        assert_eq!(stated(known(4, 0), true), (5, until(700)), "another one was");
        assert_eq!(stated(known(4, grant.admin_depth), false), (5, until(700)), "it is stated anew");
        assert_eq!(numbered(grant.clone(), None, 7, false).serial, 8, "above all that may have been forgotten");
    }
}
