//! The commands of this node's agents. The node pulls them from the shard, writes them down, offers them, starts them,
//! and reports them.
//!
//! The node acts on a command only after the journal has the step. The journal says that a command may have been
//! started before the node tells the software to go, and how it ended before the node tells any other party. The node
//! tells at once what does no harm if a crash forgets it: that there is a command, since the shard keeps the command
//! until it knows the end, and delivers it again; and that a command is not to be started, if the journal has it as
//! received. The node tells no end of a command that the journal may have as begun before that end is written down.
//!
//! A journal whose disk is full still takes ends and urgent commands: see [`pressure`].

mod bound;
mod due;
mod event;
mod floor;
mod one;
mod pressure;
mod pull;

use std::collections::{BTreeMap, VecDeque};

use skep_config::EngineConfig;
use skep_protocol::agent::AgentRefusal;
use skep_protocol::command::{CommandClass, CommandOp, CommandRefusal, DeliverySeq};
use skep_protocol::entry::Op;
use skep_protocol::ids::{HomeEpoch, ShardId};
use skep_protocol::journal::{JournalHead, JournalJob, JournalReport, JournalState, JournalWrite, Serials};
use skep_protocol::lease::Usable;
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::offer::CommandTold;
use skep_protocol::outcome::{NotDone, Receipt};
use skep_protocol::refusal::Refusal;
use skep_protocol::settled::Settled;
use skep_protocol::signing::OperatorKey;
use skep_protocol::text::{AgentId, SiteName};
use skep_protocol::time::LogInstant;

use crate::ask::{Ask, Asked};
use crate::key::{StreamKey, WriteKey};
use bound::ClockBound;
use due::Dues;
use floor::ClockFloor;
use one::{Answered, Inbox, Out};
use pressure::JournalRoom;
use pull::Turn;

pub use event::{InboxEvent, Taker};

/// How long one try to open an inbox or to report an outcome lasts, in milliseconds.
const REQUEST_PATIENCE_MS: u64 = 10_000;

type Whose = (ShardId, AgentId);

/// What the inboxes want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InboxWant {
    /// Give the journal a job.
    Journal(JournalJob),
    /// Ask a shard. [`Inboxes::answered`] takes the answer.
    Ask(Ask<InboxPurpose>),
    /// Stop waiting for an answer that is of no use any more.
    Abandon(InboxPurpose),
    /// Tell an agent's software about a command.
    Tell { stream: StreamKey, command: skep_protocol::ids::CommandId, told: CommandTold },
}

/// What the inboxes ask a shard for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InboxPurpose {
    /// What there is for the agents. No other pull has this number.
    Pull {
        shard: ShardId,
        number: u64,
    },
    Request(InboxRequest),
}

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InboxRequest {
    Open(Whose, StreamKey),
    End(Whose, DeliverySeq),
    /// To report how far a command has come.
    Report(Whose, DeliverySeq),
}

/// The inboxes of this node.
#[derive(Clone, Debug)]
pub(crate) struct Inboxes {
    site: SiteName,
    config: EngineConfig,
    inboxes: BTreeMap<Whose, Inbox>,
    /// What the inboxes of each shard know of the statements of operators.
    stated: BTreeMap<ShardId, Serials>,
    /// Takers whose journals the driver is reading.
    reading: BTreeMap<Whose, Taker>,
    streams: BTreeMap<StreamKey, Whose>,
    bounds: BTreeMap<ShardId, ClockBound>,
    /// What the clocks of shards have come to. No bound is below that.
    clock_floors: BTreeMap<ShardId, ClockFloor>,
    turns: BTreeMap<ShardId, Turn>,
    /// The number of the newest pull.
    pulls: u64,
    /// Requests that were not done, and when the node makes them again, in milliseconds of its clock.
    again: Vec<(u64, InboxRequest)>,
    dues: Dues,
    /// How many reports are under way.
    reporting: usize,
    writes: BTreeMap<WriteKey, (Whose, Vec<DeliverySeq>)>,
    next_write: u64,
    /// What the disk of the journals has room for.
    room: JournalRoom,
    wants: VecDeque<InboxWant>,
}

impl Inboxes {
    pub(crate) fn new(site: SiteName, config: EngineConfig) -> Self {
        Self {
            site,
            config,
            inboxes: BTreeMap::new(),
            stated: BTreeMap::new(),
            reading: BTreeMap::new(),
            streams: BTreeMap::new(),
            bounds: BTreeMap::new(),
            clock_floors: BTreeMap::new(),
            turns: BTreeMap::new(),
            pulls: 0,
            again: Vec::new(),
            dues: Dues::default(),
            reporting: 0,
            writes: BTreeMap::new(),
            next_write: 0,
            room: JournalRoom::default(),
            wants: VecDeque::new(),
        }
    }

    pub(crate) fn handle(&mut self, event: InboxEvent, now_ms: u64) {
        match event {
            InboxEvent::Takes(taker) => self.on_takes(taker, now_ms),
            InboxEvent::Renewed { stream, lease } => self.on_renewed(stream, lease),
            InboxEvent::Gone { stream } => self.on_gone(stream, now_ms),
            InboxEvent::Journal(JournalReport::Opened { shard, agent, journal }) => {
                self.on_opened((shard, agent), *journal, now_ms);
            }
            InboxEvent::Journal(JournalReport::Written { key }) => self.on_written(WriteKey(key), now_ms),
            InboxEvent::Pressure(pressure) => self.on_pressure(pressure, now_ms),
            InboxEvent::Said { stream, command, said } => {
                let known = self.streams.get(&stream).filter(|whose| self.inboxes.contains_key(whose)).cloned();
                match known {
                    Some(whose) => self.with(&whose, now_ms, |inbox, bound, out| inbox.said(command, said, bound, out)),
                    None if !said.is_answered() => {}
                    // The driver still reads the agent's journal, or the agent takes no commands: its software says it
                    // again.
                    None => self.wants.push_back(InboxWant::Tell { stream, command, told: CommandTold::Ignored }),
                }
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, now_ms: u64) {
        let due = |at: &u64| *at <= now_ms;
        let (again, later) = std::mem::take(&mut self.again).into_iter().partition(|(at, _)| due(at));
        self.again = later;
        for (_, request) in again {
            self.ask_again(request, now_ms);
        }
        for whose in self.dues.due(&self.bounds, now_ms, self.reports_room()) {
            self.with(&whose, now_ms, |inbox, bound, out| {
                if let Some(bound) = bound {
                    inbox.expire(bound, out);
                }
            });
        }
        for shard in self.turns.keys().copied().collect::<Vec<_>>() {
            self.pull(shard, now_ms);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        let again = self.again.iter().map(|(at, _)| *at).min();
        let turns = self.turns.values().filter(|turn| turn.under_way.is_none()).map(|turn| turn.at_ms).min();
        [again, turns, self.dues.first_ms(&self.bounds, self.reports_room())].into_iter().flatten().min()
    }

    /// In how many inboxes there was no place for a statement that the node saw.
    pub(crate) fn lacking_statements(&self) -> usize {
        self.inboxes.values().filter(|inbox| inbox.lacks_stated).count()
    }

    pub(crate) fn poll_want(&mut self) -> Option<InboxWant> {
        self.wants.pop_front()
    }

    /// A shard answered, or the patience for its answer is over.
    pub(crate) fn answered(&mut self, purpose: InboxPurpose, settled: Settled, now_ms: u64) {
        match purpose {
            InboxPurpose::Pull { shard, number } => self.on_pull_ended(shard, number, settled, now_ms),
            InboxPurpose::Request(request) => self.on_request_ended(request, settled, now_ms),
        }
    }

    fn reports_room(&self) -> usize {
        limits::REPORTS_IN_FLIGHT_MAX.saturating_sub(self.reporting)
    }

    /// The shard's clock to send requests by; none if the node did not hear it a moment ago.
    pub(crate) fn clock(&self, shard: ShardId, now_ms: u64) -> Option<LogInstant> {
        self.bounds.get(&shard).and_then(|bound| bound.at_if_fresh(now_ms))
    }

    fn bound(&self, shard: ShardId, now_ms: u64) -> Option<LogInstant> {
        self.bounds.get(&shard).map(|bound| bound.at(now_ms))
    }

    /// Applies `what` to an inbox, and carries out what follows.
    fn with(&mut self, whose: &Whose, now_ms: u64, what: impl FnOnce(&mut Inbox, Option<LogInstant>, &mut Out)) {
        let (bound, room) = (self.bound(whose.0, now_ms), self.reports_room());
        let clock_floor = self.clock_floors.get(&whose.0).copied().unwrap_or_default().sure_at(now_ms);
        let Some(inbox) = self.inboxes.get_mut(whose) else { return };
        let stated = self.stated.remove(&whose.0).unwrap_or_default();
        let mut out = Out { room: self.room, clock_floor, stated, ..Out::default() };
        let (had, was_due, before) = (inbox.room(), inbox.next_due(), inbox.head());
        what(inbox, bound, &mut out);
        self.room = out.room;
        self.stated.insert(whose.0, std::mem::take(&mut out.stated));
        let head = inbox.head();
        let is_pinned = (before.genesis, before.first) != (head.genesis, head.first);
        let has = inbox.room();
        let room_again = CommandClass::URGENT_FIRST.into_iter().any(|class| *had.of(class) == 0 && *has.of(class) > 0);
        out.ended = inbox.ended(&whose.1);
        out.reports = inbox.reports(&whose.1, now_ms, room);
        self.dues.change(whose, was_due, inbox.next_due());
        let stream = inbox.taker.as_ref().map(|taker| taker.stream);
        let over = inbox.taker.is_none() && inbox.is_empty() && out.writes.is_empty();
        if room_again {
            inbox.seen = 0;
        }
        if is_pinned && before.genesis.is_none() {
            out.writes.extend(self.stated_before(whose, &head));
        }
        self.carry_out(whose, stream, out);
        if over && self.inboxes.remove(whose).is_some() {
            let (shard, agent) = whose.clone();
            self.wants.push_back(InboxWant::Journal(JournalJob::Release { shard, agent }));
        }
        if over || is_pinned {
            self.keep_stated(whose.0);
        }
        if room_again {
            self.pull_now(whose.0, now_ms);
        }
    }

    /// The statements that the node knows by the word of a first operator whom an inbox believes from now on. The
    /// journals in which they are may be gone, if no other inbox believes that one: then this inbox writes them down.
    fn stated_before(&self, whose: &Whose, head: &JournalHead) -> Vec<JournalWrite> {
        let of_shard = self.inboxes.range((whose.0, AgentId::first())..).take_while(|((of, _), _)| *of == whose.0);
        let believes = |other: JournalHead| (other.genesis, other.first) == (head.genesis, head.first);
        if of_shard.filter(|(other, _)| *other != whose).any(|(_, inbox)| believes(inbox.head())) {
            return Vec::new();
        }
        let known = self.stated.get(&whose.0).map(|stated| stated.of(head)).unwrap_or_default();
        let stated = |(operator, serial): (&OperatorKey, &u64)| {
            let (operator, serial) = (*operator, *serial);
            JournalWrite::Stated { operator, serial }
        };
        known.iter().map(stated).collect()
    }

    /// Forgets the statements that count only by the word of a first operator whom no inbox of the shard believes any
    /// more.
    fn keep_stated(&mut self, shard: ShardId) {
        let of_shard = self.inboxes.range((shard, AgentId::first())..).take_while(|((of, _), _)| *of == shard);
        let heads: Vec<JournalHead> = of_shard.map(|(_, inbox)| inbox.head()).collect();
        // The driver may be reading a journal as it was before another inbox wrote what it saw. An inbox that has not
        // heard of a first operator yet may still hear of any.
        let is_open =
            self.reading.keys().any(|(of, _)| *of == shard) || heads.iter().any(|head| head.genesis.is_none());
        if let Some(stated) = self.stated.get_mut(&shard).filter(|_| !is_open) {
            stated.keep(heads.into_iter());
        }
    }

    fn carry_out(&mut self, whose: &Whose, stream: Option<StreamKey>, out: Out) {
        if !out.writes.is_empty() {
            self.next_write += 1;
            let key = WriteKey(self.next_write);
            self.writes.insert(key, (whose.clone(), out.written));
            let (shard, agent) = whose.clone();
            self.wants.push_back(InboxWant::Journal(JournalJob::Write {
                key: key.0,
                shard,
                agent,
                writes: out.writes,
            }));
        }
        for (command, told) in out.told {
            if let Some(stream) = stream {
                self.wants.push_back(InboxWant::Tell { stream, command, told });
            }
        }
        for ended in out.ended {
            let of = InboxRequest::End(whose.clone(), ended.seq);
            self.ask_for(of, whose.0, CommandOp::End { ended: Box::new(ended) });
        }
        self.reporting += out.reports.len();
        for report in out.reports {
            let of = InboxRequest::Report(whose.clone(), report.seq);
            self.ask_for(of, whose.0, CommandOp::Report { report: Box::new(report) });
        }
    }

    fn ask_for(&mut self, of: InboxRequest, shard: ShardId, op: CommandOp) {
        let (purpose, work) = (InboxPurpose::Request(of), Asked::Op(Op::Command(op)));
        self.wants.push_back(InboxWant::Ask(Ask { purpose, shard, work, patience_ms: REQUEST_PATIENCE_MS }));
    }

    fn on_takes(&mut self, taker: Taker, now_ms: u64) {
        let whose = (taker.shard, taker.agent.clone());
        self.streams.retain(|_, of| *of != whose);
        self.streams.insert(taker.stream, whose.clone());
        if self.inboxes.contains_key(&whose) {
            return self.take(&whose, taker, now_ms);
        }
        let (shard, agent) = whose.clone();
        let asked = self.reading.insert(whose, taker).is_some();
        // A new journal needs a write: the node asks for it once there is room for urgent commands.
        if !asked && self.takes_urgent() {
            self.wants.push_back(InboxWant::Journal(JournalJob::Open { shard, agent }));
        }
    }

    fn on_opened(&mut self, whose: Whose, journal: JournalState, now_ms: u64) {
        // The journal is new, and has no home epoch yet.
        if journal.head.home == HomeEpoch(0) {
            self.room.take(pressure::STEP_BYTES);
        }
        self.clock_floors.entry(whose.0).or_default().raise(journal.clock_floor, now_ms);
        self.raise_bound(whose.0, now_ms);
        self.stated.entry(whose.0).or_default().merge(journal.stated.clone());
        self.inboxes.entry(whose.clone()).or_insert_with(|| Inbox::new(journal));
        match self.reading.remove(&whose) {
            Some(taker) => self.take(&whose, taker, now_ms),
            // No software takes the commands: the node reports what the journal holds.
            None => self.with(&whose, now_ms, |_, _, _| {}),
        }
    }

    fn take(&mut self, whose: &Whose, taker: Taker, now_ms: u64) {
        let stream = taker.stream;
        self.with(whose, now_ms, |inbox, _, out| inbox.take(taker, out));
        self.ask_to_open(whose, stream);
    }

    fn ask_to_open(&mut self, whose: &Whose, stream: StreamKey) {
        let Some(inbox) = self.inboxes.get(whose) else { return };
        let Some(taker) = inbox.taker.as_ref().filter(|taker| taker.stream == stream) else { return };
        let (agent, attachment, groups) = (taker.agent.clone(), taker.attachment, taker.groups.clone());
        let op = CommandOp::OpenInbox { agent, attachment, journal: inbox.head().id, groups };
        self.ask_for(InboxRequest::Open(whose.clone(), stream), whose.0, op);
    }

    fn on_renewed(&mut self, stream: StreamKey, lease: Usable) {
        let Some(whose) = self.streams.get(&stream) else { return };
        let waits = self.reading.get_mut(whose);
        let takes = self.inboxes.get_mut(whose).and_then(|inbox| inbox.taker.as_mut());
        for taker in waits.into_iter().chain(takes).filter(|taker| taker.stream == stream) {
            taker.renew(lease);
        }
    }

    fn on_gone(&mut self, stream: StreamKey, now_ms: u64) {
        let Some(whose) = self.streams.remove(&stream) else { return };
        self.reading.remove(&whose);
        self.with(&whose, now_ms, |inbox, _, _| inbox.leave());
    }

    fn on_written(&mut self, key: WriteKey, now_ms: u64) {
        let Some((whose, seqs)) = self.writes.remove(&key) else { return };
        self.with(&whose, now_ms, |inbox, bound, out| inbox.written(&seqs, bound, out));
    }

    fn on_request_ended(&mut self, request: InboxRequest, settled: Settled, now_ms: u64) {
        // A refusal of the request itself, such as for its clock, says nothing of what the request asks for.
        let final_refusal = matches!(
            &settled,
            Settled::NotDone(NotDone::Refused(
                Refusal::Command(CommandRefusal::NoSuchCommand(_) | CommandRefusal::Invalid(_))
                    | Refusal::Agent(AgentRefusal::NotAttached { .. })
            ))
        );
        match (&request, settled) {
            (InboxRequest::Open(whose, stream), Settled::Done { receipt: Receipt::Inbox { home, .. }, .. }) => {
                let current = |inbox: &Inbox| inbox.taker.as_ref().is_some_and(|taker| taker.stream == *stream);
                if self.inboxes.get(whose).is_some_and(current) {
                    self.with(whose, now_ms, |inbox, _, out| inbox.opened(home, out));
                    self.pull_now(whose.0, now_ms);
                }
            }
            // If the agent is still here, the node attaches it anew and then asks again.
            (InboxRequest::Open(..), _) if final_refusal => {}
            (InboxRequest::End(whose, seq), settled) => {
                let known = matches!(settled, Settled::Done { .. }) || final_refusal;
                let seq = *seq;
                if known {
                    self.with(whose, now_ms, |inbox, _, out| inbox.end_heard(seq, true, out));
                } else {
                    self.again.push((now_ms + self.config.retry_ms_max, request));
                }
            }
            (InboxRequest::Report(whose, seq), settled) => {
                let answered = match settled {
                    Settled::Done { stamp, receipt: Receipt::DeliveryReported { open, .. }, .. } => {
                        Answered { known: true, over: !open, forgotten: false, clock: Some(stamp) }
                    }
                    Settled::NotDone(NotDone::Refused(Refusal::Command(CommandRefusal::NoSuchCommand(_)))) => {
                        Answered { over: true, forgotten: true, ..Answered::default() }
                    }
                    Settled::Done { .. }
                    | Settled::Read(_)
                    | Settled::Heard(_)
                    | Settled::Pulled(_)
                    | Settled::NotDone(_)
                    | Settled::Unknown => Answered { over: final_refusal, ..Answered::default() },
                };
                self.reporting = self.reporting.saturating_sub(1);
                let seq = *seq;
                self.with(whose, now_ms, |inbox, _, out| inbox.report_heard(seq, answered, now_ms, out));
            }
            (InboxRequest::Open(..), _) => self.again.push((now_ms + self.config.retry_ms_max, request)),
        }
    }

    fn ask_again(&mut self, request: InboxRequest, now_ms: u64) {
        match request {
            InboxRequest::Open(whose, stream) => self.ask_to_open(&whose, stream),
            InboxRequest::End(whose, seq) => {
                // The inbox reports the end again.
                self.with(&whose, now_ms, |inbox, _, out| inbox.end_heard(seq, false, out));
            }
            // The inbox reports it again when it is due.
            InboxRequest::Report(..) => {}
        }
    }

    /// A leader says what the shard's clock shows, and bounds the clock by that. No bound is below what the clock has
    /// come to.
    fn hear_clock(&mut self, shard: ShardId, heard: ClockBound, clock: LogInstant, now_ms: u64) {
        self.clock_floors.entry(shard).or_default().hear(clock, now_ms);
        self.bounds.entry(shard).or_insert(heard).tighten(heard, now_ms);
        self.raise_bound(shard, now_ms);
    }

    fn raise_bound(&mut self, shard: ShardId, now_ms: u64) {
        let (Some(bound), Some(floor)) = (self.bounds.get_mut(&shard), self.clock_floors.get(&shard)) else { return };
        let least = if is_on(Mutant::ClockTurnedBack) { LogInstant::ZERO } else { floor.at(now_ms) };
        bound.raise(least, now_ms);
    }

    /// Journals that lag write down how far the shard's clock has surely come: some at a time, while there is room for
    /// that.
    fn raise_clock_floors(&mut self, shard: ShardId, now_ms: u64) {
        if !self.room.asks_for(CommandClass::Routine) {
            return;
        }
        let floor = self.clock_floors.get(&shard).copied().unwrap_or_default().sure_at(now_ms);
        let of_shard = self.inboxes.range((shard, AgentId::first())..).take_while(|((of, _), _)| *of == shard);
        let lagging = of_shard.filter(|(_, inbox)| inbox.open && inbox.lags(floor)).map(|(whose, _)| whose.clone());
        for whose in lagging.take(limits::FLOORS_AT_ONCE_MAX).collect::<Vec<Whose>>() {
            self.with(&whose, now_ms, |inbox, _, out| inbox.raise_clock_floor(out));
        }
    }
}

#[cfg(test)]
mod tests;
