//! What a node does for its clients, by noun, whichever transport they use.
//!
//! **Contract.** A service takes a request and its caller, and gives a reply or a failure, or a stream of messages.
//!
//! **Must not know** the transport.

mod agents;
mod commands;
mod directory;
mod follow;
mod nodes;
mod operators;
mod queries;
mod requests;
mod shards;
mod tasks;
mod topics;

use futures::stream::BoxStream;
use tokio::sync::watch;

use crate::calls::Calls;
use crate::doors::{Doors, Lasting, LetIn};
use crate::failure::Failed;

pub(crate) use agents::Agents;
pub(crate) use commands::Commands;
pub(crate) use directory::Directory;
pub(crate) use nodes::Nodes;
pub(crate) use operators::Operators;
pub(crate) use shards::Shards;
pub(crate) use tasks::Tasks;
pub(crate) use topics::Topics;

/// How long a call waits when its client sets no timeout, in milliseconds.
pub(crate) const PATIENCE_MS_DEFAULT: u64 = 5_000;

/// A stream of messages, which ends with a failure if there is one.
pub(crate) type Messages<Message> = BoxStream<'static, Result<Message, Failed>>;

/// The caller of a service.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The caller's connection, as the doors know it.
    pub(crate) connection: Option<LetIn>,
    /// How long the caller waits, in milliseconds.
    pub(crate) patience_ms: u64,
}

/// What the services have of the node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Host {
    calls: Calls,
    doors: Doors,
    /// Becomes true when the node stops: then streams end.
    stopped: watch::Receiver<bool>,
}

impl Host {
    pub(crate) fn new(calls: Calls, doors: Doors, stopped: watch::Receiver<bool>) -> Self {
        Self { calls, doors, stopped }
    }

    /// A place for a stream; refused if there is none for this caller.
    fn lasting(&self, caller: &Caller) -> Result<Lasting, Failed> {
        self.doors.lasting(caller.connection.as_ref())
    }
}
