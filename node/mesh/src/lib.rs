//! The data plane of a node: libp2p ends here.
//!
//! **Contract.** One task owns the swarm. Only peers of the configured list are connected, and each is dialled until it
//! is up: at its configured address, at one that another peer knows (Kademlia of the site), or at one found by multicast
//! on the same network. What others tell of a peer's address is a hint: few are kept, none displaces what is better known, and
//! they are tried at a pace. Publications are signed once by their sender and verified once by each receiver, on threads of their
//! own. Each neighbour has a share of what comes in, counted before anybody looks at it, and each sender has one of what is passed
//! on; what is over it, or does not fit into a bounded queue, is dropped and counted. An envelope counts once, also after a restart of
//! whoever hears it.
//!
//! **Must not know** Raft, shards, tasks, or the local API. Nothing that must not be lost travels here.

mod behaviour;
mod bucket;
mod dials;
mod discovery;
mod envelopes;
mod error;
mod floors;
mod gate;
mod gossip;
mod handle;
mod hints;
mod keeper;
mod kept;
mod links;
mod noise;
mod peer;
mod quotas;
mod service;
mod threads;
mod transport;

pub use envelopes::DroppedEnvelopes;
pub use error::MeshError;
pub use handle::{MeshHandle, MeshView};
pub use service::Mesh;
