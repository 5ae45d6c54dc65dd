//! How a shard stands, as one node sees it.

use std::fmt;

use crate::fault::FaultReport;
use crate::fleet::FleetVersions;
use crate::ids::{Genesis, Incarnation, NodeId, RaftId, ShardId};
use crate::query::{Counts, Dropped};
use crate::recovery::ShardRecovery;
use crate::text::NodeName;
use crate::time::LogInstant;

/// What a node is in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardRole {
    /// The node leads: it orders entries.
    Leader,
    /// The node votes and follows.
    Follower,
    /// The node asks for votes.
    Candidate,
    /// The node follows without a vote: it is not, or not any more, a member under its present incarnation.
    Learner,
    /// The shard was not created yet, as far as the node knows.
    Uninitialised,
    /// The node's replica is out of service.
    Down,
}

impl fmt::Display for ShardRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Uninitialised => "uninitialised",
            Self::Down => "down",
        })
    }
}

/// What a change of voters that is under way does with a voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoterStanding {
    /// The voter votes before and after; or no change is under way.
    Stays,
    /// The voter votes beside the old ones, and will vote without them.
    Joins,
    /// The voter votes until the change is finished.
    Leaves,
}

impl fmt::Display for VoterStanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Stays => "voter",
            Self::Joins => "joining",
            Self::Leaves => "leaving",
        })
    }
}

/// A voter of the shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterStatus {
    /// PeerId of the node.
    pub node: NodeId,
    /// The incarnation under which it votes.
    pub incarnation: Incarnation,
    /// Its Raft id in the group.
    pub raft_id: RaftId,
    /// The node's name, for people; none if the node that reports does not know it.
    pub name: Option<NodeName>,
    /// The last index that the leader knows it to hold. Only the leader knows.
    pub matched: Option<u64>,
    /// What a change of voters does with it.
    pub standing: VoterStanding,
    /// How long ago it last answered its leader, in milliseconds. Only the leader knows, and not of itself.
    pub heard_ms: Option<u64>,
    /// The fleet versions that it can apply, as it says. None while it is not connected.
    pub speaks: Option<FleetVersions>,
}

/// A shard as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    /// Id of the shard.
    pub shard: ShardId,
    /// The node's role in the shard.
    pub role: ShardRole,
    /// The Raft term.
    pub term: u64,
    /// PeerId of the leader; none if the node knows of none.
    pub leader: Option<NodeId>,
    /// Index of the last entry in the log.
    pub last_log: Option<u64>,
    /// Index of the last entry known to be committed.
    pub committed: Option<u64>,
    /// Index of the last entry applied.
    pub applied: Option<u64>,
    /// Index of the last entry in the snapshot.
    pub snapshot: Option<u64>,
    /// Index of the last entry purged.
    pub purged: Option<u64>,
    /// The rolling digest of the applied entries.
    pub digest: u128,
    /// The shard's clock as the node knows it.
    pub clock: Option<LogInstant>,
    /// The fleet version on which the shard has agreed; zero before it has.
    pub fleet_version: u32,
    /// The newest fleet version that the node can apply.
    pub fleet_version_max: u32,
    /// PeerIds of the voters that keep the shard from that version, as far as they have said. Only the leader knows.
    pub held_back_by: Vec<NodeId>,
    /// The random bytes with which the shard began; none before its first entry.
    pub genesis: Option<Genesis>,
    /// The statement of the last recovery; none if the shard was never recovered.
    pub recovery: Option<ShardRecovery>,
    /// The voters.
    pub voters: Vec<VoterStatus>,
    /// Numbers of objects.
    pub counts: Counts,
    /// What the shard has let go of since it was made, because it keeps no more.
    pub dropped: Dropped,
    /// Number of request ids that the shard remembers.
    pub dedup_ids: u64,
    /// Bytes that the node wrote to its log since its start.
    pub log_bytes: u64,
    /// What took the replica out of service, for people; none if it serves.
    pub fault: Option<String>,
    /// All faults.
    pub faults: Vec<FaultReport>,
    /// How the history stands.
    pub history: HistoryStanding,
}

/// How the history of a shard stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryStanding {
    /// The first index whose changes the node keeps.
    pub begins: u64,
    /// The first index whose changes are not in the history yet.
    pub next: u64,
    /// Number of entries whose changes are missing, and which the node looks for.
    pub missing: u64,
    /// Number of entries whose changes are missing for good.
    pub lost: u64,
    /// Number of entries that the node let go of before their time, since the process began, because its disk was
    /// nearly full.
    pub given_back: u64,
    /// Bytes of the shard's rows.
    pub bytes: u64,
    /// Bytes of all shards that wait to be written.
    pub queued_bytes: u64,
    /// Why the node cannot write now, for people; none if it can.
    pub error: Option<String>,
}
