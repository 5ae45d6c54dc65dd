//! Checks of what was written down, against the invariants that Skep promises.
//!
//! Everything is judged from files that outlive the processes: what the station logged, what clients heard, what every
//! voter holds, and what was done to the testnet. One invariant a file.

mod commands;
mod evidence;
mod l1;
mod l4;
mod lost;
mod report;
mod s1;
mod s10;
mod s3;
mod s4;
mod s6;
mod s7;
mod s8;
mod s9;

use std::path::Path;

pub(crate) use commands::{Amid, Ordered, Pause, Verdict, judge};
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
    ("S1", s1::check),
    ("S3", s3::check),
    ("S4", s4::check),
    ("S6", s6::check),
    ("S7", s7::check),
    ("S8", s8::check),
    ("S9", s9::check),
    ("S10", s10::check),
    ("L1", l1::check),
    ("L4", l4::check),
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
