//! The engine: its machines, and the way between them.

use std::collections::{BTreeSet, VecDeque};

use skep_config::EngineConfig;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::outcome::Settled;
use skep_protocol::text::SiteName;

use crate::agents::{Agents, Want};
use crate::connectivity::Connectivity;
use crate::event::{AgentEvent, Effect, Event, ToAgent, Work};
use crate::inbox::{self, Inboxes};
use crate::key::WorkKey;
use crate::router::Router;
use crate::topics::{TopicEvent, Topics};

/// Keys of the engine's own work have this bit; callers' keys do not.
const OWN: u64 = 1 << 63;

/// The brain of one node.
///
/// # Contract
/// - `now` never runs back between calls.
/// - After every `handle` and `handle_timeout`, the caller drains [`poll_effect`](Self::poll_effect) until it gives
///   none, carries the effects out, and looks at [`poll_timeout`](Self::poll_timeout).
/// - Every submitted piece of work is answered exactly once, within its patience, unless it is abandoned.
/// - A command is attempted under one id. Once an attempt may have been carried out, the answer is never "not done",
///   unless the shard itself says what became of the id.
/// - Callers' work keys are below 2^63.
#[derive(Clone, Debug)]
pub struct Engine {
    router: Router,
    agents: Agents,
    inboxes: Inboxes,
    topics: Topics,
    effects: VecDeque<Effect>,
    next_key: u64,
}

impl Engine {
    /// An engine that knows nobody yet. `local` is this node, of this site.
    pub fn new(local: NodeId, site: SiteName, config: EngineConfig) -> Self {
        let (router, agents) = (Router::new(local, config), Agents::new(local, config));
        let (inboxes, topics) = (Inboxes::new(site, config), Topics::new(local));
        Self { router, agents, inboxes, topics, effects: VecDeque::new(), next_key: OWN }
    }

    /// The same, where these peers are marked as voters. It believes them, and of all others those who are known to vote in a
    /// shard; an engine for which nobody is marked believes its own replicas.
    #[must_use]
    pub fn believing(mut self, marked: BTreeSet<NodeId>) -> Self {
        self.router.mark(marked);
        self
    }

    /// Takes note of something that happened.
    pub fn handle(&mut self, event: Event, now_ms: u64) {
        match event {
            Event::Agent(AgentEvent::Settled { key, settled }) => self.on_own_settled(key, settled, now_ms),
            Event::Agent(event) => self.agents.handle(event, now_ms),
            Event::Inbox(event) => self.inboxes.handle(event, now_ms),
            Event::Topic(TopicEvent::Received(envelope))
                if self.agents.serves(&envelope.publication.source, now_ms) =>
            {
                self.topics.refuse(envelope.sender, envelope.publication.source);
            }
            Event::Topic(event) => self.topics.handle(event, now_ms),
            Event::Leads { shard, .. } => {
                let before = self.router.leader(shard);
                self.router.handle(event, now_ms);
                if self.router.leader(shard) != before {
                    // Its answer shows that it leads, and only then its word about their claims counts.
                    self.agents.speak_up(shard, now_ms);
                }
            }
            event @ (Event::Submit { .. }
            | Event::Abandon { .. }
            | Event::Outcome { .. }
            | Event::Leader { .. }
            | Event::NotMember { .. }
            | Event::Peers { .. }) => self.router.handle(event, now_ms),
        }
        self.pump(now_ms);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        self.router.handle_timeout(now_ms);
        self.agents.handle_timeout(now_ms);
        self.inboxes.handle_timeout(now_ms);
        self.pump(now_ms);
    }

    /// The next thing to do; none when everything is done.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), in the milliseconds of `now`.
    pub fn poll_timeout(&self) -> Option<u64> {
        let inboxes = self.inboxes.poll_timeout();
        [self.router.poll_timeout(), self.agents.poll_timeout(), inboxes].into_iter().flatten().min()
    }

    /// What the node can reach of a shard.
    pub fn connectivity(&self, shard: ShardId) -> Connectivity {
        self.router.connectivity(shard)
    }

    /// The shards of which this node is a member, or has heard who leads them or votes.
    pub fn shards_heard_of(&self) -> Vec<ShardId> {
        self.router.shards_heard_of()
    }

    /// Whether urgent commands are taken for this node's agents, and begun, however full the disk of their journals is.
    pub fn takes_urgent_commands(&self) -> bool {
        self.inboxes.takes_urgent()
    }

    fn own_key(&mut self) -> WorkKey {
        self.next_key += 1;
        WorkKey(self.next_key)
    }

    /// Carries what one machine wants to the other, until both are still.
    fn pump(&mut self, now_ms: u64) {
        loop {
            if let Some(effect) = self.topics.poll_effect() {
                self.effects.push_back(Effect::Topic(effect));
            } else if let Some(want) = self.agents.poll_want() {
                self.on_want(want, now_ms);
            } else if let Some(want) = self.inboxes.poll_want() {
                self.on_inbox_want(want, now_ms);
            } else if let Some(effect) = self.router.poll_effect() {
                match effect {
                    Effect::Answer { key, settled } if key.0 & OWN != 0 => self.on_own_settled(key, settled, now_ms),
                    effect @ (Effect::Attempt { .. }
                    | Effect::Answer { .. }
                    | Effect::Request { .. }
                    | Effect::Tell { .. }
                    | Effect::Noted { .. }
                    | Effect::Topic(_)
                    | Effect::Journal(_)
                    | Effect::Knows { .. }
                    | Effect::Connectivity { .. }) => self.effects.push_back(effect),
                }
            } else {
                return;
            }
        }
    }

    fn on_want(&mut self, want: Want, now_ms: u64) {
        match want {
            Want::Heartbeat { shard, heartbeat, patience_ms } => {
                let key = self.own_key();
                self.agents.heartbeat_sent(shard, key);
                let work = Work::Heartbeat(heartbeat);
                self.router.handle(Event::Submit { key, shard, work, patience_ms }, now_ms);
            }
            Want::Request { stream, shard, op, patience_ms } => {
                let key = self.own_key();
                self.agents.request_sent(stream, key);
                // It is not asked for again if it was of an era that is over.
                self.effects.push_back(Effect::Request { key, shard, op, clock: None, patience_ms });
            }
            Want::Tell { stream, message } => self.effects.push_back(Effect::Tell { stream, message }),
            Want::Noted { key, noted } => self.effects.push_back(Effect::Noted { key, noted }),
            Want::Takes(taker) => self.inboxes.handle(inbox::InboxEvent::Takes(taker), now_ms),
            Want::Renewed { stream, lease } => {
                self.inboxes.handle(inbox::InboxEvent::Renewed { stream, lease }, now_ms);
            }
            Want::Gone { stream } => self.inboxes.handle(inbox::InboxEvent::Gone { stream }, now_ms),
        }
    }

    fn on_inbox_want(&mut self, want: inbox::Want, now_ms: u64) {
        match want {
            inbox::Want::Pull { shard, pull, patience_ms } => {
                let key = self.own_key();
                self.inboxes.pull_sent(shard, key);
                self.router.handle(Event::Submit { key, shard, work: Work::Pull(pull), patience_ms }, now_ms);
            }
            inbox::Want::Abandon { key } => self.router.handle(Event::Abandon { key }, now_ms),
            inbox::Want::Request { of, shard, op, patience_ms } => {
                let key = self.own_key();
                self.inboxes.request_sent(of, key);
                let clock = self.inboxes.clock(shard, now_ms);
                self.effects.push_back(Effect::Request { key, shard, op, clock, patience_ms });
            }
            inbox::Want::Tell { stream, command, told } => {
                self.effects.push_back(Effect::Tell { stream, message: ToAgent::Command { command, told } });
            }
            inbox::Want::Journal(effect) => self.effects.push_back(Effect::Journal(effect)),
        }
    }

    /// Something of the engine's own ended.
    fn on_own_settled(&mut self, key: WorkKey, settled: Settled, now_ms: u64) {
        if let Some(settled) = self.inboxes.settled(key, settled, now_ms) {
            self.agents.settled(key, settled, now_ms);
        }
    }
}

#[cfg(test)]
mod tests;
