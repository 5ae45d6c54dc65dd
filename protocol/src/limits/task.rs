//! Bounds of tasks.

/// Longest task title, in bytes. Refused as invalid.
pub const TITLE_BYTES_MAX: usize = 256;
/// Largest task payload or result, in bytes. Refused as invalid.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Most capabilities that one role or one task may name. Refused as invalid.
pub const CAPABILITIES_MAX: usize = 16;
/// Most attempts that a task may ask for. Refused as invalid.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// Failures that a shard keeps with a live task; older ones are in its history only.
pub const FAILURES_KEPT: usize = 4;
/// Most tasks that are not terminal, per shard. Creating one more is refused as `ShardFull`.
pub const LIVE_TASKS_MAX: usize = 1_000_000;
/// Terminal tasks that a shard keeps in memory, and as many dead letters beside them: tasks that end well push out no
/// dead letters. Clients read older ones from the history.
pub const TERMINAL_TASKS_KEPT: usize = 10_000;
/// Bytes that all tasks of a shard may take, ended ones included. Creating one more is refused as `ShardFull`. A
/// snapshot of as much fits into [`SNAPSHOT_BYTES_MAX`](super::SNAPSHOT_BYTES_MAX).
pub const TASK_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes of ended tasks that a shard keeps in memory, dead letters in up to half of it; clients read older ones from
/// the history.
pub const TERMINAL_TASK_BYTES_KEPT: usize = 64 * 1024 * 1024;
/// Largest checkpoint that the holder of a task may leave for the next one, in bytes. Refused as invalid.
pub const CHECKPOINT_BYTES_MAX: usize = 4 * 1024;
/// Longest time that a task may be kept for a holder that went away, in milliseconds: 24 hours. Refused as invalid.
pub const LOST_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Sets of required capabilities among the pending tasks of a shard. Creating a task with one more is refused as
/// `ShardFull`.
pub const REQUIREMENTS_MAX: usize = 1_024;
/// Pending tasks that a shard looks at for one claim that names none, of those that an agent may have now; past it the
/// answer is "nothing suitable".
pub const CLAIM_SCAN_MAX: usize = 4_096;
