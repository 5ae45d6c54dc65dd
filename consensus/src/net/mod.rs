//! The control plane: one QUIC connection per pair of nodes of which one votes, with long-lived streams by class.
//!
//! Both sides may dial. When both did, both keep the connection that the smaller id dialled; a connection from a
//! restarted process replaces that of the old one, unless that one lives: then two processes run under one identity, and the
//! one that was there first is kept. Nodes of different shards with one number do not speak with each other of that number. How long an
//! answer is waited for follows what answers take; a connection ends when nothing at all was heard for the idle time, and for no call
//! that was not answered.

mod answers;
mod budget;
mod calls;
mod doors;
mod drivers;
mod endpoint;
mod lineages;
mod link;
mod make_way;
mod noise;
mod pace;
mod peers;
mod reach;
mod roles;
mod serve;
mod snapshots;
mod strays;
mod tls;
mod twins;

pub(crate) use budget::{AnswerRoom, Waits};
pub(crate) use calls::{CallError, Class};
pub(crate) use endpoint::{ControlPlane, Setup};
pub(crate) use lineages::in_words;
#[cfg(test)]
pub(crate) use link::{Link, Outgoing, RoundTrips};
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
mod tests;
