//! The numbers of the last statements about operators, as the journals of one shard at one node share them.
//!
//! Journals that take the word of the same first operator, of the same genesis, believe the same statements: what one
//! of them saw counts for all, and the node keeps it once. A journal that heard another first operator, or another
//! genesis, shares nothing with those: it may have heard it from a leader that lies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::JournalHead;
use crate::ids::Genesis;
use crate::operator::KnownFirst;
use crate::signing::OperatorKey;

/// The genesis and the first operator by whose word a journal believes statements.
type Root = (Option<Genesis>, Option<KnownFirst>);

fn root(head: &JournalHead) -> Root {
    (head.genesis, head.first)
}

/// The serial of the last statement seen about each operator, by whose word it holds. A serial only rises.
///
/// A clone is cheap, and shares all numbers until one of the two changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serials(BTreeMap<Root, Arc<BTreeMap<OperatorKey, u64>>>);

impl Serials {
    /// The serials that hold for a journal.
    pub fn of(&self, head: &JournalHead) -> Arc<BTreeMap<OperatorKey, u64>> {
        self.0.get(&root(head)).cloned().unwrap_or_default()
    }

    /// The serial of the last statement about an operator that holds for a journal.
    pub fn last(&self, head: &JournalHead, operator: &OperatorKey) -> Option<u64> {
        self.0.get(&root(head))?.get(operator).copied()
    }

    /// Number of operators of which a serial holds for a journal.
    pub fn count(&self, head: &JournalHead) -> usize {
        self.0.get(&root(head)).map_or(0, |known| known.len())
    }

    /// Number of all serials, by whose word they hold or not.
    pub fn total(&self) -> usize {
        self.0.values().map(|known| known.len()).sum()
    }

    /// From then on a journal, and those that share with it, believe no statement about an operator with a lower
    /// serial.
    pub fn raise(&mut self, head: &JournalHead, operator: OperatorKey, serial: u64) {
        let known = Arc::make_mut(self.0.entry(root(head)).or_default());
        let last = known.entry(operator).or_default();
        *last = serial.max(*last);
    }

    /// Takes over what another set of serials of the same shard knows.
    pub fn merge(&mut self, others: Self) {
        for (root, known) in others.0 {
            self.take_over(root, known);
        }
    }

    fn take_over(&mut self, root: Root, known: Arc<BTreeMap<OperatorKey, u64>>) {
        if known.is_empty() {
            return;
        }
        let here = self.0.entry(root).or_default();
        if here.is_empty() {
            *here = known;
        } else if !Arc::ptr_eq(here, &known) {
            for (operator, serial) in known.iter() {
                if here.get(operator).is_none_or(|last| last < serial) {
                    Arc::make_mut(here).insert(*operator, *serial);
                }
            }
        }
    }

    /// A journal has another head from then on: what it believed goes with it, unless the shard goes on as another one.
    /// Returns whether it believes by another word than before.
    pub fn follow(&mut self, before: &JournalHead, after: &JournalHead) -> bool {
        let follows = root(before) != root(after);
        if follows && !after.is_of_another_shard(before) {
            self.take_over(root(after), self.of(before));
        }
        follows
    }

    /// Lets go of what holds for no journal. `heads`: those of all journals that there are.
    pub fn keep(&mut self, heads: impl Iterator<Item = JournalHead>) {
        let roots: BTreeSet<Root> = heads.map(|head| root(&head)).collect();
        self.0.retain(|root, _| roots.contains(root));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::JournalId;

    fn head(genesis: u8, first: u8, replaced: u64) -> JournalHead {
        let first = Some(KnownFirst { operator: operator(first), replaced });
        let genesis = Some(Genesis::from_bytes([genesis; 16]));
        JournalHead { genesis, first, ..JournalHead::new(JournalId::from_bytes([1; 16])) }
    }

    fn operator(n: u8) -> OperatorKey {
        OperatorKey::from_bytes([n; 32])
    }

    #[test]
    fn numbers_hold_for_all_journals_that_take_the_same_word_and_for_no_other() {
        let (mut serials, clerk) = (Serials::default(), operator(5));
        serials.raise(&head(6, 1, 0), clerk, 7);
        serials.raise(&head(6, 1, 0), clerk, 3);
        let another = JournalHead { id: JournalId::from_bytes([2; 16]), ..head(6, 1, 0) };
        assert_eq!((serials.last(&another, &clerk), serials.count(&another)), (Some(7), 1), "and never fall");
        for other in [head(7, 1, 0), head(6, 2, 0), head(6, 1, 1), JournalHead::new(another.id)] {
            assert_eq!(serials.last(&other, &clerk), None, "a leader may have told it that lies");
        }
        let mut others = Serials::default();
        others.raise(&another, clerk, 5);
        others.raise(&another, operator(8), 2);
        others.raise(&head(7, 1, 0), clerk, 1);
        serials.merge(others);
        assert_eq!(*serials.of(&another), BTreeMap::from([(clerk, 7), (operator(8), 2)]));
        assert_eq!((serials.last(&head(7, 1, 0), &clerk), serials.total()), (Some(1), 3));
    }

    #[test]
    fn a_journal_takes_its_numbers_along_to_another_first_operator_and_not_to_another_shard() {
        let (mut serials, clerk) = (Serials::default(), operator(5));
        let (before, after, recovered) = (head(6, 1, 0), head(6, 2, 1), head(7, 2, 0));
        serials.raise(&before, clerk, 7);
        serials.raise(&after, clerk, 4);
        assert!(!serials.follow(&before, &before) && serials.follow(&before, &after));
        assert_eq!([&before, &after].map(|head| serials.last(head, &clerk)), [Some(7); 2]);
        serials.keep([after].into_iter());
        assert_eq!((serials.last(&before, &clerk), serials.total()), (None, 1));
        assert!(serials.follow(&after, &recovered));
        assert_eq!(serials.last(&recovered, &clerk), None);
    }
}
