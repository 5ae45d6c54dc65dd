//! The vocabulary of Skep.
//!
//! Everything that two crates, two nodes or two versions must agree on is defined here: ids, tasks, log entries,
//! queries, control-plane frames, limits, and the protobuf messages of the local API.
//!
//! **Contract.** Types here are plain data. Decoding never panics and never allocates more than its input
//! warrants; every encoded form starts with a version, and golden bytes in the tests hold each version still.
//! [`convert`] is the only border between these types and the generated protobuf types in [`v1`].
//!
//! **Must not know** sockets, files, clocks, random numbers, libp2p, openraft or quinn.

pub mod agent;
pub mod authority;
pub mod change;
pub mod codec;
pub mod command;
pub mod convert;
pub mod entry;
pub mod fault;
pub mod fleet;
pub mod frame;
pub mod heartbeat;
pub mod ids;
pub mod journal;
pub mod leader;
pub mod limits;
pub mod mutant;
pub mod offer;
pub mod outcome;
pub mod places;
pub mod pressure;
pub mod proof;
pub mod pull;
pub mod query;
pub mod recovery;
pub mod seed;
pub mod statement;
pub mod task;
pub mod telemetry;
pub mod text;
pub mod time;

/// Protobuf messages and services of the local API, generated from `proto/skep/v1/*.proto`.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("skep.v1");

    /// The encoded file descriptors of `skep.v1`, served by gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/skep.v1.bin"));
}
