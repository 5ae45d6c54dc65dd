//! How commands come to the nodes of their agents: nodes pull them, by place in each agent's order.
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

/// What a node asks the shard's leader for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// One question for each agent whose commands the node takes.
    pub agents: Vec<PullFor>,
    /// How long the leader may wait for something to deliver, in milliseconds.
    pub wait_ms: u32,
    /// Number of replacements of the first operator that all of these journals know.
    pub replaced: u64,
    /// Number of replacing statements about operators that all of these agents' inboxes know. If the shard has not so
    /// many, its leader tells all of them again.
    pub authority: u64,
}

/// What a node asks for one of its agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullFor {
    /// Id of the agent.
    pub agent: AgentId,
    /// Id of the agent's attachment.
    pub attachment: AttachmentId,
    /// Id of the journal to which its commands go.
    pub journal: JournalId,
    /// The journal's home epoch.
    pub home: HomeEpoch,
    /// The last place in each of the agent's orders that is in the journal.
    pub after: PerClass<u64>,
    /// Index of the entry up to which the node knows all that changed for the agent. If there is no such entry, the
    /// leader says up to which one it does.
    pub seen: u64,
    /// Number of further commands that the node takes, of each class. Those that are not to be started do not count.
    pub room: PerClass<u32>,
}

/// What the leader answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// The shard's clock when the question arrived.
    pub clock: LogInstant,
    /// What proves operators' statements, for journals that do not know it: with those replacements of the first
    /// operator that not all of them know.
    pub root: Option<Root>,
    /// The agents of the question for which there is something new.
    pub agents: Vec<PulledFor>,
    /// Statements about operators since then that replaced others.
    pub authority: AuthorityNews,
}

/// What there is for one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledFor {
    /// Id of the agent.
    pub agent: AgentId,
    /// The home epoch of the journal that this is for.
    pub home: HomeEpoch,
    /// Whether the node may have its commands at all. If not, it opens the inbox again, if it still serves the agent.
    pub open: bool,
    /// What comes next in the agent's orders, without a gap but for what has ended.
    pub deliveries: Vec<Delivery>,
    /// What the node has and is not to start, by its class and place.
    pub voids: Vec<(CommandClass, u64, VoidCause)>,
    /// Index of the entry up to which this is all that changed. It is before the one that the node named if a leader
    /// had told the node of entries that there are not: a leader asks a quorum before it says so, as for `back`.
    pub seen: u64,
    /// Whether there is more of a class for which there was no room. The node asks for it again with nothing seen.
    pub more: PerClass<bool>,
    /// The place behind which the node goes on, of a class in which it is ahead of all that was released: a leader had
    /// delivered what there is not. A leader asks a quorum before it says so, for it may be behind itself.
    pub back: PerClass<Option<u64>>,
}

/// A command on its way to one robot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its place in the robot's order of its class.
    pub seq: u64,
    /// The command, as its operator signed it.
    pub command: Arc<SignedCommand>,
    /// The chain of grants from its operator to the first one.
    pub authority: Arc<Authority>,
    /// Why the robot is not to start it; none if it may. If it may not, the node writes it down, and it ends.
    pub void: Option<VoidCause>,
}

/// Why a leader does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PullFailure {
    /// This node does not lead the shard. The hint is what it knows of who does.
    #[error("this node does not lead the shard")]
    NotLeader(LeaderHint),
}

/// The answer on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullAnswer {
    /// The answer, or why the node gives none.
    pub result: Result<Pulled, PullFailure>,
}
