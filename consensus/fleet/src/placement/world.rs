//! What placement looks at: what the leader knows of the nodes that may vote, and of the members.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::ids::{Incarnation, NodeId};
use skep_protocol::time::LogInstant;

/// A place in a Raft group: a node under one incarnation. A wiped node has another one, and never the earlier seat
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// The node.
    pub node: NodeId,
    /// Its data directory.
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

/// What a node lives on. A robot in its dock still lives on a battery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// A line.
    Mains,
    /// A battery, which is charged so far.
    Battery {
        /// 0 to 100.
        percent: u8,
    },
}

/// Whether the leader reaches a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It does.
    Connected {
        /// Since when.
        since: LogInstant,
    },
    /// It does not.
    Silent {
        /// Since when; the begin of the leader's term, if it has not reached the node in it.
        since: LogInstant,
    },
}

impl Link {
    /// Since when it is so.
    pub(super) fn since(self) -> LogInstant {
        match self {
            Self::Connected { since } | Self::Silent { since } => since,
        }
    }
}

/// How much of the log a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// As good as all: a quorum with this node waits for nothing.
    Current,
    /// Less.
    Behind {
        /// Since when.
        since: LogInstant,
    },
    /// The log is not sent to it: the node is no member.
    NotSent,
}

/// A node that may vote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its data directory, as the node said last; none if the leader has not met the node.
    pub incarnation: Option<Incarnation>,
    /// As what it may vote.
    pub vote: Vote,
    /// What it lives on.
    pub power: Power,
    /// How long its machine is up, in milliseconds.
    pub uptime_ms: u64,
    /// What fails together with it, such as a rack or a charger. All nodes of which that is not known count as one
    /// domain.
    pub domain: Option<String>,
    /// Whether the leader reaches it.
    pub link: Link,
    /// How much of the log it has.
    pub log: Copied,
    /// How many shards of the site it leads.
    pub leads: u32,
}

/// Who votes, who learns and who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Those that vote.
    pub voters: BTreeSet<Seat>,
    /// Those to which the log is sent and that do not vote.
    pub learners: BTreeSet<Seat>,
    /// The voter that leads.
    pub leader: Seat,
    /// Whether a change of voters is under way, or was cut off halfway.
    pub is_joint: bool,
    /// Whether a quorum of the voters acknowledges the leader at present.
    pub has_quorum: bool,
}

/// Who chooses the voters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Placement.
    Auto,
    /// An operator.
    #[default]
    Manual,
}

/// All that placement looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// All nodes that may vote, reached or not. A voter that is missing here may not vote any longer.
    pub candidates: BTreeMap<NodeId, Candidate>,
    /// The group.
    pub membership: Membership,
    /// Who chooses.
    pub mode: Mode,
}

/// How many voters a shard is to have at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// 3.
    Three,
    /// 5, if there are five nodes in three failure domains.
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

/// How patient placement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacementConfig {
    /// How many voters it aims at.
    pub wanted: Wanted,
    /// A voter that is silent, or behind, for so long is replaced, in milliseconds.
    pub dead_for_ms: u64,
    /// A new leader, and a node that has just connected, are looked at for so long, and no step undoes another one
    /// sooner, in milliseconds.
    pub settle_ms: u64,
    /// Between two steps, in milliseconds.
    pub pause_ms: u64,
    /// A learner that is behind for so long is slow: another spare is tried, in milliseconds.
    pub catch_up_ms: u64,
    /// Steps in an hour, under one leader. Those that only make good better take half of them.
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
