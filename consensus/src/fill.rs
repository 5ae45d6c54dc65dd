//! Asking peers, and filling the history from them.

use std::sync::Arc;
use std::time::Duration;

use skep_config::ControlConfig;
use skep_protocol::change::ChangeSet;
use skep_protocol::codec::Encoded;
use skep_protocol::frame::FrameKind;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::query::{Answer, Query, QueryAnswer, QueryFailure, QueryReply};

use crate::core::Core;
use crate::net::{CallError, Class, Peers};
use crate::shard::{ROUND_PATIENCE, Shard};
use crate::threads::Errand;

/// How often a gap in the history is tried to be filled.
const FILL_EVERY: Duration = Duration::from_secs(1);

/// Fetches what is missing in the history, such as that behind an installed snapshot, from a peer that has it.
pub(crate) async fn fill_history(core: Arc<Core>, shard: Shard) {
    let history = core.site.store.history().clone();
    let mut progress = history.progress(shard.id());
    loop {
        // At most once a second, and again for as long as there is a gap: whoever can fill it may come later.
        tokio::time::sleep(FILL_EVERY).await;
        if history.gap(shard.id()).is_none() && progress.changed().await.is_err() {
            return;
        }
        while let Some((from, end)) = history.gap(shard.id()) {
            match fetch_changes(&core, &shard, from, end).await {
                Some((sets, next)) => {
                    let (filling, id) = (history.clone(), shard.id());
                    let fill = move || filling.fill(id, sets, from, next);
                    match core.site.threads.offload(Errand::Files, fill).await {
                        Ok(true) => {}
                        // Its disk may be full: not again at once.
                        Ok(false) => break,
                        Err(_) => return,
                    }
                }
                None => break,
            }
        }
    }
}

/// Changes from the start of a gap on, and where they end; the leader is asked first, and then every other voter, since
/// one may lack what another has.
async fn fetch_changes(core: &Core, shard: &Shard, from: u64, end: u64) -> Option<(Vec<ChangeSet>, u64)> {
    let leader = shard.view().borrow().leader;
    let mut voters: Vec<NodeId> = shard.voters().into_values().map(|member| member.node).collect();
    voters.retain(|node| *node != core.site.node && core.site.peers.connected(*node).is_some());
    voters.sort_by_key(|node| Some(*node) != leader);
    for voter in voters {
        let reply = call_query(&core.site.peers, &core.site.config, voter, shard.id(), &Query::Changes { from }).await;
        let Ok(QueryReply { answer: Answer::Changes { mut sets, next }, .. }) = reply else { continue };
        sets.retain(|set| set.index < end);
        let next = next.min(end);
        if next > from {
            return Some((sets, next));
        }
    }
    None
}

/// Asks a node, which is thought to lead the shard or to have what is asked for.
///
/// # Errors
/// [`QueryFailure`].
pub(crate) async fn call_query(
    peers: &Peers,
    config: &ControlConfig,
    node: NodeId,
    shard: ShardId,
    query: &Query,
) -> Result<QueryReply, QueryFailure> {
    let failed = |e: &dyn std::fmt::Display| QueryFailure::Storage(e.to_string());
    let body = query.encode().map_err(|e| failed(&e))?;
    let deadline = Duration::from_millis(config.rpc_timeout_ms) * ROUND_PATIENCE;
    match peers.call(node, Class::Query, FrameKind::Query, shard, &body, deadline).await {
        Ok(answer) => QueryAnswer::decode(&answer).map_err(|e| failed(&e))?.result,
        Err(error @ CallError::Refused(_)) => Err(failed(&error)),
        Err(_) => Err(QueryFailure::NoQuorum),
    }
}
