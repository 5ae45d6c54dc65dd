//! The control plane: one QUIC connection per pair of nodes of which one votes, with long-lived streams by class.
//!
//! Both sides may dial. When both did, both keep the connection that the smaller id dialled; a connection from a
//! restarted process replaces that of the old one, unless that one lives: then two processes run under one identity, and the
//! one that was there first is kept. Nodes of different shards with one number do not speak with each other of that number. How long an
//! answer is waited for follows what answers take; a connection ends when nothing at all was heard for the idle time, and for no call
//! that was not answered.
//!
//! Who is let in says the list of peers; or at a site a certificate, which is shown and verified on the first stream before anything
//! else is said, heard or opened. A machine that wants to join the site says so in its handshake, and is served on a
//! connection of its own.

mod admit;
mod answers;
mod attend;
mod budget;
mod calls;
mod dial;
mod doors;
mod drivers;
mod endpoint;
mod gate;
mod join;
mod knocks;
mod lineages;
mod link;
mod make_way;
mod may;
mod members;
mod newcomer;
mod news;
mod noise;
mod pace;
mod peers;
mod places;
mod reach;
mod refusals;
mod roles;
mod serve;
mod snapshots;
mod strays;
mod tls;
mod twins;

pub(crate) use budget::{AnswerRoom, Waits};
pub(crate) use calls::{CallError, Class};
pub(crate) use endpoint::{ControlPlane, Setup};
pub use join::NotJoined;
pub(crate) use join::{Joining, Knowing, Registrar};
pub(crate) use lineages::in_words;
#[cfg(test)]
pub(crate) use link::{Link, Outgoing, RoundTrips};
pub(crate) use may::Action;
#[cfg(test)]
pub(crate) use newcomer::heard_after;
pub use newcomer::{JoinError, JoinWish, Membership, join};
#[cfg(test)]
pub(crate) use news::keep_judging;
pub(crate) use noise::Noise;
pub(crate) use pace::APPEND_BYTES_MAX;
#[cfg(test)]
pub(crate) use peers::Peer;
pub use peers::PeerView;
pub(crate) use peers::{Entries, Peers};
pub(crate) use roles::{Roles, sought_in};
pub(crate) use serve::{Answer, Dispatch, Judgement, Who};
pub(crate) use snapshots::{Offer, Sending, SnapshotSender};

#[cfg(test)]
mod certified;
#[cfg(test)]
pub(crate) mod hall;
#[cfg(test)]
mod tests;
