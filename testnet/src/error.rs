//! Why a testnet did not start, or has ended.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use skep_client::ClientError;

/// Why a testnet did not start.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A command of the program failed.
    #[error("'{command}' failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// What the command printed.
        output: String,
    },
    /// A call of a node's API failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Something did not happen in a generous time.
    #[error("{what} did not happen within {within:?}; the nodes' logs are in {dir}")]
    Timeout {
        /// What should have happened.
        what: String,
        /// How long the testnet waited.
        within: Duration,
        /// The directory with the nodes' logs.
        dir: PathBuf,
    },
}

/// An error of the operating system, with what was tried.
pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> LaunchError {
    let what = what.into();
    move |source| LaunchError::Io { what, source }
}
