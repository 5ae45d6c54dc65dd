//! The engine: its machines, and how work passes between them.

use std::collections::{BTreeSet, VecDeque};

use skep_config::EngineConfig;
use skep_protocol::attach::{AgentSaid, AgentTold};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::settled::Settled;
use skep_protocol::text::SiteName;
use skep_protocol::time::LogInstant;

use crate::agents::{Agents, AgentsWant};
use crate::ask::{Ask, Asked};
use crate::connectivity::Connectivity;
use crate::event::{AgentEvent, Effect, Event, Work};
use crate::inbox::{self, Inboxes};
use crate::key::WorkKey;
use crate::own::{Own, Purpose};
use crate::router::Router;
use crate::topics::{TopicEvent, Topics};

/// The machine that decides what one node does.
///
/// # Contract
/// - `now` never runs back between calls.
/// - After every `handle` and `handle_timeout`, the caller drains [`poll_effect`](Self::poll_effect) until it gives
///   none, carries the effects out, and looks at [`poll_timeout`](Self::poll_timeout).
/// - The engine answers every submitted piece of work exactly once, within its patience, unless the caller abandons the
///   work.
/// - The engine attempts a request under one id. Once a node may have carried out an attempt, the answer is never "not
///   done", unless the shard itself says what became of the id.
/// - The work keys of callers are below 2^63.
#[derive(Clone, Debug)]
pub struct Engine {
    router: Router,
    agents: Agents,
    inboxes: Inboxes,
    topics: Topics,
    /// The machines' own work that is under way.
    own: Own,
    effects: VecDeque<Effect>,
}

impl Engine {
    /// An engine that knows no leader and no voter yet. `local` is this node, of this site.
    pub fn new(local: NodeId, site: SiteName, config: EngineConfig) -> Self {
        let (router, agents) = (Router::new(local, config), Agents::new(local, config));
        let (inboxes, topics) = (Inboxes::new(site, config), Topics::new(local));
        Self { router, agents, inboxes, topics, own: Own::new(), effects: VecDeque::new() }
    }

    /// The same engine, where these peers are marked as voters. The engine believes these peers, and of the other nodes
    /// those that are known to vote in a shard. Without any mark, the engine believes its own replicas.
    #[must_use]
    pub fn believing(mut self, marked: BTreeSet<NodeId>) -> Self {
        self.believe(marked);
        self
    }

    /// From here on these peers are marked as voters, and no others: at a site certificates say who may vote.
    pub fn believe(&mut self, marked: BTreeSet<NodeId>) {
        self.router.mark(marked);
    }

    /// Takes in an event.
    pub fn handle(&mut self, event: Event, now_ms: u64) {
        match event {
            Event::Settled { key, settled } => self.on_settled(key, settled, now_ms),
            Event::Agent(AgentEvent::Said { stream, said: AgentSaid::Command(command, said) }) => {
                self.inboxes.handle(inbox::InboxEvent::Said { stream, command, said }, now_ms);
            }
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
                    // The answer shows that this node leads. Only then does its word about the agents' claims count.
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

    /// Does what is due by `now_ms`.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        self.router.handle_timeout(now_ms);
        self.agents.handle_timeout(now_ms);
        self.inboxes.handle_timeout(now_ms);
        self.pump(now_ms);
    }

    /// The next effect to carry out; none when all are drained.
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

    /// The shards of which this node is a member, or of which it has heard the leader or the voters.
    pub fn shards_heard_of(&self) -> Vec<ShardId> {
        self.router.shards_heard_of()
    }

    /// Whether the node takes and begins urgent commands for its agents. It does until they have used the bytes that
    /// are set aside.
    pub fn takes_urgent_commands(&self) -> bool {
        self.inboxes.takes_urgent()
    }

    /// For how many of its agents the node saw a statement about an operator that their journals have no place for.
    pub fn agents_lacking_statements(&self) -> usize {
        self.inboxes.lacking_statements()
    }

    /// Carries what one machine wants to the other machines, until all of them are still.
    fn pump(&mut self, now_ms: u64) {
        loop {
            if let Some(effect) = self.topics.poll_effect() {
                self.effects.push_back(Effect::Topic(effect));
            } else if let Some(want) = self.agents.poll_want() {
                self.on_want(want, now_ms);
            } else if let Some(want) = self.inboxes.poll_want() {
                self.on_inbox_want(want, now_ms);
            } else if let Some(effect) = self.router.poll_effect() {
                self.on_routed(effect, now_ms);
            } else {
                return;
            }
        }
    }

    fn on_want(&mut self, want: AgentsWant, now_ms: u64) {
        match want {
            // The engine does not repeat a request of an era that is over.
            AgentsWant::Ask(ask) => self.ask(ask.among(Purpose::Agents), None, now_ms),
            AgentsWant::Tell { stream, message } => self.effects.push_back(Effect::Tell { stream, message }),
            AgentsWant::Noted { key, noted } => self.effects.push_back(Effect::Noted { key, noted }),
            AgentsWant::Takes(taker) => self.inboxes.handle(inbox::InboxEvent::Takes(taker), now_ms),
            AgentsWant::Renewed { stream, lease } => {
                self.inboxes.handle(inbox::InboxEvent::Renewed { stream, lease }, now_ms);
            }
            AgentsWant::Gone { stream } => self.inboxes.handle(inbox::InboxEvent::Gone { stream }, now_ms),
        }
    }

    fn on_inbox_want(&mut self, want: inbox::InboxWant, now_ms: u64) {
        match want {
            inbox::InboxWant::Ask(ask) => {
                let clock = self.inboxes.clock(ask.shard, now_ms);
                self.ask(ask.among(Purpose::Inboxes), clock, now_ms);
            }
            inbox::InboxWant::Abandon(purpose) => {
                if let Some(key) = self.own.abandon(&Purpose::Inboxes(purpose)) {
                    self.router.handle(Event::Abandon { key }, now_ms);
                }
            }
            inbox::InboxWant::Tell { stream, command, told } => {
                self.effects.push_back(Effect::Tell { stream, message: AgentTold::Command(command, told) });
            }
            inbox::InboxWant::Journal(effect) => self.effects.push_back(Effect::Journal(effect)),
        }
    }

    /// Begins a piece of the engine's own work. `clock` is the shard's clock, if the engine heard it a moment ago.
    fn ask(&mut self, ask: Ask<Purpose>, clock: Option<LogInstant>, now_ms: u64) {
        let Ask { purpose, shard, work, patience_ms } = ask;
        let key = self.own.begin(purpose);
        let work = match work {
            Asked::Heartbeat(heartbeat) => Work::Heartbeat(heartbeat),
            Asked::Pull(pull) => Work::Pull(pull),
            Asked::Op(op) => return self.effects.push_back(Effect::Request { key, shard, op, clock, patience_ms }),
        };
        self.router.handle(Event::Submit { key, shard, work, patience_ms }, now_ms);
    }

    /// Hands out what the router wants, except answers to the engine's own work.
    fn on_routed(&mut self, effect: Effect, now_ms: u64) {
        match effect {
            Effect::Answer { key, settled } => match self.own.end(key) {
                Some(purpose) => self.answered(purpose, settled, now_ms),
                None => self.effects.push_back(Effect::Answer { key, settled }),
            },
            effect @ (Effect::Attempt { .. }
            | Effect::Request { .. }
            | Effect::Tell { .. }
            | Effect::Noted { .. }
            | Effect::Topic(_)
            | Effect::Journal(_)
            | Effect::Knows { .. }
            | Effect::Connectivity { .. }) => self.effects.push_back(effect),
        }
    }

    /// A request of the engine's own ended.
    fn on_settled(&mut self, key: WorkKey, settled: Settled, now_ms: u64) {
        if let Some(purpose) = self.own.end(key) {
            self.answered(purpose, settled, now_ms);
        }
    }

    /// Tells the machine that asked how its work ended.
    fn answered(&mut self, purpose: Purpose, settled: Settled, now_ms: u64) {
        match purpose {
            Purpose::Agents(purpose) => self.agents.answered(purpose, settled, now_ms),
            Purpose::Inboxes(purpose) => self.inboxes.answered(purpose, settled, now_ms),
        }
    }
}

#[cfg(test)]
mod tests;
