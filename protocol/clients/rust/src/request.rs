//! The name of a request, under which a client can send it again.

use std::fmt;
use std::str::FromStr;

use skep_proto::v1;
use skep_protocol::time::LogInstant;

/// Names a request: its id, and the shard's clock at its first sending.
///
/// Both are needed: the shard remembers an id until the request's deadline, which counts from then. A client that sends
/// the same thing again under the same name sends the same request, and the shard does it once. As text: `UUID@CLOCK`,
/// or the id alone for a request that was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestName {
    /// The request id.
    pub id: uuid::Uuid,
    /// The shard's clock at the first sending; none if the request was never sent.
    pub first_sent: Option<LogInstant>,
}

/// A text that is not the name of a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a request; give UUID@CLOCK, as the error named it, or a UUID of your own")]
pub struct RequestNameError(String);

impl RequestName {
    /// The name of the request with this identity.
    pub(crate) fn of(meta: &v1::RequestMeta) -> Self {
        let id = uuid::Uuid::from_slice(&meta.request_id).unwrap_or_default();
        Self { id, first_sent: (meta.first_sent > 0).then(|| LogInstant::from_raw(meta.first_sent)) }
    }
}

impl fmt::Display for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first_sent {
            Some(first_sent) => write!(f, "{}@{}", self.id, first_sent.raw()),
            None => write!(f, "{}", self.id),
        }
    }
}

impl FromStr for RequestName {
    type Err = RequestNameError;
    fn from_str(text: &str) -> Result<Self, RequestNameError> {
        let bad = || RequestNameError(text.chars().take(80).collect());
        let (id, clock) = match text.split_once('@') {
            Some((id, clock)) => (id, Some(clock)),
            None => (text, None),
        };
        let id = uuid::Uuid::try_parse(id).ok().filter(|id| !id.is_nil()).ok_or_else(bad)?;
        let raw: Option<u64> = clock.map(str::parse).transpose().map_err(|_| bad())?;
        Ok(Self { id, first_sent: raw.map(LogInstant::from_raw) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_named_so_that_it_can_be_sent_again() {
        // hashicorp/nomad#10641
        let meta = v1::RequestMeta { request_id: vec![7; 16], shard: 1, first_sent: 90, deadline: 100 };
        let name = RequestName::of(&meta);
        assert_eq!(name.to_string(), "07070707-0707-0707-0707-070707070707@90");
        assert_eq!(name.to_string().parse(), Ok(name));
        let own: RequestName = "07070707-0707-0707-0707-070707070707".parse().unwrap();
        assert_eq!((own.id, own.first_sent), (name.id, None));
        for bad in ["", "7", "@90", "07070707-0707-0707-0707-070707070707@", "00000000-0000-0000-0000-000000000000@1"] {
            assert!(bad.parse::<RequestName>().is_err(), "{bad:?}");
        }
    }
}
