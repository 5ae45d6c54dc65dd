//! S7: holders stop by themselves.

use super::Evidence;
use crate::record::ClientRecord;
use crate::station::Refused;

/// Judged on attempts, so that the fence at the station hides nobody who did not stop: no robot asked for anything
/// after the end of its lease on its own clock, nor relied on a lease that was not renewed, nor was refused as stale.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    let mut found = Vec::new();
    let none = Vec::new();
    for effect in &evidence.effects {
        let q = &effect.question;
        let history = evidence.clients.get(&q.robot).unwrap_or(&none);
        let renewed = |record: &ClientRecord| match record {
            ClientRecord::Renewed { at_ms, until_ms } if *at_ms <= q.checked_ms => Some(*until_ms),
            _ => None,
        };
        let lease = history.iter().filter_map(renewed).max().unwrap_or(0);
        let what = format!("{} on errand {} of task {} under epoch {}", q.robot, q.errand, q.task, q.epoch);
        if q.checked_ms >= q.until_ms {
            found.push(format!("{what}: asked {} ms after its lease", q.checked_ms - q.until_ms));
        }
        if q.until_ms > lease {
            found.push(format!("{what}: relied on a lease until {} ms, and was given one until {lease}", q.until_ms));
        }
        if effect.refused == Some(Refused::Stale) && !evidence.anything_paused() {
            found.push(format!("{what}: had to be refused as stale"));
        }
    }
    found
}
