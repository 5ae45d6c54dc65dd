//! What a node does about its connections, by who votes and by whom somebody wishes to reach.

use std::sync::PoisonError;
use std::time::Duration;

use skep_protocol::ids::NodeId;
use tokio::sync::watch;
use tokio::time::Instant;

use super::peers::Peers;
use super::roles::{Roles, Stance};

/// How long a node is dialled that somebody wishes to reach: longer than it takes to make it a voter.
const WISH_LASTS: Duration = Duration::from_secs(120);
/// How long whoever wishes to reach a node waits for it.
const REACH_PATIENCE: Duration = Duration::from_secs(3);

impl Peers {
    /// Takes note of who votes, and lets go of what nobody needs.
    pub(crate) fn assume(&self, roles: Roles) {
        self.roles.send_if_modified(|known| {
            let changed = *known != roles;
            *known = roles;
            changed
        });
        self.let_go(|node| self.stance(node) == Stance::Leave);
    }

    /// Follows who votes, and whom somebody wishes to reach.
    pub(super) fn role_changes(&self) -> watch::Receiver<Roles> {
        self.roles.subscribe()
    }

    /// What this node does about a connection to a peer.
    pub(super) fn stance(&self, node: NodeId) -> Stance {
        let wished = self.wishes.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied();
        if wished.is_some_and(|until| until > Instant::now()) {
            return Stance::Dial;
        }
        self.roles.borrow().stance(self.local, node)
    }

    /// Connects to nodes that are to become voters, if they can be reached: waits a moment for those that nothing was wanted
    /// from before.
    pub(crate) async fn reach(&self, nodes: &[NodeId]) {
        let listed = |node: &NodeId| *node != self.local && self.admits(*node);
        let strangers = nodes.iter().copied().filter(|node| listed(node) && self.stance(*node) != Stance::Dial);
        let strangers: Vec<NodeId> = strangers.collect();
        if strangers.is_empty() {
            return;
        }
        let mut changes = self.changes();
        {
            let mut wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
            wishes.retain(|_, until| *until > Instant::now());
            wishes.extend(strangers.iter().map(|node| (*node, Instant::now() + WISH_LASTS)));
        }
        self.roles.send_modify(|_| {});
        let connected = async {
            while strangers.iter().any(|node| self.connected(*node).is_none()) && changes.changed().await.is_ok() {}
        };
        let _ = tokio::time::timeout(REACH_PATIENCE, connected).await;
    }
}
