//! How what a node learned of its site is written down.

use skep_trust::{Chain, SiteView};

/// What was learned could not be written down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct KeepError {
    /// What happened, where, and what to do: for people.
    pub why: String,
}

/// Writes all that is known down, whole and durably. If that fails, what was written before is there as it was.
pub(crate) type Keep = Box<dyn Fn(&SiteView) -> Result<(), KeepError> + Send + Sync>;
/// Writes down what the node shows from here on, whole and durably, or leaves what was written before.
pub(crate) type KeepOwn = Box<dyn Fn(&Chain) -> Result<(), KeepError> + Send + Sync>;
