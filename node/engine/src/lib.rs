//! The pure brain of one node: where requests go, and what the node may promise.
//!
//! Pure: no IO, no clock, no random number, no async, no order that depends on a hash. Events and `now` go in through
//! [`Engine::handle`], effects come out of [`Engine::poll_effect`], and [`Engine::poll_timeout`] says when to call
//! [`Engine::handle_timeout`] if nothing happens before.
//!
//! **Must not know** tokio, libp2p, openraft, quinn, tonic, rand, files or clocks.

// What a new variant means is decided where the others are. Tests look at one of them.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

mod agents;
mod ask;
mod connectivity;
mod engine;
mod event;
mod inbox;
mod key;
mod known;
mod own;
mod pace;
mod route;
mod router;
mod topics;

pub use connectivity::{Connectivity, Permission};
pub use engine::Engine;
pub use event::{AgentEvent, AttemptTarget, Effect, Event, Outcome, Work};
pub use inbox::{InboxEvent, Taker};
pub use key::{StreamKey, SubscriberKey, UpdateKey, WorkKey};
pub use topics::{LatestValue, TopicEffect, TopicEvent};
