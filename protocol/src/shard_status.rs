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
    /// It orders entries.
    Leader,
    /// It votes and follows.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It follows without a vote: not (or not any more) a member under its present incarnation.
    Learner,
    /// The shard was not created yet, as far as the node knows.
    Uninitialised,
    /// Its replica is out of service.
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

/// What a change of voters that is under way has in mind for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoterStanding {
    /// It votes before and after; or there is no change.
    Stays,
    /// It votes beside the old ones, and will vote without them.
    Joins,
    /// It votes until the change is finished.
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
    /// The node.
    pub node: NodeId,
    /// Under which incarnation it votes.
    pub incarnation: Incarnation,
    /// Its id in the group.
    pub raft_id: RaftId,
    /// For people.
    pub name: Option<NodeName>,
    /// The last index that it is known to hold. Only the leader knows.
    pub matched: Option<u64>,
    /// Whether it stays.
    pub standing: VoterStanding,
    /// How long ago it last answered its leader, in milliseconds. Only the leader knows, and not of itself.
    pub heard_ms: Option<u64>,
    /// The fleet versions that it can apply, as it says. None while it is not connected.
    pub speaks: Option<FleetVersions>,
}

/// A shard as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    /// Which.
    pub shard: ShardId,
    /// What the node is in it.
    pub role: ShardRole,
    /// The term.
    pub term: u64,
    /// Who leads.
    pub leader: Option<NodeId>,
    /// The last entry in the log.
    pub last_log: Option<u64>,
    /// The last entry known to be committed.
    pub committed: Option<u64>,
    /// The last entry applied.
    pub applied: Option<u64>,
    /// The last entry in the snapshot.
    pub snapshot: Option<u64>,
    /// The last entry purged.
    pub purged: Option<u64>,
    /// The rolling digest.
    pub digest: u128,
    /// The log clock as the node knows it.
    pub clock: Option<LogInstant>,
    /// The meaning of entries that the shard has agreed on; zero before it has.
    pub fleet_version: u32,
    /// The newest that the node can apply.
    pub fleet_version_max: u32,
    /// The voters for whose sake it is not raised to that, as far as they have said. Only the leader knows.
    pub held_back_by: Vec<NodeId>,
    /// The random bytes with which the shard began; none before its first entry.
    pub genesis: Option<Genesis>,
    /// What the shard was before it was recovered last; none if it never was.
    pub recovery: Option<ShardRecovery>,
    /// The voters.
    pub voters: Vec<VoterStatus>,
    /// How many objects there are.
    pub counts: Counts,
    /// What it has let go of since it was made, because it keeps no more.
    pub dropped: Dropped,
    /// Request ids remembered.
    pub dedup_ids: u64,
    /// Bytes written to the node's log since its start.
    pub log_bytes: u64,
    /// What took the replica out of service.
    pub fault: Option<String>,
    /// Everything that is wrong.
    pub faults: Vec<FaultReport>,
    /// How the history of what entries did stands.
    pub history: HistoryStanding,
}

/// How the history of a shard stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryStanding {
    /// The first index whose changes are kept.
    pub begins: u64,
    /// The first index whose changes are not there yet.
    pub next: u64,
    /// Entries whose changes are missing, and looked for.
    pub missing: u64,
    /// Entries whose changes are missing for good.
    pub lost: u64,
    /// Entries that were let go of before their time, since the process began, because the disk was nearly full.
    pub given_back: u64,
    /// Bytes of the shard's rows.
    pub bytes: u64,
    /// Bytes of all shards that wait to be written.
    pub queued_bytes: u64,
    /// Why nothing can be written now.
    pub error: Option<String>,
}
