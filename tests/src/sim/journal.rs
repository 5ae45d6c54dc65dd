//! What the disk of a node holds of one agent's journal.

use std::collections::BTreeMap;

use skep_protocol::authority::OperatorKey;
use skep_protocol::command::DeliverySeq;
use skep_protocol::ids::JournalId;
use skep_protocol::journal::{JournalEntry, JournalHead, JournalState, JournalWrite};

/// A journal that survives.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    head: JournalHead,
    floors: BTreeMap<OperatorKey, u64>,
    entries: BTreeMap<DeliverySeq, JournalEntry>,
}

impl Journal {
    pub(super) fn new(id: JournalId) -> Self {
        Self { head: JournalHead::new(id), floors: BTreeMap::new(), entries: BTreeMap::new() }
    }

    pub(super) fn state(&self) -> JournalState {
        let (head, floors) = (self.head, self.floors.clone());
        JournalState { head, floors, entries: self.entries.values().cloned().collect() }
    }

    pub(super) fn apply(&mut self, writes: Vec<JournalWrite>) {
        for write in writes {
            match write {
                JournalWrite::Head(head) => self.head = head,
                JournalWrite::Put(entry) => drop(self.entries.insert(entry.seq, entry)),
                JournalWrite::Remove(seq) => drop(self.entries.remove(&seq)),
                JournalWrite::Step(step) => {
                    if let Some(entry) = self.entries.get_mut(&step.seq) {
                        entry.take(step);
                    }
                }
                JournalWrite::Floor { operator, serial } => drop(self.floors.insert(operator, serial)),
                // That is for whoever keeps journals to say, and here all are kept.
                JournalWrite::Forget => {}
            }
        }
    }

    /// How many commands it holds that the shard may not know the end of.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
