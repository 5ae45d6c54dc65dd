//! The journals of agents, between engine and disk.

use skep_engine::{Engine, Event, InboxEvent, JournalEffect, WriteKey};
use skep_protocol::pressure::DiskPressure;
use skep_store::{JournalJob, JournalReport, Journals};
use tokio::sync::{mpsc, watch};

/// The journals, and what comes back from them.
pub(super) struct JournalsPort {
    journals: Journals,
    pub(super) reports: mpsc::Receiver<JournalReport>,
    /// How full their disk is.
    pub(super) pressure: watch::Receiver<DiskPressure>,
}

impl JournalsPort {
    pub(super) fn new((journals, reports): (Journals, mpsc::Receiver<JournalReport>)) -> Self {
        Self { pressure: journals.pressure(), journals, reports }
    }

    /// The disk may be fuller than it was, or have more room.
    pub(super) fn pressed(&mut self) -> Event {
        let pressure = *self.pressure.borrow_and_update();
        Event::Inbox(InboxEvent::Pressure(pressure))
    }

    /// How full their disk is, whether they take urgent commands, and how many have no place for a statement.
    pub(super) fn standing(&self, engine: &Engine) -> (DiskPressure, bool, usize) {
        (*self.pressure.borrow(), engine.takes_urgent_commands(), engine.agents_lacking_statements())
    }

    /// Has the journals do what the engine wants.
    pub(super) fn carry_out(&self, effect: JournalEffect) {
        self.journals.submit(match effect {
            JournalEffect::Open { shard, agent } => JournalJob::Open { shard, agent },
            JournalEffect::Write { key, shard, agent, writes } => {
                JournalJob::Write { key: key.0, shard, agent, writes }
            }
            JournalEffect::Release { shard, agent } => JournalJob::Release { shard, agent },
        });
    }
}

/// What a journal did.
pub(super) fn reported(report: JournalReport) -> Event {
    Event::Inbox(match report {
        JournalReport::Opened { shard, agent, journal } => InboxEvent::Opened { shard, agent, journal: *journal },
        JournalReport::Written { key } => InboxEvent::Written { key: WriteKey(key) },
    })
}
