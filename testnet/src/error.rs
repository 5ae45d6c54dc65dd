//! Why there is no testnet, or why it is gone.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use skep_client::ClientError;

/// Why a testnet did not come up.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A command of the program failed.
    #[error("'{command}' failed: {output}")]
    Command {
        /// Which.
        command: String,
        /// What it printed.
        output: String,
    },
    /// A call of a node's API failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Something did not happen in a generous time.
    #[error("{what} did not happen within {within:?}; the nodes' logs are in {dir}")]
    Timeout {
        /// What.
        what: String,
        /// Which time.
        within: Duration,
        /// Where to look.
        dir: PathBuf,
    },
}

/// What is said of an error of the operating system: what was tried.
pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> LaunchError {
    let what = what.into();
    move |source| LaunchError::Io { what, source }
}
