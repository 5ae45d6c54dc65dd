//! What is due by the commands: waves to be let out, deadlines, and what was not heard of for too long.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::entry::Decision;
use skep_protocol::ids::CommandId;
use skep_protocol::time::LogInstant;

use super::{DECISIONS_PER_PROPOSAL_MAX, RETRY_AFTER_MS};
use crate::state::{CommandDue, FleetState};

/// Deliveries that one proposal may change, unless they are of one command: its entry's changes must fit a change set.
const DELIVERIES_PER_PROPOSAL_MAX: u32 = 2_048;

/// Lets waves out and ends what is due. Holds only what it proposed lately.
#[derive(Clone, Debug, Default)]
pub(super) struct CommandDues {
    proposed: BTreeMap<(LogInstant, CommandDue, CommandId), LogInstant>,
}

impl CommandDues {
    /// What to propose at this instant.
    pub(super) fn poll(&mut self, state: &FleetState, now: LogInstant) -> Vec<Decision> {
        let due: BTreeSet<_> = state.commands().dues().take_while(|(at, _, _)| *at <= now).collect();
        // What was applied is not due any more.
        self.proposed.retain(|key, at| due.contains(key) && now.since_ms(*at) < RETRY_AFTER_MS);
        let mut decisions = Vec::new();
        let mut ends = 0;
        for key in due {
            let (_, what, command) = key;
            if self.proposed.contains_key(&key) {
                continue;
            }
            ends += state.commands().record(&command).map_or(0, |record| record.open);
            let is_full = ends > DELIVERIES_PER_PROPOSAL_MAX && !decisions.is_empty();
            if is_full || decisions.len() == DECISIONS_PER_PROPOSAL_MAX {
                break;
            }
            let decision = match what {
                CommandDue::Wave => {
                    let wave = state.commands().record(&command).map(|record| record.released);
                    wave.map(|wave| Decision::ReleaseWave { command, wave })
                }
                CommandDue::Deadline => Some(Decision::ExpireCommand { command }),
                CommandDue::Doubt => Some(Decision::DoubtCommand { command }),
            };
            self.proposed.insert(key, now);
            decisions.extend(decision);
        }
        decisions
    }

    /// When there is something to decide next, if nothing else happens before.
    pub(super) fn poll_timeout(&self, state: &FleetState) -> Option<LogInstant> {
        let fresh = state.commands().dues().find(|key| !self.proposed.contains_key(key)).map(|(at, _, _)| at);
        let again = self.proposed.values().min().map(|at| at.plus_ms(RETRY_AFTER_MS));
        [fresh, again].into_iter().flatten().min()
    }
}
