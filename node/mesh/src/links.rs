//! One connection to a peer.
//!
//! gossipsub hands what it sends to a peer to whichever of its connections is free, and says what it subscribes to on
//! the first one only. With two, a subscription and the end of an earlier one overtake each other, and the peer holds
//! for good that nobody listens here. Two are common: peers that start together dial each other at once. So one of them
//! is closed, on both sides the same, and what is subscribed to is said again on the one that stays.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;
use tokio::time::Instant;

/// Until this age, a connection may be one of two that were made at once. An older one is of a peer that has come again,
/// and not yet known to be dead. As long as a silent connection may last at most.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// Who dialled a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialled {
    Here,
    There,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    id: ConnectionId,
    dialled: Dialled,
    since: Instant,
}

/// The connections that are open.
#[derive(Debug)]
pub(crate) struct Links {
    local: PeerId,
    open: BTreeMap<PeerId, Vec<Link>>,
}

impl Links {
    pub(crate) fn new(local: PeerId) -> Self {
        Self { local, open: BTreeMap::new() }
    }

    /// A connection was made. Returns the one to the same peer that has to go, if one has to.
    pub(crate) fn opened(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        dialled: Dialled,
        now: Instant,
    ) -> Option<ConnectionId> {
        let links = self.open.entry(peer).or_default();
        let earlier = links.last().copied();
        let link = Link { id, dialled, since: now };
        links.push(link);
        let earlier = earlier?;
        if now - earlier.since >= SETTLED_AFTER {
            return Some(earlier.id);
        }
        if earlier.dialled == dialled {
            // One dial that raced over several addresses, or a peer that has come again soon: whoever dialled closes
            // what it does not use, and what is dead ends by itself.
            return None;
        }
        // Both sides must choose the same.
        let stays = if self.local < peer { Dialled::Here } else { Dialled::There };
        Some(if link.dialled == stays { earlier.id } else { link.id })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn of_two_connections_made_at_once_both_sides_keep_the_same() {
        let now = Instant::now();
        let (a, b) = (PeerId::random(), PeerId::random());
        for (first, second) in [(Dialled::Here, Dialled::There), (Dialled::There, Dialled::Here)] {
            for (seen_first, seen_second) in [(1, 2), (2, 1)] {
                // 1 was dialled by `a` or by `b`, 2 by the other; each side may see either first.
                let by = |n: usize| if n == 1 { first } else { second };
                let other = |by: Dialled| if by == Dialled::Here { Dialled::There } else { Dialled::Here };
                let mut of_a = Links::new(a);
                assert_eq!(of_a.opened(b, id(1), by(1), now), None);
                let gone_at_a = of_a.opened(b, id(2), by(2), now).expect("one goes");
                let mut of_b = Links::new(b);
                assert_eq!(of_b.opened(a, id(seen_first), other(by(seen_first)), now), None);
                let gone_at_b = of_b.opened(a, id(seen_second), other(by(seen_second)), now).expect("one goes");
                assert_eq!(gone_at_a, gone_at_b);
            }
        }
    }

    #[test]
    fn a_peer_that_comes_again_ends_the_connection_that_it_has_left() {
        let now = Instant::now();
        let (a, b) = (PeerId::random(), PeerId::random());
        for (earlier, later) in [(Dialled::Here, Dialled::There), (Dialled::There, Dialled::There)] {
            let mut links = Links::new(a);
            assert_eq!(links.opened(b, id(1), earlier, now), None);
            assert_eq!(links.opened(b, id(2), later, now + SETTLED_AFTER), Some(id(1)));
        }
    }

    #[test]
    fn a_connection_that_ended_is_in_nobodys_way() {
        let now = Instant::now();
        let (a, b) = (PeerId::random(), PeerId::random());
        let mut links = Links::new(a);
        assert_eq!(links.opened(b, id(1), Dialled::Here, now), None);
        links.closed(b, id(1));
        assert_eq!(links.opened(b, id(2), Dialled::There, now), None);
        assert!(links.opened(b, id(3), Dialled::Here, now).is_some());
    }
}
