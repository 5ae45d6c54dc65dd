//! What the node reports to a shard of commands that go on: how far each has come, not often, and that it is still
//! under way.

use skep_protocol::command::{CommandProgress, DeliveryReport, Steps};
use skep_protocol::ids::SessionId;
use skep_protocol::journal::JournalPhase;
use skep_protocol::limits;
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

use super::{DeliverySeq, Inbox, Live, Out};

/// How long the node keeps a command that has not ended after its software has gone, in milliseconds, so that software
/// that comes back can say how it ended. From then on the node asks the shard at the same interval, and gives the
/// command up once the shard does not hold it open any more.
pub(in crate::inbox) const LOST_AFTER_MS: u64 = 24 * 60 * 60 * 1_000;

/// How long after its deadline, on the shard's clock, the node gives the command up all the same, in milliseconds:
/// seven days. The node does not know for how long it was switched off, so a robot that rests each night never reaches
/// [`LOST_AFTER_MS`]. The shard holds no command open for longer than a day after its deadline.
pub(in crate::inbox) const LOST_PAST_DEADLINE_MS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// What a shard answered to a report.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::inbox) struct Answered {
    /// Whether the shard knows what the node reported.
    pub(in crate::inbox) known: bool,
    /// Whether the shard wants to hear of the end only.
    pub(in crate::inbox) over: bool,
    /// Whether the shard has forgotten the command: it refuses every report of it from now on.
    pub(in crate::inbox) forgotten: bool,
    /// The shard's clock when it took in the report; none if it did not.
    pub(in crate::inbox) clock: Option<LogInstant>,
}

/// How long ago a deadline passed by a shard's clock, in milliseconds, as far as the node knows. Between two eras the
/// time since the later one began counts.
fn passed_ms(deadline: LogInstant, clock: LogInstant) -> u64 {
    let of_another_era = if clock > deadline { clock.ms_in_era() } else { 0 };
    clock.checked_since_ms(deadline).unwrap_or(of_another_era)
}

/// How far a command has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stand {
    steps: Steps,
    progress: Option<CommandProgress>,
}

/// What the shard knows of a command that goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    known: Stand,
    /// What the node is reporting.
    telling: Option<Stand>,
    /// When the node reports next, in milliseconds of its clock; none while there is nothing to report.
    at_ms: Option<u64>,
    /// Whether the shard does not hold the command open any more: only its end is of interest.
    over: bool,
    /// Since when no software is attached that could say how the command ended, in milliseconds of this node's clock.
    alone_since_ms: Option<u64>,
}

impl Live {
    fn stand(&self) -> Stand {
        Stand { steps: self.entry.steps, progress: self.progress.clone() }
    }

    /// Whether the shard knows all of it.
    fn is_known(&self) -> bool {
        let Stand { steps, progress } = &self.report.known;
        (*steps, progress) == (self.entry.steps, &self.progress)
    }

    /// Whether the node can report something of the command. It reports nothing while a write is under way, so that it
    /// tells no start that a crash could undo, and nothing of an ended command, whose end it tells for good.
    fn is_tellable(&self) -> bool {
        let of_interest = !self.report.over || self.report.alone_since_ms.is_some();
        self.outcome().is_none() && self.writing == 0 && self.report.telling.is_none() && of_interest
    }

    /// Whether the command has not ended, and no software is attached.
    fn is_alone(&self, session: Option<SessionId>) -> bool {
        session.is_none() && self.outcome().is_none()
    }

    /// Whether the command's software is gone, and no end is to be expected: the software has been gone for too long,
    /// or the shard would not take the end.
    fn is_lost(&self, answered: Answered, now_ms: u64) -> bool {
        let deadline = self.entry.command.deadline;
        let gone_ms = self.report.alone_since_ms.map(|since| now_ms.saturating_sub(since));
        let long_past = answered.clock.is_some_and(|clock| passed_ms(deadline, clock) >= LOST_PAST_DEADLINE_MS);
        gone_ms.is_some_and(|gone_ms| gone_ms >= LOST_AFTER_MS || long_past || answered.forgotten)
    }

    /// Whether the software that began the command is attached.
    fn is_under_way(&self, session: Option<SessionId>) -> bool {
        matches!(self.entry.phase, JournalPhase::Intended { session: of } if Some(of) == session)
    }

    /// Within how many milliseconds the node reports to the shard; none if there is nothing to report.
    fn tell_within_ms(&self, session: Option<SessionId>) -> Option<u64> {
        match self.is_known() || self.report.over {
            false => Some(limits::DELIVERY_REPORT_EVERY_MS),
            true if self.is_alone(session) => Some(LOST_AFTER_MS),
            true => self.is_under_way(session).then_some(limits::DELIVERY_ALIVE_EVERY_MS),
        }
    }
}

impl Report {
    /// Software was attached anew. The shard heard nothing meanwhile, so the node reports to it soon.
    pub(super) fn begin_anew(&mut self) {
        (self.known, self.alone_since_ms) = (Stand::default(), None);
    }
}

impl Inbox {
    /// When the node reports to the shard next, in milliseconds of its clock.
    pub(super) fn next_report_ms(&self) -> Option<u64> {
        self.live.values().filter(|live| live.is_tellable()).filter_map(|live| live.report.at_ms).min()
    }

    /// The reports that are due now, no more than there is room for.
    pub(in crate::inbox) fn reports(&mut self, agent: &AgentId, now_ms: u64, room: usize) -> Vec<DeliveryReport> {
        let session = self.taker.as_ref().map(|taker| taker.session);
        let mut reports = Vec::new();
        for live in self.live.values_mut() {
            let (alone, since) = (live.is_alone(session), live.report.alone_since_ms);
            if alone && since.is_none() {
                // The node does not report any more that the command is under way.
                live.report.at_ms = None;
            }
            live.report.alone_since_ms = alone.then_some(since.unwrap_or(now_ms));
        }
        for (seq, live) in self.live.iter_mut().filter(|(_, live)| live.is_tellable()) {
            let within = live.tell_within_ms(session).map(|ms| now_ms + ms);
            live.report.at_ms = within.map(|at_ms| live.report.at_ms.map_or(at_ms, |known| known.min(at_ms)));
            if live.report.at_ms.is_none_or(|at_ms| at_ms > now_ms) || reports.len() >= room {
                continue;
            }
            let (agent, command, under_way) = (agent.clone(), live.command(), live.is_under_way(session));
            let stand = live.stand();
            live.report.telling = Some(stand.clone());
            let Stand { steps, progress } = stand;
            reports.push(DeliveryReport { agent, command, seq: *seq, steps, progress, under_way });
        }
        reports
    }

    /// The shard knows how far a command has come, or does not and has to be told once more. The node reports a lost
    /// command no more.
    pub(in crate::inbox) fn report_heard(&mut self, seq: DeliverySeq, answered: Answered, now_ms: u64, out: &mut Out) {
        let Some(live) = self.live.get_mut(&seq) else { return };
        let lost = answered.over && live.is_lost(answered, now_ms) && live.outcome().is_none() && live.writing == 0;
        let report = &mut live.report;
        let told = report.telling.take();
        if answered.known {
            report.known = told.unwrap_or_default();
        }
        (report.at_ms, report.over) = (None, report.over || answered.over);
        if lost {
            self.let_go(seq, out);
        }
    }
}
