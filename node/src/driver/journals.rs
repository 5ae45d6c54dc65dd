//! The journals of agents, between engine and disk.

use skep_engine::{Engine, Event, InboxEvent};
use skep_protocol::journal::{JournalJob, JournalReport};
use skep_protocol::pressure::DiskPressure;
use skep_store::Journals;
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
    pub(super) fn carry_out(&self, job: JournalJob) {
        self.journals.submit(job);
    }
}
