//! Which connection to a peer stays.
//!
//! gossipsub hands what it sends to a peer to whichever of its connections is free, and says what it subscribes to on
//! the first one only. With two, a subscription and the end of an earlier one overtake each other, and the peer holds
//! for good that nobody listens here. So one of them is closed, and what is subscribed to is said again on the one that
//! stays.
//!
//! There are two when peers dial each other at once: both live, and both sides must choose the same. And there are two
//! when a peer comes again before it is known that its earlier connection is dead: a process that was killed says
//! nothing, and to choose the dead one is to close, for as long as it is not found to be dead, every one that the peer
//! makes. So a connection is chosen only if it is known to live beside the other, and peers say which process they are.
//!
//! A process that was met before, and comes again while another one is there, has not died: two run under one identity, such
//! as a copied directory beside its original. The one that was met first stays for as long as it is there.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use skep_protocol::mutant::{Mutant, is_on};
use tokio::time::Instant;

/// A connection of the same process that was heard this shortly before another one was made was made at once with it.
/// Short: whoever made the other one may have lost this one just then.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Processes of a peer that are remembered.
const PROCESSES_KEPT: usize = 4;

/// Who dialled a connection.
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
    /// When the peer answered on it last: shaking hands does not count.
    heard: Option<Instant>,
    /// The process at the other end, as it names itself.
    process: Option<String>,
}

/// Those of a peer's connections, the oldest first, that have to go; never all of them.
///
/// `stays` is who dials the one that stays of several that live, and `process` is the one of the peer whose place it is: what
/// belongs to others goes. Whatever may be dead and may not be is left alone: it ends by itself, or answers.
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
    /// The processes of each peer that were met last, in the order in which they were first met.
    met: BTreeMap<PeerId, Vec<String>>,
    /// When two processes of a peer were last met at once.
    shared: BTreeMap<PeerId, Instant>,
}

impl Links {
    pub(crate) fn new(local: PeerId) -> Self {
        Self { local, open: BTreeMap::new(), met: BTreeMap::new(), shared: BTreeMap::new() }
    }

    /// A connection was made.
    pub(crate) fn opened(&mut self, peer: PeerId, id: ConnectionId, dialled: Dialled, now: Instant) {
        let link = Link { id, dialled, since: now, heard: None, process: None };
        self.open.entry(peer).or_default().push(link);
    }

    /// A peer answered on a connection, and perhaps said which process it is. Returns the connections to it that have to
    /// go; they do not count any more.
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
                // One that was never met takes the place of those before it, which are gone with all that was theirs.
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

    /// When two processes of a peer were last met at once, if they were.
    pub(crate) fn shared(&self, peer: &PeerId) -> Option<Instant> {
        self.shared.get(peer).copied()
    }

    /// A connection has ended.
    pub(crate) fn closed(&mut self, peer: PeerId, id: ConnectionId) {
        if let Some(links) = self.open.get_mut(&peer) {
            links.retain(|link| link.id != id);
            if links.is_empty() {
                self.open.remove(&peer);
            }
        }
    }
}

/// Remembers a process; whether it was not met before.
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
