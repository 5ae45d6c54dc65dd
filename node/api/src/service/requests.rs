//! Requests to a shard: the API submits each one and waits for its end.

use skep_proto::convert::{FieldError, Meta};
use skep_protocol::entry::{Op, Request};
use skep_protocol::ids::{RequestId, ShardId};
use skep_protocol::limits;
use skep_protocol::outcome::Receipt;
use skep_protocol::settled::Settled;
use skep_protocol::time::LogInstant;

use super::Host;
use crate::calls::{Call, Unanswered};
use crate::failure::Failed;

/// What a request did, and where the answer stands in the log.
pub(super) struct Done {
    pub(super) id: RequestId,
    pub(super) shard: ShardId,
    pub(super) receipt: Receipt,
    pub(super) index: u64,
    pub(super) stamp: LogInstant,
}

impl Host {
    /// Submits a request: fills in what the client left out, and waits for the end.
    pub(super) async fn submit(&self, (meta, op): (Meta, impl Into<Op>), patience_ms: u64) -> Result<Done, Failed> {
        let (shard, op) = (meta.shard, op.into());
        let first_sent = match (meta.first_sent, meta.id) {
            (Some(first_sent), _) => first_sent,
            (None, None) => self.clock(shard).await?,
            // If the API filled in the clock anew at every sending, a late retry would pass for a new request.
            (None, Some(_)) => {
                let why =
                    "give the shard's clock at first sending with every request_id (NodeQueries.Clock)".to_owned();
                return Err(Failed::field(&FieldError { field: "meta.first_sent", why }));
            }
        };
        let id = meta.id.unwrap_or_else(|| RequestId::from_bytes(uuid::Uuid::now_v7().into_bytes()));
        let deadline = meta.deadline.unwrap_or_else(|| first_sent.plus_ms(limits::REQUEST_DEADLINE_MS_DEFAULT));
        let request = Box::new(Request { id, first_sent, deadline, op });
        match self.calls.ask(|answer| Call::Submit { shard, request, patience_ms, answer }).await {
            Ok(Settled::Done { index, stamp, receipt }) => Ok(Done { id, shard, receipt, index, stamp }),
            Ok(Settled::NotDone(why)) => Err(Failed::not_done(&why)),
            Ok(Settled::Unknown | Settled::Read(_) | Settled::Heard(_) | Settled::Pulled(_)) => Err(Failed::unknown()),
            Err(Unanswered::NotTaken) => Err(Failed::stopping()),
            // A node that stops may have proposed the request.
            Err(Unanswered::Dropped) => Err(Failed::unknown()),
        }
    }

    /// The log clock of a shard.
    pub(super) async fn clock(&self, shard: ShardId) -> Result<LogInstant, Failed> {
        let clock = self.calls.ask(|answer| Call::Clock { shard, answer }).await.map_err(|_| Failed::stopping())?;
        clock.map_err(|why| Failed::not_done(&why))
    }
}
