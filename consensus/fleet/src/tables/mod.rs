//! What a shard holds, a table for each kind of object.
//!
//! A table owns its maps and indexes, and nobody else sees them. All that is asked of its objects goes through its `apply`,
//! and what the orchestrator decides through a method for each decision. They are given a
//! [`Cx`](crate::state::changes::Cx), by which the entry is judged, and those of the other tables that they need:
//!
//! - Operators, agents and the site need no other table.
//! - Tasks tell the agents when one holds more or fewer tasks.
//! - Commands ask the agents who is there and which node serves it, and the operators who may send.
//!
//! **Must not know** the state that holds the tables.

pub(crate) mod agents;
pub(crate) mod commands;
pub(crate) mod operators;
pub(crate) mod site;
pub(crate) mod tasks;
