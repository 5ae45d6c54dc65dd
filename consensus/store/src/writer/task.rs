//! The writer as a task of a test in virtual time.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::{SPACE_CHECK_EVERY, Write, Writer};
use crate::disk::ROOM_CHECK_EVERY;

impl Writer {
    /// Does what [`run`](Self::run) does, but waits as a task does, and this long with each batch.
    pub(crate) async fn run_as_task(mut self, queue: mpsc::Receiver<Write>, batch_takes: impl Fn() -> Duration) {
        if let Err(error) = self.serve_as_task(queue, batch_takes).await {
            (self.setup.options.on_fatal)(&error);
        }
    }

    async fn serve_as_task(
        &mut self,
        mut queue: mpsc::Receiver<Write>,
        batch_takes: impl Fn() -> Duration,
    ) -> io::Result<()> {
        while !self.write_again()? {
            sleep(ROOM_CHECK_EVERY).await;
        }
        while !self.begin()? {
            sleep(ROOM_CHECK_EVERY).await;
        }
        // A segment that could not be made ahead of its need is tried again.
        let mut looked = Instant::now();
        loop {
            if self.is_held_up() {
                if self.setup.shared.closing.load(Ordering::Relaxed) {
                    return Ok(());
                }
                sleep(ROOM_CHECK_EVERY).await;
                self.go_on()?;
                self.mark()?;
                self.check_space();
                continue;
            }
            match timeout_at(looked + SPACE_CHECK_EVERY, queue.recv()).await {
                Ok(Some(write)) => {
                    sleep(batch_takes()).await;
                    self.batch(write, || queue.try_recv().ok())?;
                    // Such a process can end before it takes the batch that waits.
                    self.mark()?;
                }
                Ok(None) => return Ok(()),
                Err(_) => {}
            }
            if looked.elapsed() >= SPACE_CHECK_EVERY {
                looked = Instant::now();
                // Otherwise the test says how full a disk is.
                if self.setup.spares.len() < self.setup.spares_kept {
                    self.check_space();
                }
            }
        }
    }
}
