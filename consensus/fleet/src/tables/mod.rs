//! What a shard holds, a table for each kind of object.
//!
//! A table owns its maps and indexes, and no other code sees them. All that clients and nodes ask of its objects goes
//! through its `apply`, and what the orchestrator decides through a method for each decision. They get a
//! [`Cx`](crate::state::changes::Cx), by which they judge the entry, and those of the other tables that they need:
//!
//! - Operators, agents and the site need no other table.
//! - Tasks tell the agents when an agent holds more or fewer tasks.
//! - Commands ask the agents which of them are there and which node serves each, and the operators who may send.
//!
//! **Must not know** the state that holds the tables.

pub(crate) mod agents;
pub(crate) mod commands;
pub(crate) mod operators;
pub(crate) mod site;
pub(crate) mod tasks;
