//! Bounds of commands, of their way to robots, of the journals there, and of operators.

use super::agent::{AGENTS_MAX, AGENTS_PER_NODE_MAX};

/// Largest arguments of a command, and largest result of one, in bytes. Refused as invalid.
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
/// Longest media type, in bytes. Refused as invalid.
pub const CONTENT_TYPE_BYTES_MAX: usize = 128;
/// Longest trace context, in bytes. Refused as invalid.
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
/// Ended commands that a shard keeps in memory once their deadline has passed, and dead letters of theirs, each of one
/// agent. Clients read older ones from the history.
pub const ENDED_COMMANDS_KEPT: usize = 10_000;
/// Routine commands to one agent that have not ended. One more to it is refused as `OutboxFull`; a command that has
/// other agents, too, goes to them, and ends at once at this one, as rejected.
pub const OUTBOX_MAX: usize = 1_024;
/// Urgent commands to one agent that have not ended. The same happens to one more, however many routine ones there are.
pub const OUTBOX_URGENT_MAX: usize = 256;
/// How long after its deadline, and after the last word that it is under way, a shard waits for a command that a node
/// may have, in milliseconds. Then it is `Indeterminate`, until the shard hears from its agent's node.
pub const DOUBT_AFTER_MS: u64 = 30_000;
/// How long after its deadline a command may be under way, in milliseconds. Then it is in doubt, whatever its node
/// says.
pub const UNDER_WAY_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Callers that wait at one shard's leader for commands to end. One more gets an answer at once, as the command stands.
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
/// How long a leader may keep a pull waiting, in milliseconds. That old gets the clock of a node that hears nothing
/// else.
pub const PULL_WAIT_MS_MAX: u32 = 1_000;
/// Agents in all pulls that wait at one shard's leader. A pull that brings more of them, or more than a node serves,
/// waits for its whole time and gets its answer then: nothing wakes it sooner.
pub const PULLED_AGENTS_MAX: usize = 4 * AGENTS_MAX;
/// Outcomes of one agent's commands that are on their way to the shard at a time. More follow.
pub const ENDS_IN_FLIGHT_MAX: usize = 32;
/// Reports of commands that go on, of all agents of a node, that are on their way to shards at a time. More follow.
/// Fewer than the calls that a peer may have under way, so that requests that cannot wait find a place beside them.
pub const REPORTS_IN_FLIGHT_MAX: usize = 128;
/// How long a node waits before it tells the shard how far a command has come, in milliseconds: if the command ends
/// meanwhile, its outcome tells that too.
pub const DELIVERY_REPORT_EVERY_MS: u64 = 1_000;
/// How often a node tells the shard that a command is still under way, in milliseconds: several times within the time
/// after which the shard would be in doubt.
pub const DELIVERY_ALIVE_EVERY_MS: u64 = DOUBT_AFTER_MS / 6;
/// How much further a command must have come for the history to keep it, in thousandths.
pub const PROGRESS_KEPT_PERMILLE: u16 = 50;
/// Writes that wait for the journals of a node: each of its inboxes has few under way for each of its commands. One
/// more ends the process, since a write that is left out would be lost.
pub const JOURNAL_JOBS_QUEUED_MAX: usize = 4 * (INBOX_MAX + INBOX_URGENT_MAX) * AGENTS_PER_NODE_MAX;
/// Free space below which a node takes no more routine commands for its agents, in bytes: the shard keeps them. Below
/// half of it the node begins none, and what has begun still ends, in room that is set aside for that. Urgent ones go
/// on.
pub const JOURNAL_LOW_WATER_BYTES: u64 = 32 * 1024 * 1024;
/// Size of a segment of the journals' log, in bytes. It is small: a few robots' commands fill one in a day.
pub const JOURNAL_SEGMENT_BYTES: u64 = 2 * 1024 * 1024;
/// Segments of the journals' log that are set aside beside the one that the node writes to: one for urgent commands,
/// the others for ends. While one is missing the node begins no routine command.
pub const JOURNAL_SPARE_SEGMENTS: usize = 3;
/// Bytes of what is set aside that urgent commands take, beside their ends, until there is more room, or the node
/// starts again: as much as one of those segments. One more stays with the shard, which delivers it once there is room.
pub const JOURNAL_URGENT_BYTES_MAX: usize = JOURNAL_SEGMENT_BYTES as usize;
/// Routine commands of one agent that were begun and that its node let go of, those under way included: the node keeps
/// their ids until the shard's clock has surely passed their deadlines. The node does not begin one more before that,
/// and tells the software to ask again.
pub const BEGUN_KEPT_MAX: usize = 4_096;
/// Places for ids of urgent commands beside these.
pub const BEGUN_URGENT_KEPT_MAX: usize = 256;
/// How long no node may say less of a shard's clock until a node takes for sure what it cannot explain, such as how
/// long it was away, in milliseconds. Of eras it takes one at a time.
pub const FLOOR_SETTLES_MS: u64 = 60_000;
/// How far the clock in a journal may lag the clock that is sure, in milliseconds: while the journal holds ids of
/// commands that were begun, and while it holds none.
pub const FLOOR_LAGS_MS_MAX: u64 = 60_000;
/// How far it may lag while the journal holds none. See [`FLOOR_LAGS_MS_MAX`].
pub const FLOOR_LAGS_IDLE_MS_MAX: u64 = 5 * 60_000;
/// Journals to which a node writes the clock after one answer of a shard. More follow after the next.
pub const FLOORS_AT_ONCE_MAX: usize = 32;
/// Journals that a node keeps though they hold nothing and no agent takes commands by them. One more makes it forget
/// the one that was used longest ago.
pub const JOURNALS_KEPT_MAX: usize = AGENTS_PER_NODE_MAX;
/// Operators of a shard who may do something: those who are not revoked and have a grant that has not ended. One more
/// is refused as `ShardFull`.
pub const OPERATORS_MAX: usize = 1_024;
/// Operators beside these who may do nothing any more. The shard remembers the serial of the last statement about each,
/// so that it believes none from before it. Where there are so many and one more operator is new, the shard forgets one
/// of whom everything that was ever granted has ended; if there is none, the new one is refused as `ShardFull`. A
/// revocation never is.
pub const REVOKED_OPERATORS_MAX: usize = 4_096;
/// Places among the operators who may do something, and as many among all that the shard remembers, which only those
/// get to whom the first operator itself grants something: so that admins who use up all others cannot keep it from
/// granting. One more of another admin is refused as `ShardFull`.
pub const OPERATOR_PLACES_OF_FIRST: usize = 64;
/// Operators that the shard remembers of one branch: an admin to whom the first operator granted something, and all
/// below it. One more is refused as `ShardFull`, unless the shard can forget one of them, or the first operator itself
/// grants it something.
pub const OPERATOR_BRANCH_MAX: usize = 512;
/// How far the serial of an operator's grant may be above the last one, so that no admin uses the serials up. Refused
/// as invalid.
pub const SERIAL_STEP_MAX: u64 = 1_000_000;
/// What part of its commands of a minute an operator may send at once: one in this many. One more is refused as
/// `TooManyCommands`.
pub const COMMAND_BURST_SHARE: u64 = 6;
/// Most verbs or targets that one grant names. Refused as invalid.
pub const GRANT_NAMES_MAX: usize = 64;
/// Grants between an operator and the first one. A longer chain is refused.
pub const AUTHORITY_CHAIN_MAX: usize = 4;
/// Signatures of operators that a shard's replica knows to hold. One more makes it forget the oldest, which it verifies
/// again when it meets it.
pub const VERDICTS_MAX: usize = 8_192;
/// How often a shard's first operator is replaced. One more is refused as `ShardFull`.
pub const FIRST_REPLACEMENTS_MAX: usize = 64;
/// Agents in one wave of a command. Refused as invalid beyond.
pub const WAVE_AGENTS_MAX: u32 = 10_000;
/// Shortest time between the waves of a command, in milliseconds. Refused as invalid below.
pub const WAVE_EVERY_MS_MIN: u64 = 10;
/// Longest time between the waves of a command, in milliseconds. Refused as invalid beyond.
pub const WAVE_EVERY_MS_MAX: u64 = 60 * 60 * 1_000;
