//! What this node's control plane knows of shards and peers, and what leaders say.

use std::collections::{BTreeMap, BTreeSet};

use skep_consensus::{ConsensusHandle, FromLeader, ShardView};
use skep_engine::{AgentEvent, Connectivity, Event, UpdateKey};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::leader::LeaderHint;
use skep_protocol::limits;
use tokio::sync::{mpsc, oneshot, watch};

/// What the control plane says, and what the engine answers.
pub(super) struct ShardsPort {
    consensus: ConsensusHandle,
    pub(super) views: mpsc::Receiver<(ShardId, ShardView)>,
    /// Changes when a peer comes or goes.
    pub(super) peers: watch::Receiver<u64>,
    pub(super) said: mpsc::Receiver<FromLeader>,
    /// Updates whose senders wait to hear whether the agents were told.
    updates: BTreeMap<UpdateKey, oneshot::Sender<bool>>,
    next_update: u64,
    ready: watch::Sender<bool>,
}

impl ShardsPort {
    /// Follows all shards from now on. Also gives whether the node can serve: whether a shard of work has a leader.
    pub(super) fn follow(
        consensus: ConsensusHandle,
        said: mpsc::Receiver<FromLeader>,
    ) -> (Self, watch::Receiver<bool>) {
        let (followed, views) = mpsc::channel(limits::SHARDS_PER_NODE_MAX);
        tokio::spawn(follow_shards(consensus.clone(), followed));
        let (ready, readiness) = watch::channel(false);
        let (peers, updates) = (consensus.peer_changes(), BTreeMap::new());
        (Self { consensus, views, peers, said, updates, next_update: 1, ready }, readiness)
    }

    /// What this node's own replica of a shard knows changed.
    pub(super) fn viewed(&self, shard: ShardId, view: ShardView) -> Event {
        let ready = view.ready || view.leader.is_some_and(|leader| leader != self.consensus.node());
        // The directory of a site takes no work.
        if shard != ShardId::DIRECTORY {
            self.ready.send_if_modified(|known| std::mem::replace(known, ready) != ready);
        }
        if !view.member {
            return Event::NotMember { shard };
        }
        let known = self.consensus.leader_hint(shard).unwrap_or_default();
        let hint = LeaderHint { leader: view.leader, term: view.term, ..known };
        Event::Leader { shard, hint, ready: view.ready }
    }

    /// The peers that are connected.
    pub(super) fn connected(&self) -> Event {
        Event::Peers { up: self.consensus.peers().into_iter().filter(|peer| peer.up).map(|peer| peer.node).collect() }
    }

    /// At a site the members that may vote by their certificates, of those that this node has met; none without a site.
    pub(super) fn certified_voters(&self) -> Option<BTreeSet<NodeId>> {
        self.consensus.members_that_vote()
    }

    /// A leader said something.
    pub(super) fn heard(&mut self, said: FromLeader) -> Event {
        let update = match said {
            FromLeader::Claims(update) => update,
            FromLeader::Leads { shard, by, hint } => return Event::Leads { shard, by, hint },
        };
        let key = UpdateKey(self.next_update);
        self.next_update += 1;
        self.updates.insert(key, update.noted);
        Event::Agent(AgentEvent::Update { key, shard: update.shard, update: update.update })
    }

    /// Tells the sender of an update whether the agents were told.
    pub(super) fn noted(&mut self, key: UpdateKey, noted: bool) {
        let _ = self.updates.remove(&key).map(|answer| answer.send(noted));
    }

    /// Tells the control plane what this node learned of the leader of a shard.
    pub(super) fn learned(&self, shard: ShardId, hint: LeaderHint) {
        self.consensus.learned(shard, hint);
    }

    /// What the node can reach of a shard changed.
    pub(super) fn reaches(&self, shard: ShardId, state: Connectivity) {
        tracing::info!(%shard, %state, "connectivity changed");
        self.consensus.lost(shard, state != Connectivity::Connected);
    }
}

/// Tells the driver what this node knows of every shard's leader, of shards opened later too.
async fn follow_shards(consensus: ConsensusHandle, views: mpsc::Sender<(ShardId, ShardView)>) {
    let mut opened = consensus.shards_opened();
    let mut followed = BTreeSet::new();
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
