//! A voter's replica: what a model of Raft leaves of the log, and the product's own state on top of it.
//!
//! The model keeps what the rest of Skep relies on, and no more. An entry is committed when a majority holds it. A
//! majority of voters that do not hear another leader elects a leader, and only if its log is as new as theirs. An
//! election takes no time. Everything above the log is the real software.

use std::collections::BTreeMap;
use std::rc::Rc;

use skep_fleet::{DetectorConfig, ElectionDetector, FleetState, LogClock, LogPosition, Orchestrator};
use skep_protocol::entry::Entry;
use skep_protocol::pull::Pull;
use skep_protocol::query::Query;
use skep_protocol::time::LogInstant;

use super::names::founded;

/// Number of entries between snapshots; and number of entries that are kept behind one.
const SNAPSHOT_EVERY: usize = 150;
const KEPT: usize = 30;
/// The most entries in one message; and about how many bytes an entry takes.
const ENTRIES_PER_APPEND: usize = 64;
pub(super) const ENTRY_BYTES: u64 = 400;

/// How often a leader is heard, and how long a voter bears its silence, in milliseconds of the voter's own clock.
pub(super) const HEARTBEAT_MS: u64 = 50;
pub(super) const LEASE_MS: u64 = 300;
pub(super) const SILENCE: DetectorConfig = DetectorConfig { silence_ms_min: 400, silence_ms_max: 1_500 };

/// An entry of the model's log.
#[derive(Clone, Debug)]
pub(super) struct LogEntry {
    pub(super) term: u64,
    /// None for the first entry of a term.
    pub(super) entry: Option<Rc<Entry>>,
}

/// A snapshot and its position in the log.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) next: usize,
    pub(super) term: u64,
    pub(super) bytes: Rc<[u8]>,
}

/// What survives a crash: everything else is made anew from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    pub(super) term: u64,
    /// Index of the first entry that is kept; the next field has the term of the entry before it.
    pub(super) first: usize,
    pub(super) first_prev_term: u64,
    pub(super) entries: Vec<LogEntry>,
    pub(super) snapshot: Option<Snapshot>,
}

impl Durable {
    pub(super) fn end(&self) -> usize {
        self.first + self.entries.len()
    }

    /// The term of the entry before an index; none if it is not kept.
    pub(super) fn term_before(&self, index: usize) -> Option<u64> {
        if index == self.first {
            return Some(self.first_prev_term);
        }
        self.entries.get(index.checked_sub(self.first + 1)?).map(|entry| entry.term)
    }

    pub(super) fn entry(&self, index: usize) -> Option<&LogEntry> {
        self.entries.get(index.checked_sub(self.first)?)
    }

    /// How new the log is: of two logs, the greater holds everything that is committed.
    pub(super) fn newness(&self) -> (u64, usize) {
        (self.term_before(self.end()).unwrap_or(0), self.end())
    }

    fn part(&self, from: usize, max: usize) -> Vec<LogEntry> {
        let at = from.saturating_sub(self.first).min(self.entries.len());
        self.entries[at..(at + max.min(ENTRIES_PER_APPEND)).min(self.entries.len())].to_vec()
    }
}

/// What a leader sends.
#[derive(Clone, Debug)]
pub(super) struct Append {
    pub(super) term: u64,
    pub(super) from: usize,
    /// Index of the first entry; the next field has the term of the entry before it.
    pub(super) at: usize,
    pub(super) prev_term: u64,
    pub(super) entries: Vec<LogEntry>,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) committed: usize,
    pub(super) clock: Option<LogInstant>,
    pub(super) round: u64,
}

/// What a follower answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ack {
    pub(super) term: u64,
    pub(super) from: usize,
    /// The end of what both hold, or the index at which to try again.
    pub(super) matched: Result<usize, usize>,
    pub(super) round: u64,
}

/// The host that gets an answer, its run, and the name of its question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) host: usize,
    pub(super) run: u32,
    pub(super) key: u64,
    pub(super) attempt: u32,
}

/// What waits until an entry is applied.
#[derive(Clone, Debug)]
pub(super) enum Awaits {
    /// A request of a host.
    Request(Asker),
    /// A proposal of the orchestrator.
    Decisions,
    /// The leader itself, which needs a clock.
    Clock,
}

/// A pull that waits for something to deliver.
#[derive(Clone, Debug)]
pub(super) struct Pulling {
    pub(super) asker: Asker,
    pub(super) pull: Pull,
    pub(super) clock: LogInstant,
    pub(super) until_ms: u64,
    /// The entry as of which there was nothing.
    pub(super) looked: Option<u64>,
}

/// What waits until a majority confirms the leader.
#[derive(Clone, Debug)]
pub(super) enum RoundFor {
    /// The orchestrator. What was written before the round must be applied, too.
    Orchestrator {
        next: usize,
    },
    Query {
        asker: Asker,
        query: Query,
        next: usize,
    },
    /// A pull of a node that is ahead of all that was released.
    Pull(Box<Pulling>),
}

/// A round: its number, when the leader gives it up, and what it is for.
pub(super) type Round = (u64, u64, RoundFor);

/// What a leader has in memory.
#[derive(Debug)]
pub(super) struct Lead {
    pub(super) term: u64,
    /// Index of the leader's own first entry.
    pub(super) own: usize,
    pub(super) asked_for_clock: bool,
    /// For each voter: what it holds. The next fields: what was sent to it, when it was heard, and which round it
    /// confirmed.
    pub(super) matched: Vec<usize>,
    pub(super) next: Vec<usize>,
    pub(super) heard_at: Vec<Option<u64>>,
    pub(super) confirmed: Vec<u64>,
    pub(super) round: u64,
    /// Rounds that wait, and when the leader gives them up.
    pub(super) rounds: Vec<Round>,
    pub(super) pending: BTreeMap<usize, Awaits>,
    pub(super) orchestrator: Option<Orchestrator>,
    /// When the leader gives up the orchestrator's proposal.
    pub(super) proposing_until: Option<u64>,
    /// Updates on their way, and when the leader gives them up.
    pub(super) updates: BTreeMap<usize, (u64, u64)>,
    /// Nodes that wait for commands.
    pub(super) pulls: Vec<Pulling>,
    /// The entry as of which there was nothing for any of them.
    pub(super) pulls_looked: Option<u64>,
    pub(super) askers: BTreeMap<u64, Asker>,
    pub(super) next_key: u64,
    pub(super) beat_at: u64,
}

/// One voter's replica.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) durable: Durable,
    pub(super) state: FleetState,
    /// Index of the next entry to apply; the next field has that of the first entry that is not known to be committed.
    pub(super) applied: usize,
    pub(super) committed: usize,
    pub(super) clock: LogClock,
    pub(super) detector: ElectionDetector,
    pub(super) attempts_without_clock: u32,
    /// When the replica last asked the leader for its clock.
    pub(super) asked_clock_ms: Option<u64>,
    pub(super) leader: Option<usize>,
    pub(super) heard_leader_at: Option<u64>,
    pub(super) lead: Option<Lead>,
    /// What the engine was last told.
    pub(super) told: Option<(Option<usize>, bool)>,
}

impl Replica {
    /// A replica on durable state. `boot_ms` is its host's clock.
    pub(super) fn start(durable: Durable, boot_ms: u64, random: u64) -> Result<Self, String> {
        let (state, applied) = match &durable.snapshot {
            Some(snapshot) => (restore(&snapshot.bytes)?, snapshot.next),
            None => (founded(0), 0),
        };
        let mut clock = LogClock::default();
        clock.observe_stamp(state.clock(), boot_ms);
        Ok(Self {
            durable,
            state,
            applied,
            committed: applied,
            clock,
            detector: ElectionDetector::new(SILENCE, boot_ms, random),
            attempts_without_clock: 0,
            asked_clock_ms: None,
            leader: None,
            heard_leader_at: None,
            lead: None,
            told: None,
        })
    }

    /// Whether the replica leads its term and has heard from a majority lately.
    pub(super) fn has_quorum(&self, me: usize, boot_ms: u64) -> bool {
        let Some(lead) = &self.lead else { return false };
        let recent = |(voter, at): (usize, &Option<u64>)| {
            voter == me || at.is_some_and(|at| boot_ms.saturating_sub(at) < SILENCE.silence_ms_min)
        };
        lead.heard_at.iter().enumerate().filter(|heard| recent(*heard)).count() * 2 > lead.heard_at.len()
    }

    /// Whether the replica takes proposals.
    pub(super) fn is_ready(&self, me: usize, boot_ms: u64) -> bool {
        self.lead.as_ref().is_some_and(|lead| lead.orchestrator.is_some()) && self.has_quorum(me, boot_ms)
    }

    pub(super) fn step_down(&mut self) -> BTreeMap<usize, Awaits> {
        self.lead.take().map(|lead| lead.pending).unwrap_or_default()
    }

    /// Adds an entry of the replica's own term. The caller leads.
    pub(super) fn push(&mut self, entry: Option<Rc<Entry>>, awaits: Option<Awaits>) -> usize {
        let at = self.durable.end();
        let Some(lead) = &mut self.lead else { return at };
        self.durable.entries.push(LogEntry { term: lead.term, entry });
        if let Some(awaits) = awaits {
            lead.pending.insert(at, awaits);
        }
        at
    }

    /// What to send to a voter at this instant. `bytes_max`: the most bytes of entries, except that one entry always
    /// goes; without entries the message says that this replica leads.
    pub(super) fn append_for(&mut self, me: usize, voter: usize, boot_ms: u64, bytes_max: u64) -> Option<Append> {
        let clock = self.clock.now(boot_ms);
        let lead = self.lead.as_mut()?;
        let clock = clock.filter(|_| lead.orchestrator.is_some());
        let (term, round, committed) = (lead.term, lead.round, self.committed);
        let at = lead.next[voter];
        if bytes_max == 0 {
            let at = at.max(self.durable.first);
            let prev_term = self.durable.term_before(at)?;
            let entries = Vec::new();
            return Some(Append { term, from: me, at, prev_term, entries, snapshot: None, committed, clock, round });
        }
        let Some(prev_term) = self.durable.term_before(at).filter(|_| at >= self.durable.first) else {
            let snapshot = self.durable.snapshot.clone()?;
            lead.next[voter] = snapshot.next;
            let (at, prev_term) = (snapshot.next, snapshot.term);
            let entries = Vec::new();
            return Some(Append {
                term,
                from: me,
                at,
                prev_term,
                entries,
                snapshot: Some(snapshot),
                committed,
                clock,
                round,
            });
        };
        let entries_max = usize::try_from(bytes_max / ENTRY_BYTES).unwrap_or(usize::MAX).max(1);
        let entries = self.durable.part(at, entries_max);
        lead.next[voter] = at + entries.len();
        Some(Append { term, from: me, at, prev_term, entries, snapshot: None, committed, clock, round })
    }

    /// Takes the entries of a leader of the replica's own term. Returns the end of what both hold, or the index at
    /// which to try again.
    pub(super) fn take(&mut self, append: &Append, boot_ms: u64) -> Result<usize, usize> {
        if let Some(snapshot) = append.snapshot.as_ref().filter(|snapshot| snapshot.next > self.committed)
            && let Ok(state) = restore(&snapshot.bytes)
        {
            self.clock.observe_stamp(state.clock(), boot_ms);
            (self.state, self.applied, self.committed) = (state, snapshot.next, snapshot.next);
            let known = self.durable.term_before(snapshot.next) == Some(snapshot.term);
            let kept = if known { self.durable.end().saturating_sub(snapshot.next) } else { 0 };
            let drop = self.durable.entries.len() - kept;
            self.durable.entries.drain(..drop);
            (self.durable.first, self.durable.first_prev_term) = (snapshot.next, snapshot.term);
            self.durable.snapshot = Some(snapshot.clone());
        }
        let end = self.durable.end();
        if append.at < self.durable.first {
            // The snapshot already holds the entries before this.
            let known = self.durable.first.min(append.at + append.entries.len());
            if known < self.durable.first {
                return Ok(known.max(append.at));
            }
        } else if self.durable.term_before(append.at) != Some(append.prev_term) {
            return Err(end.min(append.at.saturating_sub(1)).max(self.committed.min(append.at)));
        }
        for (offset, entry) in append.entries.iter().enumerate() {
            let at = append.at + offset;
            if at < self.durable.first {
                continue;
            }
            match self.durable.entry(at).map(|known| known.term) {
                Some(term) if term == entry.term => continue,
                Some(_) => self.durable.entries.truncate(at - self.durable.first),
                None => {}
            }
            self.durable.entries.push(entry.clone());
        }
        let matched = append.at + append.entries.len();
        self.committed = self.committed.max(append.committed.min(matched));
        Ok(matched)
    }

    /// Up to which index a majority holds the leader's log in its own term.
    pub(super) fn majority(&self, me: usize) -> usize {
        let Some(lead) = &self.lead else { return self.committed };
        let mut held: Vec<usize> = lead.matched.clone();
        held[me] = self.durable.end();
        held.sort_unstable();
        let majority = held[(held.len() - 1) / 2];
        if self.durable.term_before(majority) == Some(lead.term) { majority } else { self.committed }
    }

    /// The position of the next entry to apply.
    pub(super) fn position(&self) -> Option<(LogPosition, Option<Rc<Entry>>)> {
        let entry = self.durable.entry(self.applied)?;
        let position = LogPosition { index: self.applied as u64, term: entry.term };
        Some((position, entry.entry.clone()))
    }

    /// Makes a snapshot when one is due, and drops the entries that it covers.
    pub(super) fn compact(&mut self) {
        let last = self.durable.snapshot.as_ref().map_or(0, |snapshot| snapshot.next);
        if self.applied < last + SNAPSHOT_EVERY {
            return;
        }
        let (Ok(bytes), Some(term)) = (self.state.to_snapshot(), self.durable.term_before(self.applied)) else {
            return;
        };
        self.durable.snapshot = Some(Snapshot { next: self.applied, term, bytes: bytes.into() });
        let first = self.applied.saturating_sub(KEPT).max(self.durable.first);
        if let Some(term) = self.durable.term_before(first) {
            self.durable.entries.drain(..first - self.durable.first);
            (self.durable.first, self.durable.first_prev_term) = (first, term);
        }
    }
}

fn restore(bytes: &[u8]) -> Result<FleetState, String> {
    FleetState::from_snapshot(bytes).map_err(|error| error.to_string())
}
