//! The shards that a node takes part in, and what it has heard of others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use skep_protocol::entry::Charter;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::leader::LeaderHint;
use skep_protocol::limits;
use skep_protocol::operator::SignedFirst;
use skep_protocol::recovery::Lineage;
use skep_protocol::signing::Place;
use tokio::sync::{Semaphore, watch};

use crate::belief::Belief;
use crate::history_fill::fill_history;
use crate::shard::{MembershipError, NodeParts, Shard};

/// Everything of a node's control plane but its endpoint.
pub(crate) struct Shards {
    pub(crate) parts: NodeParts,
    open: Mutex<BTreeMap<ShardId, Shard>>,
    /// Counts shards that were opened, for those who follow them.
    pub(crate) opened: watch::Sender<usize>,
    opening: tokio::sync::Mutex<()>,
    /// Who last answered a heartbeat of this node's, as only a leader does.
    pub(crate) answered: Mutex<BTreeMap<ShardId, NodeId>>,
    learned: Mutex<BTreeMap<ShardId, Learned>>,
    pub(crate) belief: Belief,
    /// Counts what was learned, for those who follow it.
    pub(crate) taught: watch::Sender<u64>,
    /// Held by the shard that fetches history: one at a time.
    filling: Arc<Semaphore>,
}

/// What this node's engine has learned of a shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Learned {
    /// Who leads and votes, as others say. Nothing of shards that this node is a member of: its own replica knows more.
    pub(crate) hint: LeaderHint,
    /// Whether it has looked for a leader in vain for a while.
    pub(crate) lost: bool,
}

impl Shards {
    pub(crate) fn new(parts: NodeParts) -> Arc<Self> {
        // At a site nobody votes because a file says so.
        let marked = if parts.peers.is_of_site() { BTreeSet::new() } else { parts.config.marked_voters() };
        let belief = Belief::new(marked);
        Arc::new(Self {
            parts,
            belief,
            open: Mutex::default(),
            opened: watch::channel(0).0,
            opening: tokio::sync::Mutex::default(),
            answered: Mutex::default(),
            learned: Mutex::default(),
            taught: watch::channel(0).0,
            filling: Arc::new(Semaphore::new(1)),
        })
    }

    /// All shards that are open.
    pub(crate) fn all(&self) -> Vec<Shard> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn shard(&self, id: ShardId) -> Option<Shard> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The same; the reason as text if it is not open.
    pub(crate) fn replica(&self, id: ShardId) -> Result<Shard, String> {
        self.shard(id).ok_or_else(|| "this node has no replica of the shard".to_owned())
    }

    /// What the replicas of this node are, as far as they know.
    pub(crate) fn lineages(&self) -> Vec<Lineage> {
        self.all().iter().filter_map(Shard::lineage).collect()
    }

    /// Takes note of what the engine has learned of a shard.
    pub(crate) fn learn(&self, id: ShardId, note: impl FnOnce(&mut Learned)) {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        if learned.contains_key(&id) || learned.len() < limits::SHARDS_PER_NODE_MAX {
            let known = learned.entry(id).or_default();
            note(known);
            if known.hint == LeaderHint::default() && !known.lost {
                learned.remove(&id);
            }
            drop(learned);
            self.taught.send_modify(|count| *count += 1);
        }
    }

    /// What the engine has learned of all shards.
    pub(crate) fn learned(&self) -> Vec<(ShardId, Learned)> {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned.iter().map(|(id, known)| (*id, known.clone())).collect()
    }

    /// What the engine has learned of a shard.
    pub(crate) fn learned_of(&self, id: ShardId) -> Option<Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// What this node has learned of a shard of which it has no replica.
    pub(crate) fn hearsay(&self, id: ShardId) -> LeaderHint {
        self.learned_of(id).map(|known| known.hint).unwrap_or_default().elsewhere(self.parts.node)
    }

    /// Refuses to make a shard of which this node has heard that it has voters elsewhere: there would be two under one number.
    pub(crate) fn check_unheard(&self, id: ShardId) -> Result<(), MembershipError> {
        let local = self.parts.node;
        if self.shard(id).is_some_and(|shard| shard.is_member(local)) {
            return Ok(());
        }
        let LeaderHint { leader, voters, .. } = self.hearsay(id);
        let named = leader.into_iter().chain(voters.iter().copied());
        let others: BTreeSet<NodeId> = named.filter(|node| *node != local).collect();
        if others.is_empty() {
            return Ok(());
        }
        let voters = others.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
        Err(MembershipError::Elsewhere { shard: id, voters })
    }

    /// What a shard is that is made here: the directory begins with the first root document of this node's site.
    ///
    /// # Errors
    /// [`MembershipError::Charter`] if it would be the directory of no site, or of one of another name.
    pub(crate) fn charter(&self, place: Place, first: Option<SignedFirst>) -> Result<Charter, MembershipError> {
        if place.shard != ShardId::DIRECTORY {
            return Ok(Charter { place, first, root: None });
        }
        let refused = |why: &str| MembershipError::Charter(format!("shard {} {why}", ShardId::DIRECTORY));
        let site = self.parts.peers.site();
        let view = site.ok_or_else(|| refused("is the directory of a site, and this node belongs to none"))?.view();
        if view.root().document().name != place.site {
            return Err(refused("has the name of the site in its root document; give the node the same one"));
        }
        let document = view.documents_after(0).next().map(|document| document.to_bytes());
        Ok(Charter { place, first, root: document })
    }

    /// Opens a shard, if it is not open.
    ///
    /// # Errors
    /// The reason as text.
    pub(crate) async fn open(&self, id: ShardId) -> Result<Shard, String> {
        let _one_at_a_time = self.opening.lock().await;
        if let Some(shard) = self.shard(id) {
            return Ok(shard);
        }
        let count = self.open.lock().unwrap_or_else(PoisonError::into_inner).len();
        if count >= limits::SHARDS_PER_NODE_MAX {
            return Err(format!("this node takes part in {count} shards already"));
        }
        // What openraft spawns stays on the thread of whoever opens the group.
        let opening = Box::pin(Shard::open(id, self.parts.clone()));
        let shard = self.parts.threads.on_control(opening).await.map_err(|e| e.to_string())??;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, shard.clone());
        self.opened.send_modify(|opened| *opened += 1);
        self.parts.threads.work().spawn(fill_history(shard.clone(), Arc::clone(&self.filling)));
        Ok(shard)
    }

    /// Whether a node leads a shard, as far as this one knows: from its own replica, or from who answered it last.
    pub(crate) fn leads(&self, node: NodeId, shard: ShardId) -> bool {
        let own = self.shard(shard).map(|shard| *shard.view().borrow()).filter(|view| view.member);
        if let Some(view) = own {
            return view.leader == Some(node);
        }
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).get(&shard) == Some(&node)
    }
}
