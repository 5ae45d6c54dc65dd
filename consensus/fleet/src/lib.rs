//! What the log of a shard means, and what its leader decides.
//!
//! Pure: no IO, no clock, no random number, no async, no order that depends on a hash. Arguments drive everything here;
//! tests run it in virtual time, and it runs unchanged in production.
//!
//! - [`FleetState`] applies entries. It never chooses: the same entries give the same state, replies and digest on
//!   every replica.
//! - [`Orchestrator`] looks at the state and the log clock and decides what to propose. It runs on the leader only.
//! - [`LogClock`] continues the shard's clock between frames of the leader.
//! - [`ElectionDetector`] says when the leader has been silent for too long.
//! - [`LeaderPulse`] says when a leader makes itself heard, and when it lets go.
//! - [`Placement`](placement::Placement) says which nodes are to vote, one step at a time.
//!
//! **Must not know** tokio, openraft, quinn, libp2p, tonic, rand, files or clocks.

// A new variant gets its meaning where the others have theirs. Tests look at one of them.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

mod clock;
mod detector;
mod orchestrator;
pub mod placement;
mod pulse;
mod state;
mod tables;

pub use clock::{CLOCK_ROUND_MS_MAX, ClockEstimate, LogClock};
pub use detector::{DetectorConfig, ElectionDetector, SILENCE_LEARNED_MS_MAX};
pub use orchestrator::{
    Effect as OrchestratorEffect, Event as OrchestratorEvent, HeartbeatKey, Orchestrator, OrchestratorConfig, Policy,
};
pub use pulse::{LeaderPulse, PulseConfig};
pub use skep_protocol::fleet::FleetLimits;
pub use state::{Applied, FleetState, LogPosition, SnapshotError};
