//! Bounds of agents, of their leases, and of what nodes and the orchestrator say of them.

/// Most registered agents, per shard. Registering one more is refused as `ShardFull`.
pub const AGENTS_MAX: usize = 100_000;
/// How long a shard knows an agent that no client registered after its last attachment has ended, in milliseconds:
/// seven days. Then it forgets the agent, with all that it keeps of it, unless the agent holds a task or a command to
/// it has not ended: then the time starts anew.
pub const AGENT_TTL_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Shortest lease that an agent may ask for, in milliseconds. Refused as invalid.
pub const LEASE_TTL_MS_MIN: u64 = 500;
/// Longest lease that an agent may ask for, in milliseconds. Refused as invalid.
pub const LEASE_TTL_MS_MAX: u64 = 10 * 60 * 1_000;
/// Most tasks that one agent may hold at a time, whatever its role says. Refused as invalid.
pub const CONCURRENT_CLAIMS_MAX: u32 = 1_024;
/// Most groups of one agent. Refused as invalid.
pub const GROUPS_MAX: usize = 16;
/// Agents that one node serves. One more is refused as `Overloaded`.
pub const AGENTS_PER_NODE_MAX: usize = 1_024;
/// Tasks for which an agent may have asked without having them yet. A higher number counts as this one.
pub const CREDITS_MAX: u64 = 1_024;
/// Messages that one attached agent has not read. One more ends its stream; the agent attaches again and catches up.
pub const AGENT_MESSAGES_QUEUED_MAX: usize = 2 * CONCURRENT_CLAIMS_MAX as usize + 512;
/// Heartbeats that wait for the orchestrator. One more is refused, and sent again later.
pub const HEARTBEATS_QUEUED_MAX: usize = 4_096;
/// Bytes of tasks in one update of what agents hold. More follow in the next.
pub const CLAIMS_UPDATE_BYTES_SOFT_MAX: u64 = 1024 * 1024;
/// Updates of what agents hold that wait for the node's driver. One more is refused, and sent again.
pub const CLAIMS_UPDATES_QUEUED_MAX: usize = 1_024;
