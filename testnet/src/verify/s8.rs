//! S8: replicas are equal.

use super::Evidence;

/// All voters have applied the same, with the same digest, and tell the same history.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    let Some(first) = evidence.voters.first() else { return vec!["there is no voter".to_owned()] };
    let differs = evidence.voters.iter().filter(|voter| {
        let same = (voter.head.index, &voter.head.digest) == (first.head.index, &first.head.digest);
        !same || voter.tasks != first.tasks || voter.changes != first.changes
    });
    differs.map(|voter| format!("{} and {} differ", first.head.node, voter.head.node)).collect()
}
