//! Every bound of the product, by name, with what happens at it. The name of a file says which bounds it has.
//!
//! Units come last in the names. A bound on a queue is the length at which the queue refuses; a bound on a message is
//! the size at which the decoder refuses.
//!
//! Bounds that replicas read when they apply an entry are proposed to a shard, and are in its log: see
//! [`crate::fleet`]. Where a node answers a client before it proposes anything, it may go by its own, and refuse what
//! the shard would have accepted; the shard has the last word.

mod agent;
mod api;
mod command;
mod log;
mod mesh;
mod node;
mod site;
mod store;
mod task;
mod trust;
mod wire;

pub use agent::*;
pub use api::*;
pub use command::*;
pub use log::*;
pub use mesh::*;
pub use node::*;
pub use site::*;
pub use store::*;
pub use task::*;
pub use trust::*;
pub use wire::*;
