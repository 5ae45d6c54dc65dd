//! Under which identities two processes were met, and which peers are being asked whether they live.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skep_protocol::fault::{FaultReport, ShardFault};
use skep_protocol::ids::NodeId;
use tokio::time::Instant;

/// How long it is said that there are two after both were last met: several times as long as the one that is refused waits.
const SAID_FOR: Duration = Duration::from_secs(30);

/// Two processes that were met, in words, and when last.
#[derive(Clone, Debug)]
struct Met {
    detail: String,
    last: Instant,
}

impl Met {
    fn now(detail: String) -> Self {
        Self { detail, last: Instant::now() }
    }

    fn is_recent(&self) -> bool {
        self.last.elapsed() <= SAID_FOR
    }
}

/// Under which identities two processes were met.
#[derive(Debug, Default)]
pub(super) struct Twins {
    /// Under this node's.
    own: Option<Met>,
    /// Under those of peers.
    of: BTreeMap<NodeId, Met>,
    /// Peers that are being asked whether they live, one question at a time.
    asked: BTreeSet<NodeId>,
}

impl Twins {
    /// A peer is to be asked whether it lives. False if it is being asked.
    pub(super) fn begin_to_ask(&mut self, node: NodeId) -> bool {
        self.asked.insert(node)
    }

    /// A peer has been asked.
    pub(super) fn asked(&mut self, node: &NodeId) {
        self.asked.remove(node);
    }

    /// Another process was met under this node's identity. Whether that is news.
    pub(super) fn met_own(&mut self, detail: String) -> bool {
        let before = self.own.replace(Met::now(detail));
        before.is_none_or(|before| !before.is_recent())
    }

    /// Two processes were met under the identity of a peer. Whether that is news.
    pub(super) fn met(&mut self, node: NodeId, detail: String) -> bool {
        let before = self.of.insert(node, Met::now(detail));
        before.is_none_or(|before| !before.is_recent())
    }

    /// A peer is not known any more.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.of.remove(node);
    }

    /// Those that were met of late.
    pub(super) fn reports(&self) -> Vec<FaultReport> {
        let report = |node: Option<NodeId>, met: &Met| FaultReport {
            fault: ShardFault::IdentityShared,
            node,
            detail: met.detail.clone(),
        };
        let own = self.own.as_ref().filter(|met| met.is_recent()).map(|met| report(None, met));
        let of = self.of.iter().filter(|(_, met)| met.is_recent()).map(|(node, met)| report(Some(*node), met));
        own.into_iter().chain(of).collect()
    }
}
