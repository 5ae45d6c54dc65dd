//! What the driver has carried out beside its loop.

use skep_api::ChangesPage;
use skep_consensus::{ConsensusHandle, ShardView};
use skep_engine::{Outcome, Target, WorkKey};
use skep_protocol::entry::Request;
use skep_protocol::ids::ShardId;
use skep_protocol::outcome::NotDone;
use skep_protocol::query::{Answer, Query, QueryFailure, QueryReply};
use tokio::sync::{mpsc, oneshot};

/// When a replica that answers as many as it may is asked again, in milliseconds.
const OVERLOADED_RETRY_MS: u64 = 100;

/// Proposes a batch and reports its outcomes.
pub(crate) async fn propose(
    consensus: ConsensusHandle,
    outcomes: mpsc::Sender<Vec<(WorkKey, u32, Outcome)>>,
    shard: ShardId,
    target: Target,
    batch: Vec<(WorkKey, u32, Request)>,
) {
    let mut keys = Vec::with_capacity(batch.len());
    let mut requests = Vec::with_capacity(batch.len());
    for (key, attempt, request) in batch {
        keys.push((key, attempt));
        requests.push(request);
    }
    let results = match target {
        Target::Local => consensus.propose(shard, requests).await,
        Target::Node(node) => consensus.propose_on(node, shard, requests).await,
    };
    let results = keys.into_iter().zip(results);
    let results = results.map(|((key, attempt), outcome)| (key, attempt, Outcome::Propose(outcome))).collect();
    let _ = outcomes.send(results).await;
}

/// Why this node's own replica did not answer.
pub(crate) fn not_done(failure: QueryFailure) -> NotDone {
    match failure {
        QueryFailure::NoReplica(_) | QueryFailure::NotLeader(_) => NotDone::NoReplica,
        QueryFailure::NoQuorum => NotDone::NoQuorum,
        QueryFailure::Overloaded => NotDone::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS },
        QueryFailure::Storage(why) => NotDone::Storage(why),
    }
}

/// Reads changes of this node's replica.
pub(crate) async fn changes(
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

/// Tells the driver what is known of every shard's leader, of shards opened later too.
pub(crate) async fn follow_shards(consensus: ConsensusHandle, views: mpsc::Sender<(ShardId, ShardView)>) {
    let mut opened = consensus.shards_opened();
    let mut followed = std::collections::BTreeSet::new();
    loop {
        for shard in consensus.shards() {
            let Some(mut view) = consensus.view(shard).filter(|_| followed.insert(shard)) else { continue };
            let views = views.clone();
            tokio::spawn(async move {
                loop {
                    let now = *view.borrow_and_update();
                    if views.send((shard, now)).await.is_err() || view.changed().await.is_err() {
                        return;
                    }
                }
            });
        }
        tokio::select! {
            changed = opened.changed() => if changed.is_err() { return },
            () = views.closed() => return,
        }
    }
}
