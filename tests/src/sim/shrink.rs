//! Shrinks a failing run: finds the fewest faults with which it still fails.

use super::plan::Plan;
use super::run_plan;

/// The most runs that are spent on it.
const RUNS_MAX: usize = 60;

/// The faults of a failing plan, by number, that it needs to fail in the same way.
pub(super) fn shrink(plan: &Plan, invariant: &str) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..plan.faults.len()).collect();
    let mut runs = 0;
    let mut fails = |kept: &[usize]| {
        runs += 1;
        runs <= RUNS_MAX && run_plan(&plan.with_faults(kept)).violation.is_some_and(|v| v.invariant == invariant)
    };
    // The search drops halves first, then one fault at a time, until none can go.
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
