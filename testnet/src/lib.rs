//! Real processes on one machine: nodes, robots and the world they work in; started, killed, measured, verified.
//!
//! **Contract.** Everything here touches only what it started: nodes of its own in a fresh directory, on ports of its
//! own, ended by pid, and ending by themselves when the launcher dies. Nodes are reached through the public API.
//!
//! **Must not know** the inside of a node.

pub mod bench;
pub mod chaos;
pub mod child;
pub mod control;
pub mod crew;
pub mod demo;
mod error;
mod hosts;
pub mod inspect;
mod launch;
mod load;
mod operator;
pub mod place;
mod ports;
pub mod power;
mod process;
pub mod record;
pub mod relay;
pub mod robot;
pub mod station;
pub mod verify;
mod workload;

pub use error::LaunchError;
pub use hosts::Hosts;
pub use launch::{Layout, NodeAddress, TestNode, Testnet};
pub use load::{Done, Load};
pub use process::{Machine, Usage, bytes_below};
pub use workload::{Cell, Floor, OrderPayload, Workload, WorkloadError, builtin, load_problem};
