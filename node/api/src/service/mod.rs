//! What a node does for its clients, by noun, whatever transport they speak.
//!
//! **Contract.** A request and who calls go in, a reply or a failure comes out, and what lasts is a stream of messages.
//!
//! **Must not know** the transport.

mod agents;
mod commands;
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
pub(crate) use nodes::Nodes;
pub(crate) use operators::Operators;
pub(crate) use shards::Shards;
pub(crate) use tasks::Tasks;
pub(crate) use topics::Topics;

/// How long a call waits when its client sets no timeout.
pub(crate) const PATIENCE_MS_DEFAULT: u64 = 5_000;

/// Messages until they end, or until there is a failure.
pub(crate) type Messages<Message> = BoxStream<'static, Result<Message, Failed>>;

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Its connection, as the doors know it.
    pub(crate) connection: Option<LetIn>,
    /// How long it waits, in milliseconds.
    pub(crate) patience_ms: u64,
}

/// What services have of the node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Host {
    calls: Calls,
    doors: Doors,
    /// What goes on until somebody ends it ends when the node stops.
    stopped: watch::Receiver<bool>,
}

impl Host {
    pub(crate) fn new(calls: Calls, doors: Doors, stopped: watch::Receiver<bool>) -> Self {
        Self { calls, doors, stopped }
    }

    /// A place for what lasts; refused if there is none for this caller.
    fn lasting(&self, caller: &Caller) -> Result<Lasting, Failed> {
        self.doors.lasting(caller.connection.as_ref())
    }
}
