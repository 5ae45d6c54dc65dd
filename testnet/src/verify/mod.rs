//! Checks of what was written down, against the invariants that Skep promises.
//!
//! Everything is judged from files that outlive the processes: what the station logged, what clients heard, what every
//! voter holds, and what was done to the testnet. One invariant a file, which is called after what holds; its first line has
//! the id.

mod acknowledged;
mod at_most_once;
mod commands;
mod evidence;
mod has_leader;
mod in_order;
mod linearizable;
mod lost;
mod no_false_answer;
mod one_owner;
mod report;
mod same_log;
mod self_fencing;
mod taken_over;

use std::path::Path;

pub(crate) use commands::{Amid, Pause, SentCommand, Verdict, judge};
pub use evidence::Evidence;
pub use report::{Effects, Explained, Flooded, Invariants, Latency, Quantiles, Refusals, Report, Tasks};

/// Why nothing could be checked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A history.
    #[error(transparent)]
    Record(#[from] crate::record::RecordError),
    /// Something that must be there is not.
    #[error("{0}")]
    Missing(String),
}

/// Something that must never happen, and did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
}

/// A check: what speaks against an invariant.
type Check = fn(&Evidence) -> Vec<String>;

/// Every invariant that is checked, by its name in the documentation.
const CHECKS: [(&str, Check); 11] = [
    ("S1", acknowledged::check),
    ("S3", at_most_once::check),
    ("S4", in_order::check),
    ("S6", one_owner::check),
    ("S7", self_fencing::check),
    ("S8", same_log::check),
    ("S9", linearizable::check),
    ("S10", no_false_answer::check),
    ("L1", has_leader::check),
    ("L4", taken_over::check),
    ("lost", lost::check),
];

/// Checks a directory that a demo has left.
///
/// # Errors
/// [`VerifyError`] if something cannot be read. What was found is in the report.
pub fn verify(dir: &Path) -> Result<Report, VerifyError> {
    let evidence = Evidence::read(dir)?;
    let judged: Vec<_> = CHECKS.iter().filter(|(name, _)| evidence.judges(name)).collect();
    let violations = judged
        .iter()
        .flat_map(|(invariant, check)| check(&evidence).into_iter().map(move |what| Violation { invariant, what }));
    let violations = violations.collect();
    Ok(Report::of(&evidence, judged.iter().map(|(name, _)| *name).collect(), violations))
}

#[cfg(test)]
mod tests;
