//! Bounds of the local API.

use super::agent::AGENTS_PER_NODE_MAX;

/// How long a call of the API waits for its answer, in milliseconds, however long its client would. Then the node
/// answers that the outcome is unknown, and the client may send the same request again. A call that waits has one of
/// [`ROUTED_REQUESTS_MAX`](super::ROUTED_REQUESTS_MAX) places.
pub const API_PATIENCE_MS_MAX: u64 = 120_000;
/// API calls that wait for the node's driver. One more is refused as `Overloaded`.
pub const API_CALLS_QUEUED_MAX: usize = 8_192;
/// Connections of the local API, at its socket and over TCP. The node tells one more so and closes it. Fewer where the
/// process may have fewer descriptors, but at least [`API_CONNECTIONS_MIN`].
pub const API_CONNECTIONS_MAX: usize = 4 * AGENTS_PER_NODE_MAX;
/// The fewest connections of the local API. See [`API_CONNECTIONS_MAX`].
pub const API_CONNECTIONS_MIN: usize = 8;
/// Connections of the local API that the node keeps for clients at its socket that soon go, once all others are taken:
/// an operator who looks after the node finds a place. One that stays is closed after [`API_RESERVED_MS`]; a stream on
/// one is refused, and so is one more stream than there are other places.
pub const API_CONNECTIONS_RESERVED: usize = 4;
/// How long a connection may have a place that is kept for clients that soon go, in milliseconds: as long as a client
/// with default settings sends a call again, and some more. A client sends again what was cut off then.
pub const API_RESERVED_MS: u64 = 20_000;
/// How long a connection of the local API may be open before the node let a call of it in, in milliseconds. Then the
/// node closes it: it has not got through its handshake, or says nothing.
pub const API_LET_IN_MS: u64 = 10_000;
/// Connections of the local API over TCP, where the node listens there: they take no places of those at its socket. A
/// quarter of all where that is less. The node tells one more so and closes it.
pub const API_TCP_CONNECTIONS_MAX: usize = 64;
/// Connections over TCP that have shown no token yet. The node tells one more so and closes it; a connection that has
/// shown the token loses nothing.
pub const API_TCP_STRANGERS_MAX: usize = 16;
/// How long a connection over TCP may be open before it has shown the token, in milliseconds. Then the node closes it.
pub const API_TCP_LET_IN_MS: u64 = 2_000;
/// Connections that the node tells at a time that there is no place for them, at the socket or over TCP. One more waits
/// to be accepted.
pub const API_REFUSALS_MAX: usize = 8;
/// Requests in flight on one API stream. The reader waits at it.
pub const STREAM_REQUESTS_MAX: usize = 1_024;
/// Largest message of the local API, both ways. Refused by the transport.
pub const API_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most items on a page of a list.
pub const PAGE_ITEMS_MAX: usize = 1_000;
/// Pages of one connection of the local API that the node makes or the client has not read. A query for one more waits
/// for a place, as long as its client does; then it is refused as `Overloaded`.
pub const API_PAGES_UNREAD_MAX: usize = 8;
/// How long a page may wait without progress, in milliseconds: its client takes no part of it. Then its connection is
/// closed.
pub const API_UNREAD_MS: u64 = 30_000;
