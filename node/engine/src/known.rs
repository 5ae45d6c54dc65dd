//! Which node leads a shard, as far as this node knows, and which node to ask if it knows none.

use std::collections::BTreeSet;
use std::ops::Bound;

use skep_protocol::ids::NodeId;
use skep_protocol::leader::{LeaderHint, Voters};
use skep_protocol::mutant::{Mutant, is_on};

/// While no node is known to lead, one turn in so many goes to a peer that is marked as a voter and not known to vote:
/// the shard may have replaced all voters since the node heard of them.
const MARKED_EVERY: u64 = 3;

/// On whose word a node is thought to lead. A later variant counts for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Word {
    /// Another node named it.
    Hearsay,
    /// The node itself says so.
    Own,
    /// The node answered as only a leader does, or this node's own replica names it.
    Proof,
}

/// A node that is thought to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lead {
    pub(crate) node: NodeId,
    pub(crate) term: u64,
    pub(crate) word: Word,
}

/// What is known of a shard's leader and voters.
///
/// A word is a hint which node to ask next, and no more: it never outlives the answer. The engine gives up a proved
/// leader only when that leader does not answer as one, when this node's own replica names another, or when another
/// node says itself that it leads in a later term.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    lead: Option<Lead>,
    /// The newest term whose leader is proved. A word of an earlier term is old.
    term: u64,
    /// The node that was thought to lead and did not answer as a leader, and the term.
    silent: Option<(NodeId, u64)>,
    voters: Voters,
    /// The term of the voters.
    voters_of: u64,
    /// The voters and their term, as a proved leader named them.
    proved: (Voters, u64),
    /// The voter and the marked peer that had the last turn while no node was known to lead.
    asked: [Option<NodeId>; 2],
    turn: u64,
}

impl Known {
    pub(crate) fn lead(&self) -> Option<Lead> {
        self.lead
    }

    /// Whether a node is thought to lead.
    pub(crate) fn is_thought_of(&self, node: NodeId) -> bool {
        self.lead.is_some_and(|lead| lead.node == node)
    }

    /// Whether the engine believes a node: it votes, or is marked as a voter. The engine neither asks nor hears other
    /// listed peers.
    pub(crate) fn believes(&self, node: NodeId, marked: &BTreeSet<NodeId>) -> bool {
        is_on(Mutant::StrangerBelieved) || marked.contains(&node) || self.voters.contains(&node)
    }

    /// Whether any node has said which node leads, or which nodes vote.
    pub(crate) fn is_heard_of(&self) -> bool {
        self.lead.is_some() || self.term > 0 || !self.voters.is_empty()
    }

    /// The newest known term.
    pub(crate) fn term(&self) -> u64 {
        self.lead.map_or(self.term, |lead| lead.term.max(self.term))
    }

    /// What this node may say to others. It does not pass hearsay on, or hearsay would never die.
    pub(crate) fn to_pass_on(&self) -> LeaderHint {
        let leader = self.lead.filter(|lead| lead.word == Word::Proof).map(|lead| lead.node);
        LeaderHint { leader, term: self.term, voters: self.voters.clone() }
    }

    /// Takes in what this node's own replica says.
    pub(crate) fn follow_replica(&mut self, leader: Option<NodeId>, term: u64, voters: Voters) {
        self.lead = leader.map(|node| Lead { node, term, word: Word::Proof });
        self.term = term;
        if !voters.is_empty() {
            (self.voters, self.voters_of) = (voters.clone(), term);
            self.proved = (voters, term);
        }
    }

    /// Takes in what a believed node says. The leader that it names counts only if the engine believes that node, too.
    pub(crate) fn hear(&mut self, from: NodeId, hint: &LeaderHint, word: Word, marked: &BTreeSet<NodeId>) {
        if !hint.voters.is_empty()
            && (hint.term >= self.voters_of || self.voters.is_empty())
            && !is_on(Mutant::VotersNotLearned)
        {
            (self.voters, self.voters_of) = (hint.voters.clone(), hint.term);
        }
        let is_new = |node: &NodeId| hint.term >= self.term() && self.believes(*node, marked);
        let Some(node) = hint.leader.filter(is_new) else { return };
        let knows_better = self.voters.is_empty() || self.voters.contains(&from);
        if word == Word::Hearsay && self.silent == Some((node, hint.term)) && !knows_better {
            return;
        }
        let stays = self.lead.is_some_and(|lead| match lead.word {
            Word::Proof => word == Word::Hearsay || hint.term == lead.term,
            // A term has one leader: the better word counts, and of two equal words the first.
            Word::Own | Word::Hearsay => hint.term == lead.term && word <= lead.word,
        });
        if !stays {
            self.lead = Some(Lead { node, term: hint.term, word });
        }
    }

    /// A node answered as only a leader does. `said` is what it said of itself, and may be empty.
    pub(crate) fn prove(&mut self, node: NodeId, said: &LeaderHint) {
        let says = said.leader == Some(node);
        let thought = self.lead.filter(|lead| lead.node == node).map_or(self.term, |lead| lead.term);
        // Not the greater term: a term without a leader would hide all later ones.
        self.term = if says { said.term } else { thought };
        if says && !said.voters.is_empty() && !is_on(Mutant::VotersNotLearned) {
            (self.voters, self.voters_of) = (said.voters.clone(), said.term);
            self.proved = (said.voters.clone(), said.term);
        }
        self.lead = Some(Lead { node, term: self.term, word: Word::Proof });
        self.silent = None;
    }

    /// A node did not answer as a leader. If it was thought to lead, it is not any more, and the engine asks the others
    /// first.
    pub(crate) fn give_up(&mut self, node: NodeId) {
        if let Some(lead) = self.lead.take_if(|lead| lead.node == node) {
            self.silent = Some((node, lead.term));
            (self.asked[0], self.turn) = (Some(node), 0);
            if lead.word == Word::Own && !self.proved.0.is_empty() {
                // The node does not lead, so its word about the voters does not count: the proved voters may still
                // vote.
                (self.voters, self.voters_of) = self.proved.clone();
            }
        }
    }

    /// The node to ask while no node is known to lead: voters in turn, and now and then a peer that is only marked as a
    /// voter. Only peers that are up have a turn.
    pub(crate) fn next(&mut self, up: &BTreeSet<NodeId>, marked: &BTreeSet<NodeId>) -> Option<NodeId> {
        let turn_of_marked = self.turn % MARKED_EVERY == MARKED_EVERY - 1;
        self.turn = self.turn.wrapping_add(1);
        let (first, second) = if turn_of_marked { (1, 0) } else { (0, 1) };
        for kind in [first, second] {
            let is_of = |node: &&NodeId| match self.voters.contains(node) {
                true => kind == 0,
                false => kind == 1 && marked.contains(*node),
            };
            let from = self.asked[kind].map_or(Bound::Unbounded, Bound::Excluded);
            if let Some(node) = up.range((from, Bound::Unbounded)).chain(up).find(is_of).copied() {
                self.asked[kind] = Some(node);
                return Some(node);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_public_key([n; 32])
    }

    fn hint(leader: Option<u8>, term: u64, voters: &[u8]) -> LeaderHint {
        LeaderHint { leader: leader.map(node), term, voters: Voters::of(voters.iter().copied().map(node)) }
    }

    fn marked(nodes: &[u8]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(node).collect()
    }

    /// Takes in a word, where these nodes are marked as voters.
    fn hear(known: &mut Known, from: u8, hint: &LeaderHint, word: Word) {
        known.hear(node(from), hint, word, &marked(&[1, 2, 3, 9]));
    }

    fn turns(known: &mut Known, up: &BTreeSet<NodeId>, count: usize) -> Vec<u8> {
        let marked = marked(&[1, 2, 3, 7, 8]);
        (0..count).filter_map(|_| known.next(up, &marked)).map(|node| node.public_key()[0]).collect()
    }

    #[test]
    fn a_word_of_an_earlier_term_is_old() {
        let mut known = Known::default();
        known.prove(node(1), &hint(Some(1), 5, &[1, 2, 3]));
        known.give_up(node(1));
        hear(&mut known, 2, &hint(Some(3), 4, &[7, 8, 9]), Word::Own);
        assert_eq!(known.lead(), None);
        assert_eq!(known.to_pass_on(), hint(None, 5, &[1, 2, 3]));
        hear(&mut known, 2, &hint(Some(3), 6, &[]), Word::Hearsay);
        assert!(known.is_thought_of(node(3)));
    }

    #[test]
    fn hearsay_displaces_nobody_who_proved_that_it_leads_and_is_not_passed_on() {
        let mut known = Known::default();
        known.prove(node(1), &hint(Some(1), 5, &[1, 2, 3]));
        hear(&mut known, 9, &hint(Some(9), u64::MAX, &[]), Word::Hearsay);
        assert!(known.is_thought_of(node(1)));
        known.give_up(node(1));
        hear(&mut known, 9, &hint(Some(9), u64::MAX, &[]), Word::Hearsay);
        assert!(known.is_thought_of(node(9)), "the engine asks the named node");
        assert_eq!(known.to_pass_on().leader, None);
        // The node does not lead, and hides no later leader.
        known.give_up(node(9));
        hear(&mut known, 2, &hint(Some(2), 6, &[]), Word::Own);
        assert!(known.is_thought_of(node(2)));
    }

    #[test]
    fn whoever_is_named_is_asked_only_if_it_votes_or_is_marked() {
        let mut known = Known::default();
        hear(&mut known, 1, &hint(Some(99), 7, &[1, 2]), Word::Hearsay);
        assert_eq!(known.lead(), None);
        hear(&mut known, 1, &hint(Some(99), 8, &[1, 2, 99]), Word::Hearsay);
        assert!(known.is_thought_of(node(99)), "a voter says that it votes, too");
        assert!(known.believes(node(99), &BTreeSet::new()) && !known.believes(node(98), &BTreeSet::new()));
    }

    #[test]
    fn voters_that_somebody_named_who_does_not_lead_are_forgotten_with_it() {
        let mut known = Known::default();
        known.prove(node(1), &hint(Some(1), 5, &[1, 2, 3]));
        hear(&mut known, 9, &hint(Some(9), u64::MAX, &[8, 9]), Word::Own);
        known.give_up(node(9));
        assert_eq!(known.to_pass_on().voters, Voters::of([1, 2, 3].map(node)));
        hear(&mut known, 2, &hint(Some(2), 6, &[2, 3, 4]), Word::Own);
        assert_eq!(known.to_pass_on().voters, Voters::of([2, 3, 4].map(node)), "they hide no later leader");
    }

    #[test]
    fn who_has_just_been_silent_is_asked_again_on_a_voters_word_and_not_on_a_strangers() {
        let mut known = Known::default();
        known.prove(node(1), &hint(Some(1), 5, &[1, 2, 3]));
        known.give_up(node(1));
        hear(&mut known, 9, &hint(Some(1), 5, &[]), Word::Hearsay);
        assert_eq!(known.lead(), None);
        hear(&mut known, 2, &hint(Some(1), 5, &[]), Word::Hearsay);
        assert!(known.is_thought_of(node(1)));
    }

    #[test]
    fn voters_come_first_after_the_one_who_was_silent_and_every_third_turn_is_one_of_the_marked() {
        let up: BTreeSet<NodeId> = (1..=200).map(node).collect();
        let mut known = Known::default();
        known.prove(node(60), &hint(Some(60), 5, &[40, 60, 80]));
        known.give_up(node(60));
        assert_eq!(turns(&mut known, &up, 9), [80, 40, 1, 60, 80, 2, 40, 60, 3]);
        // None of the voters is there: the marked peers have their turns. The engine asks no other peer, which may only
        // say that it leads.
        assert_eq!(turns(&mut known, &[node(7), node(8), node(99)].into(), 3), [7, 8, 7]);
        assert!(turns(&mut known, &[node(99)].into(), 9).is_empty());
        assert!(turns(&mut known, &BTreeSet::new(), 1).is_empty());
    }
}
