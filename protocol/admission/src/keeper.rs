//! How a node writes down what it learned of its site.

use skep_trust::{Chain, SiteView};

/// A node could not write down what it learned, or the chain that it shows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct KeepError {
    /// What happened, where, and what to do, for people.
    pub why: String,
}

/// Writes all that the node knows, whole and durably. If that fails, what was written before is there as it was.
pub(crate) type Keep = Box<dyn Fn(&SiteView) -> Result<(), KeepError> + Send + Sync>;
/// Writes the chain that the node shows from here on, whole and durably, or leaves what was written before.
pub(crate) type KeepOwn = Box<dyn Fn(&Chain) -> Result<(), KeepError> + Send + Sync>;
