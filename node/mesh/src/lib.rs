//! The data plane of a node: libp2p ends here.
//!
//! **Contract.** One task owns the swarm. Only peers of the configured list are connected, and every peer with an
//! address is dialled until it is up. What others see is [`MeshHandle`]: which peers are up, and where this node
//! listens.
//!
//! **Must not know** Raft, shards, tasks, or the local API. Nothing that must not be lost travels here.

mod behaviour;
mod service;

pub use service::{Mesh, MeshError, MeshHandle, MeshView};
