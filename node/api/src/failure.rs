//! Failures as clients see them: a stable code, what happened, what to do, and whether it was done.

use skep_proto::convert::FieldError;
use skep_proto::v1::{Certainty, Failure};
use skep_protocol::outcome::{NotDone, Refusal, ShardFullOf};

use self::Kind::{
    Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted,
    Unavailable,
};

/// Of which kind a failure is, as transports tell them apart: the codes that gRPC has, and others have a word for, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request makes no sense, whatever the state is.
    InvalidArgument,
    /// What it is about is not there.
    NotFound,
    /// What it would make is there already.
    AlreadyExists,
    /// Whoever asks may not.
    PermissionDenied,
    /// The state does not allow it.
    FailedPrecondition,
    /// Another request came first.
    Aborted,
    /// What it is about is there no more, or not yet.
    OutOfRange,
    /// There is no room for it.
    ResourceExhausted,
    /// Nobody can be reached who could do it.
    Unavailable,
    /// Nobody knows in time what became of it.
    DeadlineExceeded,
    /// The node is broken.
    Internal,
    /// The node answered something else than was asked.
    Bug,
}

/// A failure, and of which kind it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) kind: Kind,
}

impl From<FieldError> for Failed {
    fn from(error: FieldError) -> Self {
        Self::field(&error)
    }
}

fn not_done(code: &str, kind: Kind, message: impl ToString, help: &str) -> Failed {
    Failed {
        failure: Failure {
            code: code.to_owned(),
            message: message.to_string(),
            help: help.to_owned(),
            certainty: Certainty::NotDone.into(),
            retryable: false,
            retry_after_ms: 0,
            silent_about_earlier: false,
        },
        kind,
    }
}

fn retryable(mut failed: Failed, after_ms: u64) -> Failed {
    failed.failure.retryable = true;
    failed.failure.retry_after_ms = after_ms;
    failed
}

impl Failed {
    pub(crate) fn field(error: &FieldError) -> Self {
        not_done("SKEP-0001", InvalidArgument, error, "correct the field and send a new request")
    }

    pub(crate) fn not_found(message: String) -> Self {
        not_done("SKEP-0002", NotFound, message, "'skep task list' shows what there is")
    }

    pub(crate) fn stopping() -> Self {
        let busy = "the node is stopping, or has more calls than it can hold";
        retryable(not_done("SKEP-0003", Unavailable, busy, "send it again, to this node or another"), 200)
    }

    pub(crate) fn too_many_topics() -> Self {
        let message = "this node has as many subscribers or topics as it may";
        not_done("SKEP-0006", ResourceExhausted, message, "end some subscriptions first")
    }

    pub(crate) fn too_many_connections(open: usize, over_tcp: bool) -> Self {
        let over = if over_tcp { " over TCP, or as many that have shown no token," } else { "" };
        let message = format!("the API of this node has as many connections{over} as it may: {open} are open");
        let help = if over_tcp {
            "close some, or use the node's socket"
        } else {
            "close some, or give the node more descriptors: 'ulimit -n', or LimitNOFILE of its service"
        };
        retryable(not_done("SKEP-0009", ResourceExhausted, message, help), 1_000)
    }

    pub(crate) fn too_many_streams(open: usize) -> Self {
        Self::no_stream(format!("the API of this node has as many streams as it may: {open} are open"))
    }

    /// The connection has a place that is kept for short calls.
    pub(crate) fn only_calls(open: usize) -> Self {
        Self::no_stream(format!(
            "the API of this node has as many connections as it may but for some that are kept for calls and not for streams: \
             {open} are open"
        ))
    }

    fn no_stream(message: String) -> Self {
        let help = "end some watches, or give the node more descriptors: 'ulimit -n', or LimitNOFILE of its service";
        retryable(not_done("SKEP-0010", ResourceExhausted, message, help), 1_000)
    }

    /// What was asked for is in no history any more, and what follows begins at an index.
    pub(crate) fn history_gone(message: String, next: u64) -> Self {
        let help = format!("watch from {next} on, or from now on; a voter that keeps it for longer may have more");
        not_done("SKEP-0008", Kind::OutOfRange, message, &help)
    }

    pub(crate) fn members(message: &str, may_work_later: bool) -> Self {
        let mut failed = not_done("SKEP-0005", FailedPrecondition, message, "'skep shard status' shows the members");
        // "It exists already" may be the work of an earlier sending.
        failed.failure.silent_about_earlier = true;
        if may_work_later { retryable(failed, 500) } else { failed }
    }

    pub(crate) fn unknown() -> Self {
        Self {
            failure: Failure {
                code: "SKEP-0201".to_owned(),
                message: "nobody knows yet whether the request was done".to_owned(),
                help: "send it again under the same request id: that is safe, and settles it".to_owned(),
                certainty: Certainty::Unknown.into(),
                retryable: true,
                retry_after_ms: 100,
                silent_about_earlier: true,
            },
            kind: Kind::DeadlineExceeded,
        }
    }

    pub(crate) fn not_done(why: &NotDone) -> Self {
        match why {
            NotDone::Refused(refusal) => refused(refusal),
            NotDone::NoQuorum => {
                let message = "no leader with a quorum of voters can be reached";
                let help = "start or reconnect voters; 'skep shard status' names them. '--stale' reads do not need one. If the \
                            shard was never created: 'skep shard init'";
                retryable(not_done("SKEP-0202", Unavailable, message, help), 200)
            }
            NotDone::NoSuchShard { shard, known } => {
                let known: Vec<String> = known.iter().map(ToString::to_string).collect();
                let known = known.join(", ");
                let message = format!("there is no such shard, {shard}: nobody whom this node reaches has heard of it");
                let help = format!("there is {known}; 'skep shard init --shard' creates one");
                let mut failed = not_done("SKEP-0007", NotFound, message, &help);
                // Heard of nothing: a node that was started again knows nothing of what was sent before.
                failed.failure.silent_about_earlier = true;
                failed
            }
            NotDone::NoReplica => {
                let message = "this node holds no replica of the shard";
                let help = "ask a voter; 'skep shard status' on one names them, and 'skep node status' the shards that a node holds";
                not_done("SKEP-0004", FailedPrecondition, message, help)
            }
            NotDone::Overloaded { retry_after_ms } => {
                let message = "the shard has more requests than it can hold";
                retryable(not_done("SKEP-0203", ResourceExhausted, message, "send it again later"), *retry_after_ms)
            }
            NotDone::DiskFull { node } => {
                let whose = node.map_or("this node".to_owned(), |node| format!("node {node}"));
                let message = format!("the disk of {whose} is nearly full: new work is refused");
                let help = "free some space on it; service returns by itself. 'skep shard status' names the voters that \
                            have no room";
                retryable(not_done("SKEP-0204", ResourceExhausted, message, help), 1_000)
            }
            NotDone::Storage(why) => {
                not_done("SKEP-0205", Kind::Internal, why, "look at the node's log; ask another replica")
            }
        }
    }

    /// The node answered something else than was asked, so that nobody knows what was done. That has no code.
    pub(crate) fn bug(message: &str) -> Self {
        let message = message.to_owned();
        let failure = Failure { message, certainty: Certainty::Unknown.into(), ..Failure::default() };
        Self { failure, kind: Kind::Bug }
    }
}

fn refused(refusal: &Refusal) -> Failed {
    let (code, kind, help) = row(refusal);
    let mut failed = not_done(code, kind, refusal, help);
    if let Some(after_ms) = retry_after_ms(refusal) {
        failed = retryable(failed, after_ms);
    }
    failed.failure.silent_about_earlier = refusal.is_silent_about_earlier();
    failed
}

/// What clients know a refusal by, and what they can do. A refusal without a row does not compile.
fn row(refusal: &Refusal) -> (&'static str, Kind, &'static str) {
    match refusal {
        Refusal::Expired { .. } => ("SKEP-0101", FailedPrecondition, "look what became of it"),
        Refusal::WindowPassed { .. } => ("SKEP-0102", FailedPrecondition, "look what became of it"),
        Refusal::RequestIdReused => ("SKEP-0103", InvalidArgument, "make a new id for every new request"),
        Refusal::ClockImpossible { .. } => ("SKEP-0104", InvalidArgument, "take the clock from the node"),
        Refusal::Deposed => ("SKEP-0105", Unavailable, "send it again"),
        Refusal::Invalid(_) => ("SKEP-0106", InvalidArgument, "correct it and send a new request"),
        Refusal::ShardFull { what, .. } => ("SKEP-0107", ResourceExhausted, room_for(*what)),
        Refusal::NoSuchTask(_) => ("SKEP-0108", NotFound, "'skep task list' shows what there is"),
        Refusal::TaskExists(_) => ("SKEP-0109", AlreadyExists, "'skep task show' shows it"),
        Refusal::WrongStatus { .. } => ("SKEP-0110", FailedPrecondition, "'skep task show' shows its life"),
        Refusal::LostRace { .. } => ("SKEP-0111", Aborted, "claim another one"),
        Refusal::StaleEpoch { .. } => ("SKEP-0112", Aborted, "drop the work: it belongs to another claim"),
        Refusal::NotHolder { .. } => ("SKEP-0113", PermissionDenied, "only its holder may do this"),
        Refusal::BackingOff { .. } => ("SKEP-0114", FailedPrecondition, "claim it later"),
        Refusal::NotCapable { .. } => ("SKEP-0115", FailedPrecondition, "'skep agent register' changes it"),
        Refusal::AgentBusy { .. } => ("SKEP-0116", ResourceExhausted, "finish one of its tasks first"),
        Refusal::NoSuchAgent(_) => ("SKEP-0117", NotFound, "'skep agent list' shows who there is"),
        Refusal::AgentElsewhere { .. } => ("SKEP-0118", FailedPrecondition, "it is free when its lease has ended"),
        Refusal::NotAttached { .. } => ("SKEP-0119", Aborted, "stop working on what it held; attach it again"),
        Refusal::KeptFor { .. } => ("SKEP-0120", FailedPrecondition, "claim it later"),
        Refusal::SentAhead { .. } => ("SKEP-0121", ResourceExhausted, "send it again, or take the clock from the node"),
        Refusal::InvalidCommand(_) => ("SKEP-0401", InvalidArgument, "correct it and send a new command"),
        Refusal::NotSigned(_) => ("SKEP-0402", PermissionDenied, "sign it with the key of its operator"),
        Refusal::WrongPlace => ("SKEP-0403", PermissionDenied, "'skep shard status' shows the shard's genesis"),
        Refusal::NoSuchOperator(_) => ("SKEP-0405", PermissionDenied, "'skep operator list' shows them"),
        Refusal::OperatorRevoked(_) => ("SKEP-0406", PermissionDenied, "use another key"),
        Refusal::NotAdmin(_) => ("SKEP-0407", PermissionDenied, "have an admin do it"),
        Refusal::GrantStale { .. } => ("SKEP-0408", FailedPrecondition, "state it again, with a higher one"),
        Refusal::FirstOperator => ("SKEP-0409", PermissionDenied, "'skep operator replace-first' does that"),
        Refusal::NotGranted { .. } => ("SKEP-0410", PermissionDenied, "have an admin grant it"),
        Refusal::TooManyCommands { .. } => ("SKEP-0411", ResourceExhausted, "send it later"),
        Refusal::CommandExpired { .. } => {
            ("SKEP-0412", FailedPrecondition, "if it is still wanted, send a new command")
        }
        Refusal::CommandTooLong { .. } => ("SKEP-0413", InvalidArgument, "give it less time"),
        Refusal::CommandExists(_) => ("SKEP-0414", AlreadyExists, "'skep command show' shows it"),
        Refusal::NoSuchCommand(_) => ("SKEP-0415", NotFound, "'skep command list' shows what there is"),
        Refusal::NobodyThere(_) => ("SKEP-0416", NotFound, "'skep agent list' shows who there is"),
        Refusal::OutboxFull { .. } => ("SKEP-0417", ResourceExhausted, "send it later, or cancel some"),
        Refusal::NotIndeterminate { .. } => ("SKEP-0418", FailedPrecondition, "'skep command show' shows it"),
        Refusal::CommandOpen(_) => {
            ("SKEP-0419", FailedPrecondition, "wait, or cancel it; 'skep command show' shows it")
        }
        Refusal::NotDead(_) => ("SKEP-0420", FailedPrecondition, "'skep command show' shows it"),
        Refusal::NotAbove { .. } => {
            ("SKEP-0421", PermissionDenied, "have whoever granted it do that; 'skep operator list' shows who")
        }
        Refusal::GrantEnded { .. } => ("SKEP-0422", PermissionDenied, "have an admin grant it anew, for longer"),
        Refusal::OutlivesGrant { .. } => ("SKEP-0423", PermissionDenied, "give it less time"),
        Refusal::NotFirst { .. } => {
            ("SKEP-0424", PermissionDenied, "'skep operator list' shows who the first operator is")
        }
    }
}

/// How to make room in a shard that has too much of something.
fn room_for(what: ShardFullOf) -> &'static str {
    match what {
        ShardFullOf::Operators => "'skep operator revoke' those that are needed no more",
        ShardFullOf::RevokedOperators => {
            "grant with an end (--valid-for): who is revoked is forgotten once everything that was granted to it has ended"
        }
        ShardFullOf::OperatorBranch => "have the first operator grant it",
        ShardFullOf::Tasks
        | ShardFullOf::Agents
        | ShardFullOf::TaskBytes
        | ShardFullOf::Requirements
        | ShardFullOf::Commands
        | ShardFullOf::Deliveries
        | ShardFullOf::CommandBytes
        | ShardFullOf::FirstOperators => "finish or cancel some",
    }
}

/// After how long the shard may answer otherwise though its client changes nothing; none if it will not.
fn retry_after_ms(refusal: &Refusal) -> Option<u64> {
    match refusal {
        Refusal::Deposed => Some(100),
        Refusal::AgentElsewhere { lease_ms, .. } => Some(lease_ms / 10),
        Refusal::SentAhead { first_sent, now } => Some(first_sent.since_ms(*now)),
        Refusal::TooManyCommands { retry_after_ms, .. } => Some(*retry_after_ms),
        Refusal::OutboxFull { .. } => Some(1_000),
        _ => None,
    }
}
