//! Failures as gRPC tells them.

use prost::Message as _;
use tonic::{Code, Status};

use crate::failure::{Failed, Kind};

impl From<Failed> for Status {
    fn from(Failed { failure, kind }: Failed) -> Self {
        if kind == Kind::Bug {
            return Self::internal(failure.message);
        }
        let message = format!("{} {}; {}", failure.code, failure.message, failure.help);
        Self::with_details(code(kind), message, failure.encode_to_vec().into())
    }
}

fn code(kind: Kind) -> Code {
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
        Kind::Internal | Kind::Bug => Code::Internal,
    }
}
