//! Bounds of the data plane.

use super::wire::NAME_BYTES_MAX;

/// Largest payload of a publication on the data plane, in bytes. Refused as invalid.
pub const PUBLICATION_BYTES_MAX: usize = 4 * 1024;
/// Largest encoded envelope, in bytes: a publication with its sender. Refused by the decoder.
pub const ENVELOPE_BYTES_MAX: usize = 8 * 1024;
/// Largest envelope with its signature, in bytes. Refused by the decoder.
pub const SIGNED_ENVELOPE_BYTES_MAX: usize = 9 * 1024;
/// Bytes on one stream of the mesh, over QUIC, that the receiver has not read. The sender waits with more. Publications
/// are a few KiB.
pub const MESH_STREAM_BYTES_MAX: u32 = 256 * 1024;
/// Bytes on all streams of one connection that the receiver has not read. The sender waits with more.
pub const MESH_CONNECTION_BYTES_MAX: u32 = 1024 * 1024;
/// Longest name of a topic, in bytes: a site, a group, a kind, and what is between them.
pub const TOPIC_BYTES_MAX: usize = 3 * NAME_BYTES_MAX + 2;
/// Topics that one node subscribes to. Subscribing to one more is refused.
pub const TOPICS_PER_NODE_MAX: usize = 64;
/// Latest values that a node keeps, over all topics. One more takes the place of the one heard longest ago.
pub const LATEST_VALUES_MAX: usize = 8_192;
/// Of these, how many one sender may have while there is no room for all. Of the sender with most of those that have
/// more, the value heard longest ago goes first.
pub const LATEST_VALUES_PER_SENDER_MAX: usize = 1_024;
/// Values that one subscriber has not read. The node drops more: newer ones follow.
pub const VALUES_QUEUED_MAX: usize = 256;
/// Subscribers of one node. One more is refused.
pub const SUBSCRIBERS_MAX: usize = 256;
/// Received envelopes that wait to be verified, and publications of this node's own that wait to be signed, each. The
/// node drops more, and counts them.
pub const ENVELOPES_QUEUED_MAX: usize = 1_024;
/// Of the received envelopes, those that came from one neighbour. The node drops more, and counts them: there is room
/// for others.
pub const ENVELOPES_PER_NEIGHBOUR_QUEUED_MAX: usize = 256;
/// Messages that one neighbour may send in a second, its own and what it passes on for others, and all of them at once:
/// as many as a site of a thousand robots sends. The node drops more before it looks at them, and counts them.
pub const MESH_NEIGHBOUR_MESSAGES_PER_S: u64 = 4_096;
/// The same limit in bytes.
pub const MESH_NEIGHBOUR_BYTES_PER_S: u64 = 8 * 1024 * 1024;
/// Messages of one node in a second, whichever neighbours pass them on, and all of them at once. The receiver drops
/// more once it has verified the signatures, passes them on to no node, and counts them.
pub const MESH_ORIGIN_MESSAGES_PER_S: u64 = 1_024;
/// The same limit in bytes.
pub const MESH_ORIGIN_BYTES_PER_S: u64 = 2 * 1024 * 1024;
/// Signed publications, and verdicts on envelopes, that wait for the swarm, each. The node drops more, and counts them.
pub const MESH_COMMANDS_QUEUED_MAX: usize = 1_024;
/// Verified envelopes that wait for the node's driver. The node drops more, and counts them.
pub const MESH_RECEIVED_QUEUED_MAX: usize = 1_024;
/// Members of a site that a node's mesh remembers as met, and as many that it dials. If it meets one more, it forgets
/// the one that it met longest ago until the two meet again; it does not dial one more, which dials instead.
pub const MESH_MEMBERS_MAX: usize = 2_048;
/// Senders of which a node remembers the last envelope. It drops what one more says, until one of those is revoked.
pub const MESH_SENDERS_MAX: usize = 16_384;
/// Connections of the mesh from addresses at which no member is known to be, that shake hands or are not admitted yet.
/// One more is refused. As many may come from addresses at which members are.
pub const MESH_STRANGERS_MAX: usize = 32;
/// How many of the former may come from one address. One more is refused.
pub const MESH_STRANGERS_PER_SOURCE_MAX: usize = 8;
/// Root documents that a dialler shows before it is admitted, in bytes. The acceptor refuses more; the dialler shows
/// the latest.
pub const MESH_ROOTS_SHOWN_BYTES_MAX: usize = 64 * 1024;
