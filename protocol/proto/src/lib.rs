//! The protobuf messages and gRPC services of a node's local API, and the border to the vocabulary.
//!
//! **Contract.** [`convert`] is the only border between the types of `skep_protocol` and the generated types in [`v1`]: it
//! checks everything that a client sends, and a refusal names the field. What operators sign is a part of the vocabulary, and
//! is only named here.
//!
//! **Must not know** which programs serve or call these services.

pub mod convert;

/// Protobuf messages and services of the local API, generated from `skep/v1/*.proto`.
#[allow(missing_docs, rustdoc::all, clippy::all, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("skep.v1");

    pub use skep_protocol::stated::v1::*;

    /// The encoded file descriptors of `skep.v1`, served by gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/skep.v1.bin"));
}
