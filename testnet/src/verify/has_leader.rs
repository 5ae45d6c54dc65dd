//! L1: a connected quorum has a leader.

use super::Evidence;
use crate::record::StoryRecord;

/// The number of election timeouts within which there is a leader again.
const TIMEOUTS: u64 = 3;

/// Every leader that was killed has a successor, within three election timeouts.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    let (_, election_ms_max) = evidence.terms();
    let mut found = Vec::new();
    let mut headless: Option<&str> = None;
    for record in &evidence.story {
        match record {
            StoryRecord::Killed { name, leader: true, .. } => headless = Some(name),
            StoryRecord::Elected { name, after_ms, .. } => {
                headless = None;
                let allowed = TIMEOUTS * election_ms_max;
                if *after_ms > allowed {
                    found.push(format!("{name} leads only after {after_ms} ms; {allowed} are allowed"));
                }
            }
            _ => {}
        }
    }
    found.extend(headless.map(|name| format!("no leader is known to have followed {name}")));
    found
}
