//! Failures as clients see them: a row of the catalogue, what happened, what to do, and whether the request was done.

use skep_proto::convert::{FieldError, failure};
use skep_proto::v1::{Certainty, Failure};
use skep_protocol::code::Code;
use skep_protocol::ids::ShardId;
use skep_protocol::outcome::NotDone;
use skep_protocol::refusal::Refusal;

use crate::calls::AdmitFailure;

/// After how many milliseconds a change of the voters that failed may work.
const MEMBERS_RETRY_MS: u64 = 500;

/// A failure, and its row of the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    /// The code; none if the node answered another question than the API asked.
    pub(crate) code: Option<Code>,
}

impl From<FieldError> for Failed {
    fn from(error: FieldError) -> Self {
        Self::field(&error)
    }
}

impl Failed {
    fn new(code: Code, message: impl ToString) -> Self {
        Self { failure: failure(code, message), code: Some(code) }
    }

    /// The same failure, with other advice than the catalogue has.
    fn advise(mut self, help: &str) -> Self {
        help.clone_into(&mut self.failure.help);
        self
    }

    /// The same failure of a request that may succeed after this time, in milliseconds.
    fn again(mut self, after_ms: u64) -> Self {
        self.failure.retryable = true;
        self.failure.retry_after_ms = after_ms;
        self
    }

    pub(crate) fn field(error: &FieldError) -> Self {
        Self::new(Code::InvalidField, error)
    }

    pub(crate) fn not_found(message: String) -> Self {
        Self::new(Code::NotFound, message)
    }

    pub(crate) fn stopping() -> Self {
        Self::new(Code::Stopping, "the node is stopping, or has as many calls as it can hold")
    }

    pub(crate) fn too_many_topics() -> Self {
        Self::new(Code::TooManyTopics, "this node has as many subscribers or topics as it may")
    }

    pub(crate) fn too_many_connections(open: usize, over_tcp: bool) -> Self {
        let over = if over_tcp { " over TCP, or as many that have shown no token," } else { "" };
        let message = format!("the API of this node has as many connections{over} as it may: {open} are open");
        let failed = Self::new(Code::TooManyConnections, message);
        if over_tcp { failed.advise("close some connections, or use the node's socket") } else { failed }
    }

    pub(crate) fn too_many_streams(open: usize) -> Self {
        let message = format!("the API of this node has as many streams as it may: {open} are open");
        Self::new(Code::TooManyStreams, message)
    }

    /// The connection has a place that is reserved for short calls.
    pub(crate) fn only_calls(open: usize) -> Self {
        let message = format!(
            "the API of this node has as many connections as it may, but for some that are kept for calls and not for \
             streams: {open} are open"
        );
        Self::new(Code::TooManyStreams, message)
    }

    /// No history has the wanted changes any more. The changes that are kept begin at `next`.
    pub(crate) fn history_gone(message: String, next: u64) -> Self {
        let help = format!("watch from {next} on, or from now on; a voter that keeps it for longer may have more");
        Self::new(Code::HistoryGone, message).advise(&help)
    }

    pub(crate) fn members(message: &str, may_work_later: bool) -> Self {
        // An earlier sending may have created the shard that "exists already": the catalogue says so.
        let failed = Self::new(Code::VotersUnchanged, message);
        if may_work_later { failed.again(MEMBERS_RETRY_MS) } else { failed }
    }

    /// A machine without a network may not join, as the node says.
    pub(crate) fn not_admitted(failure: &AdmitFailure) -> Self {
        let code = if failure.unknown { Code::Unknown } else { Code::NotAdmitted };
        Self::new(code, &failure.message)
    }

    pub(crate) fn unknown() -> Self {
        Self::new(Code::Unknown, "the node does not know yet whether the request was done")
    }

    pub(crate) fn not_done(why: &NotDone) -> Self {
        let failed = |message: &str| Self::new(why.code(), message);
        match why {
            NotDone::Refused(refusal) => refused(refusal),
            NotDone::NoQuorum => failed("the node reaches no leader with a quorum of voters"),
            NotDone::NoSuchShard { shard: ShardId::DIRECTORY, .. } => {
                let message = "no node that this one reaches has heard of a directory of a site";
                failed(message).advise("'skep site init' makes a site, and 'skep join' has a machine join one")
            }
            NotDone::NoSuchShard { shard, known } => {
                let known: Vec<String> = known.iter().map(ToString::to_string).collect();
                let help = format!("there is {}; 'skep shard init --shard' creates one", known.join(", "));
                let message = format!("there is no such shard, {shard}: no node that this one reaches has heard of it");
                failed(&message).advise(&help)
            }
            NotDone::NoReplica => failed("this node holds no replica of the shard"),
            NotDone::Overloaded { retry_after_ms } => {
                failed("the shard has more requests than it can hold").again(*retry_after_ms)
            }
            NotDone::DiskFull { node } => {
                let whose = node.map_or("this node".to_owned(), |node| format!("node {node}"));
                failed(&format!("the disk of {whose} is nearly full: the node refuses new work"))
            }
            NotDone::Storage(error) => failed(error),
        }
    }

    /// The node answered another question than the API asked, so the API does not know what was done. That has no code.
    pub(crate) fn bug(message: &str) -> Self {
        let message = message.to_owned();
        let failure = Failure { message, certainty: Certainty::Unknown.into(), ..Failure::default() };
        Self { failure, code: None }
    }
}

fn refused(refusal: &Refusal) -> Failed {
    let failed = Failed::new(refusal.code(), refusal).advise(refusal.help());
    match refusal.retry_after_ms() {
        Some(after_ms) => failed.again(after_ms),
        None => failed,
    }
}
