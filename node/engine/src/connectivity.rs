//! What a node can reach, and what it may therefore promise.

use std::fmt;

/// What a node can reach of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Connectivity {
    /// It knows the shard's leader and reaches it, or has lost it so lately that it may be back at once.
    #[default]
    Connected,
    /// It reaches other nodes, but no leader with a quorum.
    NoQuorum,
    /// It reaches nobody.
    Isolated,
}

/// What a caller wants from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// Change the shard.
    Write,
    /// Read everything that was acknowledged.
    LinearizableRead,
    /// Read what this node has, with its age.
    StaleRead,
    /// Send and hear what is not ordered: telemetry, presence, messages within reach.
    BestEffort,
    /// Finish what a lease covers, stop, and serve what is on this machine.
    Local,
}

impl Connectivity {
    /// Whether a node in this state may do something. What needs a quorum is refused without one, never guessed.
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
