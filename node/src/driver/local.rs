//! What callers ask of this node itself, whoever leads.

use skep_api::ChangesPage;
use skep_consensus::ConsensusHandle;
use skep_protocol::ids::ShardId;
use skep_protocol::outcome::NotDone;
use skep_protocol::query::{Answer, Query, QueryFailure, QueryReply};
use tokio::sync::oneshot;

/// When a replica that answers as many as it may is asked again, in milliseconds.
const OVERLOADED_RETRY_MS: u64 = 100;

/// Why this node's own replica did not answer.
pub(super) fn not_done(failure: QueryFailure) -> NotDone {
    match failure {
        QueryFailure::NoReplica(_) | QueryFailure::NotLeader(_) => NotDone::NoReplica,
        QueryFailure::NoQuorum => NotDone::NoQuorum,
        QueryFailure::Overloaded => NotDone::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS },
        QueryFailure::Storage(why) => NotDone::Storage(why),
    }
}

/// Reads changes of this node's replica.
pub(super) async fn changes(
    consensus: ConsensusHandle,
    shard: ShardId,
    from: Option<(u64, u32)>,
    answer: oneshot::Sender<Result<ChangesPage, NotDone>>,
) {
    if consensus.view(shard).is_none() {
        return drop(answer.send(Err(NotDone::NoReplica)));
    }
    let progress = consensus.history_progress(shard);
    let (from, skip) = from.unwrap_or_else(|| (*progress.borrow(), 0));
    let page = match consensus.query(shard, Query::Changes { from, skip }, true).await {
        Ok(QueryReply { answer: Answer::Changes { sets, next, skip, edge }, .. }) => {
            Ok(ChangesPage { sets, next, skip, edge, progress })
        }
        Ok(_) => Err(NotDone::Storage("the answer is not one to this query".to_owned())),
        Err(failure) => Err(not_done(failure)),
    };
    let _ = answer.send(page);
}
