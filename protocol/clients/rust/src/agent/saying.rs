//! The sending side of a stream: what an agent has to tell its node, in the order in which it comes up.

use std::collections::BTreeSet;
use std::time::Duration;

use skep_proto::v1;
use skep_proto::v1::agent_message::Message as Say;
use tokio::sync::{mpsc, watch};
use tokio::time::Interval;

use super::{Shared, boot_ms};

/// How many keep-alives an agent sends in one lease, and the longest interval between two.
const KEEP_ALIVES_PER_LEASE: u32 = 8;
const KEEP_ALIVE_MAX: Duration = Duration::from_millis(500);

/// What the stream is to say next.
pub(super) enum Due {
    /// The groups for which the agent takes commands, and the commands that it has in hand.
    Takes,
    /// The steps of commands.
    Commands,
    /// That the software lives, and its position.
    KeepAlive,
    /// How many tasks the agent waits for.
    Credits,
    /// That the agent leaves.
    Leave,
}

/// What an agent has said on one stream.
pub(super) struct Saying {
    say: mpsc::Sender<v1::AgentMessage>,
    alive: Interval,
    wanted: watch::Receiver<u32>,
    place: watch::Receiver<Option<v1::Position>>,
    leaving: watch::Receiver<bool>,
    takes: watch::Receiver<Option<Vec<String>>>,
    to_say: watch::Receiver<BTreeSet<Vec<u8>>>,
}

fn message(say: Say) -> v1::AgentMessage {
    v1::AgentMessage { message: Some(say) }
}

fn keep_alive(shared: &Shared) -> v1::AgentMessage {
    message(Say::KeepAlive(v1::KeepAlive { stamp: boot_ms(), place: *shared.place.borrow() }))
}

/// Introduces the agent, as the first message on a stream: there is room for it.
pub(super) fn introduce(shared: &Shared, say: &mpsc::Sender<v1::AgentMessage>) {
    let options = &shared.options;
    let attach = v1::AttachAgent {
        shard: shared.shard,
        agent: options.agent.clone(),
        role: Some(options.role.clone()),
        session: shared.session.clone(),
        lease_ttl: options.lease_ttl.and_then(|ttl| prost_types::Duration::try_from(ttl).ok()),
    };
    let _ = say.try_send(message(Say::Attach(attach)));
    let _ = say.try_send(keep_alive(shared));
}

impl Saying {
    pub(super) fn new(shared: &Shared, say: mpsc::Sender<v1::AgentMessage>) -> Self {
        Self {
            say,
            alive: tokio::time::interval(KEEP_ALIVE_MAX),
            wanted: shared.wanted.subscribe(),
            place: shared.place.subscribe(),
            leaving: shared.leaving.subscribe(),
            takes: shared.desk.takes(),
            to_say: shared.desk.to_say(),
        }
    }

    /// The node has attached the agent: what the agent asked for on an earlier stream, it asks for again.
    pub(super) fn begin(&mut self, shared: &Shared, lease_ttl: Option<prost_types::Duration>) {
        let ttl = lease_ttl.and_then(|ttl| Duration::try_from(ttl).ok()).unwrap_or(KEEP_ALIVE_MAX);
        self.alive = tokio::time::interval((ttl / KEEP_ALIVES_PER_LEASE).min(KEEP_ALIVE_MAX));
        self.wanted.mark_changed();
        self.takes.mark_changed();
        shared.desk.say_all_again();
        if *self.leaving.borrow() {
            self.leaving.mark_changed();
        }
    }

    /// Waits until there is something to say. Safe to drop and call again.
    pub(super) async fn due(&mut self) -> Due {
        tokio::select! {
            Ok(()) = self.takes.changed() => Due::Takes,
            Ok(()) = self.to_say.changed() => Due::Commands,
            _ = self.alive.tick() => Due::KeepAlive,
            Ok(()) = self.place.changed() => Due::KeepAlive,
            Ok(()) = self.wanted.changed() => Due::Credits,
            Ok(()) = self.leaving.changed() => Due::Leave,
        }
    }

    /// Says it; returns whether the node still listens.
    pub(super) async fn say(&mut self, shared: &Shared, due: Due) -> bool {
        match due {
            Due::Takes => {
                let groups = self.takes.borrow_and_update().clone();
                let Some(groups) = groups else { return true };
                // This goes before any offer on this stream: it holds for the whole stream.
                let take = v1::TakeCommands { groups, in_hand: shared.desk.in_hand() };
                self.send(Say::TakeCommands(take)).await
            }
            Due::Commands => {
                self.to_say.borrow_and_update();
                for step in shared.desk.drain() {
                    if !self.send(Say::Command(step)).await {
                        return false;
                    }
                }
                true
            }
            Due::KeepAlive => {
                let _ = self.say.try_send(keep_alive(shared));
                true
            }
            Due::Credits => {
                let count = *self.wanted.borrow_and_update();
                count == 0 || self.send(Say::Credits(v1::GiveCredits { count })).await
            }
            Due::Leave => {
                // The agent stops first, and is told after.
                shared.holdings().lose_all();
                self.send(Say::Detach(v1::DetachAgent {})).await
            }
        }
    }

    async fn send(&self, say: Say) -> bool {
        self.say.send(message(say)).await.is_ok()
    }
}
