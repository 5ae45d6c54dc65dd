//! Bounds of commands, of their way to robots, of the journals there, and of operators.

use super::agent::{AGENTS_MAX, AGENTS_PER_NODE_MAX};

/// Largest arguments of a command, and largest result of one. Refused as invalid.
pub const ARGS_BYTES_MAX: usize = 16 * 1024;
/// Largest command as its operator signs it, in bytes. Refused as invalid.
pub const COMMAND_STATEMENT_BYTES_MAX: usize = ARGS_BYTES_MAX + 2_048;
/// Largest control of a command (cancel, abort, resolve, discard) as its operator signs it, in bytes. Refused as
/// invalid.
pub const CONTROL_STATEMENT_BYTES_MAX: usize = 2_048;
/// Largest grant as its admin signs it, in bytes. Refused as invalid.
pub const GRANT_STATEMENT_BYTES_MAX: usize = 16 * 1024;
/// Largest statement of a shard's first operator about itself, its replacement or the shard's recovery, in bytes.
/// Refused as invalid.
pub const FIRST_STATEMENT_BYTES_MAX: usize = 1_024;
/// Longest media type. Refused as invalid.
pub const CONTENT_TYPE_BYTES_MAX: usize = 128;
/// Longest trace context. Refused as invalid.
pub const TRACEPARENT_BYTES_MAX: usize = 64;
/// Longest time that a command may be valid, in milliseconds: 24 hours. Refused as invalid.
pub const COMMAND_VALID_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Commands that a shard holds, ended ones whose deadline has not passed included. Sending one more is refused as
/// `ShardFull`.
pub const COMMANDS_MAX: usize = 100_000;
/// Deliveries of all commands that a shard holds. Sending more is refused as `ShardFull`.
pub const DELIVERIES_MAX: usize = 1_000_000;
/// Bytes of the arguments of all commands that a shard holds, and of what their agents said. Sending more is refused as
/// `ShardFull`.
pub const COMMAND_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Ended commands kept in memory, per shard, once their deadline has passed, and dead letters of theirs, each of one
/// agent; older ones are read from the history.
pub const ENDED_COMMANDS_KEPT: usize = 10_000;
/// Routine commands to one agent that have not ended. Sending it one more is refused as `OutboxFull`; one that is for
/// others too goes to them, and ends at once at this one, as rejected.
pub const OUTBOX_MAX: usize = 1_024;
/// Urgent commands to one agent that have not ended. The same happens at it, whatever there is of routine ones.
pub const OUTBOX_URGENT_MAX: usize = 256;
/// How long after its deadline, and after the last word that it is under way, a command that may have been delivered is
/// waited for, in milliseconds. Then it is `Indeterminate`, until its agent's node is heard of.
pub const DOUBT_AFTER_MS: u64 = 30_000;
/// How long after its deadline a command may be under way, in milliseconds. Whatever its node says, it is in doubt
/// then.
pub const UNDER_WAY_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Callers that wait at one shard's leader for commands to end. One more is answered at once, as the command stands.
/// Far fewer than the calls that a peer may have under way, so that other questions find a place beside them.
pub const COMMAND_WAITS_MAX: usize = 128;
/// Routine commands of one agent that its node has and that have not ended. The shard keeps the others back.
pub const INBOX_MAX: usize = 64;
/// Urgent commands of one agent that its node has and that have not ended, beside the routine ones. The shard keeps the
/// others back.
pub const INBOX_URGENT_MAX: usize = 16;
/// Commands that an agent's software names as in its hands when it takes commands: as many as its node has. Refused as
/// invalid beyond; software that has so many takes up no more offers.
pub const COMMANDS_IN_HAND_MAX: usize = INBOX_MAX + INBOX_URGENT_MAX;
/// Bytes of commands in one answer to a pull, urgent ones first. More follow in the next.
pub const PULL_BYTES_SOFT_MAX: usize = 1024 * 1024;
/// How long a leader may keep a pull waiting, in milliseconds. So old the clock of a node gets that hears nothing.
pub const PULL_WAIT_MS_MAX: u32 = 1_000;
/// Agents in all pulls that wait at one shard's leader. A pull that brings more of them, or more than a node serves,
/// waits as long as it said and is answered then: nothing wakes it sooner.
pub const PULLED_AGENTS_MAX: usize = 4 * AGENTS_MAX;
/// Outcomes of one agent's commands that are on their way to the shard at a time. More follow.
pub const ENDS_IN_FLIGHT_MAX: usize = 32;
/// Reports of commands that go on, of all agents of a node, that are on their way to shards at a time. More follow.
/// Fewer than the calls that a peer may have under way, so that requests that cannot wait find a place beside them.
pub const REPORTS_IN_FLIGHT_MAX: usize = 128;
/// How long a node waits before it tells the shard how far a command has come, in milliseconds: what ends meanwhile is
/// told with its outcome.
pub const DELIVERY_REPORT_EVERY_MS: u64 = 1_000;
/// How often a node tells the shard that a command is still under way, in milliseconds: several times within the time
/// after which the shard would be in doubt.
pub const DELIVERY_ALIVE_EVERY_MS: u64 = DOUBT_AFTER_MS / 6;
/// How much further a command must have come for the history to keep it, in thousandths.
pub const PROGRESS_KEPT_PERMILLE: u16 = 50;
/// Writes that wait for the journals of a node: each of its inboxes has few under way for each of its commands. One
/// more ends the process, since a write that is left out would be one that was lost.
pub const JOURNAL_JOBS_QUEUED_MAX: usize = 4 * (INBOX_MAX + INBOX_URGENT_MAX) * AGENTS_PER_NODE_MAX;
/// Free space below which a node takes no more routine commands for its agents, in bytes: the shard keeps them. Below
/// half of it none is begun, and what has begun still ends, in room that is set aside for that. Urgent ones go on.
pub const JOURNAL_LOW_WATER_BYTES: u64 = 32 * 1024 * 1024;
/// Size of a segment of the journals' log, in bytes. They are small: few robots' commands fill one in a day.
pub const JOURNAL_SEGMENT_BYTES: u64 = 2 * 1024 * 1024;
/// Segments of the journals' log that are set aside beside the one that is written to: one for urgent commands, the
/// others for ends. While one is missing no routine command is begun.
pub const JOURNAL_SPARE_SEGMENTS: usize = 3;
/// Bytes of what is set aside that urgent commands take, beside their ends, until there is more room, or the node
/// starts again: as much as one of those segments. One more stays with the shard, which delivers it once there is room.
pub const JOURNAL_URGENT_BYTES_MAX: usize = JOURNAL_SEGMENT_BYTES as usize;
/// Routine commands of one agent that were begun and are let go of, whose names its node keeps until the shard's clock
/// has surely passed their deadlines, those under way included. One more is not begun before that: whoever would begin
/// it is told to ask again.
pub const BEGUN_KEPT_MAX: usize = 4_096;
/// Places for urgent commands beside these.
pub const BEGUN_URGENT_KEPT_MAX: usize = 256;
/// How long nobody may say less of a shard's clock until a node takes for sure what it cannot explain, such as how long
/// it was away, in milliseconds. Of eras it takes one at a time.
pub const FLOOR_SETTLES_MS: u64 = 60_000;
/// How far what a journal says of the clock may lag what is sure, in milliseconds: while it holds names of commands
/// that were begun, and while it holds none.
pub const FLOOR_LAGS_MS_MAX: u64 = 60_000;
/// See [`FLOOR_LAGS_MS_MAX`].
pub const FLOOR_LAGS_IDLE_MS_MAX: u64 = 5 * 60_000;
/// Journals to which that is written after one answer of a shard. More follow after the next.
pub const FLOORS_AT_ONCE_MAX: usize = 32;
/// Journals that a node keeps though they hold nothing and nobody takes commands by them. The one that was used longest
/// ago is forgotten.
pub const JOURNALS_KEPT_MAX: usize = AGENTS_PER_NODE_MAX;
/// Operators of a shard who may do something: those who are neither revoked nor granted what has ended. One more is
/// refused as `ShardFull`.
pub const OPERATORS_MAX: usize = 1_024;
/// Operators beside these who may do nothing any more. The number of the last statement about each is remembered, so
/// that none from before it is believed. Where there are so many and one more operator is new, one of them is forgotten
/// of whom everything that was ever granted has ended; if there is none, the new one is refused as `ShardFull`. A
/// revocation never is.
pub const REVOKED_OPERATORS_MAX: usize = 4_096;
/// Places among the operators who may do something, and as many among all that are remembered, which only those take
/// whom the first operator itself grants something: so that admins who use up all others cannot keep it from granting.
/// One more of another admin is refused as `ShardFull`.
pub const OPERATOR_PLACES_OF_FIRST: usize = 64;
/// Operators that are remembered of one branch: an admin whom the first operator granted something, and all below it.
/// One more is refused as `ShardFull`, unless one of them can be forgotten, or the first operator itself grants it
/// something.
pub const OPERATOR_BRANCH_MAX: usize = 512;
/// How far the number of an operator's grant may be above the last one, so that nobody uses the numbers up. Refused as
/// invalid.
pub const SERIAL_STEP_MAX: u64 = 1_000_000;
/// An operator may send one in so many of the commands of a minute at once. One more is refused as `TooManyCommands`.
pub const COMMAND_BURST_SHARE: u64 = 6;
/// Verbs or targets that one grant names. Refused as invalid.
pub const GRANT_NAMES_MAX: usize = 64;
/// Grants between an operator and the first one. A longer chain is refused.
pub const AUTHORITY_CHAIN_MAX: usize = 4;
/// Signatures of operators that a shard's replica knows to hold. One more, and the oldest is forgotten, and verified
/// again.
pub const VERDICTS_MAX: usize = 8_192;
/// How often a shard's first operator is replaced. One more is refused as `ShardFull`.
pub const FIRST_REPLACEMENTS_MAX: usize = 64;
/// Agents that a wave of a command is released to. Refused as invalid beyond.
pub const WAVE_AGENTS_MAX: u32 = 10_000;
/// Shortest and longest time between the waves of a command, in milliseconds. Refused as invalid.
pub const WAVE_EVERY_MS_MIN: u64 = 10;
/// See [`WAVE_EVERY_MS_MIN`].
pub const WAVE_EVERY_MS_MAX: u64 = 60 * 60 * 1_000;
