//! What the engine hears, and what it wants done.

use std::collections::BTreeSet;

use skep_protocol::attach::{AgentSaid, AgentTold, AttachWish};
pub use skep_protocol::attempt::{AttemptTarget, Outcome, Work};
use skep_protocol::entry::Op;
use skep_protocol::heartbeat::ClaimsUpdate;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::journal::JournalJob;
use skep_protocol::leader::LeaderHint;
use skep_protocol::settled::Settled;
use skep_protocol::time::LogInstant;

use crate::connectivity::Connectivity;
use crate::inbox::InboxEvent;
use crate::key::{StreamKey, UpdateKey, WorkKey};
use crate::topics::{TopicEffect, TopicEvent};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A caller wants something done within a time.
    Submit {
        /// Its name, not in use.
        key: WorkKey,
        /// For which shard.
        shard: ShardId,
        /// What.
        work: Work,
        /// How long the caller waits, in milliseconds.
        patience_ms: u64,
    },
    /// A caller does not wait any more.
    Abandon {
        /// Its name.
        key: WorkKey,
    },
    /// A request of the engine's own ended: see [`Effect::Request`].
    Settled {
        /// Its name.
        key: WorkKey,
        /// How.
        settled: Settled,
    },
    /// An attempt ended.
    Outcome {
        /// Whose.
        key: WorkKey,
        /// Which.
        attempt: u32,
        /// How.
        outcome: Outcome,
    },
    /// What this node's own replica knows of a shard's leader. Not told where it is no member: there the leader is
    /// learned from answers.
    Leader {
        /// Which shard.
        shard: ShardId,
        /// What the replica says.
        hint: LeaderHint,
        /// Whether this node leads, ready to propose.
        ready: bool,
    },
    /// A peer says that it leads a shard. That makes it the next one asked; what it answers shows whether it does.
    Leads {
        /// Which shard.
        shard: ShardId,
        /// Who says so.
        by: NodeId,
        /// What it says.
        hint: LeaderHint,
    },
    /// This node is no member of a shard, or not any more: its own replica says nothing of the leader.
    NotMember {
        /// Which shard.
        shard: ShardId,
    },
    /// The peers that are connected.
    Peers {
        /// All of them.
        up: BTreeSet<NodeId>,
    },
    /// Something of an agent.
    Agent(AgentEvent),
    /// Something of the commands of agents.
    Inbox(InboxEvent),
    /// Something on the data plane.
    Topic(TopicEvent),
}

/// What happened to agents of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentEvent {
    /// An agent wants to be attached.
    Opened {
        /// Its stream, not in use.
        stream: StreamKey,
        /// What it says of itself.
        wish: AttachWish,
    },
    /// It said something.
    Said {
        /// Its stream.
        stream: StreamKey,
        /// What.
        said: AgentSaid,
    },
    /// An orchestrator says what agents of this node hold.
    Update {
        /// Its name, for the answer.
        key: UpdateKey,
        /// The shard.
        shard: ShardId,
        /// What they hold.
        update: ClaimsUpdate,
    },
}

/// What the caller of the engine has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Carry out an attempt and report its outcome. Emitted once per attempt.
    Attempt {
        /// Whose.
        key: WorkKey,
        /// Which.
        attempt: u32,
        /// For which shard.
        shard: ShardId,
        /// Where.
        target: AttemptTarget,
        /// What.
        work: Work,
    },
    /// Tell the caller how its work ended. Emitted exactly once for every submitted piece of work that was not
    /// abandoned; the key is free then.
    Answer {
        /// Whose.
        key: WorkKey,
        /// How.
        settled: Settled,
    },
    /// Make a request of this, submit it, and report its end as [`Event::Settled`].
    Request {
        /// Its name.
        key: WorkKey,
        /// For which shard.
        shard: ShardId,
        /// What.
        op: Op,
        /// The shard's clock, if the engine heard it a moment ago.
        clock: Option<LogInstant>,
        /// How long the engine waits, in milliseconds.
        patience_ms: u64,
    },
    /// Tell an agent something. A stream that cannot take it is closed. After [`AgentTold::Ended`] it ends.
    Tell {
        /// Its stream.
        stream: StreamKey,
        /// What.
        message: AgentTold,
    },
    /// Answer an update. Emitted exactly once for each.
    Noted {
        /// Its name.
        key: UpdateKey,
        /// Whether its agents were told; otherwise it should be sent again.
        noted: bool,
    },
    /// Something for the data plane, or from it for a subscriber.
    Topic(TopicEffect),
    /// Something for the journals of agents. What they report is told as [`InboxEvent::Journal`].
    Journal(JournalJob),
    /// What this node knows of the leader of a shard of which it is no member changed: so much it tells others who ask.
    Knows {
        /// Which shard.
        shard: ShardId,
        /// What it knows; nothing if it has forgotten the shard.
        hint: LeaderHint,
    },
    /// What the node can reach of a shard changed.
    Connectivity {
        /// Which shard.
        shard: ShardId,
        /// Its state now.
        state: Connectivity,
    },
}
