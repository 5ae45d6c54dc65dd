//! The pure brain of one node: where requests go, and what the node may promise.
//!
//! Pure: no IO, no clock, no random number, no async, no order that depends on a hash. Events and `now` go in through
//! [`Engine::handle`], effects come out of [`Engine::poll_effect`], and [`Engine::poll_timeout`] says when to call
//! [`Engine::handle_timeout`] if nothing happens before.
//!
//! **Must not know** tokio, libp2p, openraft, quinn, tonic, rand, files or clocks.

mod connectivity;
mod engine;
mod route;

pub use connectivity::{Connectivity, Permission};
pub use engine::{Effect, Engine, Event, Outcome, Target, Work, WorkKey};
