//! Failures as gRPC tells them.

use prost::Message as _;
use skep_protocol::code::Kind;
use tonic::{Code, Status};

use crate::failure::Failed;

impl From<Failed> for Status {
    fn from(Failed { failure, code }: Failed) -> Self {
        let Some(code) = code else { return Self::internal(failure.message) };
        let message = format!("{code} {}; {}", failure.message, failure.help);
        Self::with_details(status_code(code.kind()), message, failure.encode_to_vec().into())
    }
}

fn status_code(kind: Kind) -> Code {
    match kind {
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::AlreadyExists => Code::AlreadyExists,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::FailedPrecondition => Code::FailedPrecondition,
        Kind::Aborted => Code::Aborted,
        Kind::OutOfRange => Code::OutOfRange,
        Kind::ResourceExhausted => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::DeadlineExceeded => Code::DeadlineExceeded,
        Kind::Unimplemented => Code::Unimplemented,
        Kind::Internal => Code::Internal,
    }
}
