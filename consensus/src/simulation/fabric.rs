//! A network within one process: calls take time, are lost, and are cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_protocol::frame::{FrameKind, Header, Hello};
use skep_protocol::ids::{NodeId, RaftId, ShardId};
use tokio::sync::oneshot;

use super::watch::Watch;
use crate::net::{CallError, Dispatch, Link, Outgoing, Peer, Peers, Who};

/// How long a snapshot may take.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(30);

/// A node as the network knows it.
#[derive(Clone)]
pub(super) struct Station {
    pub(super) node: NodeId,
    pub(super) raft_id: RaftId,
    pub(super) hello: Hello,
    pub(super) peers: Peers,
    pub(super) dispatch: Arc<dyn Dispatch>,
}

/// Whether a connection is open, and what each end has of it.
type Joined = (Arc<AtomicBool>, [Arc<Peer>; 2]);

struct State {
    rng: SmallRng,
    stations: BTreeMap<NodeId, Station>,
    /// Links by the pair that they join: one flag for both directions.
    links: BTreeMap<(NodeId, NodeId), Joined>,
    /// Who does not reach whom.
    cut: BTreeSet<(NodeId, NodeId)>,
    lost_permille: u32,
    delay_ms_max: u64,
    /// Calls that were sent, by the number of their kind.
    sent: BTreeMap<u8, u64>,
}

/// The network.
#[derive(Clone)]
pub(super) struct Fabric {
    state: Arc<Mutex<State>>,
    watch: Watch,
}

impl Fabric {
    pub(super) fn new(seed: u64, watch: Watch) -> Self {
        let state = State {
            rng: SmallRng::seed_from_u64(seed),
            stations: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            lost_permille: 0,
            delay_ms_max: 2,
            sent: BTreeMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), watch }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process begins.
    pub(super) fn join(&self, station: Station) {
        self.state().stations.insert(station.node, station);
    }

    /// A process ends: whatever it still says is not heard.
    pub(super) fn leave(&self, node: NodeId) {
        let mut state = self.state();
        state.stations.remove(&node);
        let ended = |pair: &(NodeId, NodeId)| pair.0 == node || pair.1 == node;
        for (_, (open, _)) in state.links.iter().filter(|(pair, _)| ended(pair)) {
            open.store(false, Ordering::Relaxed);
        }
    }

    /// Some nodes do not reach others.
    pub(super) fn cut(&self, pairs: impl IntoIterator<Item = (NodeId, NodeId)>) {
        self.state().cut.extend(pairs);
    }

    pub(super) fn set_quality(&self, lost_permille: u32, delay_ms_max: u64) {
        let mut state = self.state();
        (state.lost_permille, state.delay_ms_max) = (lost_permille, delay_ms_max);
    }

    /// How many calls of a kind were sent.
    pub(super) fn sent(&self, kind: FrameKind) -> u64 {
        self.state().sent.get(&(kind as u8)).copied().unwrap_or(0)
    }

    /// Everybody reaches everybody.
    pub(super) fn heal(&self) {
        self.state().cut.clear();
        self.set_quality(0, 2);
    }

    /// Ends connections that were closed, and connects whoever is not connected and can be.
    pub(super) fn connect(&self) {
        let mut state = self.state();
        let closed: Vec<(NodeId, NodeId)> =
            state.links.iter().filter(|(_, (open, _))| !open.load(Ordering::Relaxed)).map(|(pair, _)| *pair).collect();
        let mut told = Vec::new();
        for pair in closed {
            let Some((_, [of_first, of_second])) = state.links.remove(&pair) else { continue };
            for (at, peer) in [(pair.0, of_first), (pair.1, of_second)] {
                told.extend(state.stations.get(&at).map(|station| (station.peers.clone(), peer, false)));
            }
        }
        let nodes: Vec<NodeId> = state.stations.keys().copied().collect();
        for (n, a) in nodes.iter().enumerate() {
            for b in &nodes[n + 1..] {
                let pair = (*a, *b);
                let reached = !state.cut.contains(&pair) && !state.cut.contains(&(*b, *a));
                if reached && !state.links.contains_key(&pair) {
                    let (first, second) = (state.stations[a].clone(), state.stations[b].clone());
                    let open = Arc::new(AtomicBool::new(true));
                    let of_first = self.peer(&first, &second, &open);
                    let of_second = self.peer(&second, &first, &open);
                    told.push((first.peers, Arc::clone(&of_first), true));
                    told.push((second.peers, Arc::clone(&of_second), true));
                    state.links.insert(pair, (open, [of_first, of_second]));
                }
            }
        }
        drop(state);
        for (peers, peer, up) in told {
            if up {
                peers.connect(&peer);
            } else {
                peers.disconnect(&peer, "the connection ended".to_owned());
            }
        }
    }

    fn peer(&self, from: &Station, to: &Station, open: &Arc<AtomicBool>) -> Arc<Peer> {
        let link = MemoryLink {
            fabric: self.clone(),
            from: Who { node: from.node, raft_id: from.raft_id },
            from_process: from.hello.process,
            to: to.node,
            to_process: to.hello.process,
            open: Arc::clone(open),
        };
        Arc::new(Peer::new(to.node, to.hello.clone(), Link::Memory(link), from.node.min(to.node)))
    }

    fn station(&self, node: NodeId, process: u64) -> Option<Station> {
        self.state().stations.get(&node).filter(|station| station.hello.process == process).cloned()
    }

    /// How long something takes from one node to another; none if it does not arrive.
    fn fate(&self, from: NodeId, to: NodeId) -> Option<Duration> {
        let mut state = self.state();
        let lost = state.lost_permille;
        let lost = state.rng.random_ratio(lost, 1_000) || state.cut.contains(&(from, to));
        let delay_max = state.delay_ms_max;
        let delay = state.rng.random_range(0..=delay_max * 1_000);
        (!lost).then(|| Duration::from_micros(100 + delay))
    }

    async fn travel(&self, from: NodeId, to: NodeId) {
        match self.fate(from, to) {
            Some(delay) => tokio::time::sleep(delay).await,
            None => std::future::pending().await,
        }
    }
}

/// One direction of a connection.
pub(crate) struct MemoryLink {
    fabric: Fabric,
    from: Who,
    from_process: u64,
    to: NodeId,
    to_process: u64,
    open: Arc<AtomicBool>,
}

impl MemoryLink {
    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    pub(crate) async fn call(&self, call: Outgoing<'_>) -> Result<Bytes, CallError> {
        let header = Header {
            kind: call.kind,
            shard: call.shard,
            clock: call.clock,
            call: 1,
            body_bytes: call.body.len() as u32,
        };
        let carried = self.carry(header, Bytes::copy_from_slice(call.body));
        tokio::time::timeout(call.deadline, carried).await.unwrap_or(Err(CallError::Timeout(call.deadline)))
    }

    pub(crate) async fn send_snapshot(&self, shard: ShardId, head: &[u8], data: &Bytes) -> Result<Bytes, CallError> {
        let mut whole = (head.len() as u64).to_be_bytes().to_vec();
        whole.extend_from_slice(head);
        whole.extend_from_slice(data);
        let kind = FrameKind::SnapshotHead;
        let header = Header { kind, shard, clock: None, call: 1, body_bytes: whole.len() as u32 };
        let lost = |_| Err(CallError::Lost("the snapshot did not arrive".to_owned()));
        tokio::time::timeout(SNAPSHOT_DEADLINE, self.carry(header, whole.into())).await.unwrap_or_else(lost)
    }

    async fn carry(&self, header: Header, body: Bytes) -> Result<Bytes, CallError> {
        if !self.is_open() {
            return Err(CallError::NotSent("the connection is closed".to_owned()));
        }
        // A process that has ended says nothing.
        if self.fabric.station(self.from.node, self.from_process).is_none() {
            std::future::pending().await
        }
        *self.fabric.state().sent.entry(header.kind as u8).or_default() += 1;
        self.fabric.travel(self.from.node, self.to).await;
        let Some(station) = self.fabric.station(self.to, self.to_process) else { std::future::pending().await };
        let (said, answered) = oneshot::channel();
        let (fabric, who, to, to_process) = (self.fabric.clone(), self.from, self.to, self.to_process);
        // It is answered even if nobody waits any more.
        tokio::spawn(async move {
            let answer = station.dispatch.call(who, header, body).await;
            if fabric.station(to, to_process).is_none() {
                return;
            }
            if let Ok(answer) = &answer {
                fabric.watch.answer_leaves(to, header.kind, answer);
            }
            fabric.travel(to, who.node).await;
            let _ = said.send(answer);
        });
        match answered.await {
            Ok(Ok(answer)) => Ok(answer.into()),
            Ok(Err(why)) => Err(CallError::Refused(why)),
            Err(_) => std::future::pending().await,
        }
    }
}
