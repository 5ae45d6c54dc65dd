//! A question for the log clock of a shard, by a voter that has none, or doubts the one of its leader.

use std::sync::Arc;
use std::time::Duration;

use skep_fleet::CLOCK_ROUND_MS_MAX;
use skep_protocol::frame::FrameKind;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::time::LogInstant;

use super::{Asked, Call};
use crate::net::{CallError, Class};
use crate::shard::{ClockSaid, NodeParts};
use crate::shards::Shards;

pub(super) const CLOCK: Call =
    Call::new(FrameKind::Clock, Class::Urgent, |shards, asked| Box::pin(answer(shards, asked)));

impl NodeParts {
    /// Asks a voter for its clock of a shard. Later than a round may take, its answer would be of no use.
    pub(crate) async fn ask_clock(&self, node: NodeId, shard: ShardId) -> ClockSaid {
        match self.call(CLOCK, node, shard, &[], Duration::from_millis(CLOCK_ROUND_MS_MAX)).await {
            Ok(bytes) => <[u8; 8]>::try_from(&*bytes)
                .map_or(ClockSaid::None, |bytes| ClockSaid::Clock(LogInstant::from_raw(u64::from_be_bytes(bytes)))),
            Err(CallError::Refused(_)) => ClockSaid::None,
            Err(CallError::NotSent(_) | CallError::Lost(_) | CallError::Timeout(_)) => ClockSaid::Nothing,
        }
    }
}

/// This node's clock, or the latest that it can be if it does not lead; the reason as text if it knows none.
///
/// Followers are asked by a leader that has none, and only by one: what they know is as good as if they led themselves.
async fn answer(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    let shard = shards.replica(asked.header.shard)?;
    let clock = shard.clock();
    let clock = clock.to_send().or_else(|| clock.latest()).ok_or("this node knows no clock of the shard")?;
    Ok(clock.raw().to_be_bytes().to_vec())
}
