//! Why the members of a shard were not changed.

use skep_protocol::fleet::FleetVersions;
use skep_protocol::ids::{NodeId, ShardId};

/// Why a change of a shard's members failed. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// This node does not lead.
    #[error("this node does not lead the shard; ask {}", leader.map_or("a node that does".to_owned(), |l| l.to_string()))]
    NotLeader {
        /// The leader, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// This node holds nothing of the shard.
    #[error(
        "this node holds no replica of shard {shard}; 'skep node status' names those that it holds, --shard says which is meant"
    )]
    NoReplica {
        /// The number of the shard.
        shard: ShardId,
    },
    /// A node that was to vote holds something of the shard.
    #[error(
        "{node} holds a replica of the shard, so that it exists already; 'skep shard add-voter' on its leader takes \
         this node in. If all that it holds is to be given up, move its data directory away first"
    )]
    HeldBy {
        /// The node that was to vote.
        node: NodeId,
    },
    /// The leader was to be taken out, and a leader does not take itself out.
    #[error(
        "this node led the shard and has handed the lead to {leader}, since a leader does not take itself out; ask it"
    )]
    HandedOver {
        /// The node that got the lead.
        leader: NodeId,
    },
    /// A node did not take the lead that it was handed.
    #[error("not done: {leader} leads the shard, since {to} did not take the lead; see that it runs and is reached")]
    NotTaken {
        /// The node that was to lead.
        to: NodeId,
        /// The node that leads.
        leader: NodeId,
    },
    /// The shard exists already.
    #[error("the shard exists already; 'skep shard status' shows it, 'skep shard add-voter' changes it")]
    Exists,
    /// This node has heard that other nodes vote in a shard of this number.
    #[error(
        "this node has heard of a shard {shard} with voters elsewhere: {voters}; 'skep shard add-voter' on its leader takes this node \
         in, and another shard needs another number (--shard). If it is gone for good, start all nodes that have heard of it again, \
         and ask again"
    )]
    Elsewhere {
        /// The number of the shard.
        shard: ShardId,
        /// The voters there, or the leader, as text.
        voters: String,
    },
    /// A node has not shown its incarnation.
    #[error("{node} is not connected; start it, and let it and this node list each other as [[peers]]")]
    Unreachable {
        /// The node that was to vote.
        node: NodeId,
    },
    /// The node is not a voter.
    #[error("{node} is not a voter of the shard")]
    NotVoter {
        /// The node that the caller named.
        node: NodeId,
    },
    /// The node forgot what it had acknowledged, and still has the same incarnation.
    #[error(
        "{node} lacks entries that it acknowledged, so that it cannot be counted on under this incarnation; move its data \
         directory away, start it, and ask again"
    )]
    Forgot {
        /// The node that forgot.
        node: NodeId,
    },
    /// The node lost its data directory: it is another member than the voter that it was.
    #[error(
        "{node} lost its data directory and is no voter as it is now; 'skep shard add-voter' with its id takes it in"
    )]
    OtherIncarnation {
        /// The node that was replaced.
        node: NodeId,
    },
    /// The leader does not know yet how much of the log a voter holds.
    #[error("the leader does not know yet how much of the log {node} holds; ask again in a moment")]
    LogNotKnown {
        /// The voter.
        node: NodeId,
    },
    /// Another leader is to finish a change of voters that was cut off, and no voter can lead.
    #[error(
        "an earlier change of voters takes this node out, so that one of those who stay has to lead and finish it, and \
         none can: {why}"
    )]
    NoHeir {
        /// For each voter that stays, the reason as text.
        why: String,
    },
    /// The node still has what it held in an earlier group, which may be no part of this one.
    #[error(
        "{node} was of the group that this shard was before it was recovered, and still has its log; stop it, move its data \
         directory away, start it, and ask again"
    )]
    OfGroupBefore {
        /// The node that holds the old replica.
        node: NodeId,
    },
    /// The node has a replica of another shard under the same number.
    #[error(
        "{node} belongs to another shard: {why}; if it is to leave that one, stop it, move its data directory away, start it, and \
         ask again"
    )]
    AnotherShard {
        /// The node that belongs to the other shard.
        node: NodeId,
        /// What this node saw of the other shard, as text.
        why: String,
    },
    /// The node runs a build that cannot apply what the shard has agreed on.
    #[error(
        "{node} speaks fleet version {speaks}, and the shard speaks {version}; install a Skep on it that speaks it, start \
         it, and ask again"
    )]
    WrongVersion {
        /// The node with that build.
        node: NodeId,
        /// The versions that the node can apply.
        speaks: FleetVersions,
        /// The version that the shard has agreed on.
        version: u32,
    },
    /// The description of the new shard makes no sense.
    #[error("no shard is made: {0}")]
    Charter(String),
    /// The list of voters makes no sense.
    #[error("{0}")]
    Voters(String),
    /// The group cannot do it at this time: nothing was changed.
    #[error("{0}")]
    Raft(String),
    /// The outcome is unknown: the change may have been made.
    #[error("{0}; 'skep shard status' shows what became of it")]
    Unknown(String),
}
