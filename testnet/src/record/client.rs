//! What clients do and hear.

use serde::{Deserialize, Serialize};

/// One line of the history of a client: a robot's software, or the creator of orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ClientRecord {
    /// A call begins.
    Invoke {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The call.
        call: Call,
    },
    /// The call was done.
    Ok {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The call.
        call: Call,
        /// The request id under which it was done.
        request: String,
        /// The index of its entry in the log.
        index: u64,
    },
    /// The call was definitely not done.
    Fail {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The call.
        call: Call,
        /// The error.
        why: String,
    },
    /// The outcome of the call is unknown.
    Unknown {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The call.
        call: Call,
        /// The last error that the client heard.
        why: String,
    },
    /// A linearizable read was answered.
    Seen {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The call.
        call: Call,
        /// The last entry that the answer is based on.
        index: u64,
        /// The task's status, as the API names it.
        status: String,
        /// The epoch of its last claim.
        epoch: u64,
    },
    /// The lease of the robot was renewed.
    Renewed {
        /// When the robot heard that, on the boot clock, in milliseconds.
        at_ms: u64,
        /// Until when the robot may act, on the boot clock, in milliseconds.
        until_ms: u64,
    },
    /// The robot stopped its work on a task that it does not hold.
    Fenced {
        /// When, on the boot clock, in nanoseconds.
        at_ns: u64,
        /// The task's id.
        task: String,
        /// The epoch of the claim.
        epoch: u64,
        /// The reason.
        why: String,
    },
}

/// A call of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The name of the client.
    pub client: String,
    /// What the client asks for.
    pub op: Op,
    /// The task's id.
    pub task: String,
    /// The epoch of the claim; 0 if none.
    pub epoch: u64,
    /// How many errands are done, for progress.
    pub errands: u32,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// To create a task.
    Create,
    /// To report its progress.
    Progress,
    /// To complete it.
    Complete,
    /// To read it.
    Read,
}
