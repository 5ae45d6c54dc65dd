//! What this node's control plane knows of shards.

use skep_consensus::{ConsensusHandle, ShardView};
use skep_protocol::ids::ShardId;
use tokio::sync::mpsc;

/// Tells the driver what is known of every shard's leader, of shards opened later too.
pub(super) async fn follow_shards(consensus: ConsensusHandle, views: mpsc::Sender<(ShardId, ShardView)>) {
    let mut opened = consensus.shards_opened();
    let mut followed = std::collections::BTreeSet::new();
    loop {
        for shard in consensus.shards() {
            let Some(mut view) = consensus.view(shard).filter(|_| followed.insert(shard)) else { continue };
            let views = views.clone();
            tokio::spawn(async move {
                loop {
                    let now = *view.borrow_and_update();
                    if views.send((shard, now)).await.is_err() || view.changed().await.is_err() {
                        return;
                    }
                }
            });
        }
        tokio::select! {
            changed = opened.changed() => if changed.is_err() { return },
            () = views.closed() => return,
        }
    }
}
