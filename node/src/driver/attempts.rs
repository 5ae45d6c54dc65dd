//! Attempts: work on its way to the leaders of shards, here or elsewhere, and how it ended.

use std::collections::BTreeMap;

use skep_consensus::ConsensusHandle;
use skep_engine::{AttemptTarget, Outcome, Work, WorkKey};
use skep_protocol::entry::Request;
use skep_protocol::ids::ShardId;
use skep_protocol::limits;
use tokio::sync::mpsc;

/// Attempts that ended: whose, which, and how.
pub(super) type Ended = Vec<(WorkKey, u32, Outcome)>;

/// Requests that are attempted together.
type Batch = Vec<(WorkKey, u32, Request)>;

/// Carries attempts out.
pub(super) struct AttemptsPort {
    consensus: ConsensusHandle,
    ended: mpsc::Sender<Ended>,
    pub(super) ended_in: mpsc::Receiver<Ended>,
    /// Requests that travel together, by shard, target, and whether they can wait: what ends work has room where the others
    /// have none.
    proposals: BTreeMap<(ShardId, AttemptTarget, bool), Batch>,
}

impl AttemptsPort {
    pub(super) fn new(consensus: ConsensusHandle) -> Self {
        let (ended, ended_in) = mpsc::channel(limits::API_CALLS_QUEUED_MAX);
        Self { consensus, ended, ended_in, proposals: BTreeMap::new() }
    }

    /// Begins an attempt. Requests wait for [`propose`](Self::propose).
    pub(super) fn begin(&mut self, (key, attempt): (WorkKey, u32), shard: ShardId, target: AttemptTarget, work: Work) {
        if let Work::Request(request) = work {
            let together = (shard, target, request.op.can_wait());
            return self.proposals.entry(together).or_default().push((key, attempt, request));
        }
        let (consensus, ended) = (self.consensus.clone(), self.ended.clone());
        tokio::spawn(async move {
            let outcome = consensus.attempt(shard, target, work).await;
            let _ = ended.send(vec![(key, attempt, outcome)]).await;
        });
    }

    /// Proposes the requests that were begun.
    pub(super) fn propose(&mut self) {
        for ((shard, target, _), attempts) in std::mem::take(&mut self.proposals) {
            let mut attempts = attempts.into_iter().peekable();
            while attempts.peek().is_some() {
                // No more than one entry holds, by count and by bytes.
                let mut bytes = 0;
                let mut batch = Batch::new();
                while let Some(next) = attempts.next_if(|(_, _, request)| {
                    bytes += request.bytes_bound();
                    batch.is_empty()
                        || (batch.len() < limits::REQUESTS_PER_ENTRY_MAX && bytes <= limits::ENTRY_BYTES_SOFT_MAX)
                }) {
                    batch.push(next);
                }
                tokio::spawn(propose(self.consensus.clone(), self.ended.clone(), shard, target, batch));
            }
        }
    }
}

/// Proposes a batch and reports its outcomes.
async fn propose(
    consensus: ConsensusHandle,
    ended: mpsc::Sender<Ended>,
    shard: ShardId,
    target: AttemptTarget,
    batch: Batch,
) {
    let mut keys = Vec::with_capacity(batch.len());
    let mut requests = Vec::with_capacity(batch.len());
    for (key, attempt, request) in batch {
        keys.push((key, attempt));
        requests.push(request);
    }
    let results = consensus.propose(shard, target, requests).await;
    let results = keys.into_iter().zip(results);
    let results = results.map(|((key, attempt), outcome)| (key, attempt, Outcome::Propose(outcome))).collect();
    let _ = ended.send(results).await;
}
