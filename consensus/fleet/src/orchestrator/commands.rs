//! What is due for commands: waves to be released, deadlines that passed, and commands that no node reported for too
//! long.

use skep_protocol::entry::Decision;
use skep_protocol::ids::CommandId;
use skep_protocol::time::LogInstant;

use super::DECISIONS_PER_PROPOSAL_MAX;
use super::proposed::Proposed;
use crate::state::{CommandDue, FleetState};

/// Deliveries that one proposal may change, unless they are of one command: its entry's changes must fit a change set.
const DELIVERIES_PER_PROPOSAL_MAX: u32 = 2_048;

/// Releases waves and ends what is due. Keeps only its latest proposals.
#[derive(Clone, Debug, Default)]
pub(super) struct CommandDues {
    proposed: Proposed<CommandDue, CommandId>,
}

impl CommandDues {
    /// What to propose at this instant.
    pub(super) fn poll(&mut self, state: &FleetState, now: LogInstant) -> Vec<Decision> {
        self.proposed.forget(|due| state.commands().is_due(due), now);
        let (mut decisions, mut proposed) = (Vec::new(), Vec::new());
        let mut ends = 0;
        for due in self.proposed.fresh(state.commands().dues(), now) {
            let (_, what, command) = due;
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
            proposed.push(due);
            decisions.extend(decision);
        }
        self.proposed.extend(proposed, now);
        decisions
    }

    /// When this next has something to decide, if nothing else happens before.
    pub(super) fn poll_timeout(&self, state: &FleetState) -> Option<LogInstant> {
        self.proposed.poll_timeout(state.commands().dues())
    }
}
