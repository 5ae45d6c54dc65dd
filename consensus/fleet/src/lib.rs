//! What the log of a shard means, and what its leader decides.
//!
//! Pure: no IO, no clock, no random number, no async, no order that depends on a hash. Everything here is driven by
//! arguments, tested in virtual time, and runs unchanged in production.
//!
//! - [`FleetState`] applies entries. It never chooses: the same entries give the same state, replies and digest on
//!   every replica.
//! - [`Orchestrator`] looks at the state and the log clock and decides what to propose. It runs on the leader only.
//! - [`LogClock`] continues the shard's clock between frames of the leader.
//! - [`ElectionDetector`] says when the leader has been silent for too long.
//!
//! **Must not know** tokio, openraft, quinn, libp2p, tonic, rand, files or clocks.

mod clock;
mod detector;
mod orchestrator;
mod state;

pub use clock::{CLOCK_ROUND_MS_MAX, ClockEstimate, LogClock};
pub use detector::{DetectorConfig, ElectionDetector};
pub use orchestrator::{
    Effect as OrchestratorEffect, Event as OrchestratorEvent, HeartbeatKey, Orchestrator, OrchestratorConfig, Policy,
};
pub use state::{Applied, FLEET_VERSION, FleetLimits, FleetState, LogPosition, SnapshotError};
