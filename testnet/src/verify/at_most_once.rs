//! S3: at most once in the world.

use std::collections::{BTreeMap, BTreeSet};

use super::Evidence;
use crate::site::station::{Effect, Step};

/// Accepted starts that repeat another: of the same claim and errand, or of an errand that was done.
pub(super) fn duplicates(effects: &[Effect]) -> Vec<&Effect> {
    let mut started: BTreeSet<(&str, u64, u32)> = BTreeSet::new();
    let mut done: BTreeSet<(&str, u32)> = BTreeSet::new();
    let mut found = Vec::new();
    for effect in effects.iter().filter(|effect| effect.refused.is_none()) {
        let question = &effect.question;
        let errand = (question.task.as_str(), question.errand);
        match question.step {
            Step::Start => {
                let again = !started.insert((errand.0, question.epoch, errand.1));
                if again || done.contains(&errand) {
                    found.push(effect);
                }
            }
            Step::Done => drop(done.insert(errand)),
        }
    }
    found
}

/// No errand is begun twice under one claim, nor after it was done; and none is done twice.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    let mut found: Vec<String> = duplicates(&evidence.effects)
        .into_iter()
        .map(|effect| {
            let q = &effect.question;
            format!("{} began errand {} of task {} again under epoch {}", q.robot, q.errand, q.task, q.epoch)
        })
        .collect();
    let mut ends: BTreeMap<(&str, u32), u32> = BTreeMap::new();
    for effect in evidence.effects.iter().filter(|e| e.refused.is_none() && e.question.step == Step::Done) {
        *ends.entry((&effect.question.task, effect.question.errand)).or_default() += 1;
    }
    for effect in evidence.effects.iter().filter(|e| e.refused == Some(crate::site::station::Refused::Duplicate)) {
        let q = &effect.question;
        if !ends.contains_key(&(q.task.as_str(), q.errand)) {
            found.push(format!("errand {} of task {} was refused as done, and no robot did it", q.errand, q.task));
        }
    }
    let twice = ends.into_iter().filter(|(_, count)| *count > 1);
    found.extend(twice.map(|((task, errand), count)| format!("errand {errand} of task {task} was done {count} times")));
    found
}
