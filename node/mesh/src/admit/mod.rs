//! Who is let in on a connection, and when.
//!
//! A peer that is connected has a key, and nothing else is known of it. Until it is admitted none of what the mesh speaks exists on
//! its connection: no substream of gossip, of Kademlia, of identify or of ping is opened, or accepted. There are two ways of
//! admission, and [one door](Door) for both:
//!
//! - By the list: a listed peer is admitted at once, and another one is not connected.
//! - By certificates: a peer is a stranger's until both ends have shown their chains on a protocol of its own,
//!   `/skep/SITE/admit/1`. It has 2 s for that, and a [place](places) among those of [strangers].
//!
//! The dialler shows itself first, with the root documents under which its chain holds. The acceptor says nothing before that chain
//! has held, so that a stranger who dials gets a closed connection and not a byte. If one of both knows of root documents or revocations
//! that the other one lacks, they tell each other, and judge after that: who visits carries a revocation along. Then each says that it
//! listens, once it does, and speaks once it has heard so.

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
