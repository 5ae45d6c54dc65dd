//! The robot begins no command twice, whichever node delivers it, and none whose time is surely over.
//!
//! A command is in the journal until the shard knows how it ended. After that its number in the agent's sequence keeps
//! the node from taking it again, but the leader gives the numbers. So the node keeps the command's id until the
//! shard's clock has surely passed its deadline. From then on the clock floor keeps the command away. A leader can take
//! back neither the id nor the floor.

use skep_protocol::command::{CommandClass, CommandOutcome, DeliverySeq};
use skep_protocol::ids::CommandId;
use skep_protocol::journal::JournalWrite;
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::text::Reason;
use skep_protocol::time::LogInstant;

use super::{Inbox, Live, Out};

impl Live {
    /// Whether the agent's software may have begun the command.
    fn was_begun(&self) -> bool {
        let may_have = self.outcome().is_some_and(CommandOutcome::may_have_acted);
        may_have || self.entry.steps.started.is_some() || self.entry.begun_before
    }
}

/// The end of a command that the software began here before, under another number of its sequence.
pub(super) fn begun_before() -> CommandOutcome {
    CommandOutcome::Indeterminate {
        reason: Reason::truncated("the robot's software began it before, and does not begin it again"),
    }
}

impl Inbox {
    /// Whether the software began a command here, under another number than this one.
    pub(super) fn was_begun(&self, command: &CommandId, but: DeliverySeq) -> bool {
        let is_it = |(seq, live): (&DeliverySeq, &Live)| *seq != but && live.command() == *command && live.was_begun();
        self.begun.contains_key(command) || self.live.iter().any(is_it)
    }

    /// Whether the deadline of a command has surely passed.
    pub(super) fn is_past(&self, deadline: LogInstant) -> bool {
        deadline <= self.clock_floor && !is_on(Mutant::ClockTurnedBack)
    }

    /// Removes a command. The journal keeps that the software began it.
    pub(super) fn let_go(&mut self, seq: DeliverySeq, out: &mut Out) {
        let Some(live) = self.live.remove(&seq) else { return };
        self.gone.insert(seq);
        let (command, deadline) = (live.command(), live.entry.command.deadline);
        if live.was_begun() && deadline > self.clock_floor && !is_on(Mutant::BegunIdsForgotten) {
            self.begun.insert(command, deadline);
            // The id comes before the removal of the command: a crash may leave the first write alone.
            out.writes.push(JournalWrite::Begun { command, deadline });
        }
        out.writes.push(JournalWrite::Remove(seq));
    }

    /// Whether there is a place to keep the id of one more command.
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

    /// Whether the journal should write down how far the clock has surely come.
    pub(in crate::inbox) fn lags(&self, floor: LogInstant) -> bool {
        let max_ms = if self.begun.is_empty() { limits::FLOOR_LAGS_IDLE_MS_MAX } else { limits::FLOOR_LAGS_MS_MAX };
        floor.since_ms(self.clock_floor) >= max_ms
    }

    /// Writes the floor into the journal, and removes the ids of commands that the floor keeps away.
    pub(in crate::inbox) fn raise_clock_floor(&mut self, out: &mut Out) {
        if out.clock_floor > self.clock_floor {
            self.clock_floor = out.clock_floor;
            let floor = self.clock_floor;
            self.begun.retain(|_, deadline| *deadline > floor);
            out.writes.push(JournalWrite::ClockFloor(floor));
        }
    }
}
