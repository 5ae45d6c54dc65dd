//! `skep shard`

mod recover;

use clap::Subcommand;
use serde::Serialize;
use skep_client::v1::shard_dump_reply::Item;
use skep_client::v1::{ShardRecovered, ShardStatusReply, Voter};
use skep_client::{Client, ClientError, FirstOperator, Genesis, OperatorKey, OperatorSecret, Place, SignedFirst};
use skep_protocol::fleet::Build;

use super::fault::FaultView;
use super::key::KeyPath;
use super::output::{Format, Row, json, json_line, one, print, rows, span, uuid_text};
use super::{Common, Failure};

/// Why a shard is not made by an oversight.
const WITHOUT_OPERATOR: &str = "nothing was done: a shard that is made without an operator never has one, so that nobody \
                                can command its robots, ever. Give --operator KEY ('skep key new' makes a key, and 'skep \
                                key show' names it), or --no-operator if it is for tasks alone";

#[derive(Debug, Subcommand)]
pub(crate) enum Shard {
    /// Create the shard; once in its life
    Init {
        /// PeerIds of the voters, separated by commas; this node must be one of them. Give 3 or 5
        #[arg(long, value_delimiter = ',', required = true)]
        voters: Vec<String>,
        /// Public key of the shard's first operator, as 'skep key show' prints it. It may send every command, and grants other operators what they may send. It signs with the key file of --key
        #[arg(long)]
        operator: Option<OperatorKey>,
        /// Create a shard without operators, for tasks alone: nobody can ever send it commands, or recover it
        #[arg(long, conflicts_with = "operator")]
        no_operator: bool,
        /// Name of the first operator
        #[arg(long, default_value = "first", requires = "operator")]
        operator_name: String,
        #[command(flatten)]
        key: KeyPath,
    },
    /// Show the shard as this node sees it, and what is wrong with it
    Status,
    /// Print everything that one replica holds, for checkers
    Dump {
        /// Directory or endpoint of another node [default: this node]
        #[arg(long)]
        node: Option<String>,
        /// Answer from the replica without asking the leader (dumps always do)
        #[arg(long)]
        local: bool,
    },
    /// Hand the lead to another voter
    TransferLeader {
        /// PeerId of that voter [default: the one that holds most of the log]
        #[arg(long)]
        to: Option<String>,
    },
    /// Make a node a voter, in place of its earlier incarnation if that was one. Mark it with voter = true in the [[peers]] of every
    /// node before you restart these
    AddVoter {
        /// PeerId of the node
        node: String,
    },
    /// Remove a voter
    RemoveVoter {
        /// PeerId of the voter
        node: String,
    },
    /// Recover a shard that lost its quorum for good from what this node holds. The node must not run
    Recover(recover::Recover),
}

#[derive(Serialize)]
struct VoterView {
    node: String,
    name: String,
    incarnation: String,
    raft_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<u64>,
    standing: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    heard_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet_version_min: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fleet_version_max: Option<u32>,
}

impl Row for VoterView {
    const COLUMNS: &'static [&'static str] = &["node", "name", "raft id", "matched", "standing"];
    fn cells(&self) -> Vec<String> {
        let matched = self.matched.map(|index| index.to_string()).unwrap_or_default();
        vec![self.node.clone(), self.name.clone(), self.raft_id.clone(), matched, self.standing.clone()]
    }
}

fn views(voters: Vec<Voter>) -> Vec<VoterView> {
    let view = |voter: Voter| VoterView {
        node: voter.node,
        name: voter.name,
        incarnation: voter.incarnation,
        raft_id: voter.raft_id,
        matched: voter.matched,
        standing: voter.standing,
        heard_ms: voter.heard_ms,
        fleet_version_min: voter.fleet_version_min,
        fleet_version_max: voter.fleet_version_max,
    };
    voters.into_iter().map(view).collect()
}

#[derive(Serialize)]
struct Status {
    shard: u32,
    role: String,
    term: u64,
    leader: String,
    connectivity: String,
    last_log_index: u64,
    committed_index: u64,
    applied_index: u64,
    snapshot_index: u64,
    purged_index: u64,
    digest: String,
    clock: u64,
    fleet_version: u32,
    fleet_version_max: u32,
    fleet_version_held_back_by: Vec<String>,
    genesis: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<RecoveredFrom>,
    pending: u64,
    claimed: u64,
    terminal: u64,
    agents: u64,
    dedup_ids: u64,
    dropped_tasks: u64,
    dropped_commands: u64,
    dropped_dead_letters: u64,
    dropped_request_ids: u64,
    dropped_agents: u64,
    dropped_operators: u64,
    log_bytes: u64,
    history_begins_index: u64,
    history_next_index: u64,
    history_missing: u64,
    history_lost: u64,
    history_bytes: u64,
    history_queued_bytes: u64,
    history_given_back: u64,
    fault: String,
    faults: Vec<FaultView>,
    voters: Vec<VoterView>,
}

/// How the shard was recovered last.
#[derive(Serialize)]
struct RecoveredFrom {
    from_genesis: String,
    last_index: u64,
    operator: String,
}

impl From<ShardRecovered> for RecoveredFrom {
    fn from(recovered: ShardRecovered) -> Self {
        let operator: Option<[u8; 32]> = recovered.operator.as_slice().try_into().ok();
        Self {
            from_genesis: genesis_text(&recovered.from_genesis),
            last_index: recovered.last_index,
            operator: operator.map(|bytes| OperatorKey::from_bytes(bytes).to_string()).unwrap_or_default(),
        }
    }
}

/// A genesis as people compare it; empty if there is none yet.
fn genesis_text(bytes: &[u8]) -> String {
    let genesis: Option<[u8; 16]> = bytes.try_into().ok();
    genesis.map(|bytes| Genesis::from_bytes(bytes).to_string()).unwrap_or_default()
}

/// The first operator of a new shard, signed by itself.
fn first_operator(place: Place, name: &str, secret: &OperatorSecret) -> Result<SignedFirst, Failure> {
    let name = name.parse().map_err(Failure::usage)?;
    FirstOperator { place, operator: secret.key(), name }.sign(secret).map_err(Failure::usage)
}

impl From<ShardStatusReply> for Status {
    fn from(reply: ShardStatusReply) -> Self {
        let (history, dropped) = (reply.history.unwrap_or_default(), reply.dropped.unwrap_or_default());
        Self {
            shard: reply.shard,
            role: reply.role,
            term: reply.term,
            leader: reply.leader,
            connectivity: reply.connectivity,
            last_log_index: reply.last_log_index,
            committed_index: reply.committed_index,
            applied_index: reply.applied_index,
            snapshot_index: reply.snapshot_index,
            purged_index: reply.purged_index,
            digest: reply.digest,
            clock: reply.clock,
            fleet_version: reply.fleet_version,
            fleet_version_max: reply.fleet_version_max,
            fleet_version_held_back_by: reply.fleet_version_held_back_by,
            genesis: genesis_text(&reply.genesis),
            recovered: reply.recovered.map(RecoveredFrom::from),
            pending: reply.pending,
            claimed: reply.claimed,
            terminal: reply.terminal,
            agents: reply.agents,
            dedup_ids: reply.dedup_ids,
            dropped_tasks: dropped.tasks,
            dropped_commands: dropped.commands,
            dropped_dead_letters: dropped.dead_letters,
            dropped_request_ids: dropped.request_ids,
            dropped_agents: dropped.agents,
            dropped_operators: dropped.operators,
            log_bytes: reply.log_bytes,
            history_begins_index: history.begins_index,
            history_next_index: history.next_index,
            history_missing: history.missing,
            history_lost: history.lost,
            history_bytes: history.bytes,
            history_queued_bytes: history.queued_bytes,
            history_given_back: history.given_back,
            fault: reply.fault,
            faults: reply.faults.into_iter().map(FaultView::from).collect(),
            voters: views(reply.voters),
        }
    }
}

#[derive(Serialize)]
struct Leader {
    leader: String,
}

#[derive(Serialize)]
struct DumpRow {
    task: String,
    status: String,
    epoch: u64,
    attempts: u32,
}

impl Shard {
    pub(crate) async fn run(self, common: &Common, build: Build) -> Result<(), Failure> {
        let format = common.output;
        let client = || common.client();
        match self {
            Self::Recover(recover) => recover.run(common, build),
            Self::Init { voters, operator, no_operator, operator_name, key } => {
                if operator.is_none() && !no_operator {
                    return Err(Failure::usage(WITHOUT_OPERATOR));
                }
                let client = client()?;
                let genesis = Genesis::from_bytes(rand::random());
                let first = match operator {
                    None => None,
                    Some(operator) => {
                        let secret = key.load()?;
                        if secret.key() != operator {
                            let held = secret.key();
                            return Err(Failure::usage(format!(
                                "the key is that of {held}, and not of {operator}: give its own with --key"
                            )));
                        }
                        let site = client.node_status().await?.site.parse().map_err(Failure::failed)?;
                        let place = Place { site, shard: client.shard(), genesis };
                        Some(first_operator(place, &operator_name, &secret)?)
                    }
                };
                let made = client.init_shard(voters, genesis, first.as_ref()).await?;
                if first.is_some() {
                    key.pin(client.shard())?.note(genesis);
                }
                rows(format, &views(made.voters))
            }
            Self::AddVoter { node } => rows(format, &views(client()?.add_voter(&node).await?.voters)),
            Self::RemoveVoter { node } => rows(format, &views(client()?.remove_voter(&node).await?.voters)),
            Self::TransferLeader { to } => {
                let leader = client()?.transfer_leader(to.as_deref().unwrap_or_default()).await?.leader;
                one(format, &Leader { leader: leader.clone() }, &[("leader", leader)])
            }
            Self::Status => status(format, client()?.shard_status().await?.into()),
            Self::Dump { node, local: _ } => {
                let client = match node {
                    Some(node) => of_node(common, &node)?,
                    None => client()?,
                };
                dump(format, &client).await
            }
        }
    }
}

fn of_node(common: &Common, node: &str) -> Result<Client, Failure> {
    let dir = std::path::Path::new(node);
    let (dir, endpoint) = if dir.is_dir() { (Some(dir.to_owned()), None) } else { (None, Some(node.to_owned())) };
    Common { dir, endpoint, ..common.clone() }.client()
}

/// What entries mean, and who keeps it from being raised.
fn fleet_version(status: &Status) -> String {
    let name = |node: &String| {
        let voter = status.voters.iter().find(|voter| voter.node == *node);
        let name = voter.map(|voter| voter.name.as_str()).filter(|name| !name.is_empty()).unwrap_or(node.as_str());
        match voter.and_then(|voter| voter.fleet_version_max) {
            Some(max) => format!("{name}, which speaks up to {max}"),
            None => format!("{name}, which is not connected"),
        }
    };
    let held_back_by: Vec<String> = status.fleet_version_held_back_by.iter().map(name).collect();
    let (version, max) = (status.fleet_version, status.fleet_version_max);
    match held_back_by.is_empty() {
        true => version.to_string(),
        false => format!("{version}; {max} is held back by {}", held_back_by.join("; ")),
    }
}

fn history(status: &Status) -> String {
    let (begins, next) = (status.history_begins_index, status.history_next_index);
    let mut text = format!("entries {begins} to {next}, {} bytes", status.history_bytes);
    if status.history_missing > 0 {
        text += &format!(", {} of them are being fetched", status.history_missing);
    }
    if status.history_lost > 0 {
        text += &format!(", {} of them are lost", status.history_lost);
    }
    if begins > 0 {
        text += &format!("; what {begins} before them did is gone");
    }
    if status.history_given_back > 0 {
        text += &format!(", {} of them for want of disk space", status.history_given_back);
    }
    text
}

/// What the shard goes on from, if it was beyond help once.
fn recovered(recovered: &RecoveredFrom) -> String {
    let RecoveredFrom { from_genesis, last_index, operator } = recovered;
    format!("from genesis {from_genesis}, up to entry {last_index}, by operator {operator}")
}

/// What the shard has let go of because it keeps no more, and how much of it.
fn dropped(status: &Status) -> String {
    let kinds = [
        ("tasks", status.dropped_tasks),
        ("commands", status.dropped_commands),
        ("dead letters", status.dropped_dead_letters),
        ("request ids", status.dropped_request_ids),
        ("agents", status.dropped_agents),
        ("operators", status.dropped_operators),
    ];
    let some = kinds.iter().filter(|(_, count)| *count > 0);
    let some: Vec<String> = some.map(|(what, count)| format!("{what} {count}")).collect();
    if some.is_empty() { "nothing".to_owned() } else { some.join(", ") }
}

fn status(format: Format, status: Status) -> Result<(), Failure> {
    let mut lines = vec![
        ("shard", status.shard.to_string()),
        ("role", status.role.clone()),
        ("term", status.term.to_string()),
        ("leader", status.leader.clone()),
        ("connectivity", status.connectivity.clone()),
        (
            "applied",
            format!("{} of {} (committed {})", status.applied_index, status.last_log_index, status.committed_index),
        ),
        ("snapshot", format!("{} (purged {})", status.snapshot_index, status.purged_index)),
        ("history", history(&status)),
        ("digest", status.digest.clone()),
        (
            "clock",
            if status.clock == 0 {
                String::new()
            } else {
                skep_protocol::time::LogInstant::from_raw(status.clock).to_string()
            },
        ),
        ("fleet version", fleet_version(&status)),
        ("genesis", status.genesis.clone()),
        ("recovered", status.recovered.as_ref().map(recovered).unwrap_or_default()),
        ("tasks", format!("{} pending, {} claimed, {} ended", status.pending, status.claimed, status.terminal)),
        ("agents", status.agents.to_string()),
        ("dropped", dropped(&status)),
    ];
    for voter in &status.voters {
        let matched = voter.matched.map(|index| format!(" matched {index}")).unwrap_or_default();
        let heard = voter.heard_ms.map(|ms| format!(", answered {} ago", span(ms))).unwrap_or_default();
        let standing = if voter.standing == "voter" { String::new() } else { format!(", {}", voter.standing) };
        lines.push(("voter", format!("{} {}{matched}{heard}{standing}", voter.node, voter.name)));
    }
    lines.extend(status.faults.iter().flat_map(FaultView::lines));
    one(format, &status, &lines)
}

/// Prints the head and then one task a line, as they come.
async fn dump(format: Format, client: &Client) -> Result<(), Failure> {
    let mut items = client.dump_shard().await?;
    let mut tasks = Vec::new();
    let mut head = None;
    while let Some(reply) = items.message().await.map_err(|status| ClientError::of_stream(&status))? {
        match reply.item {
            Some(Item::Head(reply)) => head = Some(Status::from(reply)),
            Some(Item::Task(task)) => {
                let row = DumpRow {
                    task: uuid_text(&task.task_id),
                    status: task.status,
                    epoch: task.epoch,
                    attempts: task.attempts,
                };
                match format {
                    Format::Json => tasks.push(row),
                    Format::Jsonl => json_line(&row)?,
                    Format::Table => print(&format!("{} {} {} {}", row.task, row.status, row.epoch, row.attempts))?,
                }
            }
            None => {}
        }
    }
    let head = head.ok_or_else(|| Failure::failed("the replica said nothing"))?;
    match format {
        Format::Json => {
            let whole = serde_json::json!({ "head": head, "tasks": tasks });
            json(&whole)
        }
        Format::Jsonl => json_line(&head),
        Format::Table => status(format, head),
    }
}

#[cfg(test)]
mod tests {
    use skep_client::v1::{DroppedCounts, HistoryStatus};

    use super::*;

    #[test]
    fn what_was_dropped_is_told_by_kind_as_text_and_as_json() {
        let counts = DroppedCounts { tasks: 3, request_ids: 1, ..DroppedCounts::default() };
        let status = Status::from(ShardStatusReply { dropped: Some(counts), ..ShardStatusReply::default() });
        assert_eq!(dropped(&status), "tasks 3, request ids 1");
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!((json["dropped_tasks"].as_u64(), json["dropped_agents"].as_u64()), (Some(3), Some(0)));
        assert_eq!(dropped(&Status::from(ShardStatusReply::default())), "nothing");
    }

    #[test]
    fn a_history_says_how_much_of_it_is_gone_and_what_went_for_want_of_room() {
        let of = |begins_index, given_back| {
            let of = HistoryStatus { begins_index, next_index: 90, given_back, ..HistoryStatus::default() };
            history(&Status::from(ShardStatusReply { history: Some(of), ..ShardStatusReply::default() }))
        };
        assert_eq!(of(0, 0), "entries 0 to 90, 0 bytes");
        assert_eq!(of(40, 0), "entries 40 to 90, 0 bytes; what 40 before them did is gone");
        assert!(of(40, 10).ends_with("what 40 before them did is gone, 10 of them for want of disk space"));
    }
}
