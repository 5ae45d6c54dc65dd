//! S10: no false answer.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::ids::RequestId;
use skep_protocol::outcome::NotDone;
use skep_protocol::settled::Settled;

use super::{Invariant, Seen, effects};

/// What an answer calls done is in the log, and what an answer calls definitely not done never takes effect.
#[derive(Default)]
pub(super) struct NoFalseAnswer {
    next: u64,
    took_effect: BTreeSet<RequestId>,
    not_done: BTreeMap<RequestId, String>,
    log: Vec<Vec<RequestId>>,
}

impl Invariant for NoFalseAnswer {
    fn name(&self) -> &'static str {
        "S10"
    }

    fn see(&mut self, seen: &Seen, _now: u64) -> Result<(), String> {
        match seen {
            Seen::Applied { position, entry, applied, .. } if position.index == self.next => {
                self.next += 1;
                let requests = entry.map(|entry| match &entry.body {
                    skep_protocol::entry::EntryBody::Requests(requests) => requests.iter().map(|r| r.id).collect(),
                    _ => Vec::new(),
                });
                self.log.push(requests.unwrap_or_default());
                for request in effects(applied) {
                    if !self.log.last().is_some_and(|requests| requests.contains(&request)) {
                        return Err(format!("{request} took effect in an entry that does not hold it"));
                    }
                    self.took_effect.insert(request);
                    if let Some(why) = self.not_done.get(&request) {
                        return Err(format!("{request} took effect after it was called not done: {why}"));
                    }
                }
            }
            Seen::Ended { request, settled: Settled::Done { index, .. }, .. } => {
                let at = self.log.get(*index as usize);
                if !at.is_some_and(|requests| requests.contains(&request.id)) {
                    return Err(format!("{} is called done at entry {index}, which does not hold it", request.id));
                }
            }
            Seen::Ended { request, settled: Settled::NotDone(NotDone::Refused(refusal)), in_doubt } => {
                if *in_doubt && refusal.is_silent_about_earlier() {
                    return Ok(());
                }
                if self.took_effect.contains(&request.id) {
                    return Err(format!("{} took effect and is called not done: {refusal}", request.id));
                }
                self.not_done.insert(request.id, refusal.to_string());
            }
            _ => {}
        }
        Ok(())
    }
}
