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

/// An event for the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A caller wants a piece of work done within a time.
    Submit {
        /// The key of the work, not in use.
        key: WorkKey,
        /// The shard of the work.
        shard: ShardId,
        /// The work.
        work: Work,
        /// How long the caller waits, in milliseconds.
        patience_ms: u64,
    },
    /// A caller does not wait for its work any more.
    Abandon {
        /// The key of the work.
        key: WorkKey,
    },
    /// A request of the engine's own ended: see [`Effect::Request`].
    Settled {
        /// The key of the request.
        key: WorkKey,
        /// How the request ended.
        settled: Settled,
    },
    /// An attempt ended.
    Outcome {
        /// The key of the attempt's work.
        key: WorkKey,
        /// The number of the attempt, from 1 for each piece of work.
        attempt: u32,
        /// How the attempt ended.
        outcome: Outcome,
    },
    /// What this node's own replica knows of a shard's leader. Where the node is no member, the driver does not tell
    /// it: there the engine learns the leader from answers.
    Leader {
        /// The shard of the replica.
        shard: ShardId,
        /// What the replica says.
        hint: LeaderHint,
        /// Whether this node leads and is ready to propose.
        ready: bool,
    },
    /// A peer says that it leads a shard. The engine asks that peer next; the peer's answer shows whether it leads.
    Leads {
        /// The shard.
        shard: ShardId,
        /// The peer that says so.
        by: NodeId,
        /// What the peer says.
        hint: LeaderHint,
    },
    /// This node is not, or is no longer, a member of a shard: its own replica says nothing of the leader.
    NotMember {
        /// The shard.
        shard: ShardId,
    },
    /// The connected peers changed.
    Peers {
        /// All peers that are connected.
        up: BTreeSet<NodeId>,
    },
    /// An event of an agent.
    Agent(AgentEvent),
    /// An event of the commands of agents.
    Inbox(InboxEvent),
    /// An event of the data plane.
    Topic(TopicEvent),
}

/// What happened to an agent of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentEvent {
    /// An agent wants to be attached.
    Opened {
        /// The agent's stream, with a key not in use.
        stream: StreamKey,
        /// What the agent says of itself.
        wish: AttachWish,
    },
    /// An agent said something.
    Said {
        /// The agent's stream.
        stream: StreamKey,
        /// What the agent said.
        said: AgentSaid,
    },
    /// An orchestrator says what agents of this node hold.
    Update {
        /// The key of the update, for the answer.
        key: UpdateKey,
        /// The shard of the orchestrator.
        shard: ShardId,
        /// What the agents hold.
        update: ClaimsUpdate,
    },
}

/// What the caller of the engine has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Carry out an attempt and report its outcome. The engine emits it once for each attempt.
    Attempt {
        /// The key of the attempt's work.
        key: WorkKey,
        /// The number of the attempt, from 1 for each piece of work.
        attempt: u32,
        /// The shard of the work.
        shard: ShardId,
        /// Where to try.
        target: AttemptTarget,
        /// The work.
        work: Work,
    },
    /// Tell the caller how its work ended. The engine emits it exactly once for each submitted piece of work that the
    /// caller did not abandon; after that the key is free.
    Answer {
        /// The key of the work.
        key: WorkKey,
        /// How the work ended.
        settled: Settled,
    },
    /// Make a request of this operation, submit it, and report its end as [`Event::Settled`].
    Request {
        /// The key of the request.
        key: WorkKey,
        /// The shard of the request.
        shard: ShardId,
        /// The operation.
        op: Op,
        /// The shard's clock, if the engine heard it a moment ago.
        clock: Option<LogInstant>,
        /// How long the engine waits, in milliseconds.
        patience_ms: u64,
    },
    /// Tell an agent something. The driver closes a stream that cannot take it. After [`AgentTold::Ended`] the stream
    /// ends.
    Tell {
        /// The agent's stream.
        stream: StreamKey,
        /// The message.
        message: AgentTold,
    },
    /// Answer an update. The engine emits it exactly once for each update.
    Noted {
        /// The key of the update.
        key: UpdateKey,
        /// Whether the engine told the agents of the update; if not, the orchestrator should send it again.
        noted: bool,
    },
    /// A job for the data plane, or a value from it for a subscriber.
    Topic(TopicEffect),
    /// A job for the journals of agents. The driver tells their reports as [`InboxEvent::Journal`].
    Journal(JournalJob),
    /// What this node knows of the leader of a shard of which it is no member changed. The node tells other nodes that
    /// much when they ask.
    Knows {
        /// The shard.
        shard: ShardId,
        /// What the node knows; an empty hint if it has forgotten the shard.
        hint: LeaderHint,
    },
    /// What the node can reach of a shard changed.
    Connectivity {
        /// The shard.
        shard: ShardId,
        /// The state of the shard's connectivity from now on.
        state: Connectivity,
    },
}
