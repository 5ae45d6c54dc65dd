//! All journals of a node, as its log tells them.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::command::{CommandOutcome, DeliverySeq};
use skep_protocol::ids::{CommandId, Genesis, ShardId};
use skep_protocol::journal::{JournalEntry, JournalHead, JournalPhase, JournalState, JournalWrite, Serials};
use skep_protocol::operator::KnownFirst;
use skep_protocol::signing::OperatorKey;
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

/// About how many bytes a command, or any other item, takes beside its arguments and result.
const ENTRY_BYTES: usize = 2_048;
const OTHER_BYTES: usize = 256;
/// About how many bytes the name of a command takes that was begun.
const BEGUN_BYTES: usize = 64;

/// The shard and the agent of a journal.
pub(super) type Whose = (ShardId, AgentId);

/// The operators on whose word statements are believed that were written with an earlier journal: they are not written
/// with each.
pub(super) type Told = BTreeSet<(ShardId, Option<Genesis>, Option<KnownFirst>)>;

#[derive(Clone, Debug)]
struct Journal {
    head: JournalHead,
    entries: BTreeMap<DeliverySeq, JournalEntry>,
    clock_floor: LogInstant,
    begun: BTreeMap<CommandId, LogInstant>,
    bytes: usize,
    /// The last record of the journal.
    last: u64,
    /// The record before which the journal was last used, if it holds nothing and no inbox uses it.
    used: Option<u64>,
}

/// All journals of the node.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    journals: BTreeMap<Whose, Journal>,
    /// What journals know of the statements of operators, by shard.
    serials: BTreeMap<ShardId, Serials>,
    /// The bytes of the journals alone.
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
        let (entries, begun) = (BTreeMap::new(), BTreeMap::new());
        let clock_floor = LogInstant::ZERO;
        Self { head, entries, clock_floor, begun, bytes: OTHER_BYTES, last: 0, used: None }
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

    /// Applies a write. False if it does not fit the content of the journal.
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
            JournalWrite::Head(_) | JournalWrite::Forget | JournalWrite::Stated { .. } => return false,
        }
        true
    }
}

impl Book {
    /// Applies what a record says, or will say.
    pub(super) fn apply(&mut self, whose: &Whose, writes: Vec<JournalWrite>, record: u64) -> Result<(), String> {
        for write in writes {
            let before = self.journals.get(whose).map_or(0, |journal| journal.bytes);
            let fits = match write {
                JournalWrite::Head(head) => {
                    self.head_is(whose, head);
                    true
                }
                JournalWrite::Forget => {
                    self.journals.remove(whose);
                    self.keep_serials(whose.0);
                    true
                }
                JournalWrite::Stated { operator, serial } => self.raise(whose, operator, serial),
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

    fn head_is(&mut self, whose: &Whose, head: JournalHead) {
        let Some(journal) = self.journals.get_mut(whose) else {
            self.journals.insert(whose.clone(), Journal::new(head));
            return;
        };
        let before = std::mem::replace(&mut journal.head, head);
        if self.serials.entry(whose.0).or_default().follow(&before, &head) {
            self.keep_serials(whose.0);
        }
    }

    /// Notes that an operator has made a statement of this number, by a journal; false if there is no such journal.
    fn raise(&mut self, whose: &Whose, operator: OperatorKey, serial: u64) -> bool {
        let Some(journal) = self.journals.get(whose) else { return false };
        self.serials.entry(whose.0).or_default().raise(&journal.head, operator, serial);
        true
    }

    /// Drops what holds for none of a shard's journals.
    fn keep_serials(&mut self, shard: ShardId) {
        let of_shard = self.journals.range((shard, AgentId::first())..).take_while(|((of, _), _)| *of == shard);
        if let Some(serials) = self.serials.get_mut(&shard) {
            serials.keep(of_shard.map(|(_, journal)| journal.head));
        }
    }

    /// About how many bytes all of them take.
    pub(super) fn bytes(&self) -> u64 {
        let stated: usize = self.serials.values().map(Serials::total).sum();
        (self.bytes + stated * OTHER_BYTES) as u64
    }

    pub(super) fn whoses(&self) -> Vec<Whose> {
        self.journals.keys().cloned().collect()
    }

    /// What the journals of a shard know of the statements of operators.
    pub(super) fn serials(&self, shard: ShardId) -> Serials {
        self.serials.get(&shard).cloned().unwrap_or_default()
    }

    pub(super) fn state(&self, whose: &Whose) -> Option<JournalState> {
        let journal = self.journals.get(whose)?;
        let (head, entries) = (journal.head, journal.entries.values().cloned().collect());
        let stated = self.serials(whose.0);
        let (clock_floor, begun) = (journal.clock_floor, journal.begun.clone());
        Some(JournalState { head, stated, entries, clock_floor, begun })
    }

    /// The writes that make a journal anew. What it shares with other journals is written with the first only, if all
    /// are written with the same `told`.
    pub(super) fn writes_of(&self, whose: &Whose, told: &mut Told) -> Option<Vec<JournalWrite>> {
        let journal = self.journals.get(whose)?;
        let is_first = told.insert((whose.0, journal.head.genesis, journal.head.first));
        let serials = self.serials.get(&whose.0).filter(|_| is_first);
        let serials = serials.map(|serials| serials.of(&journal.head)).unwrap_or_default();
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
        let stated = serials.iter().map(stated);
        Some(head.chain(stated).chain(floor).chain(begun).chain(entries).collect())
    }

    /// Notes that no inbox uses a journal from a record on. False if the journal holds something, or if that was known.
    pub(super) fn release(&mut self, whose: &Whose, record: u64) -> bool {
        let released = |journal: &&mut Journal| journal.entries.is_empty() && journal.used.is_none();
        self.journals.get_mut(whose).filter(released).map(|journal| journal.used = Some(record)).is_some()
    }

    /// Notes that an inbox uses a journal. Returns the record before which it was last used, if no inbox used it.
    pub(super) fn use_again(&mut self, whose: &Whose) -> Option<u64> {
        self.journals.get_mut(whose)?.used.take()
    }

    /// Releases the journals that hold nothing, before any inbox uses one; in the order in which they were used.
    pub(super) fn release_empty(&mut self) -> BTreeSet<(u64, Whose)> {
        let empty = self.journals.iter_mut().filter(|(_, journal)| journal.entries.is_empty());
        let release = |(whose, journal): (&Whose, &mut Journal)| {
            journal.used = Some(journal.last);
            (journal.last, whose.clone())
        };
        empty.map(release).collect()
    }

    /// Whether a journal holds nothing, and no inbox uses it.
    pub(super) fn is_released(&self, whose: &Whose) -> bool {
        self.journals.get(whose).is_some_and(|journal| journal.used.is_some())
    }
}
