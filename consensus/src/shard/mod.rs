//! One shard on this node: its Raft group, and what runs beside it.

mod admit;
mod announce;
mod arrival;
mod arrive;
mod beat;
mod compact;
mod condition;
mod confirm;
mod continuity;
mod dispatch;
mod elect;
mod heir;
mod lead;
mod members;
mod membership_error;
mod orchestrate;
mod propose;
mod proven;
mod pull;
mod query;
mod relief;
mod settle;
mod status;
mod versions;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use skep_config::ControlConfig;
use skep_fleet::{DetectorConfig, ElectionDetector, LeaderPulse, PulseConfig};
use skep_protocol::ballot::BallotKey;
use skep_protocol::fleet::Build;
use skep_protocol::heartbeat::ClaimsUpdate;
use skep_protocol::ids::{Incarnation, NodeId, RaftId, ShardId};
use skep_protocol::limits;
use skep_protocol::outcome::ProposeOutcome;
use skep_protocol::recovery::Lineage;
use skep_protocol::signing::Verdicts;
use skep_protocol::text::AgentId;
use skep_store::Store;
use skep_trust::SecretKey;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::{Clocks, ShardClock};
use crate::command_ends::Ends;
use crate::net::{Noise, Peers, Sending, SnapshotSender};
use crate::pulls::Pulls;
use crate::raft::Raft;
use crate::raft::acked::Acked;
use crate::raft::agree::bring_to_agree;
use crate::raft::checked::Checked;
use crate::raft::elections::Elections;
use crate::raft::fitness::Fitness;
use crate::raft::kept::Replay;
use crate::raft::log_store::{FlushTime, LogStore};
use crate::raft::machine::{Machine, SharedState};
use crate::raft::network::Network;
use crate::raft::types::TypeConfig;
use crate::random::Chance;
use crate::threads::{Errand, Threads};

pub(crate) use admit::is_possible_term;
pub(crate) use continuity::ClockSaid;
pub use membership_error::MembershipError;
pub use orchestrate::{FromLeader, LocalUpdate};
pub(crate) use propose::{ENTRY_PATIENCE, Submission};
pub use status::{ShardRole, ShardStatus, VoterStanding, VoterStatus};

/// What all shards of a node share.
#[derive(Clone)]
pub(crate) struct NodeParts {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    /// The node's key, for its votes.
    pub(crate) key: Arc<BallotKey>,
    /// The same key, for what it seals in its site.
    pub(crate) seals: Arc<SecretKey>,
    /// What can be applied here.
    pub(crate) build: Build,
    pub(crate) config: Arc<ControlConfig>,
    pub(crate) store: Store,
    pub(crate) threads: Threads,
    pub(crate) peers: Peers,
    pub(crate) clocks: Clocks,
    pub(crate) chance: Chance,
    /// What leaders say to this node, on the way to its driver.
    pub(crate) updates: mpsc::Sender<FromLeader>,
}

impl NodeParts {
    pub(crate) fn raft_id(&self) -> RaftId {
        RaftId::derive(self.node, self.incarnation)
    }

    /// Hands what agents of this node hold to its driver; whether they were told.
    pub(crate) async fn note(&self, shard: ShardId, update: ClaimsUpdate) -> bool {
        let (noted, answer) = oneshot::channel();
        if self.updates.try_send(FromLeader::Claims(LocalUpdate { shard, update, noted })).is_err() {
            return false;
        }
        let patience = Duration::from_millis(self.config.rpc_timeout_ms / 2);
        matches!(tokio::time::timeout(patience, answer).await, Ok(Ok(true)))
    }
}

/// What the rest of the node follows of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardView {
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// Whether this node leads and has all that it needs to propose.
    pub ready: bool,
    /// Whether this node's present incarnation is a member of the group.
    pub member: bool,
}

/// One shard. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shard {
    inner: Arc<Inner>,
}

/// What voters sent that cannot be, as it is told in the log: of each kind a line a minute.
#[derive(Debug, Default)]
struct Refused {
    terms: Noise,
    proofs: Noise,
    entries: Noise,
    clocks: Noise,
}

struct Inner {
    id: ShardId,
    parts: NodeParts,
    raft: Raft,
    state: SharedState,
    applied: watch::Receiver<u64>,
    clock: ShardClock,
    detector: Mutex<ElectionDetector>,
    pulse: Mutex<LeaderPulse>,
    beats: beat::Beats,
    /// A follower acknowledged a leader that is not ready yet.
    acknowledged: tokio::sync::Notify,
    view: watch::Sender<ShardView>,
    submissions: mpsc::Sender<Submission>,
    queued: Arc<propose::Queued>,
    /// Held from when an entry is stamped until the core has it: whoever asks the core for the last entry then knows that
    /// none with an earlier stamp follows.
    stamping: tokio::sync::Mutex<()>,
    desk: orchestrate::HeartbeatDesk,
    stale_queries: tokio::sync::Semaphore,
    ends: Ends,
    pulls: Pulls,
    changing_members: tokio::sync::Mutex<()>,
    condition: condition::Condition,
    relief: relief::Relief,
    flush_time: FlushTime,
    /// What a start would apply again.
    replay: Replay,
    /// What has come of a snapshot of the leader.
    arrival: arrival::Arrival,
    /// What came of it once it is whole and sound.
    checked: Checked,
    /// What members acknowledged, while this node leads.
    acked: Acked,
    /// Who was elected, as it is shown.
    elections: Elections,
    /// Whether this node lacks what it acknowledged: it takes part no more.
    forgot: AtomicBool,
    /// Whether this build can apply what the shard has agreed on: if not, the node takes part no more.
    fitness: Fitness,
    noise: Refused,
    /// Since when leaders' clocks are ahead of what can be, and other voters contradict them; 0 while that is not so.
    contradicted_ms: AtomicU64,
    /// The signatures of operators that are known to hold.
    verdicts: Arc<Verdicts>,
}

impl Shard {
    /// Opens the shard's group from the store and starts what runs beside it. To be called on the control thread, where the
    /// group stays.
    ///
    /// # Errors
    /// The reason as text if the log or snapshot is damaged.
    pub(crate) async fn open(id: ShardId, parts: NodeParts) -> Result<Self, String> {
        let config = raft_config(&parts.config).validate().map_err(|e| e.to_string())?;
        agree(id, &parts).await?;
        let clock = parts.clocks.of(id);
        let machine = Machine::new(parts.store.clone(), id, clock.clone(), parts.threads.clone(), parts.build);
        let (state, applied) = (machine.state(), machine.progress());
        let (ends, pulls, sending, verdicts) = (machine.ends(), machine.pulls(), machine.sending(), machine.verdicts());
        let (replay, checked, fitness) = (machine.replay(), machine.checked(), machine.fitness());
        let (acked, elections) = (Acked::default(), Elections::new(id, parts.raft_id(), Arc::clone(&parts.key)));
        let forgot = AtomicBool::new(parts.store.marks().has_forgotten(id));
        let network = network(id, &parts, sending, (acked.clone(), elections.clone()));
        let log = LogStore::new(parts.store.clone(), id, parts.threads.clone());
        let flush_time = log.flush_time();
        let opening = Raft::new(parts.raft_id(), Arc::new(config), network, log, machine);
        #[cfg(test)]
        let opening = crate::raft::types::Runtime::scope(parts.chance.next(), opening);
        let raft = opening.await.map_err(|e| format!("shard {id} cannot be opened: {e}"))?;
        elections.follow(state.clone(), raft.metrics());
        let detector = ElectionDetector::new(detector_config(&parts.config), clock.boot_ms(), parts.chance.next());
        let (submissions, queue) = mpsc::channel(limits::PROPOSALS_QUEUED_MAX);
        let shard = Self {
            inner: Arc::new(Inner {
                id,
                raft,
                state,
                applied,
                detector: Mutex::new(detector),
                pulse: Mutex::new(LeaderPulse::new(pulse_config(&parts.config))),
                beats: beat::Beats::default(),
                acknowledged: tokio::sync::Notify::new(),
                condition: condition::Condition::new(clock.boot_ms()),
                clock,
                view: watch::channel(ShardView::default()).0,
                submissions,
                queued: Arc::default(),
                stamping: tokio::sync::Mutex::default(),
                desk: orchestrate::HeartbeatDesk::default(),
                stale_queries: tokio::sync::Semaphore::new(limits::STALE_QUERIES_MAX),
                ends,
                pulls,
                changing_members: tokio::sync::Mutex::default(),
                relief: relief::Relief::default(),
                flush_time,
                replay,
                arrival: arrival::Arrival::default(),
                checked,
                acked,
                elections,
                forgot,
                fitness,
                noise: Refused::default(),
                contradicted_ms: AtomicU64::new(0),
                verdicts,
                parts,
            }),
        };
        shard.resume_clock();
        shard.start(queue);
        Ok(shard)
    }

    /// Starts what runs beside the group.
    fn start(&self, queue: mpsc::Receiver<Submission>) {
        let (control, work) = (self.inner.parts.threads.control(), self.inner.parts.threads.work());
        work.spawn(propose::run(self.clone(), queue));
        control.spawn(lead::follow_leadership(self.clone()));
        control.spawn(elect::run(self.clone()));
        work.spawn(compact::run(self.clone()));
        work.spawn(condition::run(self.clone()));
        work.spawn(continuity::keep(self.clone()));
        work.spawn(relief::run(self.clone()));
    }

    pub(crate) fn id(&self) -> ShardId {
        self.inner.id
    }

    pub(crate) fn parts(&self) -> &NodeParts {
        &self.inner.parts
    }

    pub(crate) fn view(&self) -> watch::Receiver<ShardView> {
        self.inner.view.subscribe()
    }

    /// The node that serves an agent.
    pub(crate) fn serves(&self, agent: &AgentId) -> Option<NodeId> {
        self.inner.state.read().agent(agent).and_then(|record| record.attachment).map(|attachment| attachment.node)
    }

    /// How the shard came about, as far as this replica knows. What its first entry says of another number is not of this shard.
    pub(crate) fn lineage(&self) -> Option<Lineage> {
        self.inner.state.read().lineage().filter(|lineage| lineage.shard == self.id())
    }

    /// The same; of a replica that has not applied its first entry, what whoever made the shard says in the last membership of its
    /// log. That may not be committed: it is for others who ask what this node holds, and nothing is refused here for it.
    pub(crate) fn lineage_in_log(&self) -> Option<Lineage> {
        let by_charter = || {
            let place = self.charter().map(|charter| charter.place).filter(|place| self.is_here(place))?;
            Some(Lineage { shard: place.shard, genesis: place.genesis, past: Vec::new() })
        };
        self.lineage().or_else(by_charter)
    }

    pub(crate) fn clock(&self) -> &ShardClock {
        &self.inner.clock
    }

    fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    fn metrics(&self) -> openraft::RaftMetrics<TypeConfig> {
        self.raft().metrics().borrow_watched().clone()
    }

    /// The leader as the group's membership names it.
    fn leader(&self) -> Option<NodeId> {
        let metrics = self.metrics();
        let leader = metrics.current_leader?;
        metrics.membership_config.membership().get_node(&leader).map(|member| member.node)
    }

    fn detector(&self) -> MutexGuard<'_, ElectionDetector> {
        self.inner.detector.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pulse(&self) -> MutexGuard<'_, LeaderPulse> {
        self.inner.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node lacks what it acknowledged.
    fn has_forgotten(&self) -> bool {
        self.inner.forgot.load(Ordering::Relaxed)
    }

    /// Whether this node takes part no more, though its group runs.
    fn stands_aside(&self) -> bool {
        self.has_forgotten() || self.unfit().is_some()
    }

    /// A frame of the current leader was accepted.
    fn heard_leader(&self) {
        self.inner.clock.heard_leader();
        let mut detector = self.detector();
        detector.heard_leader(self.inner.clock.boot_ms(), self.inner.parts.chance.next());
    }

    /// The answer when nothing was proposed because this node does not lead.
    fn not_leader(&self) -> ProposeOutcome {
        ProposeOutcome::NotLeader(self.elsewhere())
    }

    /// Ends what is left of a group whose process is said to have ended.
    #[cfg(test)]
    pub(crate) async fn abandon(&self) {
        let _ = self.raft().shutdown().await;
    }

    /// The term that this node leads, if it does.
    #[cfg(test)]
    pub(crate) fn leads_term(&self) -> Option<u64> {
        let metrics = self.metrics();
        let leads = metrics.state == openraft::ServerState::Leader && metrics.vote.is_committed();
        leads.then_some(metrics.current_term)
    }

    /// Whether the state holds a task.
    #[cfg(test)]
    pub(crate) fn holds(&self, task: &skep_protocol::ids::TaskId) -> bool {
        self.inner.state.read().task(task).is_some()
    }

    /// Hands the lead to another voter if this node leads, then stops. A disk that does not answer is not waited for: what was
    /// not written was not acknowledged.
    pub(crate) async fn shut_down(&self) {
        let shard = self.id();
        if self.inner.view.borrow().ready {
            match tokio::time::timeout(STOP_PATIENCE, members::transfer_leader(self, None)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%shard, %error, "the lead could not be handed over"),
                Err(_) => tracing::warn!(%shard, "nobody has taken the lead in time"),
            }
        }
        match tokio::time::timeout(STOP_PATIENCE, self.raft().shutdown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%shard, %error, "the group did not stop cleanly"),
            Err(_) => tracing::warn!(%shard, "the group waits for its disk, and is not waited for"),
        }
        let Some(boot) = self.inner.clock.boot() else { return };
        match tokio::time::timeout(STOP_PATIENCE, self.keep_clock(boot)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%shard, %error, "the log clock cannot be kept for a restart"),
            Err(_) => tracing::warn!(%shard, "the log clock is not kept for a restart: its disk does not answer"),
        }
    }
}

/// How long a shard that stops waits for each of these: that another voter takes the lead, that its group ends, that its clock
/// is written down.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// How long openraft believes in the lease of a leader. It bounds nothing: whether a leader has its quorum, and whether a
/// voter may help to elect another, is judged by what is measured, in [`lead`] and [`dispatch`], since openraft's own lease
/// is the same on every link and cannot be changed.
const OPENRAFT_LEASE: Duration = Duration::from_secs(60);
/// How long openraft waits for a vote, and, a third shorter, for the answer to a heartbeat. It ends those that wait longer by
/// what they learned of a slow link.
const OPENRAFT_VOTE: Duration = Duration::from_secs(45);

/// Entries of which openraft keeps when they came to each of six stages, 24 bytes each. Nobody asks, and as Skep builds it nothing
/// is put in: the places would be made all the same.
const OPENRAFT_STAGES_KEPT: u64 = 1;

/// Brings the snapshot and the log of a shard to agree, as they do unless something was cut off between them.
async fn agree(id: ShardId, parts: &NodeParts) -> Result<(), String> {
    let store = parts.store.clone();
    let agreed = parts.threads.offload(Errand::Snapshots, move || bring_to_agree(&store, id)).await;
    agreed.map_err(|e| e.to_string())?.map_err(|e| format!("shard {id} cannot be opened: {e}"))
}

/// How a group reaches its members.
fn network(shard: ShardId, parts: &NodeParts, sending: Sending, (acked, elections): (Acked, Elections)) -> Network {
    let rpc_timeout = Duration::from_millis(parts.config.rpc_timeout_ms);
    let rate = parts.config.snapshot_bytes_per_s;
    Network {
        peers: parts.peers.clone(),
        shard,
        local: parts.raft_id(),
        rpc_timeout,
        snapshots: SnapshotSender::new((parts.peers.clone(), parts.threads.clone()), shard, rate, rpc_timeout, sending),
        acked,
        elections,
    }
}

fn detector_config(config: &ControlConfig) -> DetectorConfig {
    DetectorConfig { silence_ms_min: config.silence_ms_min, silence_ms_max: config.silence_ms_max }
}

fn pulse_config(config: &ControlConfig) -> PulseConfig {
    PulseConfig {
        heartbeat_ms: config.heartbeat_ms,
        silence_ms_min: config.silence_ms_min,
        silence_ms_max: config.silence_ms_max,
    }
}

fn raft_config(config: &ControlConfig) -> openraft::Config {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    openraft::Config {
        cluster_name: "skep".to_owned(),
        heartbeat_interval: ms(OPENRAFT_VOTE) * 2 / 3,
        election_timeout_min: ms(OPENRAFT_VOTE),
        election_timeout_max: ms(OPENRAFT_LEASE),
        // Heartbeats have our own pulse, and elections our own detector, with Pre-Vote.
        enable_heartbeat: false,
        enable_elect: false,
        enable_pre_vote: Some(true),
        // A term's leadership ends with the process: what a leader knew beside the log is gone.
        enable_leader_restore: Some(false),
        install_snapshot_timeout: config.rpc_timeout_ms * 60,
        max_payload_entries: 64,
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(config.snapshot_every_entries),
        max_in_snapshot_log_to_keep: config.entries_kept,
        purge_batch_size: 256,
        // Followers get an entry while the leader still syncs it; it counts itself only after.
        broadcast_submitted_on_append: Some(true),
        log_stage_capacity: Some(OPENRAFT_STAGES_KEPT),
        ..openraft::Config::default()
    }
}

/// Nodes and members for tests.
#[cfg(test)]
mod sample {
    use skep_protocol::ids::{Incarnation, NodeId, RaftId};

    pub(super) fn node(n: u8) -> NodeId {
        NodeId::from_public_key([n; 32])
    }

    pub(super) fn id(n: u8) -> RaftId {
        RaftId::derive(node(n), Incarnation([n; 16]))
    }
}
