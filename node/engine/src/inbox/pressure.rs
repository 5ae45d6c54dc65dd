//! What becomes of commands while the disk of the journals is full.
//!
//! The shard keeps what a node does not take, and delivers it later. So a node takes no more routine commands once the disk is
//! nearly full, and begins none when nothing is left but what is set aside: whoever would begin one is told to ask again. What
//! ends, and what is not to be started, is written down all the same, since for that there is room of its own.
//!
//! Urgent commands are what stops a robot. They are taken and begun however full the disk is, out of what is set aside, until
//! they have had [`limits::JOURNAL_URGENT_BYTES_MAX`] of it; the rest is for ends. One more stays with the shard, which has it
//! durably: it is delivered once there is room, and ends as expired if its deadline comes first. The node refuses none for
//! want of room: a refusal that is not in the journal could be told of a command that is delivered again after a crash, and
//! begun then.
//!
//! Nor is an urgent command begun before its intent is durable. Stopping twice may do no harm, but what was begun without a
//! word in the journal could be called off after a crash as something that never began.

use skep_protocol::command::CommandClass;
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::pressure::DiskPressure;

use super::{InboxWant, Inboxes, JournalJob};

/// About how many bytes a command takes in a journal beside its arguments and its result, until it is let go of.
pub(super) const COMMAND_BYTES: usize = 2_048;
/// About how many bytes anything else takes that is written for one.
pub(super) const STEP_BYTES: usize = 256;

/// What the journals have room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct JournalRoom {
    pressure: DiskPressure,
    /// Bytes that were taken for urgent commands since only what is set aside is left.
    taken: usize,
}

impl JournalRoom {
    /// Whether more commands of a class are asked for.
    pub(super) fn asks_for(self, class: CommandClass) -> bool {
        self.has_for(class) && (self.pressure == DiskPressure::None || class == CommandClass::Urgent)
    }

    /// Whether a command of a class that comes is taken, and one that is here begun.
    pub(super) fn has_for(self, class: CommandClass) -> bool {
        let has_share = class == CommandClass::Urgent && self.taken < limits::JOURNAL_URGENT_BYTES_MAX;
        self.pressure < DiskPressure::Exhausted || has_share
    }

    /// So many bytes are written for what is no end. Room is counted while only what is set aside is left.
    pub(super) fn take(&mut self, bytes: usize) {
        if self.pressure == DiskPressure::Exhausted {
            self.taken = self.taken.saturating_add(bytes);
        }
    }

    /// The disk is so full from now on. How full it was.
    fn press(&mut self, pressure: DiskPressure) -> DiskPressure {
        if pressure < DiskPressure::Exhausted {
            self.taken = 0;
        }
        std::mem::replace(&mut self.pressure, pressure)
    }
}

impl Inboxes {
    /// Whether urgent commands are taken and begun.
    pub(crate) fn takes_urgent(&self) -> bool {
        self.room.has_for(CommandClass::Urgent)
    }

    /// The disk of the journals is so full from now on.
    pub(super) fn on_pressure(&mut self, pressure: DiskPressure, now_ms: u64) {
        if is_on(Mutant::JournalPressureIgnored) {
            return;
        }
        let before = self.room.press(pressure);
        if before == DiskPressure::Exhausted && pressure < DiskPressure::Exhausted {
            let waiting = self.reading.keys().cloned();
            let opens = waiting.map(|(shard, agent)| InboxWant::Journal(JournalJob::Open { shard, agent }));
            self.wants.extend(opens);
        }
        if pressure < before {
            // What there was no room for is asked for again.
            self.inboxes.values_mut().for_each(|inbox| inbox.seen = 0);
            let shards: Vec<_> = self.turns.keys().copied().collect();
            shards.into_iter().for_each(|shard| self.pull_now(shard, now_ms));
        }
    }
}
