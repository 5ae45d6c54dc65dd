//! Where the listed peers may be.
//!
//! An address that somebody tells is a hint: the handshake proves who is there. Whoever tells hints may lie, anybody on the
//! network among them, so that they are few, they push out nothing that is better known, and they are tried at a pace:
//!
//! - what is configured is always known, and dialled each time;
//! - addresses at which the peer was reached push out each other, and nothing else pushes them out;
//! - what the peer says of itself, on a connection that is proved to be its own, pushes out what others say;
//! - what has failed makes room for whatever is new, and what others say is forgotten once it has failed for long, or somebody
//!   else is there. No host is named more than twice for a peer.
//!
//! Whoever answers at a wrong address ends the whole attempt. So where a proved address is known, every other attempt leaves
//! hints out. One that is heard while the peer is dialled, or before an attempt without hints, is not missed for that: whoever dials is
//! told that it is [untried](Hints::has_untried). Nor is one whose turn did not come, or that the pace held back.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use tokio::time::Instant;

use crate::bucket::{Bucket, Rate};

/// Addresses kept of a peer beside the configured one. The one that is known worst goes.
pub(crate) const HINTS_PER_PEER_MAX: usize = 8;
/// Of these, addresses at which the peer was reached. The one of longest ago is a hint of its own from then on.
const REACHED_PER_PEER_MAX: usize = 3;
/// Addresses of one host that others may tell of a peer: one for each transport. The one heard longest ago goes.
const TOLD_PER_HOST_MAX: usize = 2;
/// Hints tried in one attempt. Others have their turn in the next.
const HINTS_PER_DIAL_MAX: usize = 4;
/// Attempts that failed after which a hint is worth less than any other.
const FAILS_AFTER: u32 = 2;
/// Attempts that failed after which what others told is forgotten: as many as are made until multicast asks again who is there,
/// since the peer may not have been up yet.
const FORGOTTEN_AFTER: u32 = 16;
/// How fast hints are tried: all of them, and those of one host, whose owner may know nothing of Skep. Others wait for the next
/// attempt.
const TRIES: Rate = Rate { per_s: 64, burst: 256 };
const TRIES_PER_HOST: Rate = Rate { per_s: 1, burst: 8 };
/// Hosts of which it is known how often they were tried. While there are more, no hint of another one is tried.
const HOSTS_MAX: usize = 512;

/// On whose word an address is known. The later the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Word {
    /// Somebody on this network says so; anybody can.
    Lan,
    /// Another peer says so.
    Other,
    /// The peer itself says so, on a connection of its own.
    Own,
    /// It was reached there.
    Reached,
}

#[derive(Clone, Debug)]
struct Hint {
    address: Multiaddr,
    host: IpAddr,
    word: Word,
    /// In which order hints were heard last.
    heard: u64,
    tries: u32,
    /// Attempts that failed since it was heard on a better word, or worked.
    failures: u32,
}

impl Hint {
    /// How well it is known: the least goes first. One that fails is worth nothing.
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
    /// Whether a hint was heard that no attempt has tried since.
    has_untried: bool,
}

impl Known {
    fn position(&self, address: &Multiaddr) -> Option<usize> {
        self.hints.iter().position(|hint| hint.address == *address)
    }

    /// Makes one room for a hint. None if all that is known is known better; otherwise what goes for it, if anything.
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
    /// Whether this node listens on loopback: then others who do are its peers, and nobody else.
    on_loopback: bool,
    of: BTreeMap<PeerId, Known>,
    heard: u64,
    tries: Bucket,
    hosts: BTreeMap<IpAddr, Bucket>,
    forgotten: Vec<(PeerId, Multiaddr)>,
}

impl Hints {
    /// Knows nobody yet.
    pub(crate) fn new(on_loopback: bool, now: Instant) -> Self {
        let (of, hosts) = (BTreeMap::new(), BTreeMap::new());
        Self { on_loopback, of, heard: 0, tries: Bucket::full(now), hosts, forgotten: Vec::new() }
    }

    /// A listed peer, with the address that is configured, if one is. Of others nothing is kept.
    pub(crate) fn list(&mut self, peer: PeerId, configured: Option<Multiaddr>) {
        let configured = configured.map(without_peer);
        self.of.insert(peer, Known { configured, ..Known::default() });
    }

    /// An address of a peer is told. Whether it is one to dial that was not known.
    pub(crate) fn hear(&mut self, peer: &PeerId, address: &Multiaddr, word: Word) -> bool {
        let Some(known) = self.of.get_mut(peer) else { return false };
        let Some((address, host)) = usable(address, peer, self.on_loopback) else { return false };
        if known.configured.as_ref() == Some(&address) {
            return false;
        }
        self.heard += 1;
        let heard = self.heard;
        if let Some(hint) = known.position(&address).and_then(|at| known.hints.get_mut(at)) {
            // Who repeats a lie does not make it younger.
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

    /// A peer was reached at an address.
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

    /// Nobody was reached at an address.
    pub(crate) fn failed(&mut self, peer: &PeerId, address: &Multiaddr) {
        self.miss(peer, address, |hint| hint.word < Word::Own && hint.failures >= FORGOTTEN_AFTER);
    }

    /// Somebody else was reached at an address.
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

    /// Where a peer is dialled now.
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

    /// Whether there is a hint of a peer that was heard, and that no attempt has tried since.
    pub(crate) fn has_untried(&self, peer: &PeerId) -> bool {
        self.of.get(peer).is_some_and(|known| known.has_untried)
    }

    /// Whether an address that is told can mean a peer from here.
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

    /// What was forgotten since this was last asked.
    pub(crate) fn take_forgotten(&mut self) -> Vec<(PeerId, Multiaddr)> {
        std::mem::take(&mut self.forgotten)
    }
}

/// Whether a hint of a host may be tried now.
fn has_turn(hosts: &mut BTreeMap<IpAddr, Bucket>, host: IpAddr, now: Instant) -> bool {
    if hosts.len() >= HOSTS_MAX && !hosts.contains_key(&host) {
        hosts.retain(|_, bucket| !bucket.is_full(now));
        if hosts.len() >= HOSTS_MAX {
            return false;
        }
    }
    hosts.entry(host).or_insert_with(|| Bucket::full(now)).take(TRIES_PER_HOST, 1, now)
}

/// The one form in which an address is kept: two forms would be dialled twice.
fn without_peer(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

/// An address that a peer tells, and its host, if it can mean that peer from here: an IP address, and QUIC or TCP. A loopback
/// address can only among those who listen on loopback themselves.
fn usable(address: &Multiaddr, peer: &PeerId, on_loopback: bool) -> Option<(Multiaddr, IpAddr)> {
    // Five parts are one too many.
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
