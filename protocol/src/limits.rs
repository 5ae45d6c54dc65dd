//! Every bound of the product, by name, with what happens at it.
//!
//! Units come last in the names. A bound on a queue is the length at which the queue refuses; a bound on a message
//! is the size at which the decoder refuses.
//!
//! Those that applying an entry reads are proposed to a shard, and are in its log: see [`crate::fleet`]. Where a client is
//! answered before anything is proposed, a node may go by its own, and refuse what the shard would have accepted; the shard has
//! the last word.

/// Longest id or name (agent, capability, role, node name, task kind). Refused as invalid.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest task title. Refused as invalid.
pub const TITLE_BYTES_MAX: usize = 256;
/// Longest reason or note given with a transition. Refused as invalid.
pub const REASON_BYTES_MAX: usize = 512;
/// Largest task payload or result. Refused as invalid.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Most capabilities that one role or one task may name. Refused as invalid.
pub const CAPABILITIES_MAX: usize = 16;
/// Most attempts a task may ask for. Refused as invalid.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// Failures kept with a live task; older ones are in its history only.
pub const FAILURES_KEPT: usize = 4;

/// Most tasks that are not terminal, per shard. Creating one more is refused as `ShardFull`.
pub const LIVE_TASKS_MAX: usize = 1_000_000;
/// Terminal tasks kept in memory, per shard, and as many dead letters beside them: what ends well pushes none of these out.
/// Older ones are read from the history.
pub const TERMINAL_TASKS_KEPT: usize = 10_000;
/// Bytes that all tasks of a shard may take, ended ones included. Creating one more is refused as `ShardFull`. A
/// snapshot of as much fits into [`SNAPSHOT_BYTES_MAX`].
pub const TASK_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes of ended tasks kept in memory, per shard, dead letters in up to half of it; older ones are read from the history.
pub const TERMINAL_TASK_BYTES_KEPT: usize = 64 * 1024 * 1024;
/// Most registered agents, per shard. Registering one more is refused as `ShardFull`.
pub const AGENTS_MAX: usize = 100_000;
/// How long an agent that nobody registered is known after its last attachment has ended, in milliseconds: seven days. Then it
/// is forgotten, with what is kept of it, unless it holds a task or a command to it has not ended: so long is counted anew then.
pub const AGENT_TTL_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Largest checkpoint that the holder of a task may leave for the next one. Refused as invalid.
pub const CHECKPOINT_BYTES_MAX: usize = 4 * 1024;
/// Shortest lease that an agent may ask for, in milliseconds. Refused as invalid.
pub const LEASE_TTL_MS_MIN: u64 = 500;
/// Longest lease that an agent may ask for, in milliseconds. Refused as invalid.
pub const LEASE_TTL_MS_MAX: u64 = 10 * 60 * 1_000;
/// Longest time that a task may be kept for a holder that went away, in milliseconds: 24 hours. Refused as invalid.
pub const LOST_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Most tasks that one agent may hold at a time, whatever its role says. Refused as invalid.
pub const CONCURRENT_CLAIMS_MAX: u32 = 1_024;
/// Sets of required capabilities among the pending tasks of a shard. Creating a task with one more is refused as
/// `ShardFull`.
pub const REQUIREMENTS_MAX: usize = 1_024;
/// Pending tasks looked at for one claim that names none, of those that somebody may have now; past it the answer is "nothing
/// suitable".
pub const CLAIM_SCAN_MAX: usize = 4_096;

/// Request ids remembered per shard. The same on every replica, so it is no setting. When full, the floor rises and requests
/// first sent below it are refused as `WindowPassed`.
pub const DEDUP_IDS_MAX: usize = 1_000_000;
/// So many times as many request ids are remembered as of those that were first sent ahead of the shard's clock. One more of
/// these is refused as `SentAhead` until the clock has come so far: were the table full of them, the floor would rise above
/// everybody else.
pub const DEDUP_AHEAD_PART: u64 = 4;
/// Deadline of a mutating request when its sender names none, in milliseconds.
pub const REQUEST_DEADLINE_MS_DEFAULT: u64 = 60_000;
/// Longest deadline of a mutating request, in milliseconds: 24 hours. Refused as invalid.
pub const REQUEST_DEADLINE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// How far a request's first-sending clock may lie ahead of the stamp of the entry that carries it, in
/// milliseconds: the estimate of one node may lead that of a new leader by a frame's delay and drift.
pub const CLOCK_LEAD_MS_MAX: u64 = 60_000;

/// How long other voters contradict a leader whose clock is ahead of what a voter can explain, in milliseconds, until the voter takes it
/// all the same: their machines may all have stood still together, and a shard in which nobody takes entries is no use.
pub const CLOCK_CONTRADICTED_MS_MAX: u64 = 60_000;
/// Eras that the clock may be ahead of what a node knew last. What is said of a later one is not believed, and an entry of one is
/// refused: a quorum that is booted every day comes so far in almost three years.
pub const ERAS_AHEAD_MAX: u64 = 1_024;
/// Terms that a vote may be ahead of the last one that a node has seen. One of a later term is refused: an election every four
/// seconds comes so far in seven weeks.
pub const TERMS_AHEAD_MAX: u64 = 1 << 20;
/// The last term that there can be. One after it is refused by everybody, also by a node that has seen none.
pub const TERM_MAX: u64 = 1 << 48;
/// Terms by which a shard that is recovered is ahead of all that the replica saw which it goes on from: others of the group before
/// may have seen later ones.
pub const RECOVERY_TERMS_AHEAD: u64 = 1 << 16;

/// Most requests in one log entry. More wait for the next entry.
pub const REQUESTS_PER_ENTRY_MAX: usize = 512;
/// Request bytes at which an entry is closed. A single request is always smaller.
pub const ENTRY_BYTES_SOFT_MAX: usize = 256 * 1024;
/// Largest encoded log entry. Refused by the decoder.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// Requests that may wait for a place in an entry, per shard. One more is refused as `Overloaded`.
pub const PROPOSALS_QUEUED_MAX: usize = 8_192;
/// Bytes of requests that may wait for a place in an entry, per shard. One more is refused as `Overloaded`.
pub const PROPOSAL_BYTES_QUEUED_MAX: usize = 16 * 1024 * 1024;
/// Hundredths of the proposal queue that are kept for what ends work: completions, failures, releases, cancels.
pub const PROPOSALS_RESERVED_SHARE: usize = 25;
/// Entries proposed and not yet applied, per shard. Requests wait in the queue meanwhile.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 4;

/// Largest control-plane frame. A larger one closes the connection.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Size of a state up to which a snapshot is made as often as the number of entries says, in bytes: it costs little.
pub const SNAPSHOT_BYTES_CHEAP: u64 = 4 * 1024 * 1024;
/// Bytes of entries behind the last snapshot beyond which one is made however large the state is. Before, one of a larger state
/// waits until as much was logged as it would write, so that snapshots write no more than the log does.
pub const SNAPSHOT_LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest chunk of a snapshot on the wire.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 256 * 1024;
/// Largest snapshot that a receiver accepts. Refused, and the sender retries later.
pub const SNAPSHOT_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Bytes of one snapshot that are under way to one node at a time. The rest waits at the sender.
pub const SNAPSHOT_BYTES_UNDER_WAY_MAX: usize = 2 * 1024 * 1024;
/// Chunks of one snapshot that are under way to one node at a time, and that a receiver keeps though a chunk before them is
/// not there yet, as far as they are [`SNAPSHOT_BYTES_UNDER_WAY_MAX`]. One more is dropped, and sent again.
pub const SNAPSHOT_CHUNKS_UNDER_WAY_MAX: usize = 64;
/// How long a receiver waits for the next chunk of a snapshot, in milliseconds: nearly twice as long as one takes on a link of
/// 64 kbit/s. Then it gives back the place of the snapshot; what came stays on its disk, unless that is low.
pub const SNAPSHOT_CHUNK_WAIT_MS: u64 = 60 * 1_000;
/// How long a part of a snapshot is kept on the disk of which nothing more comes, in milliseconds. Then it is let go of, and the
/// snapshot starts over.
pub const SNAPSHOT_PART_KEPT_MS: u64 = 10 * 60 * 1_000;
/// How long a leader makes no other snapshot after a chunk of the last one was taken, in milliseconds: another one could not
/// go on where that one ended. One is made all the same once the log takes [`LOG_BYTES_SOFT_MAX`].
pub const SNAPSHOT_HELD_MS: u64 = 60 * 1_000;
/// Frames waiting to be written to one stream of one peer. One more is refused as unreachable.
pub const FRAMES_QUEUED_MAX: usize = 1_024;
/// Requests of one peer on one stream that are being answered. The reader waits at it. What ends work has a stream of its
/// own, and does not wait behind what brings it.
pub const CALLS_IN_FLIGHT_MAX: usize = 256;
/// Streams that a peer may have open at a time: one for each class of calls, and one to say hello. It waits for one more.
pub const STREAMS_PER_PEER_MAX: u32 = 8;
/// Bytes on one stream that its reader has not taken. The sender waits with more: what is larger passes while it is read.
pub const STREAM_BYTES_UNREAD_MAX: usize = 2 * 1024 * 1024;
/// The same on all streams of a connection. There is room for what each of them may leave unread, so that no vote waits behind a stream
/// that nobody reads.
pub const CONNECTION_BYTES_UNREAD_MAX: usize = STREAMS_PER_PEER_MAX as usize * STREAM_BYTES_UNREAD_MAX;
/// Bytes of calls of one peer that are read, or being answered, at a time; as many again of those of groups between voters. The
/// rest waits at the peer.
pub const CALL_BYTES_PER_PEER_MAX: usize = 16 * 1024 * 1024;
/// The same of calls that end work, of those about agents, such as renewals, and of queries, each: they have this beside the former.
/// The largest frame has room in it.
pub const KEPT_CALL_BYTES_PER_PEER_MAX: usize = FRAME_BYTES_MAX;
/// Bytes of calls of one peer that wait for nothing, and are counted in nothing else: so many of those that bring work, and as many of
/// each of the others. Nor does one wait, or count, that has no more than [`WORD_BYTES_MAX`]: of those there are no more than
/// [`CALLS_IN_FLIGHT_MAX`] on a stream.
pub const FIRST_CALL_BYTES_PER_PEER_MAX: usize = 64 * 1024;
/// Bytes of calls of all peers that are read, or being answered, at a time, those of groups between voters, those that end work,
/// those about agents and queries not counted. The rest waits at the peers.
pub const CALL_BYTES_UNDER_WAY_MAX: usize = 256 * 1024 * 1024;
/// The same of calls of all peers that end work, of those about agents, and of queries, each.
pub const KEPT_CALL_BYTES_UNDER_WAY_MAX: usize = 16 * KEPT_CALL_BYTES_PER_PEER_MAX;
/// Bytes of large answers to one peer, pages above all, that are being made or wait to be read. As many again of answers to pulls,
/// counted once there is something to tell, and to those who wait until a command has ended, counted from the beginning. Another call
/// of that kind waits, and no other one behind it.
pub const LARGE_ANSWER_BYTES_PER_PEER_MAX: usize = 16 * 1024 * 1024;
/// The same of pages to all peers.
pub const LARGE_ANSWER_BYTES_UNDER_WAY_MAX: usize = 16 * LARGE_ANSWER_BYTES_PER_PEER_MAX;
/// The same of answers to pulls of all peers, and to all who wait until a command has ended, each.
pub const WAITING_ANSWER_BYTES_UNDER_WAY_MAX: usize = 8 * LARGE_ANSWER_BYTES_PER_PEER_MAX;
/// Bytes of how a command stands at its agents in the answer to whoever waits for its end. What is more is asked for afterwards, by
/// pages.
pub const COMMAND_END_BYTES_SOFT_MAX: usize = 32 * 1024;
/// The largest such answer, with the command. A peer may wait for as many commands as it may have calls under way on one stream:
/// so many bytes each are in [`LARGE_ANSWER_BYTES_PER_PEER_MAX`], beside its other answers.
pub const COMMAND_END_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Largest call of a node that does not vote. A larger one closes the connection.
pub const CALL_BYTES_MAX: usize = 1024 * 1024;
/// Largest query, and largest head of a snapshot. A larger one closes the connection.
pub const QUERY_BYTES_MAX: usize = 64 * 1024;
/// Largest call that only says something, such as a vote. A larger one closes the connection.
pub const WORD_BYTES_MAX: usize = 4 * 1024;
/// Connections that may be shaking hands at a time, half of them from addresses at which no listed peer is known to be. One more is
/// refused.
pub const HANDSHAKES_MAX: usize = 64;
/// How many of the latter may come from one address. One more is refused.
pub const HANDSHAKES_PER_SOURCE_MAX: usize = 4;
/// The same of an address at which a listed peer is, or was, and of all addresses of one listed peer: there may be many behind one.
/// One more is refused.
pub const HANDSHAKES_PER_KNOWN_SOURCE_MAX: usize = HANDSHAKES_MAX / 2;
/// Connections of [`HANDSHAKES_MAX`] that only addresses may have which are configured. One more of others is refused.
pub const HANDSHAKES_KEPT_FOR_CONFIGURED: usize = HANDSHAKES_MAX / 4;
/// Connections beside [`HANDSHAKES_MAX`] that each configured address may have, whatever others do. Further ones count
/// among those.
pub const HANDSHAKES_KEPT_PER_CONFIGURED: usize = 1;
/// Addresses at which a listed peer is known to have been, beside the one that is configured. The one from which it was let in longest
/// ago goes for one more.
pub const SOURCES_PER_PEER_MAX: usize = 4;
/// Shards that one node may take part in. Frames for one more are refused.
pub const SHARDS_PER_NODE_MAX: usize = 64;
/// Shards of which a node says to its peers what they are: the first of them, if it takes part in more. What it does not name is not
/// known.
pub const HELLO_SHARDS_MAX: usize = 32;
/// Peers in a configuration. Refused as invalid.
pub const PEERS_MAX: usize = 1_024;
/// Peers that are marked as voters and not known to vote to which a node connects at a time while it finds no leader. Others
/// have their turn later.
pub const SOUGHT_PEERS_MAX: usize = 8;
/// Voters of one shard. Refused as invalid: 3 or 5 are useful.
pub const VOTERS_MAX: usize = 7;

/// Largest arguments of a command, and largest result of one. Refused as invalid.
pub const ARGS_BYTES_MAX: usize = 16 * 1024;
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
/// Bytes of the arguments of all commands that a shard holds, and of what their agents said. Sending more is refused as `ShardFull`.
pub const COMMAND_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Ended commands kept in memory, per shard, once their deadline has passed, and dead letters of theirs, each of one agent; older
/// ones are read from the history.
pub const ENDED_COMMANDS_KEPT: usize = 10_000;
/// Routine commands to one agent that have not ended. Sending it one more is refused as `OutboxFull`; one that is for
/// others too goes to them, and ends at once at this one, as rejected.
pub const OUTBOX_MAX: usize = 1_024;
/// Urgent commands to one agent that have not ended. The same happens at it, whatever there is of routine ones.
pub const OUTBOX_URGENT_MAX: usize = 256;
/// How long after its deadline, and after the last word that it is under way, a command that may have been delivered is waited
/// for, in milliseconds. Then it is `Indeterminate`, until its agent's node is heard of.
pub const DOUBT_AFTER_MS: u64 = 30_000;
/// How long after its deadline a command may be under way, in milliseconds. Whatever its node says, it is in doubt then.
pub const UNDER_WAY_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Callers that wait at one shard's leader for commands to end. One more is answered at once, as the command stands. Far
/// fewer than the calls that a peer may have under way, so that other questions find a place beside them.
pub const COMMAND_WAITS_MAX: usize = 128;
/// Routine commands of one agent that its node has and that have not ended. The shard keeps the others back.
pub const INBOX_MAX: usize = 64;
/// Urgent commands of one agent that its node has and that have not ended, beside the routine ones. The shard keeps the
/// others back.
pub const INBOX_URGENT_MAX: usize = 16;
/// Commands that an agent's software names as in its hands when it takes commands: as many as its node has. Refused as invalid
/// beyond; software that has so many takes up no more offers.
pub const COMMANDS_IN_HAND_MAX: usize = INBOX_MAX + INBOX_URGENT_MAX;
/// Bytes of commands in one answer to a pull, urgent ones first. More follow in the next.
pub const PULL_BYTES_SOFT_MAX: usize = 1024 * 1024;
/// How long a leader may keep a pull waiting, in milliseconds. So old the clock of a node gets that hears nothing.
pub const PULL_WAIT_MS_MAX: u32 = 1_000;
/// Agents in all pulls that wait at one shard's leader. A pull that brings more of them, or more than a node serves, waits
/// as long as it said and is answered then: nothing wakes it sooner.
pub const PULLED_AGENTS_MAX: usize = 4 * AGENTS_MAX;
/// Outcomes of one agent's commands that are on their way to the shard at a time. More follow.
pub const ENDS_IN_FLIGHT_MAX: usize = 32;
/// Reports of commands that go on, of all agents of a node, that are on their way to shards at a time. More follow. Fewer
/// than the calls that a peer may have under way, so that requests that cannot wait find a place beside them.
pub const REPORTS_IN_FLIGHT_MAX: usize = 128;
/// How long a node waits before it tells the shard how far a command has come, in milliseconds: what ends meanwhile is told
/// with its outcome.
pub const DELIVERY_REPORT_EVERY_MS: u64 = 1_000;
/// How often a node tells the shard that a command is still under way, in milliseconds: several times within the time after
/// which the shard would be in doubt.
pub const DELIVERY_ALIVE_EVERY_MS: u64 = DOUBT_AFTER_MS / 6;
/// How much further a command must have come for the history to keep it, in thousandths.
pub const PROGRESS_KEPT_PERMILLE: u16 = 50;
/// Writes that wait for the journals of a node: each of its inboxes has few under way for each of its commands. One more
/// ends the process, since a write that is left out would be one that was lost.
pub const JOURNAL_JOBS_QUEUED_MAX: usize = 4 * (INBOX_MAX + INBOX_URGENT_MAX) * AGENTS_PER_NODE_MAX;
/// Free space below which a node takes no more routine commands for its agents, in bytes: the shard keeps them. Below half of
/// it none is begun, and what has begun still ends, in room that is set aside for that. Urgent ones go on.
pub const JOURNAL_LOW_WATER_BYTES: u64 = 32 * 1024 * 1024;
/// Size of a segment of the journals' log, in bytes. They are small: few robots' commands fill one in a day.
pub const JOURNAL_SEGMENT_BYTES: u64 = 2 * 1024 * 1024;
/// Segments of the journals' log that are set aside beside the one that is written to: one for urgent commands, the others for
/// ends. While one is missing no routine command is begun.
pub const JOURNAL_SPARE_SEGMENTS: usize = 3;
/// Bytes of what is set aside that urgent commands take, beside their ends, until there is more room, or the node starts
/// again: as much as one of those segments. One more stays with the shard, which delivers it once there is room.
pub const JOURNAL_URGENT_BYTES_MAX: usize = JOURNAL_SEGMENT_BYTES as usize;
/// Routine commands of one agent that were begun and are let go of, whose names its node keeps until the shard's clock has surely
/// passed their deadlines, those under way included. One more is not begun before that: whoever would begin it is told to ask again.
pub const BEGUN_KEPT_MAX: usize = 4_096;
/// Places for urgent commands beside these.
pub const BEGUN_URGENT_KEPT_MAX: usize = 256;
/// How long nobody may say less of a shard's clock until a node takes for sure what it cannot explain, such as how long it was
/// away, in milliseconds. Of eras it takes one at a time.
pub const FLOOR_SETTLES_MS: u64 = 60_000;
/// How far what a journal says of the clock may lag what is sure, in milliseconds: while it holds names of commands that were
/// begun, and while it holds none.
pub const FLOOR_LAGS_MS_MAX: u64 = 60_000;
/// See [`FLOOR_LAGS_MS_MAX`].
pub const FLOOR_LAGS_IDLE_MS_MAX: u64 = 5 * 60_000;
/// Journals to which that is written after one answer of a shard. More follow after the next.
pub const FLOORS_AT_ONCE_MAX: usize = 32;
/// Journals that a node keeps though they hold nothing and nobody takes commands by them. The one that was used longest ago
/// is forgotten.
pub const JOURNALS_KEPT_MAX: usize = AGENTS_PER_NODE_MAX;
/// Groups that one agent belongs to. Refused as invalid.
pub const GROUPS_MAX: usize = 16;
/// Operators of a shard who may do something: those who are neither revoked nor granted what has ended. One more is refused as
/// `ShardFull`.
pub const OPERATORS_MAX: usize = 1_024;
/// Operators beside these who may do nothing any more. The number of the last statement about each is remembered, so that none from before
/// it is believed. Where there are so many and one more operator is new, one of them is forgotten of whom everything that was ever
/// granted has ended; if there is none, the new one is refused as `ShardFull`. A revocation never is.
pub const REVOKED_OPERATORS_MAX: usize = 4_096;
/// Places among the operators who may do something, and as many among all that are remembered, which only those take whom the first
/// operator itself grants something: so that admins who use up all others cannot keep it from granting. One more of another admin
/// is refused as `ShardFull`.
pub const OPERATOR_PLACES_OF_FIRST: usize = 64;
/// Operators that are remembered of one branch: an admin whom the first operator granted something, and all below it. One more is
/// refused as `ShardFull`, unless one of them can be forgotten, or the first operator itself grants it something.
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
/// Signatures of operators that a shard's replica knows to hold. One more, and the oldest is forgotten, and verified again.
pub const VERDICTS_MAX: usize = 8_192;
/// How often a shard's first operator is replaced. One more is refused as `ShardFull`.
pub const FIRST_REPLACEMENTS_MAX: usize = 64;
/// Agents that a wave of a command is released to. Refused as invalid beyond.
pub const WAVE_AGENTS_MAX: u32 = 10_000;
/// Shortest and longest time between the waves of a command, in milliseconds. Refused as invalid.
pub const WAVE_EVERY_MS_MIN: u64 = 10;
/// See [`WAVE_EVERY_MS_MIN`].
pub const WAVE_EVERY_MS_MAX: u64 = 60 * 60 * 1_000;

/// Agents that one node serves. One more is refused as `Overloaded`.
pub const AGENTS_PER_NODE_MAX: usize = 1_024;
/// Tasks that an agent may have asked for and not been given yet. More count as so many.
pub const CREDITS_MAX: u64 = 1_024;
/// Messages waiting to be read by one attached agent. One more ends its stream; it attaches again and catches up.
pub const AGENT_MESSAGES_QUEUED_MAX: usize = 2 * CONCURRENT_CLAIMS_MAX as usize + 512;
/// Heartbeats waiting for the orchestrator. One more is refused, and sent again later.
pub const HEARTBEATS_QUEUED_MAX: usize = 4_096;
/// Bytes of tasks in one update of what agents hold. More follow in the next.
pub const CLAIMS_UPDATE_BYTES_SOFT_MAX: u64 = 1024 * 1024;
/// Updates of what agents hold that wait for the node's driver. One more is refused, and sent again.
pub const CLAIMS_UPDATES_QUEUED_MAX: usize = 1_024;
/// Largest payload of a publication on the data plane. Refused as invalid.
pub const PUBLICATION_BYTES_MAX: usize = 4 * 1024;
/// Bytes that a peer may have sent on one stream of the mesh, over QUIC, and nobody has read yet. It waits then. Publications
/// are a few KiB.
pub const MESH_STREAM_BYTES_MAX: u32 = 256 * 1024;
/// The same for all streams of one connection.
pub const MESH_CONNECTION_BYTES_MAX: u32 = 1024 * 1024;
/// Longest name of a topic: a site, a group, a kind, and what is between them.
pub const TOPIC_BYTES_MAX: usize = 3 * NAME_BYTES_MAX + 2;
/// Topics that one node subscribes to. Subscribing to one more is refused.
pub const TOPICS_PER_NODE_MAX: usize = 64;
/// Latest values that a node keeps, over all topics. The one heard longest ago goes first.
pub const LATEST_VALUES_MAX: usize = 8_192;
/// Of these, what one sender may have while there is no room for all. Of the one that has most of those that have more, the one
/// heard longest ago goes first.
pub const LATEST_VALUES_PER_SENDER_MAX: usize = 1_024;
/// Values waiting to be read by one subscriber. More are dropped: newer ones follow.
pub const VALUES_QUEUED_MAX: usize = 256;
/// Subscribers of one node. One more is refused.
pub const SUBSCRIBERS_MAX: usize = 256;
/// Received envelopes waiting to be verified, and publications of this node's own waiting to be signed, each. More are dropped,
/// and counted.
pub const ENVELOPES_QUEUED_MAX: usize = 1_024;
/// Of the received envelopes, those that came from one neighbour. More are dropped, and counted: there is room for others.
pub const ENVELOPES_PER_NEIGHBOUR_QUEUED_MAX: usize = 256;
/// What one neighbour may send in a second, its own and what it passes on for others, and all of it at once: as much as a site of
/// a thousand robots says. More is dropped before it is looked at, and counted.
pub const MESH_NEIGHBOUR_MESSAGES_PER_S: u64 = 4_096;
/// The same in bytes.
pub const MESH_NEIGHBOUR_BYTES_PER_S: u64 = 8 * 1024 * 1024;
/// What one node may say in a second, whoever passes it on, and all of it at once. More is dropped once its signature was
/// verified, passed on to nobody, and counted.
pub const MESH_ORIGIN_MESSAGES_PER_S: u64 = 1_024;
/// The same in bytes.
pub const MESH_ORIGIN_BYTES_PER_S: u64 = 2 * 1024 * 1024;
/// Signed publications, and verdicts on envelopes, waiting for the swarm, each. More are dropped, and counted.
pub const MESH_COMMANDS_QUEUED_MAX: usize = 1_024;
/// Verified envelopes waiting for the node's driver. More are dropped, and counted.
pub const MESH_RECEIVED_QUEUED_MAX: usize = 1_024;
/// How long a call of the API waits for its answer, in milliseconds, however long its client would. Then it is told that nobody knows,
/// and may send the same request again. A call that waits has one of [`ROUTED_REQUESTS_MAX`] places.
pub const API_PATIENCE_MS_MAX: u64 = 120_000;
/// API calls waiting for the node's driver. One more is refused as `Overloaded`.
pub const API_CALLS_QUEUED_MAX: usize = 8_192;
/// Requests that the router holds. One more is refused as `Overloaded`.
pub const ROUTED_REQUESTS_MAX: usize = 16_384;
/// Queries that a replica answers at a time as it is. One more is refused as `Overloaded`.
pub const STALE_QUERIES_MAX: usize = 64;
/// Pages, and reads of the history, that a node answers at a time, those that wait for a thread included. One more is refused
/// as `Overloaded`.
pub const PAGES_QUEUED_MAX: usize = 256;
/// Threads beside the control thread, for agents, proposals, pulls, queries and handshakes. What is more waits for them.
pub const WORK_THREADS: usize = 1;
/// Threads that verify signatures, and do nothing else. More wait for them, counted among the requests that may wait for a
/// place in an entry.
pub const SIGNATURE_THREADS: usize = 2;
/// Threads that answer pages and read the history. More wait for them.
pub const PAGE_THREADS: usize = 2;
/// Threads that make, check, keep and load snapshots: so many shards at a time do, and others wait.
pub const SNAPSHOT_THREADS: usize = 2;
/// Threads that read entries which are in memory no more. Each shard has one read for each follower that lags, and one of its
/// own, and they wait for each other.
pub const ENTRY_THREADS: usize = 2;
/// Threads that write what is kept beside the log. Each shard has few writes at a time, and they wait for each other.
pub const FILE_THREADS: usize = 2;
/// Connections of the local API, at its socket and over TCP. One more is told so and closed. Fewer where the process may have fewer
/// descriptors, but at least [`API_CONNECTIONS_MIN`].
pub const API_CONNECTIONS_MAX: usize = 4 * AGENTS_PER_NODE_MAX;
/// See [`API_CONNECTIONS_MAX`].
pub const API_CONNECTIONS_MIN: usize = 8;
/// Connections of the local API that are kept for those at the node's socket who soon go, once all others are taken: whoever
/// looks after the node finds a place. One that stays is closed after [`API_RESERVED_MS`]; a stream on one is refused, and so is
/// one more stream than there are other places.
pub const API_CONNECTIONS_RESERVED: usize = 4;
/// How long a connection may have a place that is kept for those who soon go, in milliseconds: for as long as a call is sent again
/// by a client with the settings that it has if nobody says otherwise, and some more. What is cut off then is sent again.
pub const API_RESERVED_MS: u64 = 20_000;
/// How long a connection of the local API may be open before a call of it was let in, in milliseconds. Then it is closed: it has
/// not got through its handshake, or says nothing.
pub const API_LET_IN_MS: u64 = 10_000;
/// Connections of the local API over TCP, where it listens there: they take no places of those at its socket. A quarter of all
/// where that is less. One more is told so and closed.
pub const API_TCP_CONNECTIONS_MAX: usize = 64;
/// Those of them that have shown no token yet. One more is told so and closed, and nobody who has shown it loses anything.
pub const API_TCP_STRANGERS_MAX: usize = 16;
/// How long a connection over TCP may be open before it has shown the token, in milliseconds. Then it is closed.
pub const API_TCP_LET_IN_MS: u64 = 2_000;
/// Connections that are being told that there is no place for them, at a time and at the socket or over TCP. One more waits to be
/// accepted.
pub const API_REFUSALS_MAX: usize = 8;
/// Descriptors that connections of the local API leave to logs, peers and whatever else a node opens; a quarter of all where
/// that is less.
pub const DESCRIPTORS_KEPT: u64 = 256;
/// Requests in flight on one API stream. The reader waits at it.
pub const STREAM_REQUESTS_MAX: usize = 1_024;
/// Largest message of the local API, both ways. Refused by the transport.
pub const API_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Items on a page of a list.
pub const PAGE_ITEMS_MAX: usize = 1_000;
/// How long the disk of a leader is nearly full before the lead is handed on to a voter that has room, in milliseconds. Longer
/// where links are so slow that it takes longer to know which voters are behind.
pub const LEAD_KEPT_ON_FULL_DISK_MS: u64 = 3_000;
/// How long a leader that handed the lead on for want of room waits before it does so again, in milliseconds, whatever came of
/// it: two voters whose disks are full in turns do not pass the lead to and fro.
pub const LEAD_HANDED_ON_EVERY_MS: u64 = 60_000;
/// Writes waiting for the store's writer thread. Senders wait at it. Each place takes memory, whether anything is in it or not;
/// all shards of a node together have fewer under way, and the writer takes all that waits at a time.
pub const STORE_WRITES_QUEUED_MAX: usize = 1_024;
/// Bytes that the store's writer puts into one durable batch before it syncs.
pub const STORE_BATCH_BYTES_SOFT_MAX: usize = 4 * 1024 * 1024;
/// Bytes of the log on disk beyond which a snapshot is made and what it covers is dropped.
pub const LOG_BYTES_SOFT_MAX: u64 = 256 * 1024 * 1024;
/// Bytes of recent log entries kept in memory, per shard; older ones are read from the store.
pub const LOG_CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes of what entries did that are in memory and in no table of the history. With more, all of it is written: about so much
/// a crash takes, and a start applies again.
pub const HISTORY_PENDING_BYTES_SOFT_MAX: usize = 8 * 1024 * 1024;
/// Entries whose changes are in memory and in no table of the history. With more, all of it is written.
pub const HISTORY_PENDING_ENTRIES_SOFT_MAX: usize = 65_536;
/// How long what an entry did is in no table of the history, if neither a snapshot waits for it nor there is much, in
/// milliseconds. It can be read meanwhile; each table costs a card some pages, and is merged with others later.
pub const HISTORY_FLUSH_AFTER_MS: u64 = 15 * 60 * 1_000;
/// Bytes of what entries did that wait for the tables of the history before that is pressure: what brings work is refused as
/// `Overloaded`, and applying waits for up to [`HISTORY_APPLY_WAIT_MS_MAX`].
pub const HISTORY_QUEUED_BYTES_SOFT_MAX: usize = 16 * 1024 * 1024;
/// Bytes of what entries did that wait for the tables of the history. More is left out of memory and is a gap: it is worked out
/// again from the log, which is kept until then, or fetched from another voter.
pub const HISTORY_QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long applying waits, each time that it is told to go on, for a history that is written more slowly than entries
/// come, in milliseconds. Then it goes on all the same.
pub const HISTORY_APPLY_WAIT_MS_MAX: u64 = 1_000;
/// Bytes of what entries did that the history takes from its queue at a time. More follow.
pub const HISTORY_BATCH_BYTES_SOFT_MAX: usize = 4 * 1024 * 1024;
/// Bytes of changes in one row of the history. What one entry did and is more is kept in several.
pub const HISTORY_PIECE_BYTES_SOFT_MAX: usize = 128 * 1024;
/// Segments into which the history of a shard is cut over the time and the bytes that it is kept for: so much of it goes at
/// a time.
pub const HISTORY_SEGMENTS: u64 = 16;
/// Segments of the history of one shard, however slowly they fill. The oldest one goes for one more.
pub const HISTORY_SEGMENTS_MAX: usize = 64;
/// Gaps in the history of one shard. With one more the two lowest become one, and what is between them is fetched again.
pub const HISTORY_GAPS_MAX: usize = 1_024;
/// How long the history is kept, by the shard's clock, unless the configuration says otherwise, in milliseconds: 90 days.
pub const HISTORY_RETENTION_MS_DEFAULT: u64 = 90 * 24 * 60 * 60 * 1_000;
/// Bytes of history on one node, of all shards, unless the configuration says otherwise. The oldest segment goes beyond it.
pub const HISTORY_BYTES_DEFAULT: u64 = 4 * 1024 * 1024 * 1024;
/// Fewest bytes of history that can be configured. Refused as invalid below.
pub const HISTORY_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Bytes of history that stay on a node however full its disk is. While it is nearly full, the oldest segment goes as long as
/// as much is left, one a second: the log, and what ends work, have the room first.
pub const HISTORY_BYTES_LEAST: u64 = 16 * 1024 * 1024;
/// Longest time that the history can be configured to be kept, in days. Refused as invalid beyond.
pub const HISTORY_DAYS_MAX: u64 = 3_650;
/// Bytes of history a second that a node fetches from others, on however quick a link, and it rests for as long as each
/// answer took. One answer is under way at a time, of as many bytes as the link carries at once.
pub const HISTORY_FILL_BYTES_PER_S: u64 = 4 * 1024 * 1024;
/// Entries of a gap that are fetched in their order before those below them. The latest are fetched first.
pub const HISTORY_FILL_ENTRIES_MAX: u64 = 4_096;
/// Damaged histories that are kept for people to look at. With so many there, one more is not set aside: the history is out
/// of service until one of them is removed.
pub const HISTORIES_SET_ASIDE_MAX: u32 = 8;
/// Bytes of entries behind the last snapshot beyond which another one is made, or as many as that one has: so much a start
/// reads and applies again.
pub const REPLAY_BYTES_SOFT_MAX: u64 = 16 * 1024 * 1024;
