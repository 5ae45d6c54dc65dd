//! What the leader of a shard decides by itself.

use std::collections::BTreeMap;

use skep_protocol::entry::Decision;
use skep_protocol::ids::TaskId;
use skep_protocol::time::LogInstant;

use crate::state::{Due, FleetState};

/// Most decisions in one proposal; more wait for the next.
const DECISIONS_PER_PROPOSAL_MAX: usize = 256;
/// A decision that was proposed and had no effect is proposed again after this long, in milliseconds.
const RETRY_AFTER_MS: u64 = 2_000;

/// The orchestrator of a shard: looks at the state and the clock and says what to propose.
///
/// Driven only while its node leads the shard; a new leader starts with a new one. It holds nothing that the state
/// does not: only what it proposed lately, so that it does not propose it again before it is applied. Each decision
/// names what it saw and is judged again where it is applied.
#[derive(Clone, Debug, Default)]
pub struct Orchestrator {
    proposed: BTreeMap<(Due, TaskId), LogInstant>,
}

impl Orchestrator {
    /// What to propose at this instant of the log clock.
    pub fn poll(&mut self, state: &FleetState, now: LogInstant) -> Vec<Decision> {
        // What was applied is not due any more.
        let still_due: std::collections::BTreeSet<_> = state.due(now).collect();
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
    pub fn poll_timeout(&self, state: &FleetState) -> Option<LogInstant> {
        let fresh = state.dues().find(|(_, due, task)| !self.proposed.contains_key(&(*due, *task)));
        let again = state.dues().find_map(|(_, due, task)| self.proposed.get(&(due, task)));
        let again = again.map(|at| at.plus_ms(RETRY_AFTER_MS));
        [fresh.map(|(at, _, _)| at), again].into_iter().flatten().min()
    }
}
