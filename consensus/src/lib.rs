//! Raft groups of one node: openraft on the durable store, and the control plane.
//!
//! This crate is the shell around [`skep_fleet`]: it replicates entries, applies them, stores them with [`skep_store`],
//! and carries them between nodes. The types of openraft and quinn end here.
//!
//! **Contract.** Raft has one OS thread with a runtime of its own for itself. Agents, proposals, queries and handshakes
//! have threads beside it, and work that waits for a disk has others. So no storm on the data plane, the API or the
//! control plane itself delays an election. A node acknowledges nothing before its fsync. The rest of the node talks to
//! this crate through [`ConsensusHandle`] only.
//!
//! **Must not know** libp2p's swarm, gRPC, or what a node does with the answers.

mod belief;
mod clock;
mod command_ends;
mod directory;
mod history_fill;
mod identity;
mod net;
mod pulls;
mod raft;
mod random;
mod recover;
mod replay;
mod roles;
mod rpc;
mod service;
mod settings;
mod shard;
mod shards;
mod threads;
mod voter_check;
mod whole;

#[cfg(test)]
mod simulation;

/// How a machine that has the code of an invitation becomes a member of its site, without a running node.
pub mod join {
    pub use crate::net::{JoinError, JoinWish, Membership, NotJoined, join};
}

pub use identity::{Identity, IdentityError};
pub use net::PeerView;
pub use recover::{LostVoter, RecoverError, RecoveredView, Remains, RemainsView};
pub use service::{Consensus, ConsensusHandle, StartError};
pub use shard::{
    FromLeader, LocalUpdate, MembershipError, ShardRole, ShardStatus, ShardView, VoterStanding, VoterStatus,
};
pub use whole::{ReadableBy, replace_whole, write_whole};
