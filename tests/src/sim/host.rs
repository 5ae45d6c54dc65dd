//! A host: what the node of a machine has in memory and on its disk.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt as _;
use rand::rngs::SmallRng;
use skep_config::EngineConfig;
use skep_engine::{Engine, UpdateKey, WorkKey};
use skep_protocol::ids::NodeId;
use skep_protocol::leader::LeaderHint;
use skep_protocol::lease::LeaseTerms;

use super::journal::Journals;
use super::names::{node_id, site};
use super::parcel::Waits;
use super::plan::Plan;
use super::replica::{Durable, HEARTBEAT_MS, Replica, SILENCE};

/// How long a call waits for its answer, in milliseconds.
pub(super) const RPC_TIMEOUT_MS: u64 = 1_000;

/// The node of one machine.
pub(super) struct Host {
    pub(super) node: NodeId,
    pub(super) engine: Engine,
    pub(super) replica: Option<Replica>,
    /// What survives while the node is down.
    pub(super) durable: Option<Durable>,
    pub(super) waiting: BTreeMap<WorkKey, Waits>,
    /// Updates that the engine has not answered: the host that sent it, in which term, and the number.
    pub(super) updates: BTreeMap<UpdateKey, (usize, u64, u64)>,
    next_key: u64,
    pub(super) peers: BTreeSet<NodeId>,
    /// The host that last answered as only a leader does.
    pub(super) answered: Option<usize>,
    /// What its engine has learned of who leads.
    pub(super) known: LeaderHint,
    pub(super) wakes_at: u64,
    pub(super) journals: Journals,
    /// The key of the work by which its engine last asked for commands.
    pub(super) pulls_by: Option<u64>,
}

fn config(lease_ms: u64) -> EngineConfig {
    EngineConfig {
        no_quorum_after_ms: SILENCE.silence_ms_max * 2,
        retry_ms_min: HEARTBEAT_MS / 5,
        retry_ms_max: SILENCE.silence_ms_min,
        attempt_timeout_ms: RPC_TIMEOUT_MS,
        lease: LeaseTerms { ttl_ms: lease_ms },
        heartbeat_ms: lease_ms / 5,
    }
}

/// The engine of a host: the first `voters` hosts vote, and the configuration of all marks them.
pub(super) fn engine(node: NodeId, lease_ms: u64, voters: usize) -> Engine {
    Engine::new(node, site(), config(lease_ms)).believing((0..voters).map(node_id).collect())
}

impl Host {
    /// A host whose clock shows this.
    pub(super) fn new(n: usize, plan: &Plan, boot_ms: u64, rng: &mut SmallRng) -> Self {
        let votes = n < plan.voters;
        let replica = votes.then(|| Replica::start(Durable::default(), boot_ms, rng.random()).ok()).flatten();
        Self {
            node: node_id(n),
            engine: engine(node_id(n), plan.lease_ms, plan.voters),
            replica,
            durable: None,
            waiting: BTreeMap::new(),
            updates: BTreeMap::new(),
            next_key: 1,
            peers: BTreeSet::new(),
            answered: None,
            known: LeaderHint::default(),
            wakes_at: u64::MAX,
            journals: Journals::default(),
            pulls_by: None,
        }
    }

    pub(super) fn key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    /// Whether another node leads, as far as this one knows.
    pub(super) fn knows_leader(&self, host: usize) -> bool {
        self.replica.as_ref().map_or(self.answered, |replica| replica.leader) == Some(host)
    }
}
