//! The journals of agents, between engine and disk.

use skep_engine::{Engine, Event, InboxEvent};
use skep_protocol::journal::{JournalJob, JournalReport};
use skep_protocol::pressure::DiskPressure;
use skep_store::Journals;
use tokio::sync::{mpsc, watch};

/// The journals, and what they report.
pub(super) struct JournalsPort {
    journals: Journals,
    pub(super) reports: mpsc::Receiver<JournalReport>,
    /// How full the disk of the journals is.
    pub(super) pressure: watch::Receiver<DiskPressure>,
}

impl JournalsPort {
    pub(super) fn new((journals, reports): (Journals, mpsc::Receiver<JournalReport>)) -> Self {
        Self { pressure: journals.pressure(), journals, reports }
    }

    /// The disk is fuller than before, or has more room.
    pub(super) fn pressed(&mut self) -> Event {
        let pressure = *self.pressure.borrow_and_update();
        Event::Inbox(InboxEvent::Pressure(pressure))
    }

    /// How full the disk is, whether the journals take urgent commands, and how many of them have no place for a
    /// statement.
    pub(super) fn standing(&self, engine: &Engine) -> (DiskPressure, bool, usize) {
        (*self.pressure.borrow(), engine.takes_urgent_commands(), engine.agents_lacking_statements())
    }

    /// Gives the journals a job of the engine.
    pub(super) fn carry_out(&self, job: JournalJob) {
        self.journals.submit(job);
    }
}
