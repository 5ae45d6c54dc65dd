//! With whom a node keeps a connection: who votes decides.
//!
//! Voters speak with everybody, and nobody else needs to speak with anybody else. Before it is known who votes, those count as
//! voters who are marked as such in the configuration; if nobody is, everybody speaks with everybody.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use tokio::time::Instant;

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
