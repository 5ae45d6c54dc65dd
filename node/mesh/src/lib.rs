//! The data plane of a node: libp2p ends here.
//!
//! **Contract.** One task owns the swarm. The node hears only admitted peers, and speaks only to them: members of the
//! site, or without a site the peers of the configured list. It dials each known peer until it is connected: at its
//! configured address, at one that another peer knows (Kademlia of the site), or at one found by multicast on the same
//! network. What others tell of a peer's address is a hint: few are kept, none displaces what is better known, and they
//! are tried at a limited pace. The sender signs a publication once, and each receiver verifies it once, on threads of
//! their own. Each neighbour has a share of what comes in, which counts before verification, and each sender has a
//! share of what is passed on. What is over a share, or does not fit into a bounded queue, is dropped and counted. An
//! envelope counts once, also after a restart of the receiver.
//!
//! **Must not know** Raft, shards, tasks, or the local API. Nothing that must not be lost travels here.

mod admit;
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
mod speakers;
mod threads;
mod transport;

pub use envelopes::DroppedEnvelopes;
pub use error::MeshError;
pub use handle::{KnownMembers, MeshHandle, MeshView};
pub use service::Mesh;
