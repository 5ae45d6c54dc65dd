//! Which peers are admitted on a connection, and when.
//!
//! A handshake proves a peer's key, and nothing else. Until the node admits the peer, none of what the mesh speaks
//! exists on the connection: the node opens and accepts no substream of gossip, Kademlia, identify or ping. There are
//! two ways of admission, and [one door](Door) for both:
//!
//! - By the list: the node admits a listed peer at once, and connects to no other.
//! - By certificates: a peer is a stranger until both ends have shown their chains on a protocol of its own,
//!   `/skep/SITE/admit/1`. It has 2 s for that, and a [place](places) among those of [strangers].
//!
//! The dialler shows itself first, with the root documents under which its chain holds. The acceptor says nothing
//! before that chain has held, so that a stranger who dials gets a closed connection and not a byte. If one end knows
//! of root documents or revocations that the other one lacks, the two tell each other, and judge after that: a visitor
//! carries a revocation along. Then each end says that it listens, once it does, and speaks once it has heard that from
//! the other.

mod asking;
mod door;
mod frames;
mod late;
mod members;
mod places;
mod refusals;
mod strangers;
mod talk;

pub(crate) use door::{Door, DoorEvent, Left};
pub(crate) use members::{Members, may_publish};
pub(crate) use refusals::{NotAdmitted, Refusals};

#[cfg(test)]
mod tests;
