//! That nothing is begun twice, whoever delivers it, and nothing whose time is surely over.
//!
//! A command is in the journal until the shard knows how it ended. After that its place in the agent's order keeps it from being taken
//! again, and places are the leader's to give. So its name is kept, until the shard's clock has surely passed its deadline: from then on
//! the floor keeps it away. Neither is the leader's to take back.

use skep_protocol::command::{CommandClass, CommandOutcome, DeliverySeq};
use skep_protocol::ids::CommandId;
use skep_protocol::journal::JournalWrite;
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::text::Reason;
use skep_protocol::time::LogInstant;

use super::{Inbox, Live, Out};

impl Live {
    /// Whether its software may have begun it.
    fn was_begun(&self) -> bool {
        let may_have = self.outcome().is_some_and(CommandOutcome::may_have_acted);
        may_have || self.entry.steps.started.is_some() || self.entry.begun_before
    }
}

/// How a command ends that was begun here before, under another place.
pub(super) fn begun_before() -> CommandOutcome {
    CommandOutcome::Indeterminate { reason: Reason::truncated("it was begun here before, and is not begun again") }
}

impl Inbox {
    /// Whether a command was begun here, under another place than this one.
    pub(super) fn was_begun(&self, command: &CommandId, but: DeliverySeq) -> bool {
        let is_it = |(seq, live): (&DeliverySeq, &Live)| *seq != but && live.command() == *command && live.was_begun();
        self.begun.contains_key(command) || self.live.iter().any(is_it)
    }

    /// Whether the time for a command is surely over.
    pub(super) fn is_past(&self, deadline: LogInstant) -> bool {
        deadline <= self.clock_floor && !is_on(Mutant::ClockTurnedBack)
    }

    /// Lets go of a command. That it was begun is kept.
    pub(super) fn let_go(&mut self, seq: DeliverySeq, out: &mut Out) {
        let Some(live) = self.live.remove(&seq) else { return };
        self.gone.insert(seq);
        let (command, deadline) = (live.command(), live.entry.command.deadline);
        if live.was_begun() && deadline > self.clock_floor && !is_on(Mutant::BegunIdsForgotten) {
            self.begun.insert(command, deadline);
            // Before what it was known by goes: a crash may leave the first of it only.
            out.writes.push(JournalWrite::Begun { command, deadline });
        }
        out.writes.push(JournalWrite::Remove(seq));
    }

    /// Whether the name of one more command could be kept.
    pub(super) fn has_place_to_begin(&mut self, class: CommandClass, out: &mut Out) -> bool {
        let max = match class {
            CommandClass::Routine => limits::BEGUN_KEPT_MAX,
            CommandClass::Urgent => limits::BEGUN_KEPT_MAX + limits::BEGUN_URGENT_KEPT_MAX,
        };
        let under_way = self.live.values().filter(|live| live.was_begun()).count();
        if self.begun.len() + under_way >= max {
            self.raise_clock_floor(out);
        }
        self.begun.len() + under_way < max
    }

    /// Whether the journal is to say how far the clock has surely come.
    pub(in crate::inbox) fn lags(&self, floor: LogInstant) -> bool {
        let max_ms = if self.begun.is_empty() { limits::FLOOR_LAGS_IDLE_MS_MAX } else { limits::FLOOR_LAGS_MS_MAX };
        floor.since_ms(self.clock_floor) >= max_ms
    }

    /// Has the journal say so, and lets go of names that it keeps away by that.
    pub(in crate::inbox) fn raise_clock_floor(&mut self, out: &mut Out) {
        if out.clock_floor > self.clock_floor {
            self.clock_floor = out.clock_floor;
            let floor = self.clock_floor;
            self.begun.retain(|_, deadline| *deadline > floor);
            out.writes.push(JournalWrite::ClockFloor(floor));
        }
    }
}
