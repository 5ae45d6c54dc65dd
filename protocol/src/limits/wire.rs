//! Bounds of texts, and of frames, calls and connections between nodes.

/// Longest id or name (agent, capability, role, node name, task kind). Refused as invalid.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest reason or note given with a transition. Refused as invalid.
pub const REASON_BYTES_MAX: usize = 512;
/// Largest control-plane frame. A larger one closes the connection.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest chunk of a snapshot on the wire.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one snapshot that are under way to one node at a time. The rest waits at the sender.
pub const SNAPSHOT_BYTES_UNDER_WAY_MAX: usize = 2 * 1024 * 1024;
/// Chunks of one snapshot that are under way to one node at a time, and that a receiver keeps though a chunk before
/// them is not there yet, as far as they are [`SNAPSHOT_BYTES_UNDER_WAY_MAX`]. One more is dropped, and sent again.
pub const SNAPSHOT_CHUNKS_UNDER_WAY_MAX: usize = 64;
/// How long a receiver waits for the next chunk of a snapshot, in milliseconds: nearly twice as long as one takes on a
/// link of 64 kbit/s. Then it gives back the place of the snapshot; what came stays on its disk, unless that is low.
pub const SNAPSHOT_CHUNK_WAIT_MS: u64 = 60 * 1_000;
/// Frames waiting to be written to one stream of one peer. One more is refused as unreachable.
pub const FRAMES_QUEUED_MAX: usize = 1_024;
/// Requests of one peer on one stream that are being answered. The reader waits at it. What ends work has a stream of
/// its own, and does not wait behind what brings it.
pub const CALLS_IN_FLIGHT_MAX: usize = 256;
/// Streams that a peer may have open at a time: one for each class of calls, and one to say hello. It waits for one
/// more.
pub const STREAMS_PER_PEER_MAX: u32 = 8;
/// Bytes on one stream that its reader has not taken. The sender waits with more: what is larger passes while it is
/// read.
pub const STREAM_BYTES_UNREAD_MAX: usize = 2 * 1024 * 1024;
/// The same on all streams of a connection. There is room for what each of them may leave unread, so that no vote waits
/// behind a stream that nobody reads.
pub const CONNECTION_BYTES_UNREAD_MAX: usize = STREAMS_PER_PEER_MAX as usize * STREAM_BYTES_UNREAD_MAX;
/// Bytes of calls of one peer that are read, or being answered, at a time; as many again of those of groups between
/// voters. The rest waits at the peer.
pub const CALL_BYTES_PER_PEER_MAX: usize = 16 * 1024 * 1024;
/// The same of calls that end work, of those about agents, such as renewals, and of queries, each: they have this
/// beside the former. The largest frame has room in it.
pub const KEPT_CALL_BYTES_PER_PEER_MAX: usize = FRAME_BYTES_MAX;
/// Bytes of calls of one peer that wait for nothing, and are counted in nothing else: so many of those that bring work,
/// and as many of each of the others. Nor does one wait, or count, that has no more than [`WORD_BYTES_MAX`]: of those
/// there are no more than [`CALLS_IN_FLIGHT_MAX`] on a stream.
pub const FIRST_CALL_BYTES_PER_PEER_MAX: usize = 64 * 1024;
/// Bytes of calls of all peers that are read, or being answered, at a time, those of groups between voters, those that
/// end work, those about agents and queries not counted. The rest waits at the peers.
pub const CALL_BYTES_UNDER_WAY_MAX: usize = 256 * 1024 * 1024;
/// The same of calls of all peers that end work, of those about agents, and of queries, each.
pub const KEPT_CALL_BYTES_UNDER_WAY_MAX: usize = 16 * KEPT_CALL_BYTES_PER_PEER_MAX;
/// Bytes of large answers to one peer, pages above all, that are being made or wait to be read. As many again of
/// answers to pulls, counted once there is something to tell, and to those who wait until a command has ended, counted
/// from the beginning. Another call of that kind waits, and no other one behind it.
pub const LARGE_ANSWER_BYTES_PER_PEER_MAX: usize = 16 * 1024 * 1024;
/// The same of pages to all peers.
pub const LARGE_ANSWER_BYTES_UNDER_WAY_MAX: usize = 16 * LARGE_ANSWER_BYTES_PER_PEER_MAX;
/// The same of answers to pulls of all peers, and to all who wait until a command has ended, each.
pub const WAITING_ANSWER_BYTES_UNDER_WAY_MAX: usize = 8 * LARGE_ANSWER_BYTES_PER_PEER_MAX;
/// Bytes of how a command stands at its agents in the answer to whoever waits for its end. What is more is asked for
/// afterwards, by pages.
pub const COMMAND_END_BYTES_SOFT_MAX: usize = 32 * 1024;
/// The largest such answer, with the command. A peer may wait for as many commands as it may have calls under way on
/// one stream: so many bytes each are in [`LARGE_ANSWER_BYTES_PER_PEER_MAX`], beside its other answers.
pub const COMMAND_END_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Largest call of a node that does not vote. A larger one closes the connection.
pub const CALL_BYTES_MAX: usize = 1024 * 1024;
/// Largest query, and largest head of a snapshot. A larger one closes the connection.
pub const QUERY_BYTES_MAX: usize = 64 * 1024;
/// Largest call that only says something, such as a vote. A larger one closes the connection.
pub const WORD_BYTES_MAX: usize = 4 * 1024;
/// Largest word of who leads a shard. Refused by the decoder.
pub const LEADER_HINT_BYTES_MAX: usize = 1_024;
/// Largest proof of leadership: with a vote of each voter of two groups. Refused by the decoder.
pub const LEADER_PROOF_BYTES_MAX: usize = 2 * 1024;
/// Connections that may be shaking hands at a time, half of them from addresses at which no listed peer is known to be.
/// One more is refused.
pub const HANDSHAKES_MAX: usize = 64;
/// How many of the latter may come from one address. One more is refused.
pub const HANDSHAKES_PER_SOURCE_MAX: usize = 4;
/// The same of an address at which a listed peer is, or was, and of all addresses of one listed peer: there may be many
/// behind one. One more is refused.
pub const HANDSHAKES_PER_KNOWN_SOURCE_MAX: usize = HANDSHAKES_MAX / 2;
/// Connections of [`HANDSHAKES_MAX`] that only addresses may have which are configured. One more of others is refused.
pub const HANDSHAKES_KEPT_FOR_CONFIGURED: usize = HANDSHAKES_MAX / 4;
/// Connections beside [`HANDSHAKES_MAX`] that each configured address may have, whatever others do. Further ones count
/// among those.
pub const HANDSHAKES_KEPT_PER_CONFIGURED: usize = 1;
/// Addresses at which a listed peer is known to have been, beside the one that is configured. The one from which it was
/// let in longest ago goes for one more.
pub const SOURCES_PER_PEER_MAX: usize = 4;
/// Shards of which a node says to its peers what they are: the first of them, if it takes part in more. What it does
/// not name is not known.
pub const HELLO_SHARDS_MAX: usize = 32;
/// Peers that are marked as voters and not known to vote to which a node connects at a time while it finds no leader.
/// Others have their turn later.
pub const SOUGHT_PEERS_MAX: usize = 8;
/// Largest first word of a member: its chain of certificates, and how much it knows. A larger one closes the connection.
pub const TRUST_HELLO_BYTES_MAX: usize = super::CHAIN_BYTES_MAX + 1_024;
/// Largest page of root documents that a dialler tells before it is let in. A larger one closes the connection.
pub const FIRST_NEWS_BYTES_MAX: usize = 16 * 1024;
/// Largest first word of a machine that wants to join. A larger one closes the connection.
pub const KNOCK_BYTES_MAX: usize = 512;
/// Largest request to join. A larger one closes the connection.
pub const JOIN_REQUEST_BYTES_MAX: usize = 1_024;
/// Bytes that a node at a site takes on one connection, unread, before it has let the other side in. The other side waits
/// with more.
pub const FIRST_BYTES_UNREAD_MAX: u32 = 64 * 1024;
/// Pages of news that one side of a connection tells before it is let in. One more closes the connection.
pub const SITE_NEWS_PAGES_MAX: usize = 256;
/// Members of its site that a node knows where to find, or has met. One more takes the place of one that is not
/// connected: of one that was never met, or of the one that was met longest ago. If all are connected it is refused.
pub const MEMBERS_KNOWN_MAX: usize = 2_048;
/// Addresses of one member at which it was met, and as many at which others say that it is. The oldest of a kind goes
/// for one more.
pub const ADDRESSES_PER_MEMBER_MAX: usize = 2;
/// Members of which one node tells another one where they are. Nothing is said of more.
pub const MEMBER_ADDRESSES_TOLD_MAX: usize = 64;
/// Lines of the audit in one minute about peers that were not let in, one for each peer and kind. More are counted.
pub const REFUSALS_TOLD_PER_MINUTE_MAX: usize = 64;
