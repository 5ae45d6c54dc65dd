//! Checks of a run's records, against the invariants that Skep promises.
//!
//! The checks read files that outlive the processes: what the station logged, what clients heard, what every voter
//! holds, and what was done to the testnet. Each invariant has a file with the name of what holds; the first line of
//! the file has the id.

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
    /// A history cannot be read.
    #[error(transparent)]
    Record(#[from] crate::record::RecordError),
    /// A record that must be there is missing.
    #[error("{0}")]
    Missing(String),
}

/// Something that must never happen, and did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// The id of the invariant.
    pub invariant: &'static str,
    /// What the check found.
    pub what: String,
}

/// A check: returns what speaks against an invariant.
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
/// [`VerifyError`] if something cannot be read. The report has what the checks found.
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
