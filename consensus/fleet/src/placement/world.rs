//! What placement looks at: what the leader knows of the nodes that may vote, and of the members.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::ids::{Incarnation, NodeId};
use skep_protocol::time::LogInstant;

/// A place in a Raft group: a node under one incarnation. A wiped node has another one, and never gets the earlier seat
/// back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// PeerId of the node.
    pub node: NodeId,
    /// The incarnation of its data directory.
    pub incarnation: Incarnation,
}

/// What a node may be in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// A voter with a replica, which can lead.
    Full,
    /// A voter that keeps votes, terms and the ends of logs, and never leads.
    Witness,
}

/// The power supply of a node. A robot in its dock still lives on a battery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Mains power.
    Mains,
    /// A battery.
    Battery {
        /// Its charge in per cent, 0 to 100.
        percent: u8,
    },
}

/// Whether the leader reaches a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The leader reaches it.
    Connected {
        /// Since when it is connected, on the shard's clock.
        since: LogInstant,
    },
    /// The leader does not reach it.
    Silent {
        /// Since when it is silent, on the shard's clock; the begin of the leader's term, if no call reached it in that
        /// term.
        since: LogInstant,
    },
}

impl Link {
    /// Since when the link is like this, on the shard's clock.
    pub(super) fn since(self) -> LogInstant {
        match self {
            Self::Connected { since } | Self::Silent { since } => since,
        }
    }
}

/// How much of the log a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// As good as all of it: a quorum with this node waits for nothing.
    Current,
    /// Less than that.
    Behind {
        /// Since when it is behind, on the shard's clock.
        since: LogInstant,
    },
    /// The leader does not send it the log: the node is no member.
    NotSent,
}

/// A node that may vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The incarnation of its data directory, as the node said last; none if the leader has not met the node.
    pub incarnation: Option<Incarnation>,
    /// The sort of vote that it may have.
    pub vote: Vote,
    /// Its power supply.
    pub power: Power,
    /// For how long its machine is up, in milliseconds.
    pub uptime_ms: u64,
    /// Name of what fails together with it, such as a rack or a charger; none if that is not known. All such nodes
    /// count as one domain.
    pub domain: Option<String>,
    /// Whether the leader reaches it.
    pub link: Link,
    /// How much of the log it has.
    pub log: Copied,
    /// Number of shards of the site that it leads.
    pub leads: u32,
}

/// The voters, the learners and the leader of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The seats that vote.
    pub voters: BTreeSet<Seat>,
    /// The seats that get the log and do not vote.
    pub learners: BTreeSet<Seat>,
    /// The voter that leads.
    pub leader: Seat,
    /// Whether a change of voters is under way, or was cut off halfway.
    pub is_joint: bool,
    /// Whether a quorum of the voters acknowledges the leader at present.
    pub has_quorum: bool,
}

/// What chooses the voters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Placement chooses them.
    Auto,
    /// An operator chooses them.
    #[default]
    Manual,
}

/// All that placement looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// All nodes that may vote, reached or not. A voter that is missing here may not vote any longer.
    pub candidates: BTreeMap<NodeId, Candidate>,
    /// The members of the group.
    pub membership: Membership,
    /// What chooses the voters.
    pub mode: Mode,
}

/// The number of voters that a shard is to have at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Three.
    Three,
    /// Five, if there are five nodes in three failure domains.
    #[default]
    Five,
}

impl Wanted {
    /// The number.
    pub(super) fn voters(self) -> usize {
        match self {
            Self::Three => 3,
            Self::Five => 5,
        }
    }
}

/// The patience of placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacementConfig {
    /// The number of voters that it aims at.
    pub wanted: Wanted,
    /// After how long placement replaces a voter that is silent, or behind, in milliseconds.
    pub dead_for_ms: u64,
    /// For how long placement looks at a new leader, and at a node that has just connected, and within which no step
    /// undoes another one, in milliseconds.
    pub settle_ms: u64,
    /// Shortest time between two steps, in milliseconds.
    pub pause_ms: u64,
    /// After how long a learner that is behind counts as slow, so that placement tries another spare, in milliseconds.
    pub catch_up_ms: u64,
    /// Most steps in an hour, under one leader. Those that only make a good group better take half of them.
    pub steps_an_hour_max: usize,
}

impl Default for PlacementConfig {
    fn default() -> Self {
        Self {
            wanted: Wanted::Five,
            dead_for_ms: 600_000,
            settle_ms: 120_000,
            pause_ms: 5_000,
            catch_up_ms: 300_000,
            steps_an_hour_max: 12,
        }
    }
}
