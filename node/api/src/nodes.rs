//! Services about shards and the node itself.

use std::pin::Pin;

use futures::Stream;
use skep_proto::convert;
use skep_proto::v1;
use skep_proto::v1::node_queries_server::NodeQueries;
use skep_proto::v1::shard_commands_server::ShardCommands;
use skep_proto::v1::shard_queries_server::ShardQueries;
use skep_protocol::fault::FaultReport;
use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use skep_protocol::outcome::NotDone;
use skep_protocol::query::{Answer, Query};
use skep_protocol::time::LogInstant;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::calls::{Call, Calls, MemberChange, ShardRow, Unanswered, VoterRow};
use crate::failure::Failed;
use crate::queries::invalid;
use crate::service::PATIENCE_MS_DEFAULT;

#[derive(Clone)]
pub(crate) struct Nodes {
    calls: Calls,
}

fn node_id(field: &'static str, text: &str) -> Result<NodeId, Status> {
    text.parse().map_err(|e: skep_protocol::ids::IdError| {
        Failed::field(&convert::FieldError { field, why: e.to_string() }).into_status()
    })
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

fn fault(shard: u32, report: FaultReport) -> v1::Fault {
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

impl Nodes {
    pub(crate) fn new(calls: Calls) -> Self {
        Self { calls }
    }

    async fn change(&self, shard: u32, change: MemberChange) -> Result<ShardRow, Status> {
        let shard = convert::shard_id(shard);
        match self.calls.ask(|answer| Call::Members { shard, change, answer }).await {
            Ok(Ok(row)) => Ok(*row),
            Ok(Err(failure)) if failure.unknown => Err(Failed::unknown().into_status()),
            Ok(Err(failure)) => Err(Failed::members(&failure.message, failure.retryable).into_status()),
            Err(Unanswered::NotTaken) => Err(Failed::stopping().into_status()),
            Err(Unanswered::Dropped) => Err(Failed::unknown().into_status()),
        }
    }

    async fn row(&self, shard: u32) -> Result<ShardRow, Status> {
        let shard = convert::shard_id(shard);
        match self.calls.ask(|answer| Call::ShardStatus { shard, answer }).await {
            Ok(Some(row)) => Ok(*row),
            Ok(None) => Err(Failed::not_done(&NotDone::NoReplica).into_status()),
            Err(_) => Err(Failed::stopping().into_status()),
        }
    }
}

#[tonic::async_trait]
impl ShardCommands for Nodes {
    async fn init(&self, request: Request<v1::InitShardRequest>) -> Result<Response<v1::InitShardReply>, Status> {
        let request = request.into_inner();
        let voters: Result<Vec<NodeId>, Status> = request.voters.iter().map(|text| node_id("voters", text)).collect();
        let genesis = convert::genesis(&request.genesis).map_err(|e| invalid(&e))?;
        let first = convert::first_operator(request.operator).map_err(|e| invalid(&e))?.map(Box::new);
        let init = MemberChange::Init { voters: voters?, genesis, first };
        let row = self.change(request.shard, init).await?;
        Ok(Response::new(v1::InitShardReply { voters: voter_list(&row.voters) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderReply>, Status> {
        let request = request.into_inner();
        let to = if request.to.is_empty() { None } else { Some(node_id("to", &request.to)?) };
        let row = self.change(request.shard, MemberChange::Transfer(to)).await?;
        let leader = row.leader.map(|node| node.to_string()).unwrap_or_default();
        Ok(Response::new(v1::TransferLeaderReply { leader }))
    }

    async fn add_voter(
        &self,
        request: Request<v1::AddVoterRequest>,
    ) -> Result<Response<v1::ChangeVotersReply>, Status> {
        let request = request.into_inner();
        let row = self.change(request.shard, MemberChange::Add(node_id("node", &request.node)?)).await?;
        Ok(Response::new(v1::ChangeVotersReply { voters: voter_list(&row.voters) }))
    }

    async fn remove_voter(
        &self,
        request: Request<v1::RemoveVoterRequest>,
    ) -> Result<Response<v1::ChangeVotersReply>, Status> {
        let request = request.into_inner();
        let row = self.change(request.shard, MemberChange::Remove(node_id("node", &request.node)?)).await?;
        Ok(Response::new(v1::ChangeVotersReply { voters: voter_list(&row.voters) }))
    }
}

#[tonic::async_trait]
impl ShardQueries for Nodes {
    async fn status(&self, request: Request<v1::ShardStatusRequest>) -> Result<Response<v1::ShardStatusReply>, Status> {
        Ok(Response::new(status(self.row(request.into_inner().shard).await?)))
    }

    type DumpStream = Pin<Box<dyn Stream<Item = Result<v1::ShardDumpReply, Status>> + Send>>;

    async fn dump(&self, request: Request<v1::ShardDumpRequest>) -> Result<Response<Self::DumpStream>, Status> {
        use v1::shard_dump_reply::Item;
        let number = request.into_inner().shard;
        let shard = convert::shard_id(number);
        let head = status(self.row(number).await?);
        let (items, stream) = mpsc::channel(16);
        let calls = self.calls.clone();
        tokio::spawn(async move {
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
                    Err(why) => return drop(items.send(Err(Failed::not_done(&why).into_status())).await),
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
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

#[tonic::async_trait]
impl NodeQueries for Nodes {
    async fn status(&self, _request: Request<v1::NodeStatusRequest>) -> Result<Response<v1::NodeStatusReply>, Status> {
        let view = self.calls.ask(|answer| Call::NodeStatus { answer }).await;
        let view = view.map_err(|_| Failed::stopping().into_status())?;
        let peers = view.peers.into_iter().map(|peer| v1::PeerStatus {
            node: peer.node.to_string(),
            name: peer.name.unwrap_or_default(),
            control_up: peer.control_up,
            mesh_up: peer.mesh_up,
            control_address: peer.control_address.unwrap_or_default(),
            last_error: peer.last_error.unwrap_or_default(),
            rtt_ms: peer.rtt_ms,
            lost_permille: peer.lost_permille,
            bytes_per_s: peer.bytes_per_s,
        });
        Ok(Response::new(v1::NodeStatusReply {
            node: view.node.to_string(),
            name: view.name,
            site: view.site,
            incarnation: view.incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: view.uptime_ms,
            peers: peers.collect(),
            shards: view.shards,
            pid: std::process::id(),
            control_addresses: view.control_address.into_iter().collect(),
            mesh_addresses: view.mesh_addresses,
            mesh_overflow: view.mesh_overflow,
            mesh_invalid: view.mesh_invalid,
            faults: view.faults.into_iter().map(|(shard, report)| fault(shard, report)).collect(),
        }))
    }

    async fn clock(&self, request: Request<v1::ClockRequest>) -> Result<Response<v1::ClockReply>, Status> {
        let shard = convert::shard_id(request.into_inner().shard);
        match self.calls.ask(|answer| Call::Clock { shard, answer }).await {
            Ok(Ok(clock)) => Ok(Response::new(v1::ClockReply { clock: clock.raw() })),
            Ok(Err(why)) => Err(Failed::not_done(&why).into_status()),
            Err(_) => Err(Failed::stopping().into_status()),
        }
    }
}
