//! With whom a node keeps a connection: who votes decides.
//!
//! Voters speak with everybody, and nobody else needs to speak with anybody else. Before it is known who votes, those count as
//! voters who are marked as such in the configuration; if nobody is, everybody speaks with everybody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;

use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use tokio::sync::watch;
use tokio::time::Instant;

use super::peers::Peers;

/// How long a node is dialled that somebody wishes to reach: longer than it takes to make it a voter.
const WISH_LASTS: Duration = Duration::from_secs(120);
/// How long whoever wishes to reach a node waits for it.
const REACH_PATIENCE: Duration = Duration::from_secs(3);
/// Why there is no connection, in words.
pub(super) const NOT_NEEDED: &str = "no connection is kept, since neither node votes";

/// What a node does about a connection to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stance {
    /// It dials, and dials again.
    Dial,
    /// It keeps what the peer dialled, and dials itself only if the peer has not for long.
    Answer,
    /// It does not dial, and lets go of what it dialled. What the peer dialled, the peer has a use for.
    Leave,
}

/// Who votes, as far as a node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roles {
    /// The voters of all shards that it has heard of, or remembers; those who are marked as voters while there are none.
    pub(crate) voters: BTreeSet<NodeId>,
    /// Whether it has heard of any, or remembers some.
    pub(crate) known: bool,
    /// Others that are marked as voters, with whom it wants to speak for a while, since they may know of voters that it does not
    /// know.
    pub(crate) sought: BTreeSet<NodeId>,
}

impl Roles {
    /// What a node does about a connection to a peer.
    pub(super) fn stance(&self, local: NodeId, peer: NodeId) -> Stance {
        let votes = |node: NodeId| self.voters.contains(&node);
        if self.voters.is_empty() || votes(peer) || self.sought.contains(&peer) {
            Stance::Dial
        } else if votes(local) {
            Stance::Answer
        } else {
            Stance::Leave
        }
    }
}

/// Whom a node asks in a turn that looks for voters among those who are marked and not known to vote: some at a time, and all
/// in time.
pub(crate) fn sought_in(turn: usize, strangers: &[NodeId]) -> BTreeSet<NodeId> {
    let some = strangers.len().min(limits::SOUGHT_PEERS_MAX);
    let from = turn.wrapping_mul(some).checked_rem(strangers.len()).unwrap_or(0);
    strangers.iter().cycle().skip(from).take(some).copied().collect()
}

/// Nodes that somebody wishes to reach, and until when.
pub(super) type Wishes = BTreeMap<NodeId, Instant>;

impl Peers {
    /// Takes note of who votes, and lets go of what nobody needs.
    pub(crate) fn assume(&self, roles: Roles) {
        self.roles.send_if_modified(|known| {
            let changed = *known != roles;
            *known = roles;
            changed
        });
        self.let_go(|node| self.stance(node) == Stance::Leave);
    }

    /// Follows who votes, and whom somebody wishes to reach.
    pub(super) fn role_changes(&self) -> watch::Receiver<Roles> {
        self.roles.subscribe()
    }

    /// What this node does about a connection to a peer.
    pub(super) fn stance(&self, node: NodeId) -> Stance {
        let wished = self.wishes.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied();
        if wished.is_some_and(|until| until > Instant::now()) {
            return Stance::Dial;
        }
        self.roles.borrow().stance(self.local, node)
    }

    /// Connects to nodes that are to become voters, if they can be reached: waits a moment for those that nothing was wanted
    /// from before.
    pub(crate) async fn reach(&self, nodes: &[NodeId]) {
        let listed = |node: &NodeId| *node != self.local && self.admits(*node);
        let strangers = nodes.iter().copied().filter(|node| listed(node) && self.stance(*node) != Stance::Dial);
        let strangers: Vec<NodeId> = strangers.collect();
        if strangers.is_empty() {
            return;
        }
        let mut changes = self.changes();
        {
            let mut wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
            wishes.retain(|_, until| *until > Instant::now());
            wishes.extend(strangers.iter().map(|node| (*node, Instant::now() + WISH_LASTS)));
        }
        self.roles.send_modify(|_| {});
        let connected = async {
            while strangers.iter().any(|node| self.connected(*node).is_none()) && changes.changed().await.is_ok() {}
        };
        let _ = tokio::time::timeout(REACH_PATIENCE, connected).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_public_key([n; 32])
    }

    fn roles(voters: &[u8], sought: &[u8]) -> Roles {
        let of = |nodes: &[u8]| nodes.iter().copied().map(node).collect();
        Roles { voters: of(voters), known: !voters.is_empty(), sought: of(sought) }
    }

    #[test]
    fn who_votes_decides_who_dials_whom() {
        use Stance::{Answer, Dial, Leave};
        // Voters, sought, this node, the peer.
        type Case<'a> = (&'a [u8], &'a [u8], u8, u8, Stance);
        let cases: [Case; 9] = [
            // Nobody is known to vote.
            (&[], &[], 1, 2, Dial),
            (&[], &[3], 1, 2, Dial),
            // Voters dial each other, and whoever does not vote dials them.
            (&[1, 2, 3], &[], 1, 2, Dial),
            (&[1, 2, 3], &[], 9, 2, Dial),
            // They answer the others, and those leave each other alone.
            (&[1, 2, 3], &[], 1, 9, Answer),
            (&[1, 2, 3], &[], 8, 9, Leave),
            // Until one looks for somebody who knows better.
            (&[1, 2, 3], &[9], 8, 9, Dial),
            (&[1, 2, 3], &[7], 8, 9, Leave),
            // A voter that nobody hears any more looks, too.
            (&[1, 2, 3], &[9], 1, 9, Dial),
        ];
        for (voters, sought, local, peer, stance) in cases {
            assert_eq!(roles(voters, sought).stance(node(local), node(peer)), stance, "{voters:?} {local} {peer}");
        }
    }

    #[test]
    fn two_nodes_are_connected_if_one_of_them_votes_however_many_there_are() {
        let roles = roles(&[1, 2, 3], &[]);
        let mut connections = 0;
        for a in 1..=200 {
            for b in a + 1..=200 {
                let dials = |from: u8, to: u8| roles.stance(node(from), node(to)) == Stance::Dial;
                assert_eq!(dials(a, b) || dials(b, a), a <= 3, "{a} {b}");
                connections += usize::from(dials(a, b) || dials(b, a));
            }
        }
        assert_eq!(connections, 3 * 197 + 3);
    }

    #[test]
    fn whoever_looks_asks_some_at_a_time_and_all_in_time() {
        let strangers: Vec<NodeId> = (0..100).map(node).collect();
        let turns = strangers.len().div_ceil(limits::SOUGHT_PEERS_MAX);
        let asked: BTreeSet<NodeId> = (0..turns).flat_map(|turn| sought_in(turn, &strangers)).collect();
        assert_eq!(asked.len(), strangers.len());
        assert!((0..turns).all(|turn| sought_in(turn, &strangers).len() == limits::SOUGHT_PEERS_MAX));
        assert_eq!(sought_in(7, &strangers[..2]).len(), 2);
        assert!(sought_in(7, &[]).is_empty());
    }
}
