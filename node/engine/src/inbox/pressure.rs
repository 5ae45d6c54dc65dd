//! What the node does with commands while the disk of the journals is full.
//!
//! The shard keeps what a node does not take, and delivers it later. So a node takes no more routine commands once the
//! disk is nearly full, and begins none when only the reserve is left: it tells software that would begin one to ask
//! again. It still writes down what ends, and what is not to be started, since the reserve has room for that.
//!
//! Urgent commands stop a robot. The node takes and begins them however full the disk is, out of the reserve, until
//! they have used [`limits::JOURNAL_URGENT_BYTES_MAX`] of it; the rest is for ends. One more stays with the shard,
//! which has it durably. The shard delivers it once there is room, or ends it as expired at its deadline. The node
//! refuses no command for want of room: a refusal that is not in the journal could concern a command that the shard
//! delivers again after a crash, and that the software then begins.
//!
//! Nor does the node begin an urgent command before its intent is durable. To stop twice may do no harm. But a command
//! that was begun without an entry in the journal could be called off after a crash as one that never began.

use skep_protocol::command::CommandClass;
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::pressure::DiskPressure;

use super::{InboxWant, Inboxes, JournalJob};

/// About how many bytes a command takes in a journal beside its arguments and its result, until the node removes it.
pub(super) const COMMAND_BYTES: usize = 2_048;
/// About how many bytes any other write for a command takes.
pub(super) const STEP_BYTES: usize = 256;

/// What the journals have room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct JournalRoom {
    pressure: DiskPressure,
    /// Bytes that urgent commands took since only the reserve is left.
    taken: usize,
}

impl JournalRoom {
    /// Whether the node asks for more commands of a class.
    pub(super) fn asks_for(self, class: CommandClass) -> bool {
        self.has_for(class) && (self.pressure == DiskPressure::None || class == CommandClass::Urgent)
    }

    /// Whether the node takes a command of a class that comes, and begins one that is here.
    pub(super) fn has_for(self, class: CommandClass) -> bool {
        let has_share = class == CommandClass::Urgent && self.taken < limits::JOURNAL_URGENT_BYTES_MAX;
        self.pressure < DiskPressure::Exhausted || has_share
    }

    /// Counts bytes that the node writes for anything but an end. They count only while nothing but the reserve is
    /// left.
    pub(super) fn take(&mut self, bytes: usize) {
        if self.pressure == DiskPressure::Exhausted {
            self.taken = self.taken.saturating_add(bytes);
        }
    }

    /// Sets how full the disk is. Gives how full it was.
    fn press(&mut self, pressure: DiskPressure) -> DiskPressure {
        if pressure < DiskPressure::Exhausted {
            self.taken = 0;
        }
        std::mem::replace(&mut self.pressure, pressure)
    }
}

impl Inboxes {
    /// Whether the node takes and begins urgent commands.
    pub(crate) fn takes_urgent(&self) -> bool {
        self.room.has_for(CommandClass::Urgent)
    }

    /// The disk of the journals is this full from now on.
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
            // The node asks again for what had no room.
            self.inboxes.values_mut().for_each(|inbox| inbox.seen = 0);
            let shards: Vec<_> = self.turns.keys().copied().collect();
            shards.into_iter().for_each(|shard| self.pull_now(shard, now_ms));
        }
    }
}
