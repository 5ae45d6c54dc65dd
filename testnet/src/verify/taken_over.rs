//! L4: others do the work of the dead.

use super::Evidence;
use crate::record::StoryRecord;

/// What a killed node's robots held could be claimed again, or had ended, within a lease with its margins and an
/// election, and this much again for every change of the leader; on the shard's own clock.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    let (lease_ttl_ms, election_ms_max) = evidence.terms();
    let changes_of_leader = |from: u64| {
        let elected = |record: &&StoryRecord| matches!(record, StoryRecord::Elected { at_ns, .. } if *at_ns >= from);
        evidence.story.iter().filter(elected).count() as u64
    };
    let mut found = Vec::new();
    for record in &evidence.story {
        let StoryRecord::Killed { at_ns, name, clock, held, leader } = record else { continue };
        let leaders = changes_of_leader(*at_ns).max(u64::from(*leader));
        let allowed = (1 + leaders) * (lease_ttl_ms + lease_ttl_ms / 5 + election_ms_max);
        for claim in held {
            let ends =
                |kind: &str| matches!(kind, "reclaimed" | "completed" | "dead-lettered" | "retried" | "cancelled");
            let end = evidence
                .changes()
                .iter()
                .find(|change| change.task == claim.task && change.epoch == claim.epoch && ends(&change.change));
            // A dead letter and a cancellation carry no epoch.
            let end = end.or_else(|| {
                evidence.changes().iter().find(|c| c.task == claim.task && c.clock >= *clock && ends(&c.change))
            });
            match end {
                None => found.push(format!("{} took task {} with it when {name} was killed", claim.robot, claim.task)),
                // A holder that returned in time may take as long as it likes.
                Some(end) if end.change == "reclaimed" && end.clock.saturating_sub(*clock) > allowed => {
                    found.push(format!(
                        "task {} was free only {} ms after {name} was killed; {allowed} are allowed",
                        claim.task,
                        end.clock - clock
                    ))
                }
                Some(_) => {}
            }
        }
    }
    found
}
