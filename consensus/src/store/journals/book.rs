//! All journals of a node, as its log says them.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::authority::OperatorKey;
use skep_protocol::command::{CommandOutcome, DeliverySeq};
use skep_protocol::ids::ShardId;
use skep_protocol::journal::{JournalEntry, JournalHead, JournalPhase, JournalState, JournalWrite};
use skep_protocol::text::AgentId;

/// About how many bytes a command takes beside its arguments and result, and anything else that is written.
const ENTRY_BYTES: usize = 2_048;
const OTHER_BYTES: usize = 256;

/// Whose journal it is.
pub(super) type Whose = (ShardId, AgentId);

#[derive(Clone, Debug)]
struct Journal {
    head: JournalHead,
    floors: BTreeMap<OperatorKey, u64>,
    entries: BTreeMap<DeliverySeq, JournalEntry>,
    bytes: usize,
    /// The last record of it.
    last: u64,
    /// The record before which it was used last, if it holds nothing and nobody uses it.
    used: Option<u64>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    journals: BTreeMap<Whose, Journal>,
    bytes: usize,
}

fn bytes_of_phase(phase: &JournalPhase) -> usize {
    match phase {
        JournalPhase::Ended { outcome: CommandOutcome::Succeeded { result } } => result.len(),
        _ => 0,
    }
}

fn bytes_of_entry(entry: &JournalEntry) -> usize {
    ENTRY_BYTES + entry.command.body().len() + bytes_of_phase(&entry.phase)
}

/// About how many bytes a write takes.
pub(super) fn bytes_of(write: &JournalWrite) -> usize {
    match write {
        JournalWrite::Put(entry) => bytes_of_entry(entry),
        JournalWrite::Step(step) => OTHER_BYTES + bytes_of_phase(&step.phase),
        JournalWrite::Head(_) | JournalWrite::Remove(_) | JournalWrite::Forget | JournalWrite::Floor { .. } => {
            OTHER_BYTES
        }
    }
}

impl Journal {
    fn new(head: JournalHead) -> Self {
        Self { head, floors: BTreeMap::new(), entries: BTreeMap::new(), bytes: OTHER_BYTES, last: 0, used: None }
    }

    fn remove(&mut self, seq: DeliverySeq) {
        if let Some(entry) = self.entries.remove(&seq) {
            self.bytes -= bytes_of_entry(&entry);
        }
    }

    fn put(&mut self, entry: JournalEntry) {
        self.remove(entry.seq);
        self.bytes += bytes_of_entry(&entry);
        self.entries.insert(entry.seq, entry);
    }

    /// False if the write does not fit what it holds.
    fn apply(&mut self, write: JournalWrite) -> bool {
        match write {
            JournalWrite::Put(entry) => self.put(entry),
            JournalWrite::Remove(seq) => self.remove(seq),
            JournalWrite::Step(step) => {
                let Some(mut entry) = self.entries.get(&step.seq).cloned() else { return false };
                entry.take(step);
                self.put(entry);
            }
            JournalWrite::Floor { operator, serial } => {
                if self.floors.insert(operator, serial).is_none() {
                    self.bytes += OTHER_BYTES;
                }
            }
            JournalWrite::Head(_) | JournalWrite::Forget => return false,
        }
        true
    }
}

impl Book {
    /// Takes note of what a record says, or will say.
    pub(super) fn apply(&mut self, whose: &Whose, writes: Vec<JournalWrite>, record: u64) -> Result<(), String> {
        for write in writes {
            let before = self.journals.get(whose).map_or(0, |journal| journal.bytes);
            let fits = match write {
                JournalWrite::Head(head) => {
                    self.journals.entry(whose.clone()).or_insert_with(|| Journal::new(head)).head = head;
                    true
                }
                JournalWrite::Forget => {
                    self.journals.remove(whose);
                    true
                }
                write => self.journals.get_mut(whose).is_some_and(|journal| journal.apply(write)),
            };
            if !fits {
                return Err(format!(
                    "record {record} does not follow from what the journal of agent {} holds",
                    whose.1
                ));
            }
            let after = self.journals.get(whose).map_or(0, |journal| journal.bytes);
            self.bytes = self.bytes + after - before;
        }
        if let Some(journal) = self.journals.get_mut(whose) {
            journal.last = record;
        }
        Ok(())
    }

    /// About how many bytes all of them take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    pub(super) fn whoses(&self) -> Vec<Whose> {
        self.journals.keys().cloned().collect()
    }

    pub(super) fn state(&self, whose: &Whose) -> Option<JournalState> {
        let journal = self.journals.get(whose)?;
        let (head, floors) = (journal.head, journal.floors.clone());
        Some(JournalState { head, floors, entries: journal.entries.values().cloned().collect() })
    }

    /// What makes a journal anew.
    pub(super) fn writes_of(&self, whose: &Whose) -> Option<Vec<JournalWrite>> {
        let journal = self.journals.get(whose)?;
        let floor = |(operator, serial): (&OperatorKey, &u64)| {
            let (operator, serial) = (*operator, *serial);
            JournalWrite::Floor { operator, serial }
        };
        let entries = journal.entries.values().cloned().map(JournalWrite::Put);
        let head = std::iter::once(JournalWrite::Head(journal.head));
        Some(head.chain(journal.floors.iter().map(floor)).chain(entries).collect())
    }

    /// Nobody uses a journal from a record on. False if it holds something, or if that was known.
    pub(super) fn release(&mut self, whose: &Whose, record: u64) -> bool {
        let released = |journal: &&mut Journal| journal.entries.is_empty() && journal.used.is_none();
        self.journals.get_mut(whose).filter(released).map(|journal| journal.used = Some(record)).is_some()
    }

    /// Somebody uses a journal. The record before which that was so last, if nobody did.
    pub(super) fn use_again(&mut self, whose: &Whose) -> Option<u64> {
        self.journals.get_mut(whose)?.used.take()
    }

    /// Nobody uses any of them yet: those that hold nothing, in the order in which they were used.
    pub(super) fn release_empty(&mut self) -> BTreeSet<(u64, Whose)> {
        let empty = self.journals.iter_mut().filter(|(_, journal)| journal.entries.is_empty());
        let release = |(whose, journal): (&Whose, &mut Journal)| {
            journal.used = Some(journal.last);
            (journal.last, whose.clone())
        };
        empty.map(release).collect()
    }

    /// Whether a journal holds nothing, and nobody uses it.
    pub(super) fn is_released(&self, whose: &Whose) -> bool {
        self.journals.get(whose).is_some_and(|journal| journal.used.is_some())
    }
}
