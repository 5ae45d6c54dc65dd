//! How calls fail.

use prost::Message as _;
use skep_proto::convert::failure;
use skep_proto::v1::{Certainty, Failure};
use skep_protocol::code::Code;
use skep_protocol::ids::{Genesis, ShardId};
use tonic::Status;

use crate::proof::ConnectFailure;

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// The endpoint is not valid.
    #[error("{0}")]
    Endpoint(String),
    /// The node names another shard than the client is for: the client signed nothing.
    #[error(
        "{code} the node names a shard of genesis {told}, and the statement is for the shard of genesis {wanted}; ask a \
         node of that shard, or, if it was recovered or made anew, give the genesis that 'skep shard status' shows on a \
         node that you trust",
        code = Code::AnotherShard
    )]
    AnotherShard {
        /// The genesis of the shard that the client is for.
        wanted: Genesis,
        /// The genesis that the node names.
        told: Genesis,
    },
    /// The node answers for another shard than the client asked about: the client signed nothing.
    #[error(
        "{code} the node answers for shard {told}, and shard {wanted} was asked for; ask another node",
        code = Code::AnotherShard
    )]
    AnotherNumber {
        /// The number of the shard that the client is for.
        wanted: ShardId,
        /// The number that the node names.
        told: ShardId,
    },
    /// The request was definitely not done.
    #[error("{} {}; {}", .0.code, .0.message, .0.help)]
    NotDone(Box<Failure>),
    /// It is unknown whether the request was done. Another sending of the same request is safe, and settles it unless
    /// it is too late.
    #[error("{}", in_doubt(.request_id, .last, *.too_late))]
    Unknown {
        /// The request, as [`RequestName`](crate::RequestName) writes it; empty for a query, which changes nothing.
        request_id: String,
        /// The last answer or error that the client heard.
        last: String,
        /// Whether the request is too old for the shard to take: an earlier sending may have been done and forgotten.
        /// Another sending is of no use; the state of the shard shows what became of the request.
        too_late: bool,
    },
}

/// The text for a call that has no answer.
fn in_doubt(request_id: &str, last: &str, too_late: bool) -> String {
    match request_id {
        "" => format!("there was no answer: {last}"),
        request if too_late => {
            format!("request {request} may have been done, and it is too late to send it again: {last}")
        }
        request => format!("request {request} may have been done: {last}"),
    }
}

impl ClientError {
    /// The stable code of a definite failure; none if this build does not know the code.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::NotDone(failure) => Code::of(&failure.code),
            Self::AnotherShard { .. } | Self::AnotherNumber { .. } => Some(Code::AnotherShard),
            Self::Endpoint(_) | Self::Unknown { .. } => None,
        }
    }

    /// Whether the shard refused the request for its clock alone: the shard would judge a request made anew, under the
    /// present clock.
    pub(crate) fn is_of_another_clock(&self) -> bool {
        matches!(
            self.code(),
            Some(Code::RequestExpired | Code::RequestForgotten | Code::ClockImpossible | Code::SentAhead)
        )
    }

    /// Whether the shard refused a statement because it was signed for another shard.
    pub(crate) fn is_of_another_shard(&self) -> bool {
        self.code() == Some(Code::WrongPlace)
    }

    /// What the end of a stream of answers means. Such a stream changes nothing, so that nothing is in doubt.
    pub fn of_stream(status: &Status) -> Self {
        match heard(status) {
            Heard::NotDone(failure) => Self::NotDone(failure),
            Heard::InDoubt(last) => Self::Unknown { request_id: String::new(), last, too_late: false },
        }
    }

    /// Whether this is a query, which changes nothing, that got no answer.
    pub fn is_of_a_query(&self) -> bool {
        matches!(self, Self::Unknown { request_id, .. } if request_id.is_empty())
    }

    /// Whether the item that the call asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.code(), Some(Code::NotFound | Code::NoSuchTask | Code::NoSuchCommand))
    }

    /// Whether another item has the id that the request gave.
    pub fn is_already_there(&self) -> bool {
        matches!(self.code(), Some(Code::TaskExists | Code::CommandExists))
    }

    /// Whether the shard refused a command because its time to start has passed. Under the id of a command that was
    /// sent before, this says nothing of the earlier sending: the shard forgets a command that has ended some time
    /// after its deadline.
    pub fn is_past_its_deadline(&self) -> bool {
        self.code() == Some(Code::CommandExpired)
    }

    /// Whether a new request for the same thing may have another outcome.
    pub fn leaves_open(&self) -> bool {
        match self {
            Self::NotDone(failure) => failure.retryable || self.is_of_another_clock(),
            Self::Unknown { .. } => true,
            Self::AnotherShard { .. } | Self::AnotherNumber { .. } | Self::Endpoint(_) => false,
        }
    }
}

/// What one sending tells.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    /// This sending did not do it.
    NotDone(Box<Failure>),
    /// This sending may have done it.
    InDoubt(String),
}

/// A failure of the transport. The transport knows nothing of earlier sendings, and the catalogue says so of its codes.
fn not_done(code: Code, message: String) -> Heard {
    Heard::NotDone(Box::new(failure(code, message)))
}

/// Reads a gRPC status: the failure in its details, or what its kind says.
pub(crate) fn heard(status: &Status) -> Heard {
    if !status.details().is_empty()
        && let Ok(failure) = Failure::decode(status.details())
    {
        return match failure.certainty() {
            Certainty::NotDone => Heard::NotDone(Box::new(failure)),
            Certainty::Unknown | Certainty::Unspecified => Heard::InDoubt(failure.message),
        };
    }
    if let Some(ConnectFailure::Stranger(_)) = source_of::<ConnectFailure>(status) {
        let help = "the token may be another node's, or another program may listen there while the node does not run";
        // The other program may listen only for a while.
        let told = Failure { help: help.to_owned(), retryable: true, ..failure(Code::NotLetIn, root(status)) };
        return Heard::NotDone(Box::new(told));
    }
    let never_sent = source_of::<tonic::ConnectError>(status).is_some();
    match status.code() {
        tonic::Code::Unavailable if never_sent => not_done(Code::NoNode, format!("no node answers: {}", root(status))),
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => {
            not_done(Code::NotLetIn, status.message().to_owned())
        }
        tonic::Code::Unimplemented => not_done(Code::NodeTooOld, status.message().to_owned()),
        tonic::Code::InvalidArgument | tonic::Code::OutOfRange => not_done(Code::TooLarge, status.message().to_owned()),
        _ => Heard::InDoubt(format!("{}: {}", status.code(), root(status))),
    }
}

fn source_of<E: std::error::Error + 'static>(status: &Status) -> Option<&E> {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// The innermost cause, which says most.
fn root(status: &Status) -> String {
    let mut source = std::error::Error::source(status);
    let mut text = status.message().to_owned();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_was_refused_for_its_clock_decides_nothing() {
        let refused = |code| ClientError::NotDone(Box::new(failure(code, "")));
        for late in [Code::RequestExpired, Code::RequestForgotten, Code::ClockImpossible, Code::SentAhead] {
            assert!(refused(late).leaves_open(), "{late}");
        }
        for decided in [Code::NoSuchTask, Code::WrongStatus, Code::StaleEpoch, Code::NotHolder] {
            assert!(!refused(decided).leaves_open(), "{decided}");
        }
        assert!(refused(Code::NoNode).leaves_open());
        let unknown = ClientError::Unknown { request_id: String::new(), last: String::new(), too_late: false };
        assert!(unknown.leaves_open());
    }
}
