//! The thread that writes down how far senders have come.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::MeshError;
use crate::kept::{Kept, SharedFloors};
use crate::threads::on_thread;

/// How long a mesh that stops waits for the last write: a disk may not answer.
const KEPT_WITHIN: Duration = Duration::from_secs(1);

/// The running thread.
pub(crate) struct Keeper {
    /// Dropping this makes the thread write once more, and end.
    stop: std::sync::mpsc::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Keeper {
    pub(crate) fn start(kept: Kept, floors: SharedFloors) -> Result<Self, MeshError> {
        let (stop, stopped) = std::sync::mpsc::channel();
        let (end, ended) = oneshot::channel();
        on_thread("skep-mesh-kept", move || {
            kept.keep(&floors, &stopped);
            drop(end);
        })?;
        Ok(Self { stop, ended })
    }

    pub(crate) async fn stop(self) {
        drop(self.stop);
        let _ = tokio::time::timeout(KEPT_WITHIN, self.ended).await;
    }
}
