//! Work that callers and the engine have given to this node, and who waits for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use skep_api::{Call, CallQueue, Calls};
use skep_consensus::ConsensusHandle;
use skep_engine::{Engine, Event, Work, WorkKey};
use skep_protocol::entry::{Op, Request};
use skep_protocol::ids::{RequestId, ShardId};
use skep_protocol::limits;
use skep_protocol::outcome::NotDone;
use skep_protocol::query::{Query, QueryReply};
use skep_protocol::settled::Settled;
use skep_protocol::telemetry::Publication;
use skep_protocol::time::LogInstant;
use tokio::sync::{mpsc, oneshot};

/// How often callers that went away are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long a clock that is not known here is asked for, in milliseconds.
const CLOCK_PATIENCE_MS: u64 = 3_000;

/// Who waits for a piece of work.
enum Waiting {
    Submit(oneshot::Sender<Settled>),
    Query(oneshot::Sender<Result<QueryReply, NotDone>>),
    Clock(oneshot::Sender<Result<LogInstant, NotDone>>),
    /// The engine itself, under the key that it gave.
    Engine(WorkKey),
}

impl Waiting {
    fn is_gone(&self) -> bool {
        match self {
            Self::Submit(answer) => answer.is_closed(),
            Self::Query(answer) => answer.is_closed(),
            Self::Clock(answer) => answer.is_closed(),
            Self::Engine(_) => false,
        }
    }
}

/// Calls, and who waits for their answers.
pub(super) struct CallsPort {
    consensus: ConsensusHandle,
    pub(super) queue: mpsc::Receiver<Call>,
    /// The way that the engine's own requests take while no clock is known here, beside the calls of others.
    own: Calls,
    settled: mpsc::Sender<(WorkKey, Settled)>,
    /// Requests of the engine's own that ended on that way.
    pub(super) settled_in: mpsc::Receiver<(WorkKey, Settled)>,
    waiting: BTreeMap<WorkKey, (ShardId, Waiting)>,
    next_key: u64,
    swept: Instant,
}

impl CallsPort {
    /// The port, and the way of publications, which are no calls.
    pub(super) fn new(
        consensus: ConsensusHandle,
        (own, CallQueue { calls, publications }): (Calls, CallQueue),
    ) -> (Self, mpsc::Receiver<Publication>) {
        let (settled, settled_in) = mpsc::channel(limits::AGENTS_PER_NODE_MAX);
        let (waiting, swept) = (BTreeMap::new(), Instant::now());
        (Self { consensus, queue: calls, own, settled, settled_in, waiting, next_key: 1, swept }, publications)
    }

    fn begin(&mut self, waiting: Waiting, shard: ShardId, work: Work, patience_ms: u64) -> Event {
        let key = WorkKey(self.next_key);
        self.next_key += 1;
        self.waiting.insert(key, (shard, waiting));
        Event::Submit { key, shard, work, patience_ms }
    }

    /// A caller would change a shard.
    pub(super) fn submitted(
        &mut self,
        shard: ShardId,
        request: Request,
        patience_ms: u64,
        answer: oneshot::Sender<Settled>,
    ) -> Event {
        self.begin(Waiting::Submit(answer), shard, Work::Request(request), patience_ms)
    }

    /// A caller would read what whoever leads a shard knows.
    pub(super) fn asked(
        &mut self,
        shard: ShardId,
        query: Query,
        patience_ms: u64,
        answer: oneshot::Sender<Result<QueryReply, NotDone>>,
    ) -> Event {
        self.begin(Waiting::Query(answer), shard, Work::Query(query), patience_ms)
    }

    /// A caller needs a shard's clock. Whoever leads the shard is asked if it is not known here.
    pub(super) fn asked_for_clock(
        &mut self,
        shard: ShardId,
        answer: oneshot::Sender<Result<LogInstant, NotDone>>,
    ) -> Option<Event> {
        if let Some(clock) = self.consensus.clock(shard) {
            let _ = answer.send(Ok(clock));
            return None;
        }
        Some(self.begin(Waiting::Clock(answer), shard, Work::Query(Query::Counts), CLOCK_PATIENCE_MS))
    }

    /// Makes a request that the engine asks for. The engine knows the clock of a shard from which it takes commands.
    pub(super) fn request(
        &mut self,
        key: WorkKey,
        shard: ShardId,
        op: Op,
        clock: Option<LogInstant>,
        patience_ms: u64,
    ) -> Option<Event> {
        if let Some(first_sent) = self.consensus.clock(shard).or(clock) {
            let id = RequestId::from_bytes(uuid::Uuid::now_v7().into_bytes());
            let deadline = first_sent.plus_ms(limits::REQUEST_DEADLINE_MS_DEFAULT);
            let work = Work::Request(Request { id, first_sent, deadline, op });
            return Some(self.begin(Waiting::Engine(key), shard, work, patience_ms));
        }
        // Whoever leads knows the clock: asked for first, as callers do.
        let (calls, settled) = (self.own.clone(), self.settled.clone());
        tokio::spawn(async move {
            let end = calls.request(shard, op, patience_ms).await;
            let _ = settled.send((key, end)).await;
        });
        None
    }

    /// A piece of work ended: whoever waits for it is told. That is the engine if it asked for it.
    pub(super) fn answer(&mut self, key: WorkKey, settled: Settled, engine: &Engine) -> Option<Event> {
        // A caller that went away needs no answer.
        let (shard, waiting) = self.waiting.remove(&key)?;
        match waiting {
            Waiting::Submit(answer) => drop(answer.send(explained(engine, shard, settled))),
            Waiting::Engine(key) => return Some(Event::Settled { key, settled }),
            Waiting::Query(answer) => drop(answer.send(match explained(engine, shard, settled) {
                Settled::Read(reply) => Ok(*reply),
                Settled::NotDone(why) => Err(why),
                Settled::Done { .. } | Settled::Heard(_) | Settled::Pulled(_) | Settled::Unknown => {
                    Err(NotDone::NoQuorum)
                }
            })),
            Waiting::Clock(answer) => drop(answer.send(match explained(engine, shard, settled) {
                Settled::Read(reply) => reply.as_of.clock.ok_or(NotDone::NoQuorum),
                Settled::NotDone(why) => Err(why),
                Settled::Done { .. } | Settled::Heard(_) | Settled::Pulled(_) | Settled::Unknown => {
                    Err(NotDone::NoQuorum)
                }
            })),
        }
        None
    }

    /// When callers that went away are looked for next.
    pub(super) fn sweep_in(&self) -> Duration {
        SWEEP_EVERY.saturating_sub(self.swept.elapsed())
    }

    /// Looks for callers that went away, if it is time: nobody waits for their work any more.
    pub(super) fn sweep(&mut self) -> Vec<Event> {
        if !self.sweep_in().is_zero() {
            return Vec::new();
        }
        self.swept = Instant::now();
        let gone = self.waiting.iter().filter(|(_, (_, waiting))| waiting.is_gone());
        let gone: Vec<WorkKey> = gone.map(|(key, _)| *key).collect();
        for key in &gone {
            self.waiting.remove(key);
        }
        gone.into_iter().map(|key| Event::Abandon { key }).collect()
    }
}

/// Nobody leads a shard that is not there. A node that has heard of no shard at all does not know what there is.
fn explained(engine: &Engine, shard: ShardId, settled: Settled) -> Settled {
    if settled != Settled::NotDone(NotDone::NoQuorum) {
        return settled;
    }
    let known = engine.shards_heard_of();
    let nowhere = !known.is_empty() && !known.contains(&shard);
    if nowhere { Settled::NotDone(NotDone::NoSuchShard { shard, known }) } else { settled }
}
