//! What a shard holds, a table for each kind of object.
//!
//! A table owns its maps and indexes, and nobody else sees them. It is changed through methods that are given what the entry is
//! judged by, [`Cx`](crate::state::changes::Cx), and those of its peers that they need.

pub(crate) mod agents;
pub(crate) mod commands;
pub(crate) mod operators;
pub(crate) mod tasks;
