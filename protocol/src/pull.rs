//! How commands come to the nodes of their agents: pulled, by place in each agent's order.
//!
//! A node asks the shard's leader for what comes after what it has, and the leader answers as soon as there is
//! something, or when it has waited for long enough. First delivery and delivery after any outage are the same. The
//! answer carries the shard's clock, which the node can rely on because it knows when it asked.
//!
//! Each class of command has an order and a room of its own: urgent ones come however many routine ones wait.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::{CommandClass, PerClass, SignedCommand, VoidCause};
use crate::ids::{AttachmentId, HomeEpoch, JournalId};
use crate::leader::LeaderHint;
use crate::operator::{Authority, AuthorityNews, Root};
use crate::text::AgentId;
use crate::time::LogInstant;

/// What a node asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// One for each agent whose commands it takes.
    pub agents: Vec<PullFor>,
    /// How long the leader may wait for something to deliver, in milliseconds.
    pub wait_ms: u32,
    /// How many replacements of the first operator all of these journals know.
    pub replaced: u64,
    /// How many of the statements that replaced an earlier one all of these agents' inboxes know. If there are not so many, they are
    /// told all of them again.
    pub authority: u64,
}

/// What a node asks for one of its agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullFor {
    /// Who.
    pub agent: AgentId,
    /// Its attachment.
    pub attachment: AttachmentId,
    /// The journal that its commands go to.
    pub journal: JournalId,
    /// The journal's time.
    pub home: HomeEpoch,
    /// The last place in each of the agent's orders that is in the journal.
    pub after: PerClass<u64>,
    /// The entry up to which the node knows all that changed for the agent. If there is no such entry, it is told up to which one it
    /// does.
    pub seen: u64,
    /// How many more commands the node takes, of each class. Not counted are those that are not to be started.
    pub room: PerClass<u32>,
}

/// What the leader answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// The shard's clock when the question arrived.
    pub clock: LogInstant,
    /// By what operators' statements are proved, for journals that do not know it: with those replacements of the first
    /// operator that not all of them know.
    pub root: Option<Root>,
    /// Those of the agents for whom there is something new.
    pub agents: Vec<PulledFor>,
    /// What was stated about operators since, in place of something else.
    pub authority: AuthorityNews,
}

/// What there is for one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledFor {
    /// Who.
    pub agent: AgentId,
    /// The journal's time that this is of.
    pub home: HomeEpoch,
    /// Whether the node may have its commands at all. If not, it opens the inbox again, if it still serves the agent.
    pub open: bool,
    /// What comes next in the agent's orders, without a gap but what has ended.
    pub deliveries: Vec<Delivery>,
    /// What the node has and is not to start, by its class and place.
    pub voids: Vec<(CommandClass, u64, VoidCause)>,
    /// The entry up to which this is all that changed. Before the one that the node named, if somebody had told it of entries that
    /// there are not: a leader asks a quorum before it says so, as for `back`.
    pub seen: u64,
    /// Whether there is more of a class for which there was no room. Asked for again with nothing seen.
    pub more: PerClass<bool>,
    /// The place behind which the node goes on, of a class in which it is ahead of all that was released: somebody had delivered what
    /// there is not. A leader asks a quorum before it says so, for it may be behind itself.
    pub back: PerClass<Option<u64>>,
}

/// A command on its way to one robot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its place in the robot's order of its class.
    pub seq: u64,
    /// The command.
    pub command: Arc<SignedCommand>,
    /// What makes its operator one.
    pub authority: Arc<Authority>,
    /// Why it is not to be started, if it is not: it is taken down, and ends.
    pub void: Option<VoidCause>,
}

/// Why a leader does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PullFailure {
    /// This node does not lead the shard. What it knows of who does.
    #[error("this node does not lead the shard")]
    NotLeader(LeaderHint),
}

/// The answer on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullAnswer {
    /// The answer, or why there is none.
    pub result: Result<Pulled, PullFailure>,
}
