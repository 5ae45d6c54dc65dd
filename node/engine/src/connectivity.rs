//! What a node can reach, and therefore what it may promise.

use std::fmt;

/// What a node can reach of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Connectivity {
    /// The node knows the shard's leader and reaches it, or lost it so lately that the leader may be back at once.
    #[default]
    Connected,
    /// The node reaches other nodes, but no leader with a quorum.
    NoQuorum,
    /// The node reaches no other node.
    Isolated,
}

/// What a caller wants a node to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// Change the shard.
    Write,
    /// Read everything that the shard acknowledged.
    LinearizableRead,
    /// Read what this node has, with the age of that.
    StaleRead,
    /// Send and hear what has no order: telemetry, presence, messages within reach.
    BestEffort,
    /// Finish what a lease covers, stop, and serve what is on this machine.
    Local,
}

impl Connectivity {
    /// Whether a node in this state may do something. A node without a quorum refuses what needs one, and never
    /// guesses.
    pub fn permits(self, permission: Permission) -> bool {
        match permission {
            Permission::Write | Permission::LinearizableRead => self == Self::Connected,
            Permission::BestEffort => self != Self::Isolated,
            Permission::StaleRead | Permission::Local => true,
        }
    }
}

impl fmt::Display for Connectivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Connected => "connected",
            Self::NoQuorum => "no quorum",
            Self::Isolated => "isolated",
        })
    }
}
