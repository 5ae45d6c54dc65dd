//! Shards: made, changed, and looked at.

use futures::StreamExt as _;
use skep_proto::convert::{self, FieldError};
use skep_proto::v1;
use skep_proto::v1::shard_dump_reply::Item;
use skep_protocol::field::InField as _;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::limits;
use skep_protocol::outcome::NotDone;
use skep_protocol::query::{Answer, Query};
use skep_protocol::shard_status::ShardStatus;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Caller, Host, Messages, PATIENCE_MS_DEFAULT};
use crate::calls::{Call, Calls, MemberChange, ShardRow, Unanswered};
use crate::failure::Failed;

#[derive(Clone)]
pub(crate) struct Shards {
    host: Host,
}

fn node_id(field: &'static str, text: &str) -> Result<NodeId, FieldError> {
    text.parse::<NodeId>().in_field(field)
}

fn shown(row: ShardRow) -> v1::ShardStatusReply {
    convert::shard_status_to_proto(row.status, row.connectivity)
}

impl Shards {
    pub(crate) fn new(host: Host) -> Self {
        Self { host }
    }

    /// The shard afterwards; none if this node takes no part in it any more.
    async fn change(&self, shard: u32, change: MemberChange) -> Result<Option<Box<ShardStatus>>, Failed> {
        let shard = convert::shard_id(shard);
        match self.host.calls.ask(|answer| Call::Members { shard, change, answer }).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(failure)) if failure.unknown => Err(Failed::unknown()),
            Ok(Err(failure)) => Err(Failed::members(&failure.message, failure.retryable)),
            Err(Unanswered::NotTaken) => Err(Failed::stopping()),
            Err(Unanswered::Dropped) => Err(Failed::unknown()),
        }
    }

    /// The voters after a change.
    async fn voters(&self, shard: u32, change: MemberChange) -> Result<Vec<v1::Voter>, Failed> {
        let status = self.change(shard, change).await?;
        Ok(status.map(|status| convert::voters_to_proto(&status.voters)).unwrap_or_default())
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
        Ok(v1::InitShardReply { voters: self.voters(request.shard, init).await? })
    }

    pub(crate) async fn transfer_leader(
        &self,
        request: v1::TransferLeaderRequest,
    ) -> Result<v1::TransferLeaderReply, Failed> {
        let to = if request.to.is_empty() { None } else { Some(node_id("to", &request.to)?) };
        let status = self.change(request.shard, MemberChange::Transfer(to)).await?;
        let leader = status.and_then(|status| status.leader).map(|node| node.to_string()).unwrap_or_default();
        Ok(v1::TransferLeaderReply { leader })
    }

    pub(crate) async fn add_voter(&self, request: v1::AddVoterRequest) -> Result<v1::ChangeVotersReply, Failed> {
        let change = MemberChange::Add(node_id("node", &request.node)?);
        Ok(v1::ChangeVotersReply { voters: self.voters(request.shard, change).await? })
    }

    pub(crate) async fn remove_voter(&self, request: v1::RemoveVoterRequest) -> Result<v1::ChangeVotersReply, Failed> {
        let change = MemberChange::Remove(node_id("node", &request.node)?);
        Ok(v1::ChangeVotersReply { voters: self.voters(request.shard, change).await? })
    }

    pub(crate) async fn status(&self, request: v1::ShardStatusRequest) -> Result<v1::ShardStatusReply, Failed> {
        Ok(shown(self.row(request.shard).await?))
    }

    /// What this node holds of a shard: how it stands, then its tasks.
    pub(crate) async fn dump(
        &self,
        caller: Caller,
        request: v1::ShardDumpRequest,
    ) -> Result<Messages<v1::ShardDumpReply>, Failed> {
        let place = self.host.lasting(&caller)?;
        let head = shown(self.row(request.shard).await?);
        let (items, stream) = mpsc::channel(16);
        tokio::spawn(dump(self.host.calls.clone(), convert::shard_id(request.shard), head, items));
        Ok(place.around(ReceiverStream::new(stream)).boxed())
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
        // What is shown of a task is small, and the page is not held until it is read.
        let rows: Vec<v1::DumpTask> = tasks.iter().map(convert::dumped_task_to_proto).collect();
        drop(tasks);
        for row in rows {
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
