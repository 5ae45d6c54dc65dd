//! The processes of a testnet, and what is between them: started, measured, and ended.

pub mod child;
pub mod crew;
pub(crate) mod hosts;
pub(crate) mod launch;
pub(crate) mod operator;
pub mod place;
pub(crate) mod ports;
pub(crate) mod process;
pub mod relay;
pub mod robot;
pub mod station;
pub(crate) mod warehouse;

pub use hosts::Hosts;
pub use launch::{Layout, NodeAddress, TestNode, Testnet};
pub use process::{Machine, Usage, bytes_below};
pub use warehouse::{DemoSite, OWN_NODE_MAX, SiteOptions, robot_name};
