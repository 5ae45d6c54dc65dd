//! The files of a site in a node's directory, and how a site begins.
//!
//! - [`by_file`] has what a machine without a network and its site give each other on a stick.
//! - [`files`] has root documents, the node's chain, revocations, floors and hints on disk: each whole and durable, and
//!   never older than what the node knew.
//! - [`found`] makes a site: its first root document, and its first member.
//! - [`root_keys`] has the files of root keys, which are put away.

pub(crate) mod by_file;
pub(crate) mod error;
pub(crate) mod files;
mod floors;
pub(crate) mod found;
mod hints;
mod pages;
pub(crate) mod root_keys;
mod sheet;
