//! Queries of a shard.

use skep_proto::{convert, v1};
use skep_protocol::query::{Answer, AsOf, Query};

use super::Host;
use crate::calls::Call;
use crate::failure::Failed;

impl Host {
    /// Reads a shard: what there is, and where the answer stands.
    pub(super) async fn read(
        &self,
        read: Option<v1::ReadOptions>,
        query: Query,
        patience_ms: u64,
    ) -> Result<(AsOf, Answer), Failed> {
        let read = read.unwrap_or_default();
        let (shard, stale) = (convert::shard_id(read.shard), read.stale);
        let answered = self.calls.ask(|answer| Call::Query { shard, query, stale, patience_ms, answer }).await;
        match answered {
            Ok(Ok(reply)) => Ok((reply.as_of, reply.answer)),
            Ok(Err(why)) => Err(Failed::not_done(&why)),
            Err(_) => Err(Failed::stopping()),
        }
    }
}

pub(super) fn mismatched() -> Failed {
    Failed::bug("the answer is not one to this query")
}
