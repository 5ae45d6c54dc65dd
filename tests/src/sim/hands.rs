//! What a robot's software has in hand: a task, a call and commands.

use skep_client::ClaimKey;
use skep_protocol::entry::Op;
use skep_protocol::ids::TaskId;
use skep_protocol::offer::CommandSaid;
use skep_protocol::time::LogInstant;
use skep_testnet::site::station::Step;

/// A call of a robot that is under way.
#[derive(Clone, Debug)]
pub(super) struct Calling {
    pub(super) number: u64,
    pub(super) op: Op,
    pub(super) in_doubt: bool,
    pub(super) what: For,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    Progress,
    End,
    GiveBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Begin,
    Asks(Step),
    Walks(u32),
    Reports,
}

/// A task that a robot works on.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) key: ClaimKey,
    pub(super) task: TaskId,
    pub(super) errands: u32,
    pub(super) errand: u32,
    pub(super) doing: Doing,
}

/// What a robot's software knows of a command.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) deadline: LogInstant,
    pub(super) last: Option<CommandSaid>,
    /// Until when it may be begun, on the robot's own clock; none before the "go".
    pub(super) until_ms: Option<u64>,
    /// When the software asked for the "go", on the same clock.
    pub(super) asked_ms: u64,
    /// Whether the answer was that it is too late.
    pub(super) hopeless: bool,
    /// How often a "go" came too late, and the robot asked for another.
    pub(super) again: u32,
    pub(super) acted: bool,
    pub(super) ignored: u32,
}

impl Task {
    pub(super) fn new(deadline: LogInstant) -> Self {
        let (again, ignored, asked_ms) = (0, 0, 0);
        Self { deadline, last: None, until_ms: None, asked_ms, hopeless: false, again, acted: false, ignored }
    }
}
