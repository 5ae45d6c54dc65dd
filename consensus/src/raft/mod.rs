//! openraft behind our own types.

pub(crate) mod acked;
pub(crate) mod agree;
pub(crate) mod checked;
pub(crate) mod elections;
pub(crate) mod fitness;
pub(crate) mod kept;
pub(crate) mod log_store;
pub(crate) mod machine;
pub(crate) mod network;
mod pause;
mod room;
pub(crate) mod saved;
mod snapshot;
pub(crate) mod types;

/// openraft with our types and our state machine.
pub(crate) type Raft = openraft::Raft<types::TypeConfig, machine::Machine>;

#[cfg(test)]
mod suite;
