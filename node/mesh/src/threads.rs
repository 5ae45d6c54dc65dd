//! Threads of the mesh, for work that would keep its task waiting.

use crate::error::MeshError;

/// Runs work on a thread of its own.
pub(crate) fn on_thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), MeshError> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    started.map(drop).map_err(|e| MeshError::new(&e))
}
