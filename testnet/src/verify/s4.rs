//! S4: a robot's order, over its owners.

use std::collections::BTreeMap;

use skep_protocol::offer::GoToken;

use super::Evidence;
use crate::station::{Effect, Step};

/// Commands that a robot's earlier owner began after a later one had. One that the station stopped counts too, unless its
/// software was suspended between its look at the clock and the question: that is what the station's fence is for.
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

/// No earlier owner of a robot begins a command after a later one has.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    let was_paused = |effect: &Effect| {
        let q = &effect.question;
        evidence.was_paused(&q.robot, q.checked_ms, effect.at_ns)
    };
    stale_starts(&evidence.deeds, was_paused)
}
