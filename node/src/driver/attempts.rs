//! Attempts: work on its way to the leaders of shards, here or elsewhere, and how it ended.

use std::collections::BTreeMap;

use skep_consensus::ConsensusHandle;
use skep_engine::{Outcome, Target, Work, WorkKey};
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
    proposals: BTreeMap<(ShardId, Target, bool), Batch>,
}

impl AttemptsPort {
    pub(super) fn new(consensus: ConsensusHandle) -> Self {
        let (ended, ended_in) = mpsc::channel(limits::API_CALLS_QUEUED_MAX);
        Self { consensus, ended, ended_in, proposals: BTreeMap::new() }
    }

    /// Begins an attempt. Requests wait for [`propose`](Self::propose).
    pub(super) fn begin(&mut self, (key, attempt): (WorkKey, u32), shard: ShardId, target: Target, work: Work) {
        let consensus = self.consensus.clone();
        match work {
            Work::Request(request) => {
                let together = (shard, target, request.op.can_wait());
                self.proposals.entry(together).or_default().push((key, attempt, request));
            }
            Work::Query(query) => self.report(key, attempt, async move {
                Outcome::Query(match target {
                    Target::Local => consensus.query(shard, query, false).await,
                    Target::Node(node) => consensus.query_on(node, shard, query).await,
                })
            }),
            Work::Heartbeat(heartbeat) => self.report(key, attempt, async move {
                Outcome::Heartbeat(match target {
                    Target::Local => consensus.heartbeat(shard, heartbeat).await,
                    Target::Node(node) => consensus.heartbeat_on(node, shard, heartbeat).await,
                })
            }),
            Work::Pull(pull) => self.report(key, attempt, async move {
                let pulled = match target {
                    Target::Local => consensus.pull(shard, pull).await,
                    Target::Node(node) => consensus.pull_on(node, shard, pull).await,
                };
                Outcome::Pull(pulled.map(Box::new))
            }),
        }
    }

    /// Waits for the outcome of an attempt beside the driver, and reports it.
    fn report(&self, key: WorkKey, attempt: u32, outcome: impl Future<Output = Outcome> + Send + 'static) {
        let ended = self.ended.clone();
        tokio::spawn(async move {
            let outcome = outcome.await;
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
async fn propose(consensus: ConsensusHandle, ended: mpsc::Sender<Ended>, shard: ShardId, target: Target, batch: Batch) {
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
    let _ = ended.send(results).await;
}
