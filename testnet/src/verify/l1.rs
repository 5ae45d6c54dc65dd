//! L1: a connected quorum has a leader.

use super::Evidence;
use crate::demo::StoryRecord;

/// Election timeouts within which there is a leader again.
const TIMEOUTS: u64 = 3;

/// Every leader that was killed has a successor within three election timeouts.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    let (_, election_ms_max) = evidence.terms();
    let late = |record: &StoryRecord| match record {
        StoryRecord::Elected { name, after_ms, .. } if *after_ms > TIMEOUTS * election_ms_max => {
            Some(format!("{name} leads only after {after_ms} ms; {} are allowed", TIMEOUTS * election_ms_max))
        }
        _ => None,
    };
    evidence.story.iter().filter_map(late).collect()
}
