//! What is due by the state itself: claims without progress, and tasks that are worthless by now.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::entry::Decision;
use skep_protocol::ids::TaskId;
use skep_protocol::time::LogInstant;

use super::{DECISIONS_PER_PROPOSAL_MAX, RETRY_AFTER_MS};
use crate::state::{Due, FleetState};

/// Ends what is due. Holds only what it proposed lately, so that it does not propose it again before it is applied.
#[derive(Clone, Debug, Default)]
pub(super) struct Endings {
    proposed: BTreeMap<(Due, TaskId), LogInstant>,
}

impl Endings {
    /// What to propose at this instant.
    pub(super) fn poll(&mut self, state: &FleetState, now: LogInstant) -> Vec<Decision> {
        // What was applied is not due any more.
        let still_due: BTreeSet<_> = state.due(now).collect();
        self.proposed.retain(|key, at| still_due.contains(key) && now.since_ms(*at) < RETRY_AFTER_MS);
        let mut decisions = Vec::new();
        for (due, task) in state.due(now) {
            if decisions.len() == DECISIONS_PER_PROPOSAL_MAX {
                break;
            }
            if self.proposed.contains_key(&(due, task)) {
                continue;
            }
            let decision = match due {
                Due::StaleClaim => state.task(&task).map(|t| Decision::ExpireClaim { task, epoch: t.epoch }),
                Due::TaskExpiry => Some(Decision::ExpireTask { task }),
            };
            if let Some(decision) = decision {
                self.proposed.insert((due, task), now);
                decisions.push(decision);
            }
        }
        decisions
    }

    /// When there is something to decide next, if nothing else happens before.
    pub(super) fn poll_timeout(&self, state: &FleetState) -> Option<LogInstant> {
        let fresh = state.dues().find(|(_, due, task)| !self.proposed.contains_key(&(*due, *task)));
        let again = state.dues().find_map(|(_, due, task)| self.proposed.get(&(due, task)));
        let again = again.map(|at| at.plus_ms(RETRY_AFTER_MS));
        [fresh.map(|(at, _, _)| at), again].into_iter().flatten().min()
    }
}
