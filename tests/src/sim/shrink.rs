//! Making a failing run small: the fewest faults that still make it fail.

use super::plan::Plan;
use super::run_plan;

/// Runs that may be spent on it.
const RUNS_MAX: usize = 60;

/// The faults of a failing plan, by number, without which it does not fail in the same way.
pub(super) fn shrink(plan: &Plan, invariant: &str) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..plan.faults.len()).collect();
    let mut runs = 0;
    let mut fails = |kept: &[usize]| {
        runs += 1;
        runs <= RUNS_MAX && run_plan(&plan.with_faults(kept)).violation.is_some_and(|v| v.invariant == invariant)
    };
    // Halves first, then one at a time, until nothing more can go.
    let mut part = kept.len().div_ceil(2).max(1);
    loop {
        let mut smaller = false;
        let mut at = 0;
        while at < kept.len() {
            let mut fewer = kept.clone();
            fewer.drain(at..(at + part).min(kept.len()));
            if fails(&fewer) {
                kept = fewer;
                smaller = true;
            } else {
                at += part;
            }
        }
        if part == 1 && !smaller {
            return kept;
        }
        part = (part / 2).max(1);
    }
}
