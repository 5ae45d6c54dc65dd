//! What becomes of commands while the disk of the journals is full.
//!
//! The shard keeps what a node does not take, and delivers it later. So a node takes no more commands once the disk is nearly
//! full, and begins none when nothing is left but what is set aside: whoever would begin one is told to ask again. What ends,
//! and what is not to be started, is written down all the same, since for that there is room of its own.

use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::pressure::DiskPressure;

use super::{Inboxes, JournalEffect, Want};

/// Whether more commands are taken from shards.
pub(super) fn takes_commands(pressure: DiskPressure) -> bool {
    pressure == DiskPressure::None
}

impl Inboxes {
    /// The disk of the journals is so full from now on.
    pub(super) fn on_pressure(&mut self, pressure: DiskPressure, now_ms: u64) {
        if is_on(Mutant::JournalPressureIgnored) {
            return;
        }
        let before = std::mem::replace(&mut self.pressure, pressure);
        if before == DiskPressure::Exhausted && pressure < DiskPressure::Exhausted {
            let waiting = self.reading.keys().cloned();
            let opens = waiting.map(|(shard, agent)| Want::Journal(JournalEffect::Open { shard, agent }));
            self.wants.extend(opens);
        }
        if !takes_commands(before) && takes_commands(pressure) {
            // What there was no room for is asked for again.
            self.inboxes.values_mut().for_each(|inbox| inbox.seen = 0);
            let shards: Vec<_> = self.turns.keys().copied().collect();
            shards.into_iter().for_each(|shard| self.pull_now(shard, now_ms));
        }
    }
}
