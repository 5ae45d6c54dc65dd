//! A network within one process: calls take time, are lost, and are cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_protocol::frame::{FrameKind, Header, Hello};
use skep_protocol::ids::{NodeId, RaftId};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::watch::Watch;
use crate::net::{AnswerRoom, CallError, Dispatch, Link, Outgoing, Peer, Peers, RoundTrips, Who};

/// A connection ends after this time without arriving data, as a real one does.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that may wait for a thin link; more are dropped.
const THIN_BYTES_MAX: u64 = 64 * 1024;
/// Bytes in a packet.
const PACKET_BYTES: u64 = 1_200;

/// A node as the network knows it.
#[derive(Clone)]
pub(super) struct Station {
    pub(super) node: NodeId,
    pub(super) raft_id: RaftId,
    pub(super) hello: Hello,
    pub(super) peers: Peers,
    pub(super) dispatch: Arc<dyn Dispatch>,
}

/// Whether a connection is open.
type Open = Arc<watch::Sender<bool>>;

/// A connection.
struct Joined {
    open: Open,
    /// The connection as each end has it.
    ends: [Arc<Peer>; 2],
    /// Since when one end does not reach the other.
    silent_since: Option<Instant>,
}

struct State {
    rng: SmallRng,
    stations: BTreeMap<NodeId, Station>,
    /// Links by the pair of nodes that they join: one flag for both directions.
    links: BTreeMap<(NodeId, NodeId), Joined>,
    /// Pairs of which the first node does not reach the second.
    cut: BTreeSet<(NodeId, NodeId)>,
    lost_permille: u32,
    /// Shortest and longest time that a message is under way, in milliseconds.
    delay_ms: (u64, u64),
    /// The shortest time that connections have seen, in milliseconds.
    shortest_ms: u64,
    /// Bytes a second that the links of these nodes carry, in each direction.
    thin: BTreeMap<NodeId, u64>,
    /// When a thin link has carried what it was given.
    free_at: BTreeMap<(NodeId, NodeId), Instant>,
    /// How long the bytes over a thin link had waited for it, smoothed, in seconds.
    waited: BTreeMap<(NodeId, NodeId), f64>,
    /// Number of calls that were sent, and the bytes in them, by the number of their kind.
    sent: BTreeMap<u8, (u64, u64)>,
}

impl State {
    /// How long bytes wait for a thin link, themselves included.
    fn waits(&self, from: NodeId, to: NodeId) -> Duration {
        let free_at = self.free_at.get(&(from, to)).copied();
        free_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Notes bytes that arrived after this wait. Each packet of them counts, as a real connection sees its round trips.
    fn came(&mut self, (from, to): (NodeId, NodeId), bytes: u64, waited: Duration) {
        let known = self.waited.entry((from, to)).or_default();
        let packets = i32::try_from(1 + bytes / PACKET_BYTES).unwrap_or(i32::MAX);
        *known = waited.as_secs_f64() + (*known - waited.as_secs_f64()) * (7.0_f64 / 8.0).powi(packets);
    }

    /// How much longer than at rest a message has taken of late.
    fn late(&self, from: NodeId, to: NodeId) -> Duration {
        let waited = self.waited.get(&(from, to)).copied().unwrap_or_default();
        Duration::from_secs_f64(waited).max(self.waits(from, to))
    }

    /// Hands bytes to a link; returns their wait, none if there is no room for them.
    fn load(&mut self, from: NodeId, to: NodeId, bytes: u64) -> Option<Duration> {
        let rate = [from, to].iter().filter_map(|node| self.thin.get(node)).min().copied();
        let Some(rate) = rate else { return Some(Duration::ZERO) };
        let waits = self.waits(from, to);
        if waits > Duration::from_secs_f64(THIN_BYTES_MAX as f64 / rate as f64) {
            return None;
        }
        let waits = waits + Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.free_at.insert((from, to), Instant::now() + waits);
        Some(waits)
    }
}

/// The network of a run.
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
            delay_ms: (0, 2),
            shortest_ms: 0,
            thin: BTreeMap::new(),
            free_at: BTreeMap::new(),
            waited: BTreeMap::new(),
            sent: BTreeMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), watch }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process begins, and joins the network.
    pub(super) fn join(&self, station: Station) {
        self.state().stations.insert(station.node, station);
    }

    /// A process ends: no node hears what it still says.
    pub(super) fn leave(&self, node: NodeId) {
        let mut state = self.state();
        state.stations.remove(&node);
        let ended = |pair: &(NodeId, NodeId)| pair.0 == node || pair.1 == node;
        for (_, joined) in state.links.iter().filter(|(pair, _)| ended(pair)) {
            joined.open.send_replace(false);
        }
    }

    /// Cuts pairs of nodes: the first does not reach the second.
    pub(super) fn cut(&self, pairs: impl IntoIterator<Item = (NodeId, NodeId)>) {
        self.state().cut.extend(pairs);
    }

    /// Joins these pairs again.
    pub(super) fn join_again(&self, pairs: impl IntoIterator<Item = (NodeId, NodeId)>) {
        let mut state = self.state();
        for pair in pairs {
            state.cut.remove(&pair);
        }
    }

    /// Sets how many messages in a thousand are lost, and how long one takes between nodes: one time for all, or each a
    /// random time in between.
    pub(super) fn set_quality(&self, lost_permille: u32, delay_ms: (u64, u64)) {
        let mut state = self.state();
        (state.lost_permille, state.delay_ms, state.shortest_ms) = (lost_permille, delay_ms, delay_ms.0);
    }

    /// Sets the time from one node to another, on connections that have seen a shorter one.
    pub(super) fn lengthen(&self, delay_ms: u64) {
        self.state().delay_ms = (delay_ms, delay_ms);
    }

    /// Limits the links of a node to this many bytes a second.
    pub(super) fn thin(&self, node: NodeId, bytes_per_s: u64) {
        self.state().thin.insert(node, bytes_per_s);
    }

    /// How long a message that is sent at this instant waits for a thin link.
    pub(super) fn waits(&self, from: NodeId, to: NodeId) -> Duration {
        self.state().waits(from, to)
    }

    /// How many calls of a kind were sent.
    pub(super) fn sent(&self, kind: FrameKind) -> u64 {
        self.state().sent.get(&(kind as u8)).map_or(0, |(calls, _)| *calls)
    }

    /// How many bytes were sent in calls of a kind.
    pub(super) fn bytes_sent(&self, kind: FrameKind) -> u64 {
        self.state().sent.get(&(kind as u8)).map_or(0, |(_, bytes)| *bytes)
    }

    /// Lets every node reach every other.
    pub(super) fn heal(&self) {
        let mut state = self.state();
        state.cut.clear();
        state.thin.clear();
        state.free_at.clear();
        state.waited.clear();
        drop(state);
        self.set_quality(0, (0, 2));
    }

    /// Ends connections that were closed, and connects nodes that are not connected and can be.
    pub(super) fn connect(&self) {
        let mut state = self.state();
        let cut = state.cut.clone();
        for ((a, b), joined) in &mut state.links {
            let silent = cut.contains(&(*a, *b)) || cut.contains(&(*b, *a));
            joined.silent_since = silent.then(|| joined.silent_since.unwrap_or_else(Instant::now));
            if joined.silent_since.is_some_and(|since| since.elapsed() >= IDLE_TIMEOUT) {
                joined.open.send_replace(false);
            }
        }
        let closed: Vec<(NodeId, NodeId)> =
            state.links.iter().filter(|(_, joined)| !*joined.open.borrow()).map(|(pair, _)| *pair).collect();
        let mut told = Vec::new();
        for pair in closed {
            let Some(Joined { ends: [of_first, of_second], .. }) = state.links.remove(&pair) else { continue };
            for (at, peer) in [(pair.0, of_first), (pair.1, of_second)] {
                told.extend(state.stations.get(&at).map(|station| (station.peers.clone(), peer, false)));
            }
        }
        let nodes: Vec<NodeId> = state.stations.keys().copied().collect();
        for (n, a) in nodes.iter().enumerate() {
            for b in &nodes[n + 1..] {
                let pair = (*a, *b);
                let reached = !state.cut.contains(&pair) && !state.cut.contains(&(*b, *a));
                let (first, second) = (&state.stations[a], &state.stations[b]);
                let is_new = reached && !state.links.contains_key(&pair);
                if is_new && first.peers.lets_in(&second.peers) && second.peers.lets_in(&first.peers) {
                    let (first, second) = (first.clone(), second.clone());
                    let open = Arc::new(watch::channel(true).0);
                    let of_first = self.peer(&first, &second, &open);
                    let of_second = self.peer(&second, &first, &open);
                    told.push((first.peers, Arc::clone(&of_first), true));
                    told.push((second.peers, Arc::clone(&of_second), true));
                    state.waited.retain(|way, _| *way != pair && *way != (pair.1, pair.0));
                    state.links.insert(pair, Joined { open, ends: [of_first, of_second], silent_since: None });
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

    fn peer(&self, from: &Station, to: &Station, open: &Open) -> Arc<Peer> {
        let link = MemoryLink {
            fabric: self.clone(),
            from: Who { node: from.node, raft_id: from.raft_id },
            from_process: from.hello.process,
            to: to.node,
            to_process: to.hello.process,
            open: Arc::clone(open),
        };
        let peer = Peer::new(to.node, to.hello.clone(), Link::Memory(link), from.node.min(to.node));
        Arc::new(peer.let_in_by(from.peers.pass_of(&to.peers)))
    }

    fn station(&self, node: NodeId, process: u64) -> Option<Station> {
        self.state().stations.get(&node).filter(|station| station.hello.process == process).cloned()
    }

    /// How long this many bytes wait for the link between two nodes, and how long they take over it; none if they do
    /// not arrive.
    fn fate(&self, from: NodeId, to: NodeId, bytes: u64) -> Option<(Duration, Duration)> {
        let mut state = self.state();
        let lost = state.lost_permille;
        let lost = state.rng.random_ratio(lost, 1_000) || state.cut.contains(&(from, to));
        let (shortest, longest) = state.delay_ms;
        let delay = state.rng.random_range(shortest * 1_000..=longest * 1_000);
        let waits = if lost { None } else { state.load(from, to, bytes) };
        waits.map(|waits| (waits, Duration::from_micros(100 + delay)))
    }

    fn count(&self, kind: FrameKind, bytes: u64) {
        let mut state = self.state();
        let (calls, all) = state.sent.entry(kind as u8).or_default();
        (*calls, *all) = (*calls + 1, *all + bytes);
    }

    async fn travel(&self, from: NodeId, to: NodeId, bytes: u64) {
        match self.fate(from, to, bytes) {
            Some((waits, delay)) => {
                tokio::time::sleep(waits + delay).await;
                self.state().came((from, to), bytes, waits);
            }
            None => std::future::pending().await,
        }
    }

    /// Bytes that a link carries in an eighth of a second.
    fn window(&self, from: NodeId, to: NodeId) -> u64 {
        let state = self.state();
        let rate = [from, to].iter().filter_map(|node| state.thin.get(node)).min().copied();
        rate.map_or(u64::MAX, |rate| rate / 8)
    }

    fn round_trips(&self, from: NodeId, to: NodeId) -> RoundTrips {
        let state = self.state();
        let (shortest, longest) = state.delay_ms;
        let shortest_trip = Duration::from_micros(200) + Duration::from_millis(2 * state.shortest_ms);
        let late = Duration::from_millis(shortest + longest) + state.late(from, to) + state.late(to, from);
        RoundTrips { late: late.max(shortest_trip), shortest: shortest_trip }
    }
}

/// One direction of a connection.
pub(crate) struct MemoryLink {
    fabric: Fabric,
    from: Who,
    from_process: u64,
    to: NodeId,
    to_process: u64,
    open: Open,
}

impl MemoryLink {
    pub(crate) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    pub(crate) fn close(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn round_trips(&self) -> RoundTrips {
        self.fabric.round_trips(self.from.node, self.to)
    }

    pub(crate) fn window(&self) -> u64 {
        self.fabric.window(self.from.node, self.to)
    }

    pub(crate) async fn call(&self, call: Outgoing<'_>) -> Result<Bytes, CallError> {
        let header = Header {
            kind: call.kind,
            shard: call.shard,
            clock: call.clock,
            call: 1,
            body_bytes: call.body.len() as u32,
        };
        tokio::select! {
            biased;
            answer = self.carry(header, Bytes::copy_from_slice(call.body)) => answer,
            ended = self.ended() => Err(ended),
            () = tokio::time::sleep(call.deadline) => Err(CallError::Timeout(call.deadline)),
        }
    }

    async fn carry(&self, header: Header, body: Bytes) -> Result<Bytes, CallError> {
        if !self.is_open() {
            return Err(CallError::NotSent("the connection is closed".to_owned()));
        }
        // A process that has ended says nothing.
        if self.fabric.station(self.from.node, self.from_process).is_none() {
            std::future::pending().await
        }
        self.fabric.count(header.kind, body.len() as u64);
        self.fabric.travel(self.from.node, self.to, body.len() as u64).await;
        let Some(station) = self.fabric.station(self.to, self.to_process) else { std::future::pending().await };
        let (said, answered) = oneshot::channel();
        let (fabric, who, to, to_process) = (self.fabric.clone(), self.from, self.to, self.to_process);
        // The answer comes even if the caller has stopped waiting.
        tokio::spawn(async move {
            let answer = match station.dispatch.admit(who, header).await {
                Ok(()) => station.dispatch.call(who, header, body, AnswerRoom::default()).await,
                Err(why) => Err(why),
            };
            if fabric.station(to, to_process).is_none() {
                return;
            }
            if let Ok(answer) = &answer {
                fabric.watch.answer_leaves(to, header.kind, answer);
            }
            let bytes = answer.as_ref().map_or(0, |answer| answer.len() as u64);
            fabric.travel(to, who.node, bytes).await;
            let _ = said.send(answer);
        });
        match answered.await {
            Ok(Ok(answer)) => Ok(answer.into()),
            Ok(Err(why)) => Err(CallError::Refused(why)),
            Err(_) => std::future::pending().await,
        }
    }

    /// Completes when the connection ends.
    async fn ended(&self) -> CallError {
        let _ = self.open.subscribe().wait_for(|open| !*open).await;
        CallError::Lost("the connection ended".to_owned())
    }
}
