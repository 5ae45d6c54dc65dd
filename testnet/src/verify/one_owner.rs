//! S6: one owner.

use std::collections::BTreeMap;

use super::Evidence;

/// Every claim has one owner, epochs rise, only owners act, and in the world no epoch falls.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    let mut found = Vec::new();
    let mut owners: BTreeMap<(&str, u64), &str> = BTreeMap::new();
    let mut last: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for change in evidence.changes().iter().filter(|change| change.change == "claimed") {
        let (task, epoch) = (change.task.as_str(), change.epoch);
        if let Some(former) = owners.insert((task, epoch), &change.agent) {
            found.push(format!("epoch {epoch} of task {task} belongs to {former} and to {}", change.agent));
        }
        if let Some((before, index)) = last.insert(task, (epoch, change.index))
            && epoch <= before
        {
            found.push(format!("task {task} has epoch {before} at index {index} and {epoch} at {}", change.index));
        }
    }
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for effect in evidence.effects.iter().filter(|effect| effect.refused.is_none()) {
        let q = &effect.question;
        let owner = owners.get(&(q.task.as_str(), q.epoch)).copied();
        if owner != Some(q.robot.as_str()) {
            let owner = owner.unwrap_or("nobody");
            found.push(format!("{} acted on task {} under epoch {}, which is {owner}'s", q.robot, q.task, q.epoch));
        }
        let highest = seen.entry(&q.task).or_default();
        if q.epoch < *highest {
            found.push(format!("epoch {} acted on task {} after epoch {highest}", q.epoch, q.task));
        }
        *highest = (*highest).max(q.epoch);
    }
    found
}
