//! Real processes on one machine: nodes, robots and the world they work in; started, killed, measured, verified.
//!
//! **Contract.** Everything here touches only what it started: nodes of its own in a fresh directory, on ports of its
//! own. It ends them by process id, and they end by themselves when the launcher dies. It reaches nodes through the
//! public API.
//!
//! **Must not know** the inside of a node.

pub mod bench;
mod error;
mod latency;
pub mod record;
pub mod scenario;
pub mod site;
pub mod verify;
mod workload;

pub use error::LaunchError;
pub use site::{Hosts, Layout, Machine, NodeAddress, TestNode, Testnet, Usage, bytes_below};
pub use workload::{Cell, Done, Floor, Load, OrderPayload, Workload, WorkloadError, builtin, load_problem};
