//! Real node processes on one machine: started, killed, measured.
//!
//! **Contract.** Everything here touches only what it started: nodes of its own in a fresh directory, on ports of its
//! own, ended by pid, and ending by themselves when the launcher dies. Nodes are reached through the public API.
//!
//! **Must not know** the inside of a node.

pub mod bench;
mod launch;
mod load;
mod process;

pub use launch::{LaunchError, Layout, TestNode, Testnet};
pub use load::{Done, Load};
pub use process::{Machine, Usage};
