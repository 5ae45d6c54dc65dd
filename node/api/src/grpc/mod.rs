//! gRPC: hands each call to its service, and says back what that answers.

mod nodes;
mod shards;
mod status;
mod topics;

use std::time::Duration;

use futures::TryStreamExt as _;
use futures::stream::ErrInto;
use skep_protocol::limits;
use tonic::{Request, Response, Status};

use crate::doors::LetIn;
use crate::service::{Caller, Messages, PATIENCE_MS_DEFAULT};

/// A service that gRPC calls.
#[derive(Clone)]
pub(crate) struct Grpc<Service>(pub(crate) Service);

/// Messages of a service as gRPC says them.
type Replies<Message> = ErrInto<Messages<Message>, Status>;

fn reply<Message, Error>(told: Result<Message, Error>) -> Result<Response<Message>, Status>
where
    Status: From<Error>,
{
    Ok(Response::new(told?))
}

fn replies<Message, Error>(told: Result<Messages<Message>, Error>) -> Result<Response<Replies<Message>>, Status>
where
    Status: From<Error>,
{
    Ok(Response::new(told?.err_into()))
}

fn caller<T>(request: &Request<T>) -> Caller {
    Caller { connection: request.extensions().get::<LetIn>().cloned(), patience_ms: patience_ms(request) }
}

/// How long the client of a request waits, from its `grpc-timeout`.
pub(crate) fn patience_ms<T>(request: &Request<T>) -> u64 {
    let header = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
    header.and_then(grpc_timeout_ms).unwrap_or(PATIENCE_MS_DEFAULT)
}

/// The value of a `grpc-timeout` header (gRPC over HTTP/2: at most 8 digits and a unit).
fn grpc_timeout_ms(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    let timeout = match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    // A little less than the client waits, so that it hears the answer and not its own timeout.
    let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    Some((ms - ms / 20).clamp(1, limits::API_PATIENCE_MS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_in_all_units_and_rubbish_is_ignored() {
        assert_eq!(grpc_timeout_ms("2S"), Some(1_900));
        assert_eq!(grpc_timeout_ms("100m"), Some(95));
        assert_eq!(grpc_timeout_ms("5u"), Some(1));
        assert_eq!(grpc_timeout_ms("99999999H"), Some(limits::API_PATIENCE_MS_MAX), "nobody keeps a place for years");
        for bad in ["", "S", "5", "-1S", "999999999S", "5x", "ä"] {
            assert_eq!(grpc_timeout_ms(bad), None, "{bad}");
        }
    }
}
