//! S7: holders stop by themselves, and no other agent is given their work before.

use super::Evidence;
use crate::record::ClientRecord;
use crate::site::station::{Effect, Refused};

/// Until when the writer of these notes had been told, at an instant, that it may act.
fn lease<'a>(notes: impl Iterator<Item = &'a ClientRecord>, at_ms: u64) -> u64 {
    let renewed = |record: &ClientRecord| match record {
        ClientRecord::Renewed { at_ms: heard, until_ms } if *heard <= at_ms => Some(*until_ms),
        _ => None,
    };
    notes.filter_map(renewed).max().unwrap_or(0)
}

/// Whether an attempt reached the world when its task might have another holder: after its own holder's fence, and the
/// margins that the orchestrator waits in addition. An attempt from before the fence may be under way for that long.
pub(super) fn is_late(evidence: &Evidence, effect: &Effect) -> bool {
    let (lease_ttl_ms, _) = evidence.terms();
    effect.at_ns / 1_000_000 >= effect.question.until_ms + lease_ttl_ms / 5
}

/// This judges attempts, so that the fence at the station hides no holder that did not stop. No robot asked for
/// anything on a look at the clock after the end of its lease, nor relied on a lease that was not renewed, nor was
/// refused as stale. And no claim was taken back for want of a lease before its holder had to stop.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    let mut found = Vec::new();
    for effect in &evidence.effects {
        let q = &effect.question;
        let run = q.run_name();
        let paused = evidence.was_paused(&run, q.checked_ms, effect.at_ns);
        let what = format!("{run} on errand {} of task {} under epoch {}", q.errand, q.task, q.epoch);
        if q.checked_ms >= q.until_ms {
            let ms = q.checked_ms - q.until_ms;
            found.push(format!("{what}: looked at its clock {ms} ms after its lease, and went on"));
        }
        if is_late(evidence, effect) && !paused {
            let late_ms = (effect.at_ns / 1_000_000).saturating_sub(q.until_ms);
            found.push(format!("{what}: acted {late_ms} ms after its lease"));
        }
        // The lease of another run of the robot's software does not count for this one.
        let lease = lease(evidence.clients.get(&run).into_iter().flatten(), q.checked_ms);
        if q.until_ms > lease {
            found.push(format!("{what}: relied on a lease until {} ms, and was given one until {lease}", q.until_ms));
        }
        if effect.refused == Some(Refused::Stale) && !paused {
            found.push(format!("{what}: had to be refused as stale"));
        }
    }
    found.extend(early_reassignments(evidence));
    found
}

/// Claims that were taken back while their holder might still act, on the boot clock that all processes here share.
fn early_reassignments(evidence: &Evidence) -> Vec<String> {
    let taken =
        evidence.changes().iter().filter(|change| change.change == "reclaimed" && change.detail.contains("lease"));
    let early = taken.filter_map(|change| {
        let at_ms = evidence.instant_ms(change.clock)?;
        let until_ms = lease(evidence.notes_of(&change.agent), at_ms);
        (at_ms < until_ms).then(|| {
            let (agent, task, ms) = (&change.agent, &change.task, until_ms - at_ms);
            format!("task {task} was taken from {agent} {ms} ms before it had to stop")
        })
    });
    early.collect()
}
