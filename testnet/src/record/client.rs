//! What clients do and hear.

use serde::{Deserialize, Serialize};

/// One line of the history of a client: a robot's software, or who creates orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ClientRecord {
    /// A call begins.
    Invoke {
        /// On the boot clock.
        at_ns: u64,
        /// The call.
        call: Call,
    },
    /// It was done.
    Ok {
        /// On the boot clock.
        at_ns: u64,
        /// The call.
        call: Call,
        /// The request under which it was done.
        request: String,
        /// Where it stands in the log.
        index: u64,
    },
    /// It was definitely not done.
    Fail {
        /// On the boot clock.
        at_ns: u64,
        /// The call.
        call: Call,
        /// Why.
        why: String,
    },
    /// Nobody knows.
    Unknown {
        /// On the boot clock.
        at_ns: u64,
        /// The call.
        call: Call,
        /// What was heard last.
        why: String,
    },
    /// A linearizable read was answered.
    Seen {
        /// On the boot clock.
        at_ns: u64,
        /// The call.
        call: Call,
        /// The last entry that the answer knows.
        index: u64,
        /// Where the task stands, as the API names it.
        status: String,
        /// Its last claim.
        epoch: u64,
    },
    /// The lease of the robot was renewed.
    Renewed {
        /// When it was heard, on the boot clock.
        at_ms: u64,
        /// Until when it may act.
        until_ms: u64,
    },
    /// The robot stopped working on a task that it does not hold any more.
    Fenced {
        /// On the boot clock.
        at_ns: u64,
        /// The task.
        task: String,
        /// The claim.
        epoch: u64,
        /// Why.
        why: String,
    },
}

/// A call of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Who calls.
    pub client: String,
    /// What.
    pub op: Op,
    /// Of which task.
    pub task: String,
    /// Under which claim; zero if none.
    pub epoch: u64,
    /// Errands that are done, for progress.
    pub errands: u32,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// A task.
    Create,
    /// How far it is.
    Progress,
    /// Its end.
    Complete,
    /// Where it stands.
    Read,
}
