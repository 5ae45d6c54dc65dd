//! Why the members of a shard are as they were.

use skep_protocol::fleet::FleetVersions;
use skep_protocol::ids::{NodeId, ShardId};

/// Why a shard's members could not be changed. Says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// This node does not lead.
    #[error("this node does not lead the shard; ask {}", leader.map_or("a node that does".to_owned(), |l| l.to_string()))]
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<NodeId>,
    },
    /// This node has nothing of the shard.
    #[error(
        "this node holds no replica of shard {shard}; 'skep node status' names those that it holds, --shard says which is meant"
    )]
    NoReplica {
        /// Which.
        shard: ShardId,
    },
    /// A voter-to-be holds something of the shard.
    #[error(
        "{node} holds a replica of the shard, so that it exists already; 'skep shard add-voter' on its leader takes \
         this node in. If all that it holds is to be given up, move its data directory away first"
    )]
    HeldBy {
        /// Which.
        node: NodeId,
    },
    /// A leader does not take itself out.
    #[error(
        "this node led the shard and has handed the lead to {leader}, since a leader does not take itself out; ask it"
    )]
    HandedOver {
        /// To whom.
        leader: NodeId,
    },
    /// Somebody did not take the lead that was handed to it.
    #[error("not done: {leader} leads the shard, since {to} did not take the lead; see that it runs and is reached")]
    NotTaken {
        /// Who was to lead.
        to: NodeId,
        /// Who leads.
        leader: NodeId,
    },
    /// The shard exists already.
    #[error("the shard exists already; 'skep shard status' shows it, 'skep shard add-voter' changes it")]
    Exists,
    /// This node has heard that others vote in a shard of this number.
    #[error(
        "this node has heard of a shard {shard} with voters elsewhere: {voters}; 'skep shard add-voter' on its leader takes this node \
         in, and another shard needs another number (--shard). If it is gone for good, start all nodes that have heard of it again, \
         and ask again"
    )]
    Elsewhere {
        /// Which.
        shard: ShardId,
        /// Who votes there, or leads.
        voters: String,
    },
    /// A node has not shown its incarnation.
    #[error("{node} is not connected; start it, and let it and this node list each other as [[peers]]")]
    Unreachable {
        /// Which.
        node: NodeId,
    },
    /// The node is no voter.
    #[error("{node} is not a voter of the shard")]
    NotVoter {
        /// Which.
        node: NodeId,
    },
    /// The node forgot what it had acknowledged under the incarnation that it still has.
    #[error(
        "{node} lacks entries that it acknowledged, so that it cannot be counted on under this incarnation; move its data \
         directory away, start it, and ask again"
    )]
    Forgot {
        /// Which.
        node: NodeId,
    },
    /// The node lost its data directory: it is another member than the voter that it was.
    #[error(
        "{node} lost its data directory and is no voter as it is now; 'skep shard add-voter' with its id takes it in"
    )]
    OtherIncarnation {
        /// Which.
        node: NodeId,
    },
    /// The leader has not heard of a voter yet how much of the log it holds.
    #[error("it is not known yet how much of the log {node} holds; ask again in a moment")]
    LogNotKnown {
        /// Which.
        node: NodeId,
    },
    /// A change of voters that was cut off is to be finished by another leader, and there is none.
    #[error(
        "an earlier change of voters takes this node out, so that one of those who stay has to lead and finish it, and \
         none can: {why}"
    )]
    NoHeir {
        /// Of each who stays.
        why: String,
    },
    /// The node still has what it held in a group before this one, which may be no part of this one.
    #[error(
        "{node} was of the group that this shard was before it was recovered, and still has its log; stop it, move its data \
         directory away, start it, and ask again"
    )]
    OfGroupBefore {
        /// Which.
        node: NodeId,
    },
    /// The node has a replica of another shard under the same number.
    #[error(
        "{node} belongs to another shard: {why}; if it is to leave that one, stop it, move its data directory away, start it, and \
         ask again"
    )]
    AnotherShard {
        /// Which.
        node: NodeId,
        /// What was seen.
        why: String,
    },
    /// The node runs a build that cannot apply what the shard has agreed on.
    #[error(
        "{node} speaks fleet version {speaks}, and the shard speaks {version}; install a Skep on it that speaks it, start \
         it, and ask again"
    )]
    WrongVersion {
        /// Which.
        node: NodeId,
        /// What it can apply.
        speaks: FleetVersions,
        /// What the shard has agreed on.
        version: u32,
    },
    /// What the shard is to be makes no sense.
    #[error("no shard is made: {0}")]
    Charter(String),
    /// The voters make no sense.
    #[error("{0}")]
    Voters(String),
    /// The group cannot do it now: nothing was changed.
    #[error("{0}")]
    Raft(String),
    /// It may have been done all the same.
    #[error("{0}; 'skep shard status' shows what became of it")]
    Unknown(String),
}
