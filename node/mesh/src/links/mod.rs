//! Which connection to a peer stays.
//!
//! gossipsub hands what it sends to a peer to whichever of the connections is free, and announces its subscriptions on
//! the first one only. With two connections, a subscription and the end of an earlier one overtake each other, and the
//! peer believes for good that this node does not listen. So the node closes one of them, and announces its
//! subscriptions again on the one that stays.
//!
//! There are two when peers dial each other at once: both live, and both sides must choose the same. And there are two
//! when a peer comes again before the node knows that the earlier connection is dead: a process that was killed says
//! nothing. A node that chose the dead one would close every new connection of the peer until it found the dead one
//! out. So the node chooses a connection only if it is known to live beside the other, and peers say which process they
//! are.
//!
//! A process that this node met before, and that comes again while another one is there, has not died: two processes
//! run under one identity, such as a copied directory beside its original. The one that was met first stays for as long
//! as it is there.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use tokio::time::Instant;

/// A connection of the same process that was heard this shortly before another one was made counts as made at once with
/// it. The time is short: the side that made the other one may have lost this one just then.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The number of a peer's processes that are remembered.
const PROCESSES_KEPT: usize = 4;

/// Which side dialled a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialled {
    Here,
    There,
}

#[derive(Clone, Debug)]
struct Link {
    id: ConnectionId,
    dialled: Dialled,
    since: Instant,
    /// When the peer last answered on it: a handshake does not count.
    heard: Option<Instant>,
    /// The process at the other end, as it names itself.
    process: Option<String>,
}

/// Those of a peer's connections, the oldest first, that have to go; never all of them.
///
/// `stays` is the side that dialled the one that stays of several live ones. `process` is the process of the peer that
/// has the place: connections of others go. A connection that may be dead or not is left alone: it ends by itself, or
/// answers.
fn surplus(links: &[Link], stays: Dialled, process: Option<&String>) -> Vec<ConnectionId> {
    let Some(newest) = links.last() else { return Vec::new() };
    let left =
        |link: &Link| link.process.is_some() && link.process.as_ref() != process && !is_on(Mutant::DeadConnectionKept);
    let lives = |link: &Link| {
        let same_process = link.process.is_some() && link.process == newest.process;
        let before = if same_process { AT_ONCE } else { Duration::ZERO };
        link.heard.is_some_and(|heard| heard + before >= newest.since)
    };
    let live: Vec<&Link> = links.iter().filter(|link| lives(link) && !left(link)).collect();
    let kept = live.iter().rev().find(|link| link.dialled == stays).or(live.last()).map(|link| link.id);
    let goes = links.iter().filter(|link| left(link) || (lives(link) && Some(link.id) != kept));
    goes.map(|link| link.id).collect()
}

/// The connections that are open.
#[derive(Debug)]
pub(crate) struct Links {
    local: PeerId,
    open: BTreeMap<PeerId, Vec<Link>>,
    /// The processes of each peer that this node met last, in the order in which it first met them. Of peers that are
    /// not connected, few are remembered.
    met: BTreeMap<PeerId, Vec<String>>,
    /// When this node last met two processes of a peer at once.
    shared: BTreeMap<PeerId, Instant>,
}

impl Links {
    pub(crate) fn new(local: PeerId) -> Self {
        Self { local, open: BTreeMap::new(), met: BTreeMap::new(), shared: BTreeMap::new() }
    }

    /// Notes that a connection was made.
    pub(crate) fn opened(&mut self, peer: PeerId, id: ConnectionId, dialled: Dialled, now: Instant) {
        if self.met.len() >= limits::MESH_MEMBERS_MAX && !self.met.contains_key(&peer) {
            self.met.retain(|known, _| self.open.contains_key(known));
            self.shared.retain(|known, _| self.open.contains_key(known));
        }
        let link = Link { id, dialled, since: now, heard: None, process: None };
        self.open.entry(peer).or_default().push(link);
    }

    /// Notes that a peer answered on a connection, and perhaps said which process it is. Returns the connections to it
    /// that have to go; they have stopped counting.
    pub(crate) fn heard(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        process: Option<String>,
        now: Instant,
    ) -> Vec<ConnectionId> {
        // Both sides must choose the same.
        let stays = if self.local < peer { Dialled::Here } else { Dialled::There };
        let Some(links) = self.open.get_mut(&peer) else { return Vec::new() };
        let met = self.met.entry(peer).or_default();
        let mut comes_first = None;
        if let Some(link) = links.iter_mut().find(|link| link.id == id) {
            link.heard = Some(now);
            if let Some(process) = process {
                // A process that this node never met takes the place of earlier ones, which are gone with all their
                // connections.
                comes_first = note(met, &process).then(|| process.clone());
                link.process = Some(process);
            }
        }
        let there = links.iter().filter_map(|link| link.process.as_ref());
        let first = there.clone().min_by_key(|process| met.iter().position(|known| known == *process));
        if comes_first.is_none() && there.clone().any(|process| Some(process) != first) {
            self.shared.insert(peer, now);
        }
        let gone = surplus(links, stays, comes_first.as_ref().or(first));
        links.retain(|link| !gone.contains(&link.id));
        gone
    }

    /// When this node last met two processes of a peer at once, if it did.
    pub(crate) fn shared(&self, peer: &PeerId) -> Option<Instant> {
        self.shared.get(peer).copied()
    }

    /// Notes that a connection has ended.
    pub(crate) fn closed(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some(links) = self.open.get_mut(&peer) {
            links.retain(|link| link.id != id);
            if links.is_empty() {
                self.open.remove(&peer);
            }
        }
    }
}

/// Remembers a process; returns whether this node had not met it before.
fn note(met: &mut Vec<String>, process: &str) -> bool {
    if met.iter().any(|known| known == process) {
        return false;
    }
    if met.len() == PROCESSES_KEPT {
        met.remove(0);
    }
    met.push(process.to_owned());
    true
}

#[cfg(test)]
mod tests;
