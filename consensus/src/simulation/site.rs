//! The nodes of a run: real shards over simulated disks and a simulated network.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_admission::SiteHandle;
use skep_config::{ControlConfig, NodeConfig, PeerConfig, Policy, StoreConfig};
use skep_protocol::ballot::BallotKey;
use skep_protocol::entry::Charter;
use skep_protocol::fault::ShardFault;
use skep_protocol::fleet::Build;
use skep_protocol::frame::{FRAME_VERSION, Hello};
use skep_protocol::ids::{Genesis, NodeId, RaftId, ShardId};
use skep_protocol::limits;
use skep_protocol::operator::FirstOperator;
use skep_protocol::signing::{OperatorSecret, Place};
use skep_protocol::text::{NodeName, SiteName};
use skep_store::{Store, StoreError, StoreOptions};
use skep_trust::SecretKey;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::disk::Machine;
use super::fabric::{Fabric, Station};
use super::watch::Watch;
use crate::clock::{BootClock, Clocks};
use crate::net::{Peers, hall, keep_judging};
use crate::raft::types::{Vote, decode};
use crate::random::Chance;
use crate::shard::{FromLeader, NodeParts, Shard};
use crate::shards::Shards;
use crate::threads::Threads;

pub(super) const SHARD: ShardId = ShardId::FIRST;
/// Clocks run at most so much faster or slower than true time, in millionths.
const PPM_MAX: i64 = 500;

/// The shard's first operator.
pub(super) fn operator() -> OperatorSecret {
    OperatorSecret::from_seed(&[1; 32])
}

/// What the shard is.
#[allow(clippy::unwrap_used, reason = "constants within their limits")]
pub(super) fn charter() -> Charter {
    let site = SiteName::new("site").unwrap();
    let place = Place { site, shard: SHARD, genesis: Genesis::from_bytes([6; 16]) };
    let first = FirstOperator { place: place.clone(), operator: operator().key(), name: "first".parse().unwrap() };
    Charter { place, first: Some(first.sign(&operator()).unwrap()), root: None }
}

/// The key of a node.
pub(super) fn key(at: usize) -> BallotKey {
    BallotKey::from_seed(&[at as u8 + 1; 32])
}

/// A running process.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) shards: Arc<Shards>,
    /// Which of all that ever ran.
    pub(super) number: u64,
    /// Its disk failed it.
    fatal: Arc<AtomicBool>,
}

impl Process {
    pub(super) fn shard(&self) -> Option<Shard> {
        self.shards.shard(SHARD)
    }

    pub(super) fn raft_id(&self) -> RaftId {
        self.shards.parts.raft_id()
    }
}

/// A machine and the node on it.
pub(super) struct Node {
    pub(super) id: NodeId,
    machine: Machine,
    booted: Instant,
    /// Which of all boots of all machines this is.
    boot: u64,
    ppm: i64,
    pub(super) process: Option<Process>,
    /// It refuses to start until it is wiped.
    pub(super) refuses: bool,
    /// A bit of its files was flipped: that excuses it.
    damaged: bool,
    /// It runs from an older copy of its files: it may lack what it acknowledged.
    restored: bool,
    /// Its next sync fails, or has.
    failing: bool,
    /// Its disk is slow, in milliseconds for each batch.
    slow_ms: Arc<AtomicU64>,
    /// What is installed on it: its next process is of it.
    pub(super) build: Build,
}

/// All nodes of a run.
pub(super) struct Nodes {
    pub(super) all: Vec<Node>,
    pub(super) fabric: Fabric,
    pub(super) watch: Watch,
    /// So many, from the first one on, are marked as voters in the configuration of all others.
    pub(super) marked: usize,
    /// What each knows of its site, if certificates say who is let in.
    pub(super) sites: Vec<SiteHandle>,
    rng: SmallRng,
    next_process: u64,
}

fn config(all: &[NodeId], marked: usize, me: NodeId) -> ControlConfig {
    let loopback = ([127, 0, 0, 1], 1).into();
    let peer =
        |(at, id): (usize, &NodeId)| PeerConfig { id: *id, name: None, control: None, mesh: None, voter: at < marked };
    #[allow(clippy::unwrap_used, reason = "constants within their limits")]
    let node = NodeConfig { name: NodeName::new("node").unwrap(), site: SiteName::new("site").unwrap() };
    ControlConfig {
        listen: loopback,
        heartbeat_ms: 50,
        silence_ms_min: 350,
        silence_ms_max: 1_500,
        rpc_timeout_ms: 400,
        idle_timeout_ms: 2_000,
        snapshot_every_entries: 50,
        entries_kept: 10,
        snapshot_bytes_per_s: 1 << 30,
        policy: Policy::RoundRobin,
        peers: all.iter().enumerate().filter(|(_, id)| **id != me).map(peer).collect(),
        node,
        store: StoreConfig {
            low_water_bytes: 0,
            segment_bytes: 32 * 1024,
            history_days: 90,
            history_bytes: limits::HISTORY_BYTES_DEFAULT,
        },
    }
}

impl Nodes {
    pub(super) fn new(count: usize, seed: u64, watch: Watch) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let fabric = Fabric::new(rng.random(), watch.clone());
        let node = |n: usize| {
            let (id, machine) = (key(n).node(), Machine::new(rng.random()));
            let ppm = rng.random_range(-PPM_MAX..=PPM_MAX);
            let slow_ms = Arc::default();
            Node {
                id,
                machine,
                booted: Instant::now(),
                boot: (n as u64) << 32,
                ppm,
                process: None,
                refuses: false,
                damaged: false,
                restored: false,
                failing: false,
                slow_ms,
                build: Build::default(),
            }
        };
        let all: Vec<Node> = (0..count).map(node).collect();
        Self { all, fabric, watch, marked: count, sites: Vec::new(), rng, next_process: 0 }
    }

    pub(super) fn random(&mut self) -> [u8; 16] {
        self.rng.random()
    }

    /// Starts a node that does not run. One whose files are damaged refuses.
    pub(super) async fn start(&mut self, at: usize) {
        let all: Vec<NodeId> = self.all.iter().map(|node| node.id).collect();
        let (random, chance) = (self.rng.random(), self.rng.random());
        self.next_process += 1;
        let number = self.next_process;
        if self.all[at].process.is_some() || self.all[at].refuses {
            return;
        }
        self.all[at].failing = false;
        let node = &self.all[at];
        let config = Arc::new(config(&all, self.marked, node.id));
        let fatal: Arc<AtomicBool> = Arc::default();
        let Ok(store) = self.open_store(at, random, &config, Arc::clone(&fatal)) else {
            self.refused(at);
            return;
        };
        let node = &self.all[at];
        let known = store.shards().contains(&SHARD);
        let vote = store.vote(SHARD).filter(|_| known).and_then(|bytes| decode::<Vote>("vote", &bytes).ok());
        self.watch.starts_with(node.id, vote.as_ref());
        let clocks = Clocks::on(BootClock::Simulated { since: node.booted, ppm: node.ppm, boot: node.boot });
        let hello = Hello {
            frame_version_min: FRAME_VERSION,
            frame_version_max: FRAME_VERSION,
            fleet: node.build.versions,
            incarnation: store.incarnation(),
            process: number,
            name: config.node.name.clone(),
            site: config.node.site.clone(),
            shards: Vec::new(),
        };
        let peers = self.peers_of(at, &config, &clocks);
        let (updates, told) = mpsc::channel(16);
        tokio::spawn(note_all(told));
        let (incarnation, chance) = (store.incarnation(), Chance::seeded(chance));
        let parts = NodeParts {
            node: node.id,
            incarnation,
            key: Arc::new(key(at)),
            seals: Arc::new(SecretKey::from_seed(&[at as u8 + 1; 32])),
            build: node.build,
            config,
            store,
            threads: Threads::here(),
            peers: peers.clone(),
            clocks,
            chance,
            updates,
        };
        let shards = Shards::new(parts);
        let process = Process { shards: Arc::clone(&shards), number, fatal };
        if known && shards.open(SHARD).await.is_err() {
            self.refused(at);
            return self.end(process);
        }
        let raft_id = process.raft_id();
        let id = self.all[at].id;
        self.fabric.join(Station { node: id, raft_id, hello, peers, dispatch: Arc::new(Arc::clone(&shards)) });
        self.watch.tell(&format!("node {at} starts as {raft_id}"));
        self.all[at].process = Some(process);
    }

    /// Whom a node lets in: who is configured, or who has a certificate.
    fn peers_of(&self, at: usize, config: &ControlConfig, clocks: &Clocks) -> Peers {
        let gate = self.sites.get(at).map(hall::gate);
        let is_of_site = gate.is_some();
        let peers = Peers::new(self.all[at].id, &config.peers, clocks.clone()).of_site(gate);
        if is_of_site {
            tokio::spawn(keep_judging(peers.clone(), Threads::here()));
        }
        peers
    }

    /// S17: only damage is a reason not to start.
    fn refused(&mut self, at: usize) {
        self.watch.count(|coverage| coverage.refused_to_start += 1);
        self.all[at].refuses = true;
        if !self.all[at].damaged {
            self.watch.violate("S17", &format!("node {at} refuses to start, and nothing was done to its files"));
        }
    }

    fn open_store(
        &self,
        at: usize,
        random: [u8; 16],
        config: &ControlConfig,
        fatal: Arc<AtomicBool>,
    ) -> Result<Store, StoreError> {
        let node = &self.all[at];
        let options = StoreOptions {
            segment_bytes: config.store.segment_bytes,
            low_water_bytes: 0,
            // As it ends a real process: the driver of the run sees to it.
            on_fatal: Arc::new(move |_| fatal.store(true, Ordering::Relaxed)),
            ..StoreOptions::default()
        };
        let slow_ms = Arc::clone(&node.slow_ms);
        let chance = Chance::seeded(node.ppm.unsigned_abs());
        let takes = move || {
            let slow = slow_ms.load(Ordering::Relaxed);
            Duration::from_micros(100 + chance.next() % 300) + Duration::from_millis(slow)
        };
        Store::open_simulated(&node.machine.mount(), &PathBuf::from("/data"), random, options, takes)
    }

    /// What is left of a process ends: nothing that it does has an effect any more.
    fn end(&self, process: Process) {
        tokio::spawn(async move {
            for shard in process.shards.all() {
                shard.abandon().await;
            }
        });
    }

    fn stop(&mut self, at: usize) -> Option<()> {
        let process = self.all[at].process.take()?;
        self.fabric.leave(self.all[at].id);
        self.end(process);
        Some(())
    }

    /// SIGKILL: what was written and not synced is still there.
    pub(super) fn kill(&mut self, at: usize) {
        self.all[at].machine.end_process();
        if self.stop(at).is_some() {
            self.watch.tell(&format!("node {at} is killed"));
            self.watch.count(|coverage| coverage.kills += 1);
        }
    }

    /// The power goes: what was not synced is lost, and so is the clock.
    pub(super) fn cut_power(&mut self, at: usize) {
        self.all[at].machine.cut_power();
        self.all[at].booted = Instant::now();
        self.all[at].boot += 1;
        if self.stop(at).is_some() {
            self.watch.tell(&format!("node {at} loses its power"));
            self.watch.count(|coverage| coverage.power_cuts += 1);
        }
    }

    /// A sync of the node fails: its process ends, by itself.
    pub(super) fn fail_sync(&mut self, at: usize) {
        self.all[at].machine.fail_next_sync();
        self.all[at].failing = true;
        self.watch.tell(&format!("the next sync of node {at} fails"));
        self.watch.count(|coverage| coverage.failed_syncs += 1);
    }

    /// A bit of a stopped node's files flips.
    pub(super) fn flip_a_bit(&mut self, at: usize) {
        self.kill(at);
        if self.all[at].machine.flip_a_bit() {
            self.all[at].damaged = true;
            self.watch.tell(&format!("a bit of node {at} flips"));
            self.watch.count(|coverage| coverage.flipped_bits += 1);
        }
    }

    /// A node loses its disk.
    pub(super) fn wipe(&mut self, at: usize) {
        self.kill(at);
        self.all[at].machine.wipe();
        (self.all[at].refuses, self.all[at].damaged, self.all[at].restored) = (false, false, false);
        self.watch.forget_promises(self.all[at].id);
        self.watch.tell(&format!("node {at} loses its disk"));
        self.watch.count(|coverage| coverage.wiped += 1);
    }

    /// A copy of a node's files, as they are now.
    pub(super) fn copy(&self, at: usize) -> Machine {
        self.all[at].machine.copy()
    }

    /// A node is stopped, and an older copy is put in the place of its files.
    pub(super) fn restore(&mut self, at: usize, copy: &Machine) {
        self.kill(at);
        self.all[at].machine.restore(copy);
        self.all[at].restored = true;
        self.watch.forget_promises(self.all[at].id);
        self.watch.tell(&format!("node {at} is restored from a copy"));
    }

    /// The disk of a node has no room for another snapshot, or has room again.
    pub(super) fn refuse_snapshots(&self, at: usize, refuses: bool) {
        self.all[at].machine.refuse_snapshots(refuses);
    }

    /// How many bytes of snapshots were read from the disk of a node so far.
    pub(super) fn snapshot_bytes_read(&self, at: usize) -> u64 {
        self.all[at].machine.snapshot_bytes_read()
    }

    pub(super) fn slow_down(&self, at: usize, ms: u64) {
        self.all[at].slow_ms.store(ms, Ordering::Relaxed);
    }

    /// A process whose group has failed takes itself down, as an error of the disk does with a real one.
    pub(super) fn end_failed(&mut self) {
        for at in 0..self.all.len() {
            let failed = |process: &Process| {
                let has_failed = |shard: Shard| {
                    let faults = shard.status().faults;
                    faults.iter().any(|report| report.fault == ShardFault::OutOfService)
                };
                let fault = || process.shard().is_some_and(has_failed);
                process.fatal.load(Ordering::Relaxed) || fault()
            };
            if self.all[at].process.as_ref().is_some_and(failed) {
                if !self.all[at].failing {
                    self.watch.violate("S15", &format!("the group of node {at} failed, and its disk did not"));
                }
                self.kill(at);
            }
        }
    }

    /// The node that leads and takes proposals, as far as the nodes know.
    pub(super) fn ready(&self) -> Vec<(usize, Shard)> {
        let ready = |(at, node): (usize, &Node)| {
            let shard = node.process.as_ref()?.shard()?;
            let ready = shard.view().borrow().ready;
            ready.then_some((at, shard))
        };
        self.all.iter().enumerate().filter_map(ready).collect()
    }

    /// Looks at every process.
    pub(super) fn look(&self) {
        for node in &self.all {
            let Some(process) = &node.process else { continue };
            let Some(shard) = process.shard() else { continue };
            let status = shard.status();
            if let Some(term) = shard.leads_term() {
                self.watch.leads(term, process.raft_id());
            }
            if !node.restored && status.faults.iter().any(|report| report.fault == ShardFault::RestoredFromCopy) {
                self.watch.violate("S18", &format!("{} forgot what it had acknowledged", node.id));
            }
            if let Some(index) = status.snapshot {
                self.watch.has_snapshot(node.id, process.number, index);
            }
            if let Some(index) = status.applied {
                self.watch.applied(node.id, process.number, status.term, index, status.digest);
            }
        }
    }
}

impl Drop for Nodes {
    /// What is left of processes can refer to itself; the disks, which are most of a run's memory, go with the run.
    fn drop(&mut self) {
        self.all.iter().for_each(|node| node.machine.wipe());
    }
}

async fn note_all(mut updates: mpsc::Receiver<FromLeader>) {
    while let Some(said) = updates.recv().await {
        if let FromLeader::Claims(update) = said {
            let _ = update.noted.send(true);
        }
    }
}
