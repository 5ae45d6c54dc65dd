//! Where the listed peers may be.
//!
//! An address that another node tells is a hint: the handshake proves which node is there. Any node on the network can
//! tell hints, and may lie. So hints are few, a hint pushes out nothing that is better known, and the node tries hints
//! at a limited pace:
//!
//! - The configured address is always known, and dialled each time.
//! - Addresses at which the peer was reached push out each other, and nothing else pushes them out.
//! - What the peer says of itself, on a connection that is proved to be its own, pushes out what others say.
//! - A hint that failed makes room for any new one. The node forgets what others say once it has failed for long, or
//!   once another node turns out to be there. It keeps at most two hints with the same host for a peer.
//!
//! A node that answers at a wrong address ends the whole attempt. So where a proved address is known, every other
//! attempt leaves hints out. A hint that came while the peer was being dialled, or before an attempt without hints, is
//! not lost by that: the caller that dials is told that it is [untried](Hints::has_untried). The same holds for a hint
//! whose turn did not come, or that the pace held back.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use crate::bucket::{Bucket, Rate};

/// The most addresses kept of a peer beside the configured one. The one that is known worst goes.
pub(crate) const HINTS_PER_PEER_MAX: usize = 8;
/// Of these, the most addresses at which the peer was reached. The one reached longest ago becomes a hint of the peer's
/// own.
const REACHED_PER_PEER_MAX: usize = 3;
/// The most addresses of one host that others may tell of a peer: one for each transport. The one heard longest ago
/// goes.
const TOLD_PER_HOST_MAX: usize = 2;
/// The most hints tried in one attempt. Others have their turn in the next.
const HINTS_PER_DIAL_MAX: usize = 4;
/// Failed attempts after which a hint is worth less than any other.
const FAILS_AFTER: u32 = 2;
/// Failed attempts after which the node forgets what others told. As many attempts pass until multicast asks again
/// which nodes are there, since the peer may not have been up yet.
const FORGOTTEN_AFTER: u32 = 16;
/// How fast hints are tried: all of them, and those of one host, whose owner may know nothing of Skep. Others wait for
/// the next attempt.
const TRIES: Rate = Rate { per_s: 64, burst: 256 };
const TRIES_PER_HOST: Rate = Rate { per_s: 1, burst: 8 };
/// The most hosts for which the node knows how often it tried them. At this number it tries no hint of another host.
const HOSTS_MAX: usize = 512;

/// The source of an address. A later variant is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Word {
    /// A node on this network says so; any node can.
    Lan,
    /// Another peer says so.
    Other,
    /// The peer itself says so, on a connection of its own.
    Own,
    /// The peer was reached there.
    Reached,
}

#[derive(Clone, Debug)]
struct Hint {
    address: Multiaddr,
    host: IpAddr,
    word: Word,
    /// The place of the hint in the order in which hints were last heard.
    heard: u64,
    tries: u32,
    /// Attempts that failed since the hint was heard from a better source, or worked.
    failures: u32,
}

impl Hint {
    /// How well the address is known: the least goes first. A hint that fails is worth nothing.
    fn worth(&self) -> (Option<Word>, u64) {
        ((self.failures < FAILS_AFTER).then_some(self.word), self.heard)
    }
}

#[derive(Clone, Debug, Default)]
struct Known {
    configured: Option<Multiaddr>,
    hints: Vec<Hint>,
    /// Attempts so far.
    dials: u64,
    /// Whether the node heard a hint that no attempt has tried since.
    has_untried: bool,
}

impl Known {
    fn position(&self, address: &Multiaddr) -> Option<usize> {
        self.hints.iter().position(|hint| hint.address == *address)
    }

    /// Makes room for a hint. None if all other addresses are known better; otherwise the address that goes for it, if
    /// any.
    fn room(&mut self, host: IpAddr, word: Word) -> Option<Option<Multiaddr>> {
        let of_host = |hint: &&Hint| hint.word < Word::Own && hint.host == host;
        let crowded = word < Word::Own && self.hints.iter().filter(of_host).count() >= TOLD_PER_HOST_MAX;
        if !crowded && self.hints.len() < HINTS_PER_PEER_MAX {
            return Some(None);
        }
        let goes = self.hints.iter().filter(|hint| hint.word < Word::Reached && (!crowded || of_host(hint)));
        let goes = goes.min_by_key(|hint| hint.worth()).filter(|hint| hint.worth().0 <= Some(word))?;
        let address = goes.address.clone();
        self.hints.retain(|hint| hint.address != address);
        Some(Some(address))
    }
}

/// The table of hints.
#[derive(Debug)]
pub(crate) struct Hints {
    /// Whether this node listens on loopback: then only nodes that listen there too can be its peers.
    on_loopback: bool,
    of: BTreeMap<PeerId, Known>,
    heard: u64,
    tries: Bucket,
    hosts: BTreeMap<IpAddr, Bucket>,
    forgotten: Vec<(PeerId, Multiaddr)>,
}

impl Hints {
    /// An empty table.
    pub(crate) fn new(on_loopback: bool, now: Instant) -> Self {
        let (of, hosts) = (BTreeMap::new(), BTreeMap::new());
        Self { on_loopback, of, heard: 0, tries: Bucket::full(now), hosts, forgotten: Vec::new() }
    }

    /// Adds a listed peer, with its address if one is configured. The table keeps nothing of other peers.
    pub(crate) fn list(&mut self, peer: PeerId, configured: Option<Multiaddr>) {
        let configured = configured.map(without_peer);
        self.of.insert(peer, Known { configured, ..Known::default() });
    }

    /// Forgets a peer, and all hints of it.
    pub(crate) fn unlist(&mut self, peer: &PeerId) {
        self.of.remove(peer);
    }

    /// Takes an address of a peer. Returns whether it is one to dial that was not known.
    pub(crate) fn hear(&mut self, peer: &PeerId, address: &Multiaddr, word: Word) -> bool {
        let Some(known) = self.of.get_mut(peer) else { return false };
        let Some((address, host)) = usable(address, peer, self.on_loopback) else { return false };
        if known.configured.as_ref() == Some(&address) {
            return false;
        }
        self.heard += 1;
        let heard = self.heard;
        if let Some(hint) = known.position(&address).and_then(|at| known.hints.get_mut(at)) {
            // A node that repeats a lie does not make it younger.
            if word > hint.word || (word == hint.word && word >= Word::Own) {
                hint.failures = 0;
                (hint.word, hint.heard) = (word, heard);
            }
            return false;
        }
        let Some(goes) = known.room(host, word) else { return false };
        known.hints.push(Hint { address, host, word, heard, tries: 0, failures: 0 });
        known.has_untried |= word < Word::Reached;
        self.forgotten.extend(goes.map(|address| (*peer, address)));
        true
    }

    /// Notes that a peer was reached at an address.
    pub(crate) fn reached(&mut self, peer: &PeerId, address: &Multiaddr) {
        self.hear(peer, address, Word::Reached);
        let Some(known) = self.of.get_mut(peer) else { return };
        let reached = known.hints.iter_mut().filter(|hint| hint.word == Word::Reached);
        let mut reached: Vec<&mut Hint> = reached.collect();
        reached.sort_by_key(|hint| std::cmp::Reverse(hint.heard));
        for hint in reached.into_iter().skip(REACHED_PER_PEER_MAX) {
            hint.word = Word::Own;
        }
    }

    /// Notes that no node was reached at an address.
    pub(crate) fn failed(&mut self, peer: &PeerId, address: &Multiaddr) {
        self.miss(peer, address, |hint| hint.word < Word::Own && hint.failures >= FORGOTTEN_AFTER);
    }

    /// Notes that another node was reached at an address.
    pub(crate) fn wrong(&mut self, peer: &PeerId, address: &Multiaddr) {
        self.miss(peer, address, |hint| hint.word < Word::Reached);
    }

    fn miss(&mut self, peer: &PeerId, address: &Multiaddr, is_forgotten: impl FnOnce(&Hint) -> bool) {
        let address = without_peer(address.clone());
        let Some(known) = self.of.get_mut(peer) else { return };
        let Some(at) = known.position(&address) else { return };
        let Some(hint) = known.hints.get_mut(at) else { return };
        hint.failures = hint.failures.saturating_add(1);
        if is_forgotten(hint) {
            known.hints.remove(at);
            self.forgotten.push((*peer, address));
        }
    }

    /// The addresses at which to dial a peer at this instant.
    pub(crate) fn next_dials(&mut self, peer: &PeerId, now: Instant) -> Vec<Multiaddr> {
        let Some(known) = self.of.get_mut(peer) else { return Vec::new() };
        let mut addresses: Vec<Multiaddr> = known.configured.iter().cloned().collect();
        known.hints.sort_by_key(|hint| std::cmp::Reverse(hint.heard));
        let (reached, mut hints): (Vec<&mut Hint>, Vec<&mut Hint>) =
            known.hints.iter_mut().partition(|hint| hint.word == Word::Reached);
        addresses.extend(reached.into_iter().map(|hint| hint.address.clone()));
        let only_proved = !addresses.is_empty() && known.dials.is_multiple_of(2);
        known.dials = known.dials.wrapping_add(1);
        if only_proved {
            return addresses;
        }
        hints.sort_by_key(|hint| (hint.tries, std::cmp::Reverse(hint.word)));
        for hint in hints.iter_mut().take(HINTS_PER_DIAL_MAX) {
            let may = self.on_loopback || has_turn(&mut self.hosts, hint.host, now);
            if may && self.tries.take(TRIES, 1, now) {
                hint.tries = hint.tries.saturating_add(1);
                addresses.push(hint.address.clone());
            }
        }
        known.has_untried &= hints.iter().any(|hint| hint.tries == 0);
        addresses
    }

    /// Whether the node heard a hint of a peer that no attempt has tried since.
    pub(crate) fn has_untried(&self, peer: &PeerId) -> bool {
        self.of.get(peer).is_some_and(|known| known.has_untried)
    }

    /// Whether an address that others tell can mean a peer, as seen from here.
    pub(crate) fn is_usable(&self, peer: &PeerId, address: &Multiaddr) -> bool {
        usable(address, peer, self.on_loopback).is_some()
    }

    /// Whether an address is known well enough to be told to others.
    pub(crate) fn is_for_others(&self, peer: &PeerId, address: &Multiaddr) -> bool {
        let Some(known) = self.of.get(peer) else { return false };
        let address = without_peer(address.clone());
        let is_known = |hint: &Hint| hint.word >= Word::Own && hint.address == address;
        known.configured.as_ref() == Some(&address) || known.hints.iter().any(is_known)
    }

    /// What the table has forgotten since the last call.
    pub(crate) fn take_forgotten(&mut self) -> Vec<(PeerId, Multiaddr)> {
        std::mem::take(&mut self.forgotten)
    }
}

/// Whether a hint of a host may be tried at this instant.
fn has_turn(hosts: &mut BTreeMap<IpAddr, Bucket>, host: IpAddr, now: Instant) -> bool {
    if hosts.len() >= HOSTS_MAX && !hosts.contains_key(&host) {
        hosts.retain(|_, bucket| !bucket.is_full(now));
        if hosts.len() >= HOSTS_MAX {
            return false;
        }
    }
    hosts.entry(host).or_insert_with(|| Bucket::full(now)).take(TRIES_PER_HOST, 1, now)
}

/// The one form in which an address is kept: the node would dial two forms twice.
fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

/// An address that a peer tells, and its host, if it can mean that peer from here: an IP address, and QUIC or TCP. A
/// loopback address can mean a peer only if this node itself listens on loopback.
fn usable(address: &Multiaddr, peer: &PeerId, on_loopback: bool) -> Option<(Multiaddr, IpAddr)> {
    // A usable address has at most four parts, so five are enough to see.
    let parts: Vec<Protocol<'_>> = address.iter().take(5).collect();
    let (host, rest) = match parts.as_slice() {
        [host, Protocol::Tcp(1..), rest @ ..] | [host, Protocol::Udp(1..), Protocol::QuicV1, rest @ ..] => (host, rest),
        _ => return None,
    };
    let host = match host {
        Protocol::Ip4(ip) => IpAddr::V4(*ip),
        Protocol::Ip6(ip) => IpAddr::V6(*ip).to_canonical(),
        _ => return None,
    };
    let is_of_peer = match rest {
        [] => true,
        [Protocol::P2p(of)] => of == peer,
        _ => false,
    };
    let is_one = !host.is_unspecified() && !host.is_multicast() && host != IpAddr::V4(Ipv4Addr::BROADCAST);
    let is_here = is_one && host.is_loopback() == on_loopback;
    (is_of_peer && is_here).then(|| (without_peer(address.clone()), host))
}

#[cfg(test)]
mod tests;
