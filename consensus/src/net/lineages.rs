//! Peers of another shard that has the same number.
//!
//! Sites are told apart by their names, and their shards by numbers, and both are soon the same somewhere: a test hall and the hall
//! itself, or a shard that was made twice. What a shard is without doubt is its genesis. So nodes say in their hellos of which
//! shards they have replicas, and two that are of different ones under one number do not speak with each other of that number. Both
//! say so, since one of them has to be looked after. Of other shards they go on speaking: whoever gives somebody a replica of a
//! number that nobody uses parts nobody from what is used.
//!
//! A node that has no replica says nothing, though the journals of its agents know a genesis: what is signed for another shard is
//! refused there, and the node does no harm. One that was just started may not know yet what its replica is. So whoever comes to know
//! what it is tells its peers, asks them, and judges what they said once more. What a peer does not name, such as the last of more
//! shards than a hello has room for, is not known: nothing is refused for it.

use std::collections::BTreeMap;
use std::time::Duration;

use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::limits;
use skep_protocol::recovery::Lineage;
use tokio::time::Instant;

/// How long it is said of a peer after it was last connected, unless it comes again as another one: longer than two nodes of which
/// each takes the other one for none that votes wait until they dial again.
const SAID_FOR: Duration = Duration::from_secs(90);
/// How far two lines of the log about one peer are apart, whatever it says of itself.
const LOG_APART: Duration = Duration::from_secs(1);

/// What this node has replicas of, and what its peers say that they have.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) own: Vec<Lineage>,
    told: BTreeMap<NodeId, Told>,
}

/// What a peer said of itself.
#[derive(Debug)]
struct Told {
    shards: Vec<Lineage>,
    /// When it last said something, or was last connected.
    met: Instant,
    /// What the log says of it, and since when.
    logged: Option<(String, Instant)>,
}

impl Known {
    /// A peer says of which shards it has replicas. The latest word counts.
    pub(super) fn note(&mut self, node: NodeId, shards: &[Lineage]) {
        let shards = shards.iter().take(limits::HELLO_SHARDS_MAX).cloned().collect();
        let logged = self.told.remove(&node).and_then(|told| told.logged);
        self.told.insert(node, Told { shards, met: Instant::now(), logged });
    }

    /// A peer was connected until now.
    pub(super) fn left(&mut self, node: NodeId) {
        if let Some(told) = self.told.get_mut(&node) {
            told.met = Instant::now();
        }
    }

    /// A peer is not known any more.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.told.remove(&node);
    }

    /// What a peer said last.
    pub(super) fn of(&self, node: NodeId) -> &[Lineage] {
        self.told.get(&node).map_or(&[], |told| &told.shards)
    }

    /// What a shard is here and what it is at a peer, if these are two.
    pub(super) fn conflict(&self, node: NodeId, shard: ShardId) -> Option<(&Lineage, &Lineage)> {
        conflicts(&self.own, self.of(node)).find(|(own, _)| own.shard == shard)
    }

    /// What is seen of a peer that is of another shard, or of several.
    fn detail(&self, local: NodeId, node: NodeId) -> Option<String> {
        let mut found = conflicts(&self.own, self.of(node));
        let (own, their) = found.next()?;
        let words = in_words((local, own), (node, their));
        Some(match found.count() {
            0 => words,
            more => format!("{words}; so it is with {more} more of their shards"),
        })
    }

    /// What the log is to say of a peer: if it is of another shard, and that was not said of late, or something else was.
    pub(super) fn take_unsaid(&mut self, local: NodeId, node: NodeId) -> Option<String> {
        let detail = self.detail(local, node)?;
        let told = self.told.get_mut(&node)?;
        let is_due = told.logged.as_ref().is_none_or(|(said, at)| {
            let since = at.elapsed();
            since > SAID_FOR || (*said != detail && since >= LOG_APART)
        });
        is_due.then(|| {
            told.logged = Some((detail.clone(), Instant::now()));
            detail
        })
    }

    /// The peers that are of other shards, of those that are connected or were of late, and what is seen of each.
    pub(super) fn strays(&self, local: NodeId, is_connected: impl Fn(NodeId) -> bool) -> Vec<(NodeId, String)> {
        let near = self.told.iter().filter(|(node, told)| is_connected(**node) || told.met.elapsed() <= SAID_FOR);
        near.filter_map(|(node, _)| Some((*node, self.detail(local, *node)?))).collect()
    }
}

/// The shards of one number at two nodes that are two shards.
fn conflicts<'a>(own: &'a [Lineage], theirs: &'a [Lineage]) -> impl Iterator<Item = (&'a Lineage, &'a Lineage)> {
    own.iter().filter_map(move |one| {
        let other = theirs.iter().find(|other| other.shard == one.shard)?;
        (!one.belongs_with(other)).then_some((one, other))
    })
}

/// The same words, whichever of the two nodes says them.
pub(crate) fn in_words(one: (NodeId, &Lineage), other: (NodeId, &Lineage)) -> String {
    let mut both = [one, other];
    both.sort_by_key(|(node, _)| *node);
    let [(one, of_one), (other, of_other)] = both;
    let (shard, genesis, another) = (of_one.shard, of_one.genesis, of_other.genesis);
    format!(
        "shard {shard} of {one} has genesis {genesis} and that of {other} has genesis {another}: neither of them is what the other \
         one was before it was recovered"
    )
}

#[cfg(test)]
mod tests {
    use skep_protocol::ids::Genesis;

    use super::*;

    fn lineage(shard: u32, genesis: u8) -> Lineage {
        Lineage { shard: ShardId(shard), genesis: Genesis::from_bytes([genesis; 16]), past: Vec::new() }
    }

    fn node(n: u8) -> NodeId {
        NodeId::from_public_key([n; 32])
    }

    /// What a node with some replicas knows of a peer that says that it has others.
    fn known(own: &[&Lineage], theirs: &[Lineage]) -> Known {
        let mut known = Known { own: own.iter().copied().cloned().collect(), ..Known::default() };
        known.note(node(2), theirs);
        known
    }

    #[test]
    fn two_nodes_part_over_the_shards_that_are_two_and_over_no_others() {
        let (one, other, second) = (lineage(1, 6), lineage(1, 7), lineage(2, 6));
        let both = known(&[&one, &second], &[other.clone(), second.clone()]);
        assert_eq!(both.conflict(node(2), ShardId(1)), Some((&one, &other)));
        assert_eq!(both.conflict(node(2), ShardId(2)), None, "what they share they go on sharing");
        assert_eq!(both.conflict(node(3), ShardId(1)), None, "nobody else is meant");
        assert_eq!(both.strays(node(1), |_| true).len(), 1, "it is said all the same");
        // Who knows nothing, or has another number, is in nobody's way.
        let parts = |own: &[&Lineage], theirs: &[&Lineage]| {
            let theirs: Vec<Lineage> = theirs.iter().copied().cloned().collect();
            !known(own, &theirs).strays(node(1), |_| true).is_empty()
        };
        assert!(!parts(&[], &[&one]) && !parts(&[&one], &[]) && !parts(&[&one], &[&second]));
        assert!(parts(&[&second, &one], &[&other]));
    }

    #[test]
    fn what_a_peer_does_not_name_is_not_known() {
        let shards = limits::SHARDS_PER_NODE_MAX as u32;
        let theirs: Vec<Lineage> = (1..=shards).map(|shard| lineage(shard, 7)).collect();
        let own: Vec<Lineage> = (1..=shards).map(|shard| lineage(shard, 6)).collect();
        let known = known(&own.iter().collect::<Vec<_>>(), &theirs);
        let named = limits::HELLO_SHARDS_MAX as u32;
        assert!((1..=named).all(|shard| known.conflict(node(2), ShardId(shard)).is_some()));
        assert!((named + 1..=shards).all(|shard| known.conflict(node(2), ShardId(shard)).is_none()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_told_of_once_until_something_else_is_seen_of_it() {
        let mut known = known(&[&lineage(1, 6), &lineage(2, 6)], &[lineage(1, 7)]);
        let first = known.take_unsaid(node(1), node(2)).unwrap();
        assert!(first.contains("genesis 0707"), "{first}");
        tokio::time::advance(LOG_APART).await;
        known.note(node(2), &[lineage(1, 7)]);
        assert_eq!(known.take_unsaid(node(1), node(2)), None, "it says nothing new");
        for genesis in [8, 9] {
            known.note(node(2), &[lineage(1, genesis)]);
            let other = known.take_unsaid(node(1), node(2)).unwrap();
            assert!(other.contains(&format!("genesis 0{genesis}0{genesis}")), "{other}");
            known.note(node(2), &[lineage(1, 5)]);
            assert_eq!(known.take_unsaid(node(1), node(2)), None, "whatever it says fills a line a second");
            tokio::time::advance(LOG_APART).await;
        }
        known.note(node(2), &[lineage(1, 7), lineage(2, 7)]);
        let more = known.take_unsaid(node(1), node(2)).unwrap();
        assert!(more.contains("1 more of their shards"), "{more}");
        tokio::time::advance(SAID_FOR + LOG_APART).await;
        assert_eq!(known.take_unsaid(node(1), node(2)), Some(more), "it is so for long");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_gone_is_named_for_a_while() {
        let mut known = known(&[&lineage(1, 6)], &[lineage(1, 7)]);
        tokio::time::advance(SAID_FOR * 2).await;
        assert_eq!(known.strays(node(1), |_| true).len(), 1, "it is connected");
        known.left(node(2));
        tokio::time::advance(SAID_FOR).await;
        assert_eq!(known.strays(node(1), |_| false).len(), 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(known.strays(node(1), |_| false).is_empty());
    }

    #[test]
    fn both_nodes_say_the_same() {
        let (one, other) = (lineage(1, 6), lineage(1, 7));
        let said = in_words((node(1), &one), (node(2), &other));
        assert_eq!(in_words((node(2), &other), (node(1), &one)), said);
        assert!(said.contains(&format!("of {} has genesis 06060606", node(1))), "{said}");
        assert!(said.contains(&format!("of {} has genesis 07070707", node(2))), "{said}");
        assert!(said.len() < 512, "it is the reason why a frame is refused");
    }
}
