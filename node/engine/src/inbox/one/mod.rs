//! The commands of one agent, from when they are delivered until the shard knows how they ended.

mod authority;
mod begun;
mod deliver;
mod fence;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skep_protocol::command::{
    CommandClass, CommandOutcome, CommandProgress, DeliveryReport, DeliverySeq, EndedDelivery, PerClass, Steps,
    VoidCause, check_result,
};
use skep_protocol::ids::{CommandId, HomeEpoch, SessionId, ShardId};
use skep_protocol::journal::{
    JournalEntry, JournalHead, JournalPhase, JournalState, JournalStep, JournalWrite, Serials,
};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::offer::{CommandSaid, CommandTold};
use skep_protocol::operator::Root;
use skep_protocol::text::{AgentId, Reason, SiteName};
use skep_protocol::time::LogInstant;

use super::due::Due;
use super::event::Taker;
use super::pressure::{JournalRoom, STEP_BYTES};
use fence::GoWord;
use report::Report;

pub(super) use deliver::Verified;
pub(super) use report::Answered;

#[cfg(test)]
pub(super) use report::{LOST_AFTER_MS, LOST_PAST_DEADLINE_MS};

/// What follows from something: all writes together, and what is said now.
#[derive(Debug, Default)]
pub(super) struct Out {
    /// What the journal has room for beside ends.
    pub(super) room: JournalRoom,
    /// What the shard's clock has surely come to.
    pub(super) clock_floor: LogInstant,
    /// What the inboxes of the shard know of the statements of operators.
    pub(super) stated: Serials,
    pub(super) writes: Vec<JournalWrite>,
    /// The entries that the writes are of.
    pub(super) written: Vec<DeliverySeq>,
    pub(super) told: Vec<(CommandId, CommandTold)>,
    pub(super) ended: Vec<EndedDelivery>,
    pub(super) reports: Vec<DeliveryReport>,
}

/// A command here.
#[derive(Clone, Debug)]
struct Live {
    entry: JournalEntry,
    /// Writes of it that are under way. Nothing is said of it meanwhile.
    writing: u32,
    void: Option<VoidCause>,
    offered: bool,
    /// Its software waits for the word to go: its stamp, and how long it was to the deadline.
    start: Option<(u64, u64)>,
    /// The word to go, once it was given.
    go: Option<GoWord>,
    /// How far its software says it has come.
    progress: Option<CommandProgress>,
    report: Report,
    /// Whether the shard is being told how it ended.
    ending: bool,
}

impl Live {
    fn new(entry: JournalEntry, writing: u32) -> Self {
        let (progress, report) = (None, Report::default());
        Self { entry, writing, void: None, offered: false, start: None, go: None, progress, report, ending: false }
    }

    fn command(&self) -> CommandId {
        self.entry.command.id
    }

    fn class(&self) -> CommandClass {
        self.entry.command.class
    }

    /// What is noted for a step that is taken now. The bound may be tighter than at an earlier step: no step is before
    /// another for that.
    fn stamp(&self, bound: Option<LogInstant>) -> Option<LogInstant> {
        let Steps { received, accepted, started, ended } = self.entry.steps;
        bound.map(|bound| [received, accepted, started, ended].into_iter().flatten().fold(bound, LogInstant::max))
    }

    fn is_received(&self) -> bool {
        self.entry.phase == JournalPhase::Received
    }

    fn outcome(&self) -> Option<&CommandOutcome> {
        match &self.entry.phase {
            JournalPhase::Ended { outcome } => Some(outcome),
            JournalPhase::Received | JournalPhase::Intended { .. } => None,
        }
    }
}

/// All that one agent's journal holds, and who takes commands from it.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    head: JournalHead,
    /// Whether a statement about an operator was seen that there was no place for.
    pub(super) lacks_stated: bool,
    /// How many of the statements about operators it knows that replaced an earlier one.
    pub(super) authority: u64,
    live: BTreeMap<DeliverySeq, Live>,
    /// What was let go of since the shard was asked last: its answer may bring it again.
    pub(super) gone: BTreeSet<DeliverySeq>,
    /// What the shard's clock has surely come to, as the journal says.
    clock_floor: LogInstant,
    /// Commands that were begun and are let go of, with their deadlines, which the floor has not passed.
    begun: BTreeMap<CommandId, LogInstant>,
    /// The software that takes its commands; none while none is attached.
    pub(super) taker: Option<Taker>,
    /// Whether the shard delivers to it.
    pub(super) open: bool,
    /// The entry of the shard's log up to which it knows what changed.
    pub(super) seen: u64,
}

impl Inbox {
    pub(super) fn new(journal: JournalState) -> Self {
        // What was stated the inboxes of the shard know together.
        let JournalState { head, stated: _, entries, clock_floor, begun } = journal;
        let live = entries.into_iter().map(|entry| (entry.seq, Live::new(entry, 0))).collect();
        let (gone, lacks_stated, authority) = (BTreeSet::new(), false, 0);
        let (taker, open, seen) = (None, false, 0);
        Self { head, lacks_stated, authority, live, gone, clock_floor, begun, taker, open, seen }
    }

    pub(super) fn head(&self) -> JournalHead {
        self.head
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// How many more commands it takes, of each class.
    pub(super) fn room(&self) -> PerClass<u32> {
        let mut waiting: PerClass<usize> = PerClass::default();
        for live in self.live.values().filter(|live| live.outcome().is_none()) {
            *waiting.of_mut(live.class()) += 1;
        }
        if is_on(Mutant::OneOrderForAllClasses) {
            waiting = PerClass::from_fn(|_| waiting.routine + waiting.urgent);
        }
        let left = |class: CommandClass| class.inbox_max().saturating_sub(*waiting.of(class));
        PerClass::from_fn(|class| u32::try_from(left(class)).unwrap_or(0))
    }

    /// A run of the agent's software takes its commands from now on.
    pub(super) fn take(&mut self, taker: Taker, out: &mut Out) {
        let (session, in_hand) = (taker.session, taker.in_hand.clone());
        (self.taker, self.open, self.seen) = (Some(taker), false, 0);
        for live in self.live.values_mut() {
            live.offered = false;
            live.report.begin_anew();
        }
        // What this run of the software has not in its hands it says nothing of, as if it had been another's.
        let interrupted = |live: &Live| match live.entry.phase {
            JournalPhase::Intended { session: of } => of != session || !in_hand.contains(&live.command()),
            JournalPhase::Received | JournalPhase::Ended { .. } => false,
        };
        let interrupted: Vec<DeliverySeq> =
            self.live.iter().filter(|(_, live)| interrupted(live)).map(|(seq, _)| *seq).collect();
        for seq in interrupted {
            let Some(live) = self.live.get_mut(&seq) else { continue };
            (live.go, live.start) = (None, None);
            if live.entry.command.idempotent {
                live.entry.begun_before = true;
                self.set_phase(seq, JournalPhase::Received, out);
            } else {
                out.told.push((live.command(), CommandTold::Interrupted));
                let reason = Reason::truncated("its software ended, or lost it, while it was under way");
                self.end(seq, CommandOutcome::Indeterminate { reason }, None, out);
            }
        }
    }

    /// Nobody takes its commands any more. What was written down is still reported.
    pub(super) fn leave(&mut self) {
        (self.taker, self.open) = (None, false);
        for live in self.live.values_mut() {
            (live.offered, live.start) = (false, None);
        }
    }

    /// The shard delivers to it, as the journal of this time.
    pub(super) fn opened(&mut self, home: HomeEpoch, out: &mut Out) {
        self.open = true;
        if self.head.home != home {
            let stale: Vec<DeliverySeq> = self
                .live
                .iter()
                .filter(|(seq, live)| seq.home != home && live.is_received())
                .map(|(s, _)| *s)
                .collect();
            for seq in stale {
                let reason = Reason::truncated("not started: another node took its agent over");
                self.end(seq, CommandOutcome::Rejected { reason }, None, out);
            }
            (self.head.home, self.head.cursor, self.seen) = (home, PerClass::default(), 0);
            out.writes.push(JournalWrite::Head(self.head));
        }
        self.offer(out);
    }

    /// Where statements hold, and by whom they are proved: as it is told first, for as long as the journal lasts. Only the
    /// first operator's own word gives its place to another, or has the shard go on as another one.
    pub(super) fn pin(&mut self, root: &Root, of: (&SiteName, ShardId), out: &mut Out) {
        let known = self.head.genesis.map(|genesis| (genesis, self.head.first));
        let (genesis, first) = root.known_after(known, of);
        let head = JournalHead { genesis: Some(genesis), first, ..self.head };
        if head == self.head {
            return;
        }
        if head.is_of_another_shard(&self.head) {
            // The replica that it goes on from may have counted fewer statements than this inbox was told of.
            (self.authority, self.lacks_stated) = (0, false);
        }
        out.stated.follow(&self.head, &head);
        self.head = head;
        out.writes.push(JournalWrite::Head(head));
    }

    /// How many replacements of the first operator it knows.
    pub(super) fn replaced(&self) -> u64 {
        self.head.first.map_or(0, |first| first.replaced)
    }

    /// Something that is here is not to be started.
    pub(super) fn void(&mut self, class: CommandClass, n: u64, cause: VoidCause, out: &mut Out) {
        let seq = DeliverySeq { home: self.head.home, class, n };
        let Some(live) = self.live.get_mut(&seq).filter(|live| live.void.is_none() && live.outcome().is_none()) else {
            return;
        };
        live.void = Some(cause);
        if live.is_received() {
            self.void_here(seq, cause, out);
        }
    }

    /// Ends what was not started by its deadline.
    pub(super) fn expire(&mut self, bound: LogInstant, out: &mut Out) {
        let late = |live: &Live| live.is_received() && bound >= live.entry.command.deadline;
        let late: Vec<DeliverySeq> = self.live.iter().filter(|(_, live)| late(live)).map(|(seq, _)| *seq).collect();
        for seq in late {
            self.void_here(seq, VoidCause::Expired, out);
        }
    }

    /// What is due next.
    pub(super) fn next_due(&self) -> Due {
        Due { deadline: self.next_deadline(), report_ms: self.next_report_ms() }
    }

    /// The next deadline of something that was not started.
    fn next_deadline(&self) -> Option<LogInstant> {
        self.live.values().filter(|live| live.is_received()).map(|live| live.entry.command.deadline).min()
    }

    /// Ends what is not to be started. Its software hears of it at once only if the journal surely says that it was never
    /// told to go: what it is told to forget while the journal may have it under way, nobody would end after a crash. It is
    /// told otherwise when the end is written down.
    fn void_here(&mut self, seq: DeliverySeq, cause: VoidCause, out: &mut Out) {
        let Some(live) = self.live.get(&seq) else { return };
        let never_begun = live.is_received() && live.writing == 0;
        if never_begun || is_on(Mutant::VoidBeforeWritten) {
            out.told.push((live.command(), CommandTold::Void(cause)));
        }
        self.end(seq, cause.outcome(), None, out);
    }

    /// The agent's software said something.
    pub(super) fn said(&mut self, command: CommandId, said: CommandSaid, bound: Option<LogInstant>, out: &mut Out) {
        let found = self.live.iter().find(|(_, live)| live.command() == command).map(|(seq, _)| *seq);
        let Some((seq, session)) = found.zip(self.taker.as_ref().map(|taker| taker.session)) else {
            if said.is_answered() {
                // What it has begun is here until the shard knows how it ended, or it is let go of.
                let too_late = found.is_none() && said.is_outcome();
                out.told.push((command, if too_late { CommandTold::Unknown } else { CommandTold::Ignored }));
            }
            return;
        };
        let Some(live) = self.live.get_mut(&seq) else { return };
        if let Some(outcome) = live.outcome() {
            if live.writing == 0 && said.is_answered() {
                out.told.push((command, CommandTold::Recorded(outcome.clone())));
            }
            return;
        }
        let (received, started) = (live.is_received(), live.entry.phase == JournalPhase::Intended { session });
        match said {
            CommandSaid::Accept if received => {
                live.entry.steps.accepted = live.entry.steps.accepted.or(live.stamp(bound));
            }
            CommandSaid::Reject { reason } if received => {
                self.end(seq, CommandOutcome::Rejected { reason }, bound, out);
            }
            // It let go of what it may have begun.
            CommandSaid::Reject { reason } if started => {
                self.end(seq, CommandOutcome::Failed { reason }, bound, out);
            }
            CommandSaid::Start { stamp } if received => self.start(seq, session, stamp, bound, out),
            CommandSaid::Start { stamp } if started => self.start_again(seq, stamp, bound, out),
            CommandSaid::Succeeded { result } if started => {
                let outcome = match check_result(&result) {
                    Ok(()) => CommandOutcome::Succeeded { result },
                    // It was done: what is too large is left out, and the rest told.
                    Err(_) => CommandOutcome::Succeeded { result: Vec::new() },
                };
                self.end(seq, outcome, bound, out);
            }
            CommandSaid::Progress { permille, note } if started => {
                let said = live.progress.as_ref().is_some_and(|said| (said.permille, &said.note) == (permille, &note));
                if said {
                    return;
                }
                // No word is before another, though the bound may have become tighter.
                let at = live.stamp(bound).max(live.progress.as_ref().and_then(|before| before.at));
                live.progress = Some(CommandProgress { permille, note, at });
            }
            CommandSaid::Failed { reason } if started => self.end(seq, CommandOutcome::Failed { reason }, bound, out),
            // It is not answered.
            CommandSaid::Progress { .. } => {}
            CommandSaid::Accept
            | CommandSaid::Reject { .. }
            | CommandSaid::Start { .. }
            | CommandSaid::Succeeded { .. }
            | CommandSaid::Failed { .. } => out.told.push((command, CommandTold::Ignored)),
        }
    }

    /// The software would begin: the intent is written down first.
    fn start(&mut self, seq: DeliverySeq, session: SessionId, stamp: u64, bound: Option<LogInstant>, out: &mut Out) {
        let Some(live) = self.live.get(&seq) else { return };
        let (command, class, deadline) = (live.command(), live.class(), live.entry.command.deadline);
        if self.was_begun(&command, seq) {
            return self.end(seq, begun::begun_before(), bound, out);
        }
        let (is_past, has_place) = (self.is_past(deadline), self.has_place_to_begin(class, out));
        let Some(live) = self.live.get_mut(&seq) else { return };
        // Without a clock nothing is started that has a deadline.
        let Some(now) = bound.filter(|_| self.open && live.offered) else {
            return out.told.push((live.command(), CommandTold::Ignored));
        };
        if now >= deadline || is_past {
            return self.void_here(seq, VoidCause::Expired, out);
        }
        // The intent would take the room that is kept for ends, or its name find no place: whoever asks for it asks again.
        if !out.room.has_for(class) || !has_place {
            return out.told.push((live.command(), CommandTold::Ignored));
        }
        // Software whose lease is over may have been followed by another run: it asks again, and is told once it is renewed.
        // How long it is until a deadline of an era that the clock has not reached is known to nobody.
        let word = deadline.checked_since_ms(now).and_then(|left_ms| {
            let word = GoWord::of(self.taker.as_ref(), seq, stamp, left_ms)?;
            Some((left_ms, word))
        });
        let Some((left_ms, word)) = word else {
            return out.told.push((live.command(), CommandTold::Ignored));
        };
        live.start = Some((stamp, left_ms));
        if is_on(Mutant::GoBeforeIntent) {
            out.told.push((live.command(), word.told()));
        }
        let stamp = live.stamp(bound);
        let steps = &mut live.entry.steps;
        (steps.accepted, steps.started) = (steps.accepted.or(stamp), stamp);
        live.progress = None;
        out.room.take(STEP_BYTES);
        self.set_phase(seq, JournalPhase::Intended { session }, out);
    }

    /// Writes of these entries are in the journal. `bound` is the latest that the shard's clock can be.
    pub(super) fn written(&mut self, seqs: &[DeliverySeq], bound: Option<LogInstant>, out: &mut Out) {
        for seq in seqs {
            let Some(live) = self.live.get_mut(seq) else { continue };
            live.writing = live.writing.saturating_sub(1);
            if live.writing > 0 {
                continue;
            }
            match &live.entry.phase {
                JournalPhase::Received => {}
                JournalPhase::Intended { .. } => self.go(*seq, bound, out),
                JournalPhase::Ended { outcome } => {
                    out.told.push((live.command(), CommandTold::Recorded(outcome.clone())));
                }
            }
        }
        self.offer(out);
    }

    /// The intent is written down: the last look before the software is told to go.
    fn go(&mut self, seq: DeliverySeq, bound: Option<LogInstant>, out: &mut Out) {
        let Some(live) = self.live.get_mut(&seq) else { return };
        let Some((stamp, left_ms)) = live.start.take() else {
            // Whoever asked for it is gone, and was not told.
            if live.go.is_none() {
                self.withdraw(seq, out);
            }
            return;
        };
        let late = bound.is_none_or(|now| now >= live.entry.command.deadline);
        if let Some(cause) = live.void.or(late.then_some(VoidCause::Expired)) {
            return self.void_here(seq, cause, out);
        }
        // It may have been renewed meanwhile: what counts is that it runs from the stamp on.
        let Some(word) = GoWord::of(self.taker.as_ref(), seq, stamp, left_ms) else {
            out.told.push((live.command(), CommandTold::Ignored));
            return self.withdraw(seq, out);
        };
        live.go = Some(word);
        out.told.push((live.command(), word.told()));
    }

    /// Offers what has its turn: the first of each class.
    fn offer(&mut self, out: &mut Out) {
        if !self.open {
            return;
        }
        let mut busy: BTreeSet<CommandClass> = BTreeSet::new();
        for live in self.live.values_mut().filter(|live| live.outcome().is_none()) {
            let turn = busy.insert(live.class());
            if turn && live.is_received() && !live.offered {
                live.offered = true;
                out.told.push((live.command(), CommandTold::Offer(Arc::clone(&live.entry.command))));
            }
        }
    }

    fn set_phase(&mut self, seq: DeliverySeq, phase: JournalPhase, out: &mut Out) {
        let Some(live) = self.live.get_mut(&seq) else { return };
        live.entry.phase = phase;
        live.writing += 1;
        let JournalEntry { steps, phase, begun_before, .. } = live.entry.clone();
        out.writes.push(JournalWrite::Step(JournalStep { seq, steps, phase, begun_before }));
        out.written.push(seq);
    }

    fn end(&mut self, seq: DeliverySeq, outcome: CommandOutcome, bound: Option<LogInstant>, out: &mut Out) {
        let Some(live) = self.live.get_mut(&seq) else { return };
        live.entry.steps.ended = live.stamp(bound);
        live.start = None;
        // Not started this time is not the same as never.
        let outcome = match outcome.may_have_acted() || !live.entry.begun_before {
            true => outcome,
            false => {
                let why = format!("{} now, and an earlier run of its software had begun it", outcome.name());
                CommandOutcome::Indeterminate { reason: Reason::truncated(&why) }
            }
        };
        self.set_phase(seq, JournalPhase::Ended { outcome }, out);
    }

    /// Of which ends the shard is to be told now, up to so many at a time.
    pub(super) fn ended(&mut self, agent: &AgentId) -> Vec<EndedDelivery> {
        let under_way = self.live.values().filter(|live| live.ending).count();
        let room = limits::ENDS_IN_FLIGHT_MAX.saturating_sub(under_way);
        let due =
            self.live.iter_mut().filter(|(_, live)| live.outcome().is_some() && live.writing == 0 && !live.ending);
        due.take(room)
            .filter_map(|(seq, live)| {
                live.ending = true;
                let (command, outcome, steps) = (live.command(), live.outcome()?.clone(), live.entry.steps);
                Some(EndedDelivery { agent: agent.clone(), command, seq: *seq, outcome, steps })
            })
            .collect()
    }

    /// The shard knows how a command ended, or does not and is to be told again.
    pub(super) fn end_heard(&mut self, seq: DeliverySeq, known: bool, out: &mut Out) {
        if known {
            self.let_go(seq, out);
        } else if let Some(live) = self.live.get_mut(&seq) {
            live.ending = false;
        }
    }
}
