//! S4: a robot's order, over its owners.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::offer::GoToken;

use super::Evidence;
use crate::site::station::{Effect, Question, Step};

/// Commands that a robot's earlier owner began after a later one had. A command that the station refused counts too,
/// unless the owner's software was suspended between its look at the clock and the question: for that case the station
/// has its fence.
pub(super) fn stale_starts(effects: &[Effect], was_suspended: impl Fn(&Effect) -> bool) -> Vec<String> {
    let mut greatest: BTreeMap<&str, GoToken> = BTreeMap::new();
    let mut found = Vec::new();
    for effect in effects.iter().filter(|effect| effect.question.step == Step::Start) {
        let q = &effect.question;
        let Some(token) = q.token else { continue };
        let known = greatest.entry(&q.robot).or_default();
        if token < *known && (effect.refused.is_none() || !was_suspended(effect)) {
            let (home, attachment) = (token.home, token.attachment);
            let refused = if effect.refused.is_some() { ", and was refused" } else { "" };
            found.push(format!(
                "stale start of a command: {} began {} for home {home} under attachment {attachment} after {} under {}{refused}",
                q.robot, q.task, known.home, known.attachment
            ));
        }
        *known = token.max(*known);
    }
    found
}

/// Runs of a robot's software that own it at the same time: one run checked its lease, and went on, before the lease of
/// another one had ended. The check judges what runs asked of the world, refused or not, so that the station's fence
/// hides no run; and it judges by their looks at the clock, so that none needs an excuse: a run that is suspended after
/// its look had its lease when it looked.
fn two_owners<'a>(effects: impl Iterator<Item = &'a Effect>) -> Vec<String> {
    let mut asked: BTreeMap<&str, Vec<&Question>> = BTreeMap::new();
    for effect in effects {
        asked.entry(&effect.question.robot).or_default().push(&effect.question);
    }
    let mut found = Vec::new();
    for (robot, mut questions) in asked {
        questions.sort_by_key(|question| question.checked_ms);
        // Until when each run may act, as far as it has looked; and the pairs that were reported already.
        let (mut until, mut told): (BTreeMap<u32, u64>, BTreeSet<(u32, u32)>) = Default::default();
        for Question { run, task, checked_ms, until_ms, .. } in questions {
            for (other, ends_ms) in until.iter().filter(|(other, ends_ms)| *other != run && checked_ms < *ends_ms) {
                if told.insert((*other, *run)) {
                    found.push(format!(
                        "two owners of {robot}: run {run} of its software went on with {task} at {checked_ms} ms, and run {other} had a lease until {ends_ms} ms"
                    ));
                }
            }
            let known = until.entry(*run).or_default();
            *known = (*known).max(*until_ms);
        }
    }
    found
}

/// No earlier owner of a robot begins a command after a later one has, and no two own it at the same time.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    let was_paused = |effect: &Effect| {
        let q = &effect.question;
        evidence.was_paused(&q.run_name(), q.checked_ms, effect.at_ns)
    };
    let mut found = stale_starts(&evidence.deeds, was_paused);
    found.extend(two_owners(evidence.effects.iter().chain(&evidence.deeds)));
    found
}
