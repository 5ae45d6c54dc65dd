//! A store for tests in virtual time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use skep_protocol::limits;
use skep_protocol::pressure::DiskPressure;
use tokio::sync::mpsc;

use super::disk::Disk;
use super::history::History;
use super::{Parts, Queue, SPARES, Store, StoreError, StoreOptions, WriterHandle};

impl Store {
    /// Opens the store on a disk of a test, without a history. Its writer is a task of the test's runtime, which takes
    /// this long for each batch.
    ///
    /// # Errors
    /// As those of [`open`](Self::open).
    pub fn open_simulated(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        random: [u8; 16],
        options: StoreOptions,
        batch_takes: impl Fn() -> Duration + Send + 'static,
    ) -> Result<Self, StoreError> {
        let parts = Parts::open(disk, dir, random, options, SPARES)?;
        let (writes, queue) = mpsc::channel(limits::STORE_WRITES_QUEUED_MAX);
        tokio::spawn(parts.writer.run_as_task(queue, batch_takes));
        let (queue, shared) = (Queue::Task(writes), Arc::clone(&parts.shared));
        let writer = Arc::new(WriterHandle { queue, shared, lock: parts.lock });
        let Parts { incarnation, shared, snapshots, marks, clock_marks, voter_list, .. } = parts;
        Ok(Self { incarnation, shared, writer, snapshots, marks, clock_marks, voter_list, history: History::absent() })
    }

    /// Sets how full the disk is, until the next check.
    pub fn press(&self, pressure: DiskPressure) {
        self.shared.pressure.send_replace(pressure);
    }
}
