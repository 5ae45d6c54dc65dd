//! The nodes that are admitted and the connections to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use skep_config::PeerConfig;
use skep_protocol::frame::{FrameKind, Hello};
use skep_protocol::ids::{Incarnation, NodeId, RaftId, ShardId};
use skep_protocol::text::NodeName;
use tokio::sync::watch;
use tokio::time::Instant;

use super::budget::NodeBudget;
use super::calls::{CallError, Class};
use super::gate::{Gate, Pass};
use super::lineages::Known;
use super::link::{Link, Outgoing, RoundTrips};
use super::noise::Noise;
use super::pace::{Pace, answer_bytes};
use super::places::Places;
use super::roles::{NOT_NEEDED, Roles, Wishes};
use super::twins::Twins;
use crate::clock::Clocks;

/// A peer as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerView {
    /// Who it is.
    pub node: NodeId,
    /// Its name, as its certificate says it; where there is none as it is configured, and else as it says itself.
    pub name: Option<NodeName>,
    /// Whether it is connected.
    pub up: bool,
    /// Where it is dialled first.
    pub address: Option<SocketAddr>,
    /// The incarnation that it last showed.
    pub incarnation: Option<Incarnation>,
    /// Why it is not connected, if that is known.
    pub last_error: Option<String>,
    /// The round trip to it of late, in milliseconds. None while it is not connected.
    pub rtt_ms: Option<u64>,
    /// How many of a thousand packets to it were lost, on this connection. None while it is not connected.
    pub lost_permille: Option<u32>,
    /// What may be under way to it in a second, as congestion control has it, in bytes. None while it is not connected.
    pub bytes_per_s: Option<u64>,
}

/// Which entries a call carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entries {
    /// None.
    No,
    /// Some that were not sent before.
    New,
    /// Some that were sent before and not answered, and maybe others.
    Again,
}

/// An established connection to a peer.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) hello: Hello,
    pub(super) link: Link,
    /// Who dialled it.
    pub(super) dialled_by: NodeId,
    /// By what it was let in; none where there is no site.
    pub(super) pass: Option<Arc<Pass>>,
    pace: Mutex<Pace>,
}

impl Peer {
    pub(crate) fn new(node: NodeId, hello: Hello, link: Link, dialled_by: NodeId) -> Self {
        Self { node, hello, link, dialled_by, pass: None, pace: Mutex::default() }
    }

    /// The same, let in by a certificate.
    pub(crate) fn let_in_by(self, pass: Option<Pass>) -> Self {
        Self { pass: pass.map(Arc::new), ..self }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait for so many bytes: for an answer to them, or until they have come or gone.
    pub(super) fn patience(&self, least: Duration, bytes: usize) -> Duration {
        self.pace().patience(least, self.link.round_trips().late, bytes)
    }

    /// How long to wait until entries of so many bytes are said to be written.
    fn append_patience(&self, least: Duration, bytes: usize) -> Duration {
        self.pace().append_patience(least, self.link.round_trips().late, bytes)
    }

    /// How many bytes of entries to send at once.
    pub(crate) fn append_bytes(&self) -> usize {
        self.pace().append_bytes()
    }

    /// Entries of so many bytes were sent.
    pub(crate) fn appended(&self, bytes: usize) {
        let RoundTrips { late, shortest } = self.link.round_trips();
        self.pace().appended(bytes, late.saturating_sub(shortest));
    }

    /// How many bytes of a snapshot may be under way, and how many go into one chunk.
    pub(super) fn snapshot_bytes(&self) -> (usize, usize) {
        let pace = self.pace();
        (pace.snapshot_bytes(), pace.chunk_bytes())
    }

    /// A chunk of a snapshot was answered after so long, while so many bytes were under way.
    pub(super) fn chunk_answered(&self, bytes: usize, took: Duration, under_way: usize) {
        let queueing = took.saturating_sub(self.link.round_trips().shortest);
        self.pace().chunk_answered(bytes, queueing, under_way);
    }

    /// A chunk of a snapshot was not answered in time.
    pub(super) fn chunk_missed(&self) {
        self.pace().chunk_missed();
    }

    /// The Raft id of the incarnation on the other side.
    pub(crate) fn raft_id(&self) -> RaftId {
        RaftId::derive(self.node, self.hello.incarnation)
    }
}

/// What is known of a peer.
#[derive(Default)]
pub(super) struct Entry {
    /// What this node's operator calls it.
    name: Option<NodeName>,
    pub(super) places: Places,
    pub(super) peer: Option<Arc<Peer>>,
    /// By what it was let in last.
    pub(super) pass: Option<Arc<Pass>>,
    /// When it was let in last.
    pub(super) met: Option<Instant>,
    /// What it last said of itself.
    hello: Option<Hello>,
    last_error: Option<String>,
}

impl Entry {
    fn configured(config: &PeerConfig) -> Self {
        Self { name: config.name.clone(), places: Places::configured(config.control), ..Self::default() }
    }

    /// Its name. What it calls itself counts only where its certificate and this node's own list are silent: whoever calls itself by
    /// another's name would have an operator take out the wrong voter.
    fn name(&self) -> Option<NodeName> {
        let certified = self.pass.as_ref().map(|pass| pass.member().grants.name.clone());
        let said = || self.hello.as_ref().map(|hello| hello.name.clone());
        certified.or_else(|| self.name.clone()).or_else(said)
    }
}

/// All admitted peers: those that are listed, or at a site the members that this node has met or heard of. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(super) local: NodeId,
    /// By what peers are let in; none where the list says who is.
    pub(super) gate: Option<Gate>,
    clocks: Clocks,
    entries: Arc<Mutex<BTreeMap<NodeId, Entry>>>,
    changed: watch::Sender<u64>,
    pub(super) roles: watch::Sender<Roles>,
    pub(super) wishes: Arc<Mutex<Wishes>>,
    /// Peers with whom nothing is spoken, as a testnet wishes.
    cut_off: Arc<Mutex<BTreeSet<NodeId>>>,
    pub(super) twins: Arc<Mutex<Twins>>,
    pub(super) known: Arc<Mutex<Known>>,
    /// What the calls of all peers may have under way.
    pub(super) budget: NodeBudget,
    /// Frames that were none, as it is told in the log.
    pub(super) malformed: Arc<Noise>,
}

impl Peers {
    pub(crate) fn new(local: NodeId, configs: &[PeerConfig], clocks: Clocks) -> Self {
        let others = configs.iter().filter(|config| config.id != local);
        let entries = others.map(|config| (config.id, Entry::configured(config))).collect();
        Self {
            local,
            gate: None,
            clocks,
            entries: Arc::new(Mutex::new(entries)),
            changed: watch::channel(0).0,
            roles: watch::channel(Roles::default()).0,
            wishes: Arc::default(),
            cut_off: Arc::default(),
            twins: Arc::default(),
            known: Arc::default(),
            budget: NodeBudget::default(),
            malformed: Arc::default(),
        }
    }

    /// The same at a site: who is configured is an address and no more.
    pub(crate) fn of_site(self, gate: Option<Gate>) -> Self {
        Self { gate, ..self }
    }

    /// Speaks with none of these from now on, and with all others again.
    pub(crate) fn cut_off(&self, nodes: BTreeSet<NodeId>) {
        *self.cut_off.lock().unwrap_or_else(PoisonError::into_inner) = nodes.clone();
        for peer in nodes.into_iter().filter_map(|node| self.connected(node)) {
            peer.link.close(0, b"cut off");
        }
    }

    pub(super) fn is_cut_off(&self, node: NodeId) -> bool {
        self.cut_off.lock().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    pub(super) fn entries(&self) -> MutexGuard<'_, BTreeMap<NodeId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clocks(&self) -> &Clocks {
        &self.clocks
    }

    /// Whether a node is listed, or at a site was met or heard of, and is not cut off.
    pub(super) fn admits(&self, node: NodeId) -> bool {
        self.entries().contains_key(&node) && !self.is_cut_off(node)
    }

    /// The connection to a peer, if there is one.
    pub(crate) fn connected(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.entries().get(&node)?.peer.clone()
    }

    /// Closes connections that this node dialled and that it is to let go of.
    pub(super) fn let_go(&self, is_idle: impl Fn(NodeId) -> bool) {
        let dialled = |entry: &Entry| entry.peer.clone().filter(|peer| peer.dialled_by == self.local);
        let dialled: Vec<Arc<Peer>> = self.entries().values().filter_map(dialled).collect();
        for peer in dialled.into_iter().filter(|peer| is_idle(peer.node)) {
            peer.link.close(0, NOT_NEEDED.as_bytes());
        }
    }

    /// The peers that are connected, and which run of each.
    pub(crate) fn present(&self) -> Vec<(NodeId, u64)> {
        let present = |(node, entry): (&NodeId, &Entry)| entry.peer.as_ref().map(|peer| (*node, peer.hello.process));
        self.entries().iter().filter_map(present).collect()
    }

    /// The name of a peer, as this node's operator knows it.
    pub(crate) fn name(&self, node: NodeId) -> Option<NodeName> {
        self.entries().get(&node)?.name()
    }

    /// Follows connects and disconnects.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// All peers as they are now.
    pub(crate) fn views(&self) -> Vec<PeerView> {
        let view = |(node, entry): (&NodeId, &Entry)| {
            let view = PeerView {
                node: *node,
                name: entry.name(),
                up: entry.peer.is_some(),
                address: entry.places.next(0),
                incarnation: entry.hello.as_ref().map(|h| h.incarnation),
                last_error: entry.last_error.clone(),
                rtt_ms: None,
                lost_permille: None,
                bytes_per_s: None,
            };
            (view, entry.peer.clone())
        };
        let views: Vec<(PeerView, Option<Arc<Peer>>)> = self.entries().iter().map(view).collect();
        // Each link is locked for its figures: Raft, which looks for its peers, does not wait for all of them.
        let measured = |(view, peer): (PeerView, Option<Arc<Peer>>)| {
            let Some(Peer { link, .. }) = peer.as_deref() else { return view };
            let rtt_ms = u64::try_from(link.round_trips().late.as_millis()).unwrap_or(u64::MAX);
            let (lost_permille, bytes_per_s) = (link.lost_permille(), link.bytes_per_s());
            PeerView { rtt_ms: Some(rtt_ms), lost_permille, bytes_per_s, ..view }
        };
        views.into_iter().map(measured).collect()
    }

    pub(super) fn failed(&self, node: NodeId, error: String) {
        if let Some(entry) = self.entries().get_mut(&node) {
            entry.last_error = Some(error);
        }
    }

    /// Takes over a connection whose peer has said hello. Of two of one process one is kept; another process takes the place of
    /// the one before it, which makes way for it (see `make_way`). False if another one is kept instead.
    pub(crate) fn connect(&self, peer: &Arc<Peer>) -> bool {
        if self.is_cut_off(peer.node) {
            return false;
        }
        if !self.has_place(peer.node) {
            return false;
        }
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&peer.node) else { return false };
        if let Some(known) = &entry.peer {
            let same_process = known.hello.process == peer.hello.process;
            let preferred = self.local.min(peer.node);
            let alive = known.link.is_open();
            if same_process && alive && known.dialled_by == preferred && peer.dialled_by != preferred {
                return false;
            }
            known.link.close(0, b"replaced by a newer connection");
        }
        entry.hello = Some(peer.hello.clone());
        entry.last_error = None;
        if let Some(pass) = &peer.pass {
            (entry.pass, entry.met) = (Some(Arc::clone(pass)), Some(Instant::now()));
            peer.link.address().into_iter().for_each(|at| entry.places.met(at));
        }
        entry.peer = Some(Arc::clone(peer));
        drop(entries);
        self.note_change();
        true
    }

    /// Wakes those who follow who is connected, and who is known.
    pub(super) fn note_change(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Lets go of a connection that ended.
    pub(crate) fn disconnect(&self, peer: &Arc<Peer>, why: String) {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(&peer.node)
            && entry.peer.as_ref().is_some_and(|known| Arc::ptr_eq(known, peer))
        {
            entry.peer = None;
            entry.last_error = Some(why);
            drop(entries);
            self.note_change();
        }
    }

    /// Calls a peer and waits for its answer: for `least` on a quick link, and longer as the link and the peer need it.
    ///
    /// A call that is not answered says nothing of the connection. That ends when nothing at all was heard for its idle time.
    pub(crate) async fn call(
        &self,
        node: NodeId,
        class: Class,
        kind: FrameKind,
        shard: ShardId,
        body: &[u8],
        least: Duration,
    ) -> Result<Bytes, CallError> {
        let Some(peer) = self.connected(node) else { return Err(self.not_connected(node)) };
        let deadline = peer.patience(least, body.len());
        let (result, took) = self.ask(&peer, (class, kind), shard, body, deadline).await;
        // Others wait for more than the way: only what Raft's thread answers from memory tells how quick that is.
        if matches!(kind, FrameKind::Beat | FrameKind::Clock) {
            match &result {
                Ok(_) | Err(CallError::Refused(_)) => peer.pace().answered(took),
                Err(CallError::Timeout(_)) => peer.pace().missed(),
                Err(CallError::NotSent(_) | CallError::Lost(_)) => {}
            }
        }
        result
    }

    /// Sends entries, or none, to a peer, and waits until it says that what it has is written: for `least` on a quick link to a
    /// quick disk, and longer as the link and the disk need it.
    pub(crate) async fn append(
        &self,
        node: NodeId,
        class: Class,
        shard: ShardId,
        body: &[u8],
        least: Duration,
        entries: Entries,
    ) -> Result<Bytes, CallError> {
        let Some(peer) = self.connected(node) else { return Err(self.not_connected(node)) };
        let deadline = peer.append_patience(least, body.len());
        let (result, took) = self.ask(&peer, (class, FrameKind::Append), shard, body, deadline).await;
        match (&result, entries) {
            (Ok(_), Entries::New) => peer.pace().written(took),
            (Err(CallError::Timeout(_)), Entries::New | Entries::Again) => peer.pace().not_written(),
            _ => {}
        }
        result
    }

    /// Calls a peer; what it answers, and how long that took.
    async fn ask(
        &self,
        peer: &Peer,
        (class, kind): (Class, FrameKind),
        shard: ShardId,
        body: &[u8],
        deadline: Duration,
    ) -> (Result<Bytes, CallError>, Duration) {
        if kind.is_of_shard()
            && let Err(why) = self.check_shard(peer.node, shard)
        {
            return (Err(CallError::NotSent(why)), Duration::ZERO);
        }
        let clock = self.clocks.known(shard).and_then(|clock| clock.for_frames());
        let call = Outgoing { class, kind, shard, clock, body, deadline };
        let begun = Instant::now();
        let result = match tokio::time::timeout(deadline + deadline / 4, peer.link.call(call)).await {
            Ok(result) => result,
            Err(_) => Err(CallError::Timeout(deadline)),
        };
        (result, begun.elapsed())
    }

    /// The round trip to as many of these nodes as are needed beside this one: to the nearest, since the others are not
    /// waited for; to the farthest that is connected, if there are too few.
    pub(crate) fn round_trip(&self, nodes: &[NodeId], needed: usize) -> Duration {
        let connected = nodes.iter().filter_map(|node| self.connected(*node));
        let mut trips: Vec<Duration> = connected.map(|peer| peer.link.round_trips().late).collect();
        trips.sort_unstable();
        trips.get(needed.saturating_sub(1)).or(trips.last()).copied().unwrap_or_default()
    }

    /// About how many bytes the way to a node carries at once: an answer of so many arrives while it is waited for.
    pub(crate) fn answer_bytes(&self, node: NodeId) -> u64 {
        // This node itself, or one whose answer nobody waits for.
        let window = self.connected(node).map_or(u64::MAX, |peer| peer.link.window());
        answer_bytes(window)
    }

    pub(crate) fn not_connected(&self, node: NodeId) -> CallError {
        let entries = self.entries();
        CallError::NotSent(match entries.get(&node) {
            None if self.gate.is_some() => format!("no member has said yet where {node} is"),
            None => format!("{node} is not in the peer list; add it to [[peers]]"),
            Some(Entry { last_error: Some(error), .. }) => format!("{node} is not connected: {error}"),
            Some(_) => format!("{node} is not connected"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_protocol::fleet::FLEET_VERSIONS;
    use skep_protocol::frame::FRAME_VERSION;
    use skep_protocol::text::SiteName;

    #[test]
    fn a_peer_is_called_what_its_operator_calls_it_and_not_what_it_says() {
        let name = |text: &str| NodeName::new(text).unwrap();
        let hello = Hello {
            frame_version_min: FRAME_VERSION,
            frame_version_max: FRAME_VERSION,
            fleet: FLEET_VERSIONS,
            incarnation: Incarnation([7; 16]),
            process: 7,
            name: name("a"),
            site: SiteName::new("site").unwrap(),
            shards: Vec::new(),
        };
        let called = |known: Option<&str>, hello: Option<&Hello>| {
            Entry { name: known.map(name), hello: hello.cloned(), ..Entry::default() }.name()
        };
        assert_eq!(called(Some("b"), Some(&hello)), Some(name("b")));
        assert_eq!(called(None, Some(&hello)), Some(name("a")));
        assert_eq!(called(Some("b"), None), Some(name("b")));
        assert_eq!(called(None, None), None);
    }
}
