//! Queries, on the way to the leader of a shard, or to a replica that has what is asked for.

use std::sync::Arc;

use skep_protocol::attempt::AttemptTarget;
use skep_protocol::codec::Encoded as _;
use skep_protocol::frame::FrameKind;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::leader::LeaderHint;
use skep_protocol::limits;
use skep_protocol::query::{Query, QueryAnswer, QueryFailure, QueryReply};

use super::{Asked, Call, written};
use crate::net::{CallError, Class, Waits};
use crate::shard::{MembershipError, NodeParts};
use crate::shards::Shards;

/// The largest answer to a query for a page, and to one for changes, in bytes.
const PAGE_ANSWER_BYTES: usize = limits::FRAME_BYTES_MAX / 2;
/// The largest answer to a query for a task: what it is given, what it came to, and what is said of it.
const TASK_ANSWER_BYTES: usize = 4 * limits::PAYLOAD_BYTES_MAX;

pub(super) const QUERY: Call =
    Call { large_answer, ..Call::new(FrameKind::Query, Class::Query, |shards, asked| Box::pin(answer(shards, asked))) };

/// Asks a leader, here or at another node, for everything acknowledged before the query.
pub(super) async fn attempt(
    shards: &Shards,
    shard: ShardId,
    target: AttemptTarget,
    query: Query,
) -> Result<QueryReply, QueryFailure> {
    let no_replica = || QueryFailure::NoReplica(LeaderHint::default());
    match target {
        AttemptTarget::Local => shards.shard(shard).ok_or_else(no_replica)?.query_linearizable(query).await,
        AttemptTarget::Node(node) => shards.parts.query(node, shard, &query).await,
    }
}

impl NodeParts {
    /// Asks a node, which is thought to lead the shard or to have what is asked for.
    ///
    /// # Errors
    /// [`QueryFailure`].
    pub(crate) async fn query(&self, node: NodeId, shard: ShardId, query: &Query) -> Result<QueryReply, QueryFailure> {
        let failed = |e: &dyn std::fmt::Display| QueryFailure::Storage(e.to_string());
        let body = query.encode().map_err(|e| failed(&e))?;
        match self.call(QUERY, node, shard, &body, self.round_patience()).await {
            Ok(answer) => QueryAnswer::decode(&answer).map_err(|e| failed(&e))?.result,
            Err(error @ CallError::Refused(_)) => Err(failed(&error)),
            Err(_) => Err(QueryFailure::NoQuorum),
        }
    }

    /// Whether a node has a replica of a shard.
    ///
    /// # Errors
    /// [`MembershipError`] if it does not say.
    pub(crate) async fn ask_for_replica(&self, node: NodeId, shard: ShardId) -> Result<bool, MembershipError> {
        let body = Query::Counts.encode().map_err(|e| MembershipError::Raft(e.to_string()))?;
        let answer = self.call(QUERY, node, shard, &body, self.patience() * 2).await;
        match QueryAnswer::decode(&answer.map_err(|_| MembershipError::Unreachable { node })?) {
            Ok(QueryAnswer { result: Err(QueryFailure::NoReplica(_)) }) => Ok(false),
            Ok(_) => Ok(true),
            Err(error) => Err(MembershipError::Raft(format!("{node}: {error}"))),
        }
    }
}

/// How large the answer to a query may be.
fn large_answer(body: &[u8]) -> Option<(usize, Waits)> {
    let of_query = |query: Query| match query {
        Query::Place | Query::Counts => None,
        Query::CommandEnd { .. } => Some((limits::COMMAND_END_ANSWER_BYTES_MAX, Waits::ForEnd)),
        Query::Task(_) => Some((TASK_ANSWER_BYTES, Waits::No)),
        _ => Some((PAGE_ANSWER_BYTES, Waits::No)),
    };
    // One that does not decode is refused in a few words.
    Query::decode(body).ok().and_then(of_query)
}

async fn answer(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    let query: Query = asked.read()?;
    let result = match shards.shard(asked.header.shard) {
        None => Err(QueryFailure::NoReplica(shards.hearsay(asked.header.shard))),
        Some(shard) => shard.query_for(asked.who.node, query).await,
    };
    written(&QueryAnswer { result })
}

#[cfg(test)]
mod tests {
    use skep_protocol::ids::{CommandId, TaskId};

    use super::super::call_of;
    use super::*;

    #[test]
    fn whoever_waits_for_a_command_to_end_is_counted_and_keeps_no_page_waiting() {
        let answers = |kind, body: &[u8]| (call_of(kind).large_answer)(body);
        let large = |query: Query| answers(FrameKind::Query, &query.encode().unwrap());
        let (command, wait_ms) = (CommandId::from_bytes([1; 16]), 1_000);
        let end = large(Query::CommandEnd { command, wait_ms });
        assert_eq!(end, Some((limits::COMMAND_END_ANSWER_BYTES_MAX, Waits::ForEnd)));
        assert_eq!(large(Query::Command { command, after: None }), Some((PAGE_ANSWER_BYTES, Waits::No)));
        assert_eq!(large(Query::Task(TaskId::from_bytes([1; 16]))), Some((TASK_ANSWER_BYTES, Waits::No)));
        assert_eq!((large(Query::Counts), answers(FrameKind::Query, b"rubbish")), (None, None));
        assert_eq!(answers(FrameKind::Pull, b""), None, "one that sleeps takes nothing");
    }
}
