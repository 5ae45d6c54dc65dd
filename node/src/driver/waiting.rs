//! Work that was given to the engine, and who waits for it.

use skep_engine::{Event, Work, WorkKey};
use skep_protocol::entry::{Op, Request};
use skep_protocol::ids::{RequestId, ShardId};
use skep_protocol::limits;
use skep_protocol::outcome::{NotDone, Settled};
use skep_protocol::query::QueryReply;
use skep_protocol::time::LogInstant;
use tokio::sync::oneshot;

use super::Driver;

/// Who waits for a piece of work.
pub(super) enum Waiting {
    Submit(oneshot::Sender<Settled>),
    Query(oneshot::Sender<Result<QueryReply, NotDone>>),
    Clock(oneshot::Sender<Result<LogInstant, NotDone>>),
    /// The engine itself, under the key that it gave.
    Engine(WorkKey),
}

impl Waiting {
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Self::Submit(answer) => answer.is_closed(),
            Self::Query(answer) => answer.is_closed(),
            Self::Clock(answer) => answer.is_closed(),
            Self::Engine(_) => false,
        }
    }
}

impl Driver {
    pub(super) fn submit(&mut self, waiting: Waiting, shard: ShardId, work: Work, patience_ms: u64) {
        let key = WorkKey(self.next_key);
        self.next_key += 1;
        self.waiting.insert(key, (shard, waiting));
        self.engine.handle(Event::Submit { key, shard, work, patience_ms }, self.now_ms());
    }

    /// Has something committed that the engine asks for. The engine knows the clock of a
    /// shard from which it takes commands.
    pub(super) fn request(
        &mut self,
        key: WorkKey,
        shard: ShardId,
        op: Op,
        clock: Option<LogInstant>,
        patience_ms: u64,
    ) {
        if let Some(first_sent) = self.consensus.clock(shard).or(clock) {
            let id = RequestId::from_bytes(uuid::Uuid::now_v7().into_bytes());
            let deadline = first_sent.plus_ms(limits::REQUEST_DEADLINE_MS_DEFAULT);
            let work = Work::Request(Request { id, first_sent, deadline, op });
            return self.submit(Waiting::Engine(key), shard, work, patience_ms);
        }
        // Whoever leads knows the clock: asked for first, as callers do.
        let (calls, settled) = (self.own_calls.clone(), self.settled.clone());
        tokio::spawn(async move {
            let end = calls.command(shard, op, patience_ms).await;
            let _ = settled.send((key, end)).await;
        });
    }

    pub(super) fn answer(&mut self, key: WorkKey, settled: Settled) {
        // A caller that went away needs no answer.
        let Some((shard, waiting)) = self.waiting.remove(&key) else { return };
        match waiting {
            Waiting::Submit(answer) => drop(answer.send(self.explained(shard, settled))),
            Waiting::Engine(key) => self.on_settled(key, settled),
            Waiting::Query(answer) => drop(answer.send(match self.explained(shard, settled) {
                Settled::Read(reply) => Ok(*reply),
                Settled::NotDone(why) => Err(why),
                Settled::Done { .. } | Settled::Heard(_) | Settled::Pulled(_) | Settled::Unknown => {
                    Err(NotDone::NoQuorum)
                }
            })),
            Waiting::Clock(answer) => drop(answer.send(match self.explained(shard, settled) {
                Settled::Read(reply) => reply.as_of.clock.ok_or(NotDone::NoQuorum),
                Settled::NotDone(why) => Err(why),
                Settled::Done { .. } | Settled::Heard(_) | Settled::Pulled(_) | Settled::Unknown => {
                    Err(NotDone::NoQuorum)
                }
            })),
        }
    }

    /// Nobody leads a shard that is not there. A node that has heard of no shard at all does not know what there is.
    fn explained(&self, shard: ShardId, settled: Settled) -> Settled {
        if settled != Settled::NotDone(NotDone::NoQuorum) {
            return settled;
        }
        let known = self.engine.shards_heard_of();
        let nowhere = !known.is_empty() && !known.contains(&shard);
        if nowhere { Settled::NotDone(NotDone::NoSuchShard { shard, known }) } else { settled }
    }
}
