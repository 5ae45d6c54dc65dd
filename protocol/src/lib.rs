//! The vocabulary of Skep.
//!
//! Everything that two crates, two nodes or two versions must agree on is defined here: ids, tasks, log entries,
//! queries, control-plane frames, limits, and the protobuf messages that operators sign.
//!
//! **Contract.** Types here are plain data. Decoding never panics and never allocates more than its input
//! warrants; every encoded form starts with a version, and golden bytes in the tests hold each version still.
//! What operators sign, in [`stated`], are the only protobuf messages here: those of the local API are in `skep-proto`.
//!
//! **Must not know** sockets, files, clocks, random numbers, transports, libp2p, openraft or quinn.

pub mod agent;
pub mod attach;
pub mod attempt;
pub mod change;
pub mod code;
pub mod codec;
pub mod command;
pub mod critical;
mod encodings;
pub mod entry;
pub mod fault;
pub mod field;
pub mod fleet;
pub mod frame;
pub mod heartbeat;
pub mod history;
pub mod ids;
pub mod journal;
pub mod leader;
pub mod lease;
pub mod limits;
pub mod mutant;
pub mod node_dir;
pub mod offer;
pub mod operator;
pub mod outcome;
pub mod position;
pub mod pressure;
pub mod proof;
pub mod pull;
pub mod query;
pub mod recovery;
pub mod refusal;
pub mod seed;
pub mod settled;
pub mod shard_status;
pub mod signing;
pub mod site;
pub mod stated;
pub mod task;
pub mod telemetry;
pub mod text;
pub mod time;

pub use signing::ballot;
