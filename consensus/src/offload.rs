//! Work that takes long, beside the thread of the control plane.

use std::io;

/// Runs work on a thread for such, and waits for it.
///
/// # Errors
/// If it panicked, or the runtime is ending.
pub(crate) async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    #[cfg(test)]
    if crate::simulation::is_under_way() {
        // One thread, one order of things.
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
