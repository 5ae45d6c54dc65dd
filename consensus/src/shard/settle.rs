//! Finishes a change of voters that an earlier leader began and that was cut off halfway.
//!
//! openraft proposes both steps of a change from the task of its caller. If the leader dies in between, it leaves a
//! group in which the old voters and the new ones must agree for ever, and no caller that would ask again.

use std::time::Duration;

use openraft::ServerState;
use skep_protocol::mutant::{Mutant, is_on};

use super::Shard;

/// Interval between two looks whether a change was left halfway.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The longest wait before the leader tries again to finish a change.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Finishes changes of voters that were cut off, for as long as this node leads the term.
pub(super) async fn run(shard: Shard, term: u64) {
    let mut wait = LOOK_EVERY;
    loop {
        // The caller that asked for a change is most often still at work on it.
        tokio::time::sleep(wait).await;
        let metrics = shard.metrics();
        let leads = metrics.state == ServerState::Leader && metrics.current_term == term;
        if !leads || metrics.running_state.is_err() {
            return;
        }
        if shard.is_joint() && !is_on(Mutant::JointLeftAlone) {
            match shard.settle_members().await {
                Ok(()) => wait = LOOK_EVERY,
                Err(error) => {
                    tracing::warn!(shard = %shard.id(), %error, "a change of voters is not finished; it is tried again");
                    wait = (wait * 2).min(WAIT_MAX);
                }
            }
        }
    }
}
