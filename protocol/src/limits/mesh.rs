//! Bounds of the data plane.

use super::wire::NAME_BYTES_MAX;

/// Largest payload of a publication on the data plane. Refused as invalid.
pub const PUBLICATION_BYTES_MAX: usize = 4 * 1024;
/// Largest encoded envelope: a publication with who sent it. Refused by the decoder.
pub const ENVELOPE_BYTES_MAX: usize = 8 * 1024;
/// The same with its signature.
pub const SIGNED_ENVELOPE_BYTES_MAX: usize = 9 * 1024;
/// Bytes that a peer may have sent on one stream of the mesh, over QUIC, and nobody has read yet. It waits then.
/// Publications are a few KiB.
pub const MESH_STREAM_BYTES_MAX: u32 = 256 * 1024;
/// The same for all streams of one connection.
pub const MESH_CONNECTION_BYTES_MAX: u32 = 1024 * 1024;
/// Longest name of a topic: a site, a group, a kind, and what is between them.
pub const TOPIC_BYTES_MAX: usize = 3 * NAME_BYTES_MAX + 2;
/// Topics that one node subscribes to. Subscribing to one more is refused.
pub const TOPICS_PER_NODE_MAX: usize = 64;
/// Latest values that a node keeps, over all topics. The one heard longest ago goes first.
pub const LATEST_VALUES_MAX: usize = 8_192;
/// Of these, what one sender may have while there is no room for all. Of the one that has most of those that have more,
/// the one heard longest ago goes first.
pub const LATEST_VALUES_PER_SENDER_MAX: usize = 1_024;
/// Values waiting to be read by one subscriber. More are dropped: newer ones follow.
pub const VALUES_QUEUED_MAX: usize = 256;
/// Subscribers of one node. One more is refused.
pub const SUBSCRIBERS_MAX: usize = 256;
/// Received envelopes waiting to be verified, and publications of this node's own waiting to be signed, each. More are
/// dropped, and counted.
pub const ENVELOPES_QUEUED_MAX: usize = 1_024;
/// Of the received envelopes, those that came from one neighbour. More are dropped, and counted: there is room for
/// others.
pub const ENVELOPES_PER_NEIGHBOUR_QUEUED_MAX: usize = 256;
/// What one neighbour may send in a second, its own and what it passes on for others, and all of it at once: as much as
/// a site of a thousand robots says. More is dropped before it is looked at, and counted.
pub const MESH_NEIGHBOUR_MESSAGES_PER_S: u64 = 4_096;
/// The same in bytes.
pub const MESH_NEIGHBOUR_BYTES_PER_S: u64 = 8 * 1024 * 1024;
/// What one node may say in a second, whoever passes it on, and all of it at once. More is dropped once its signature
/// was verified, passed on to nobody, and counted.
pub const MESH_ORIGIN_MESSAGES_PER_S: u64 = 1_024;
/// The same in bytes.
pub const MESH_ORIGIN_BYTES_PER_S: u64 = 2 * 1024 * 1024;
/// Signed publications, and verdicts on envelopes, waiting for the swarm, each. More are dropped, and counted.
pub const MESH_COMMANDS_QUEUED_MAX: usize = 1_024;
/// Verified envelopes waiting for the node's driver. More are dropped, and counted.
pub const MESH_RECEIVED_QUEUED_MAX: usize = 1_024;
/// Members of a site that a node's mesh remembers as met, and as many that it dials. Of one more that it meets, the one
/// that it met longest ago is forgotten until the two meet again; one more is not dialled, and dials.
pub const MESH_MEMBERS_MAX: usize = 2_048;
/// Senders of which a node remembers how far they have come. What one more says is dropped, until one of those is
/// revoked.
pub const MESH_SENDERS_MAX: usize = 16_384;
/// Connections of the mesh from addresses at which no member is known to be, that shake hands or are not admitted yet.
/// One more is refused. As many may come from addresses at which members are.
pub const MESH_STRANGERS_MAX: usize = 32;
/// How many of the former may come from one address. One more is refused.
pub const MESH_STRANGERS_PER_SOURCE_MAX: usize = 8;
/// Root documents that a dialler shows before it is admitted, in bytes. The acceptor refuses more; the dialler shows
/// the latest.
pub const MESH_ROOTS_SHOWN_BYTES_MAX: usize = 64 * 1024;
