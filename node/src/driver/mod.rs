//! The one place where consensus, engine, mesh and API meet.
//!
//! The driver waits for something to happen, tells the engine, and carries out what the engine wants. It decides
//! nothing. Each side has a port that owns its channels, and turns what happened there into events. Attempts for one
//! target that arise together travel together.

mod agents;
mod attempts;
mod calls;
mod clock;
mod journals;
mod local;
mod shards;
mod site;
mod topics;
mod views;

use std::time::Duration;

use skep_admission::SiteHandle;
use skep_api::{Call, CallQueue, Calls};
use skep_config::Config;
use skep_consensus::{ConsensusHandle, FromLeader, ShardView};
use skep_engine::{Effect, Engine, Event, InboxEvent, TopicEvent, WorkKey};
use skep_mesh::MeshHandle;
use skep_protocol::ids::ShardId;
use skep_protocol::journal::JournalReport;
use skep_protocol::settled::Settled;
use skep_protocol::telemetry::{Envelope, Publication};
use skep_store::Journals;
use tokio::sync::{mpsc, oneshot, watch};

use agents::AgentsPort;
use attempts::{AttemptsPort, Ended};
use calls::CallsPort;
pub(crate) use clock::now_ms;
use journals::JournalsPort;
use local::LocalPort;
use shards::ShardsPort;
use topics::TopicsPort;

/// How many steps the driver takes before it carries out their effects.
const STEPS_PER_TURN: usize = 512;

/// What the driver waited for.
enum Step {
    Call(Box<Call>),
    Ended(Ended),
    View(ShardId, ShardView),
    FromLeader(FromLeader),
    Settled(WorkKey, Settled),
    Journal(Box<JournalReport>),
    Pressure,
    Received(Box<Envelope>),
    Published(Box<Publication>),
    Peers,
    Time,
    Stop,
}

/// The engine, and a port to each side of it.
pub(crate) struct Driver {
    engine: Engine,
    shards: ShardsPort,
    attempts: AttemptsPort,
    calls: CallsPort,
    local: LocalPort,
    agents: AgentsPort,
    topics: TopicsPort,
    journals: JournalsPort,
}

impl Driver {
    /// A driver for these parts. Also gives whether the node can serve: whether a shard of work has a leader. `site`:
    /// what is known of the site, if certificates say who is believed, and no list.
    pub(crate) fn new(
        (config, site): (Config, Option<SiteHandle>),
        (consensus, said): (ConsensusHandle, mpsc::Receiver<FromLeader>),
        (mesh, received): (MeshHandle, mpsc::Receiver<Envelope>),
        calls: (Calls, CallQueue),
        journals: (Journals, mpsc::Receiver<JournalReport>),
    ) -> (Self, watch::Receiver<bool>) {
        let engine = Engine::new(consensus.node(), config.node.site.clone(), config.engine);
        let (shards, readiness) = ShardsPort::follow(consensus.clone(), said);
        let (calls, publications) = CallsPort::new(consensus.clone(), calls);
        let driver = Self {
            // At a site these are told with the peers that the node meets.
            engine: if site.is_some() { engine } else { engine.believing(config.control.marked_voters()) },
            shards,
            attempts: AttemptsPort::new(consensus.clone()),
            calls,
            local: LocalPort::new(consensus, mesh.clone(), config.node, site),
            agents: AgentsPort::default(),
            topics: TopicsPort::new((mesh, received), publications),
            journals: JournalsPort::new(journals),
        };
        (driver, readiness)
    }

    /// Serves until the node stops. The driver drops calls that still wait: their callers hear "unknown".
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        self.apply(Step::Peers);
        self.apply(Step::Pressure);
        self.carry_out();
        loop {
            match self.select(&mut stop).await {
                Step::Stop => return,
                step => self.apply(step),
            }
            // The driver takes all further steps before it carries any out, so that they travel together.
            for _ in 0..STEPS_PER_TURN {
                let Some(step) = self.at_hand() else { break };
                self.apply(step);
            }
            // Under a steady flow of calls the timer's own turn may never come.
            if self.wait().is_zero() {
                self.apply(Step::Time);
            }
            self.carry_out();
        }
    }

    /// How long it is until something is due.
    fn wait(&self) -> Duration {
        let sweep = self.calls.sweep_in();
        let timeout = self.engine.poll_timeout().map(|at| Duration::from_millis(at.saturating_sub(now_ms())));
        timeout.map_or(sweep, |timeout| timeout.min(sweep))
    }

    async fn select(&mut self, stop: &mut oneshot::Receiver<()>) -> Step {
        let wait = self.wait();
        tokio::select! {
            biased;
            _ = stop => Step::Stop,
            Some((shard, view)) = self.shards.views.recv() => Step::View(shard, view),
            Ok(()) = self.shards.peers.changed() => Step::Peers,
            Ok(()) = self.journals.pressure.changed() => Step::Pressure,
            Some(ended) = self.attempts.ended_in.recv() => Step::Ended(ended),
            Some(said) = self.shards.said.recv() => Step::FromLeader(said),
            Some((key, settled)) = self.calls.settled_in.recv() => Step::Settled(key, settled),
            Some(report) = self.journals.reports.recv() => Step::Journal(Box::new(report)),
            call = self.calls.queue.recv() => call.map_or(Step::Stop, |call| Step::Call(Box::new(call))),
            // The lowest class comes last.
            Some(envelope) = self.topics.received.recv() => Step::Received(Box::new(envelope)),
            Some(publication) = self.topics.publications.recv() => Step::Published(Box::new(publication)),
            () = tokio::time::sleep(wait) => Step::Time,
        }
    }

    /// The next step that has happened already and may travel together with others, if there is one.
    fn at_hand(&mut self) -> Option<Step> {
        if let Ok(said) = self.shards.said.try_recv() {
            Some(Step::FromLeader(said))
        } else if let Ok((key, settled)) = self.calls.settled_in.try_recv() {
            Some(Step::Settled(key, settled))
        } else if let Ok(report) = self.journals.reports.try_recv() {
            Some(Step::Journal(Box::new(report)))
        } else if let Ok(call) = self.calls.queue.try_recv() {
            Some(Step::Call(Box::new(call)))
        } else {
            self.attempts.ended_in.try_recv().ok().map(Step::Ended)
        }
    }

    fn apply(&mut self, step: Step) {
        let event = match step {
            Step::Call(call) => self.on_call(*call),
            Step::Ended(ended) => {
                let outcome = |(key, attempt, outcome)| Event::Outcome { key, attempt, outcome };
                return self.hear(ended.into_iter().map(outcome));
            }
            Step::View(shard, view) => Some(self.shards.viewed(shard, view)),
            Step::FromLeader(said) => Some(self.shards.heard(said)),
            Step::Settled(key, settled) => Some(Event::Settled { key, settled }),
            Step::Journal(report) => Some(Event::Inbox(InboxEvent::Journal(*report))),
            Step::Pressure => Some(self.journals.pressed()),
            Step::Received(envelope) => Some(Event::Topic(TopicEvent::Received(*envelope))),
            Step::Published(publication) => Some(Event::Topic(TopicEvent::Published(*publication))),
            Step::Peers => {
                if let Some(voters) = self.shards.certified_voters() {
                    self.engine.believe(voters);
                }
                Some(self.shards.connected())
            }
            Step::Time => {
                self.engine.handle_timeout(now_ms());
                let gone = self.calls.sweep();
                return self.hear(gone);
            }
            Step::Stop => None,
        };
        self.hear(event);
    }

    /// Hands a call to its port. Gives the event for the engine.
    fn on_call(&mut self, call: Call) -> Option<Event> {
        match call {
            Call::Submit { shard, request, patience_ms, answer } => {
                return Some(self.calls.submitted(shard, *request, patience_ms, answer));
            }
            Call::Query { shard, query, stale: false, patience_ms, answer } => {
                return Some(self.calls.asked(shard, query, patience_ms, answer));
            }
            Call::Clock { shard, answer } => return self.calls.asked_for_clock(shard, answer),
            Call::AgentOpened { stream, wish, told } => return Some(self.agents.opened(stream, *wish, told)),
            Call::AgentSaid { stream, said } => return Some(self.agents.said(stream, said)),
            Call::Subscribe { subscriber, topics, values } => {
                return Some(self.topics.subscribed(subscriber, topics, values));
            }
            Call::Unsubscribe { subscriber } => return Some(self.topics.unsubscribed(subscriber)),
            Call::Query { shard, query, stale: true, answer, .. } => self.local.read(shard, query, answer),
            Call::Changes { shard, from, answer } => self.local.changes(shard, from, answer),
            Call::ShardStatus { shard, answer } => {
                let _ = answer.send(self.local.shard(shard, self.engine.connectivity(shard)));
            }
            Call::Members { shard, change, answer } => self.local.members(shard, change, answer),
            Call::Admit { request, answer } => self.local.admit(request, answer),
            Call::NodeStatus { answer } => {
                let _ = answer.send(self.local.node(self.journals.standing(&self.engine)));
            }
        }
        None
    }

    /// Tells the engine what happened.
    fn hear(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            self.engine.handle(event, now_ms());
        }
    }

    /// Carries out what the engine wants.
    fn carry_out(&mut self) {
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Attempt { key, attempt, shard, target, work } => {
                    self.attempts.begin((key, attempt), shard, target, work);
                }
                Effect::Topic(effect) => self.topics.carry_out(effect),
                Effect::Journal(job) => self.journals.carry_out(job),
                Effect::Noted { key, noted } => self.shards.noted(key, noted),
                Effect::Knows { shard, hint } => self.shards.learned(shard, hint),
                Effect::Connectivity { shard, state } => self.shards.reaches(shard, state),
                Effect::Request { key, shard, op, clock, patience_ms } => {
                    let event = self.calls.request(key, shard, op, clock, patience_ms);
                    self.hear(event);
                }
                Effect::Answer { key, settled } => {
                    let event = self.calls.answer(key, settled, &self.engine);
                    self.hear(event);
                }
                Effect::Tell { stream, message } => {
                    let event = self.agents.tell(stream, message);
                    self.hear(event);
                }
            }
        }
        self.attempts.propose();
    }
}
