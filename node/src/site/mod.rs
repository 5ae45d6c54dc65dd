//! The files of a site in a node's directory, and how a site begins.
//!
//! - [`by_file`] has what a machine without a network and its site give each other on a stick.
//! - [`files`] has root documents, the node's chain, revocations, floors and hints on disk: each whole and durable, and
//!   never older than what the node knew.
//! - [`found`] makes a site: its first root document, and its first member; [`first`] has the shards that come with it.
//! - [`held`] has what a running node knows, and writes it down before the node acts by it. [`begin`] makes the first
//!   shards, [`directory`] follows this node's replica of the directory, [`time`] asks for the site's time, and
//!   [`members`] tells the mesh who is a member, and the directory where this node is.
//! - [`root_keys`] has the files of root keys, which are put away.

mod addresses;
mod begin;
pub(crate) mod by_file;
mod directory;
pub(crate) mod error;
pub(crate) mod files;
pub(crate) mod first;
mod floors;
pub(crate) mod found;
pub(crate) mod held;
mod hints;
mod members;
mod pages;
pub(crate) mod root_keys;
pub(crate) mod running;
mod sheet;
mod time;

#[cfg(test)]
mod tests;
