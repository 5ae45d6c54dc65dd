//! Shards: made, changed, and looked at.

use futures::StreamExt as _;
use skep_proto::convert::{self, FieldError};
use skep_proto::v1;
use skep_proto::v1::shard_dump_reply::Item;
use skep_protocol::fault::FaultReport;
use skep_protocol::field::InField as _;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::limits;
use skep_protocol::outcome::NotDone;
use skep_protocol::query::{Answer, Query};
use skep_protocol::time::LogInstant;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Host, Messages, PATIENCE_MS_DEFAULT};
use crate::calls::{Call, Calls, MemberChange, ShardRow, Unanswered, VoterRow};
use crate::failure::Failed;

#[derive(Clone)]
pub(crate) struct Shards {
    host: Host,
}

fn node_id(field: &'static str, text: &str) -> Result<NodeId, FieldError> {
    text.parse::<NodeId>().in_field(field)
}

fn voter_list(rows: &[VoterRow]) -> Vec<v1::Voter> {
    let voter = |row: &VoterRow| v1::Voter {
        node: row.node.to_string(),
        incarnation: row.incarnation.clone(),
        raft_id: row.raft_id.clone(),
        name: row.name.clone().unwrap_or_default(),
        matched: row.matched,
        standing: row.standing.clone(),
        heard_ms: row.heard_ms,
        fleet_version_min: row.speaks.map(|speaks| speaks.min),
        fleet_version_max: row.speaks.map(|speaks| speaks.max),
    };
    rows.iter().map(voter).collect()
}

pub(super) fn fault(shard: u32, report: FaultReport) -> v1::Fault {
    v1::Fault {
        shard,
        name: report.fault.name().to_owned(),
        node: report.node.map(|node| node.to_string()).unwrap_or_default(),
        detail: report.detail,
        advice: report.fault.advice().to_owned(),
    }
}

fn status(row: ShardRow) -> v1::ShardStatusReply {
    v1::ShardStatusReply {
        shard: row.shard,
        role: row.role,
        term: row.term,
        leader: row.leader.map(|node| node.to_string()).unwrap_or_default(),
        last_log_index: row.last_log,
        committed_index: row.committed,
        applied_index: row.applied,
        snapshot_index: row.snapshot,
        purged_index: row.purged,
        digest: format!("{:032x}", row.digest),
        clock: row.clock.map_or(0, LogInstant::raw),
        fleet_version: row.fleet_version,
        fleet_version_max: row.fleet_version_max,
        fleet_version_held_back_by: row.held_back_by.iter().map(NodeId::to_string).collect(),
        genesis: row.genesis.map(|genesis| genesis.as_bytes().to_vec()).unwrap_or_default(),
        recovered: row.recovery.map(|recovery| v1::ShardRecovered {
            from_genesis: recovery.place.genesis.as_bytes().to_vec(),
            last_index: recovery.last_index,
            operator: recovery.by.as_bytes().to_vec(),
        }),
        voters: voter_list(&row.voters),
        pending: row.counts.pending,
        claimed: row.counts.claimed,
        terminal: row.counts.terminal,
        agents: row.counts.agents,
        dedup_ids: row.dedup_ids,
        dropped: Some(v1::DroppedCounts {
            tasks: row.dropped.tasks,
            commands: row.dropped.commands,
            dead_letters: row.dropped.dead_letters,
            request_ids: row.dropped.request_ids,
            agents: row.dropped.agents,
            operators: row.dropped.operators,
        }),
        connectivity: row.connectivity,
        log_bytes: row.log_bytes,
        fault: row.fault.unwrap_or_default(),
        faults: row.faults.into_iter().map(|report| fault(row.shard, report)).collect(),
        history: Some(v1::HistoryStatus {
            begins_index: row.history.begins,
            next_index: row.history.next,
            missing: row.history.missing,
            lost: row.history.lost,
            bytes: row.history.bytes,
            queued_bytes: row.history.queued_bytes,
            given_back: row.history.given_back,
        }),
    }
}

impl Shards {
    pub(crate) fn new(host: Host) -> Self {
        Self { host }
    }

    async fn change(&self, shard: u32, change: MemberChange) -> Result<ShardRow, Failed> {
        let shard = convert::shard_id(shard);
        match self.host.calls.ask(|answer| Call::Members { shard, change, answer }).await {
            Ok(Ok(row)) => Ok(*row),
            Ok(Err(failure)) if failure.unknown => Err(Failed::unknown()),
            Ok(Err(failure)) => Err(Failed::members(&failure.message, failure.retryable)),
            Err(Unanswered::NotTaken) => Err(Failed::stopping()),
            Err(Unanswered::Dropped) => Err(Failed::unknown()),
        }
    }

    async fn row(&self, shard: u32) -> Result<ShardRow, Failed> {
        let shard = convert::shard_id(shard);
        match self.host.calls.ask(|answer| Call::ShardStatus { shard, answer }).await {
            Ok(Some(row)) => Ok(*row),
            Ok(None) => Err(Failed::not_done(&NotDone::NoReplica)),
            Err(_) => Err(Failed::stopping()),
        }
    }

    pub(crate) async fn init(&self, request: v1::InitShardRequest) -> Result<v1::InitShardReply, Failed> {
        let voters: Result<Vec<NodeId>, _> = request.voters.iter().map(|text| node_id("voters", text)).collect();
        let genesis = convert::genesis(&request.genesis)?;
        let first = convert::first_operator(request.operator)?.map(Box::new);
        let init = MemberChange::Init { voters: voters?, genesis, first };
        let row = self.change(request.shard, init).await?;
        Ok(v1::InitShardReply { voters: voter_list(&row.voters) })
    }

    pub(crate) async fn transfer_leader(
        &self,
        request: v1::TransferLeaderRequest,
    ) -> Result<v1::TransferLeaderReply, Failed> {
        let to = if request.to.is_empty() { None } else { Some(node_id("to", &request.to)?) };
        let row = self.change(request.shard, MemberChange::Transfer(to)).await?;
        let leader = row.leader.map(|node| node.to_string()).unwrap_or_default();
        Ok(v1::TransferLeaderReply { leader })
    }

    pub(crate) async fn add_voter(&self, request: v1::AddVoterRequest) -> Result<v1::ChangeVotersReply, Failed> {
        let row = self.change(request.shard, MemberChange::Add(node_id("node", &request.node)?)).await?;
        Ok(v1::ChangeVotersReply { voters: voter_list(&row.voters) })
    }

    pub(crate) async fn remove_voter(&self, request: v1::RemoveVoterRequest) -> Result<v1::ChangeVotersReply, Failed> {
        let row = self.change(request.shard, MemberChange::Remove(node_id("node", &request.node)?)).await?;
        Ok(v1::ChangeVotersReply { voters: voter_list(&row.voters) })
    }

    pub(crate) async fn status(&self, request: v1::ShardStatusRequest) -> Result<v1::ShardStatusReply, Failed> {
        Ok(status(self.row(request.shard).await?))
    }

    /// What this node holds of a shard: how it stands, then its tasks.
    pub(crate) async fn dump(&self, request: v1::ShardDumpRequest) -> Result<Messages<v1::ShardDumpReply>, Failed> {
        let head = status(self.row(request.shard).await?);
        let (items, stream) = mpsc::channel(16);
        tokio::spawn(dump(self.host.calls.clone(), convert::shard_id(request.shard), head, items));
        Ok(ReceiverStream::new(stream).boxed())
    }
}

/// Tells until everything is told, nobody listens, or it cannot go on.
async fn dump(
    calls: Calls,
    shard: ShardId,
    head: v1::ShardStatusReply,
    items: mpsc::Sender<Result<v1::ShardDumpReply, Failed>>,
) {
    let item = |item| Ok(v1::ShardDumpReply { item: Some(item) });
    if items.send(item(Item::Head(head))).await.is_err() {
        return;
    }
    let mut after = None;
    loop {
        let limit = limits::PAGE_ITEMS_MAX as u32;
        let query = Query::Tasks { statuses: Vec::new(), after, limit };
        let read = |answer| Call::Query { shard, query, stale: true, patience_ms: PATIENCE_MS_DEFAULT, answer };
        let answered = calls.ask(read).await.unwrap_or(Err(NotDone::NoQuorum));
        let (tasks, next) = match answered.map(|reply| reply.answer) {
            Ok(Answer::Tasks { tasks, next }) => (tasks, next),
            Ok(_) => return,
            Err(why) => return drop(items.send(Err(Failed::not_done(&why))).await),
        };
        for task in tasks {
            let row = v1::DumpTask {
                task_id: task.id.as_bytes().to_vec(),
                status: task.state.status().to_string(),
                epoch: task.epoch.0,
                attempts: task.attempts,
            };
            if items.send(item(Item::Task(row))).await.is_err() {
                return;
            }
        }
        after = next;
        if after.is_none() {
            return;
        }
    }
}
