//! All journals of a node, as its log says them.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::command::{CommandOutcome, DeliverySeq};
use skep_protocol::ids::{CommandId, ShardId};
use skep_protocol::journal::{JournalEntry, JournalHead, JournalPhase, JournalState, JournalWrite};
use skep_protocol::signing::OperatorKey;
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

/// About how many bytes a command takes beside its arguments and result, and anything else that is written.
const ENTRY_BYTES: usize = 2_048;
const OTHER_BYTES: usize = 256;
/// About how many bytes the name of a command takes that was begun.
const BEGUN_BYTES: usize = 64;

/// Whose journal it is.
pub(super) type Whose = (ShardId, AgentId);

#[derive(Clone, Debug)]
struct Journal {
    head: JournalHead,
    stated: BTreeMap<OperatorKey, u64>,
    entries: BTreeMap<DeliverySeq, JournalEntry>,
    clock_floor: LogInstant,
    begun: BTreeMap<CommandId, LogInstant>,
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
        JournalWrite::Begun { .. } => BEGUN_BYTES,
        JournalWrite::Head(_)
        | JournalWrite::Remove(_)
        | JournalWrite::Forget
        | JournalWrite::ClockFloor(_)
        | JournalWrite::Stated { .. } => OTHER_BYTES,
    }
}

impl Journal {
    fn new(head: JournalHead) -> Self {
        let (stated, entries, begun) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let clock_floor = LogInstant::ZERO;
        Self { head, stated, entries, clock_floor, begun, bytes: OTHER_BYTES, last: 0, used: None }
    }

    fn head_is(&mut self, head: JournalHead) {
        if head.is_of_another_shard(&self.head) {
            self.bytes -= self.stated.len() * OTHER_BYTES;
            self.stated.clear();
        }
        self.head = head;
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

    fn begun(&mut self, command: CommandId, deadline: LogInstant) {
        if deadline > self.clock_floor && self.begun.insert(command, deadline).is_none() {
            self.bytes += BEGUN_BYTES;
        }
    }

    fn raise(&mut self, floor: LogInstant) {
        self.clock_floor = self.clock_floor.max(floor);
        let (before, floor) = (self.begun.len(), self.clock_floor);
        self.begun.retain(|_, deadline| *deadline > floor);
        self.bytes -= (before - self.begun.len()) * BEGUN_BYTES;
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
            JournalWrite::Begun { command, deadline } => self.begun(command, deadline),
            JournalWrite::ClockFloor(floor) => self.raise(floor),
            JournalWrite::Stated { operator, serial } => {
                if self.stated.insert(operator, serial).is_none() {
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
                    self.journals.entry(whose.clone()).or_insert_with(|| Journal::new(head)).head_is(head);
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
        let (head, stated, entries) =
            (journal.head, journal.stated.clone(), journal.entries.values().cloned().collect());
        let (clock_floor, begun) = (journal.clock_floor, journal.begun.clone());
        Some(JournalState { head, stated, entries, clock_floor, begun })
    }

    /// What makes a journal anew.
    pub(super) fn writes_of(&self, whose: &Whose) -> Option<Vec<JournalWrite>> {
        let journal = self.journals.get(whose)?;
        let stated = |(operator, serial): (&OperatorKey, &u64)| {
            let (operator, serial) = (*operator, *serial);
            JournalWrite::Stated { operator, serial }
        };
        let entries = journal.entries.values().cloned().map(JournalWrite::Put);
        let floor =
            Some(JournalWrite::ClockFloor(journal.clock_floor)).filter(|_| journal.clock_floor > LogInstant::ZERO);
        let begun = |(command, deadline): (&CommandId, &LogInstant)| {
            let (command, deadline) = (*command, *deadline);
            JournalWrite::Begun { command, deadline }
        };
        let begun = journal.begun.iter().map(begun);
        let head = std::iter::once(JournalWrite::Head(journal.head));
        let stated = journal.stated.iter().map(stated);
        Some(head.chain(stated).chain(floor).chain(begun).chain(entries).collect())
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
