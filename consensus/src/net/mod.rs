//! The control plane: one QUIC connection per pair of nodes of which one votes, with long-lived streams by class.
//!
//! Both sides may dial. When both did, both keep the connection that the smaller id dialled; a connection from a
//! restarted process replaces that of the old one. A call that misses its hard deadline ends the connection, since a
//! dead path looks like a slow one.

mod calls;
mod endpoint;
mod link;
mod peers;
mod roles;
mod serve;
mod tls;

pub(crate) use calls::{CallError, Class};
pub(crate) use endpoint::{ControlPlane, Setup};
#[cfg(test)]
pub(crate) use link::{Link, Outgoing};
#[cfg(test)]
pub(crate) use peers::Peer;
pub use peers::PeerView;
pub(crate) use peers::Peers;
pub(crate) use roles::{Roles, sought_in};
pub(crate) use serve::{Dispatch, SnapshotSender, Who};
