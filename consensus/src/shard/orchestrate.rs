//! Drives the orchestrator while this node leads the shard.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use skep_fleet::{HeartbeatKey, Orchestrator, OrchestratorConfig, OrchestratorEffect, OrchestratorEvent};
use skep_protocol::entry::{Decision, EntryBody};
use skep_protocol::heartbeat::{ClaimsUpdate, Heartbeat, HeartbeatFailure, HeartbeatReply};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::leader::LeaderHint;
use skep_protocol::limits;
use tokio::sync::{mpsc, oneshot, watch};

use super::propose::ENTRY_PATIENCE;
use super::{Shard, ShardView, announce};

/// The longest wait for something to happen, in milliseconds.
const QUIET_MS: u64 = 3_600_000;

/// What agents of this node hold, from the orchestrator of a shard.
#[derive(Debug)]
pub struct LocalUpdate {
    /// The shard of the orchestrator.
    pub shard: ShardId,
    /// What the agents hold.
    pub update: ClaimsUpdate,
    /// Takes whether the agents were told; otherwise the orchestrator tells them again later.
    pub noted: oneshot::Sender<bool>,
}

/// What the leader of a shard says to this node.
#[derive(Debug)]
pub enum FromLeader {
    /// The leader says what agents of this node hold.
    Claims(LocalUpdate),
    /// A node says that it leads. It has not yet shown that it does.
    Leads {
        /// The shard that the node says it leads.
        shard: ShardId,
        /// The node that says so.
        by: NodeId,
        /// The hint that the node gives.
        hint: LeaderHint,
    },
}

/// A heartbeat, and where its answer goes.
struct Said {
    node: NodeId,
    heartbeat: Heartbeat,
    answer: oneshot::Sender<HeartbeatReply>,
}

/// Where nodes' heartbeats are handed in while this node leads.
#[derive(Default)]
pub(super) struct HeartbeatDesk(Mutex<Option<mpsc::Sender<Said>>>);

impl HeartbeatDesk {
    fn open(&self) -> mpsc::Receiver<Said> {
        let (sender, queue) = mpsc::channel(limits::HEARTBEATS_QUEUED_MAX);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        queue
    }

    fn sender(&self) -> Option<mpsc::Sender<Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shard {
    /// Hands a heartbeat to the orchestrator, and waits for its answer.
    pub(crate) async fn heartbeat(
        &self,
        node: NodeId,
        heartbeat: Heartbeat,
    ) -> Result<HeartbeatReply, HeartbeatFailure> {
        let elsewhere = || HeartbeatFailure::NotLeader(self.elsewhere());
        if !self.inner.view.borrow().ready {
            return Err(elsewhere());
        }
        let sender = self.inner.desk.sender().ok_or_else(elsewhere)?;
        let (answer, answered) = oneshot::channel();
        sender.try_send(Said { node, heartbeat, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => HeartbeatFailure::Overloaded,
            mpsc::error::TrySendError::Closed(_) => elsewhere(),
        })?;
        let reply = answered.await.map_err(|_| elsewhere())?;
        Ok(HeartbeatReply { lead: self.hint(), ..reply })
    }

    /// Whether a quorum confirms that this node leads a term, and everything that it wrote before this call is applied.
    pub(super) async fn confirm_lead(&self, term: u64) -> bool {
        let round = async {
            // Another thread may have stamped an entry that the core does not have yet.
            drop(self.inner.stamping.lock().await);
            // The core answers this after every write that it was given before.
            let last = self.raft().with_raft_state(|state| state.log_ids.last().map(|id| id.index)).await;
            let Ok(last) = last else { return false };
            if !self.confirm_quorum(term).await {
                return false;
            }
            let mut applied = self.inner.applied.clone();
            applied.wait_for(|next| last.is_none_or(|last| *next > last)).await.is_ok()
        };
        // Entries take as long as disks do.
        self.while_leading(ENTRY_PATIENCE, round).await.unwrap_or(false)
    }

    /// How much of what its agents hold a node can be told at once.
    fn carries(&self, node: NodeId) -> OrchestratorEvent {
        OrchestratorEvent::Carries { node, bytes: self.inner.parts.peers.answer_bytes(node) }
    }
}

/// What the driver of an orchestrator waited for.
enum Step {
    Event(OrchestratorEvent),
    Said(Said),
    Time,
    Over,
}

struct OrchestratorDriver {
    shard: Shard,
    term: u64,
    orchestrator: Orchestrator,
    heartbeats: mpsc::Receiver<Said>,
    applied: watch::Receiver<u64>,
    view: watch::Receiver<ShardView>,
    in_flight: FuturesUnordered<BoxFuture<'static, OrchestratorEvent>>,
    answers: BTreeMap<HeartbeatKey, oneshot::Sender<HeartbeatReply>>,
    next_key: u64,
}

/// Drives the orchestrator of a term until the term ends.
pub(super) async fn run(shard: Shard, term: u64) {
    let config = OrchestratorConfig { policy: policy(shard.inner.parts.config.policy) };
    let applied = shard.inner.applied.clone();
    // Read before the clock: then nothing in the state is of a later time.
    let state = shard.inner.state.now();
    let Some(now) = shard.inner.clock.to_send() else { return };
    let orchestrator = Orchestrator::new(config, &state, now);
    drop(state);
    let mut driver = OrchestratorDriver {
        heartbeats: shard.inner.desk.open(),
        applied,
        view: shard.view(),
        shard,
        term,
        orchestrator,
        in_flight: FuturesUnordered::new(),
        answers: BTreeMap::new(),
        next_key: 1,
    };
    driver.shard.inner.parts.threads.work().spawn(announce::run(driver.shard.clone(), term));
    driver.carry_out();
    loop {
        let step = driver.select().await;
        if !driver.apply(step) {
            return;
        }
        driver.carry_out();
    }
}

fn policy(policy: skep_config::Policy) -> skep_fleet::Policy {
    match policy {
        skep_config::Policy::RoundRobin => skep_fleet::Policy::RoundRobin,
        skep_config::Policy::Nearest => skep_fleet::Policy::Nearest,
    }
}

impl OrchestratorDriver {
    async fn select(&mut self) -> Step {
        let state = self.shard.inner.state.now();
        let Some(now) = self.shard.inner.clock.to_send() else { return Step::Over };
        let next = self.orchestrator.poll_timeout(&state, now);
        drop(state);
        let wait = next.map_or(QUIET_MS, |next| next.since_ms(now)).clamp(1, QUIET_MS);
        tokio::select! {
            // In order, and not at random: each simulated run takes the same way. No branch here is always ready.
            biased;
            Some(event) = self.in_flight.next() => Step::Event(event),
            Some(said) = self.heartbeats.recv(), if self.answers.len() < limits::HEARTBEATS_QUEUED_MAX => Step::Said(said),
            changed = self.applied.changed() => match changed {
                Ok(()) => Step::Event(OrchestratorEvent::Applied),
                Err(_) => Step::Over,
            },
            changed = self.view.changed() => match changed {
                Ok(()) if self.view.borrow_and_update().term == self.term => Step::Time,
                Ok(()) | Err(_) => Step::Over,
            },
            () = tokio::time::sleep(Duration::from_millis(wait)) => Step::Time,
        }
    }

    /// Applies a step; returns whether the term goes on.
    fn apply(&mut self, step: Step) -> bool {
        // Read before the clock: then nothing in the state is of a later time. Applying waits for nothing that is
        // decided here.
        let state = self.shard.inner.state.now();
        let Some(now) = self.shard.inner.clock.to_send() else { return false };
        match step {
            Step::Over => return false,
            Step::Time => self.orchestrator.handle_timeout(&state, now),
            Step::Event(event) => self.orchestrator.handle(event, &state, now),
            Step::Said(said) => {
                let key = HeartbeatKey(self.next_key);
                self.next_key += 1;
                self.answers.insert(key, said.answer);
                self.orchestrator.handle(self.shard.carries(said.node), &state, now);
                let event = OrchestratorEvent::Heartbeat { key, node: said.node, heartbeat: said.heartbeat };
                self.orchestrator.handle(event, &state, now);
            }
        }
        true
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.orchestrator.poll_effect() {
            let (shard, term) = (self.shard.clone(), self.term);
            match effect {
                OrchestratorEffect::Propose(mut decisions) => self.in_flight.push(Box::pin(async move {
                    if shard.inner.parts.store.is_low() {
                        // Decisions that end work go on; no agent gets more work.
                        decisions.retain(|decision| !matches!(decision, Decision::AssignTask { .. }));
                    }
                    if decisions.is_empty() {
                        return OrchestratorEvent::ProposalEnded { applied: false };
                    }
                    let applied = shard.write_as(term, EntryBody::Decisions(decisions)).await.is_some();
                    OrchestratorEvent::ProposalEnded { applied }
                })),
                OrchestratorEffect::BeginRound => self.in_flight.push(Box::pin(async move {
                    OrchestratorEvent::RoundEnded { confirmed: shard.confirm_lead(term).await }
                })),
                OrchestratorEffect::Update { node, update } => self.in_flight.push(Box::pin(async move {
                    let arrived = shard.inner.parts.tell_claims(node, shard.id(), update).await;
                    OrchestratorEvent::UpdateEnded { node, arrived }
                })),
                OrchestratorEffect::Answer { key, reply } => {
                    // The node that asked may be gone.
                    let _ = self.answers.remove(&key).map(|answer| answer.send(reply));
                }
            }
        }
    }
}
