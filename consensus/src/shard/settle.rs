//! Finishing what an earlier leader began: a change of voters that was cut off halfway.
//!
//! openraft proposes both steps of a change from the task of whoever asked for it. A leader that dies in between leaves a
//! group in which the old voters and the new ones must agree, for ever, and nobody who would ask again.

use std::time::Duration;

use openraft::ServerState;
use skep_protocol::mutant::{Mutant, is_on};

use super::Shard;

/// How often the leader looks whether a change was left halfway.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest wait before it tries again to finish one.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Finishes changes of voters that were cut off, for as long as this node leads the term.
pub(super) async fn run(shard: Shard, term: u64) {
    let mut wait = LOOK_EVERY;
    loop {
        // Whoever asked for a change is most often at it still.
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
