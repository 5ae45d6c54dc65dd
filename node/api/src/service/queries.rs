//! Queries of a shard.

use std::time::Duration;

use skep_proto::{convert, v1};
use skep_protocol::ids::ShardId;
use skep_protocol::outcome::NotDone;
use skep_protocol::query::{Answer, AsOf, Query};
use tokio::time::Instant;

use super::{Caller, Host};
use crate::calls::Call;
use crate::failure::Failed;

/// When a client whose pages wait to be read may ask for one more, in milliseconds.
const UNREAD_RETRY_MS: u64 = 100;

impl Host {
    /// Reads a shard. Gives the reply, and the index and the age of the answer.
    pub(super) async fn read(
        &self,
        caller: &Caller,
        read: Option<v1::ReadOptions>,
        query: Query,
    ) -> Result<(AsOf, Answer), Failed> {
        let read = read.unwrap_or_default();
        self.read_of(convert::shard_id(read.shard), caller, read.stale, query).await
    }

    /// Reads a shard of this number.
    pub(super) async fn read_of(
        &self,
        shard: ShardId,
        caller: &Caller,
        stale: bool,
        query: Query,
    ) -> Result<(AsOf, Answer), Failed> {
        let patience_ms = if is_page(&query) { place_of(caller).await? } else { caller.patience_ms };
        let answered = self.calls.ask(|answer| Call::Query { shard, query, stale, patience_ms, answer }).await;
        match answered {
            Ok(Ok(reply)) => Ok((reply.as_of, reply.answer)),
            Ok(Err(why)) => Err(Failed::not_done(&why)),
            Err(_) => Err(Failed::stopping()),
        }
    }
}

/// Whether the answer may be large.
fn is_page(query: &Query) -> bool {
    match query {
        Query::Tasks { .. }
        | Query::History { .. }
        | Query::Agents { .. }
        | Query::Changes { .. }
        | Query::Command { .. }
        | Query::Commands { .. }
        | Query::Operators { .. }
        | Query::Site(_) => true,
        // Many may wait for ends at a time, each with an answer of its own that is read at once.
        Query::Task(_) | Query::Counts | Query::Place | Query::CommandEnd { .. } => false,
    }
}

/// Waits for a place for a page. Gives how long the caller still waits after that, in milliseconds.
async fn place_of(caller: &Caller) -> Result<u64, Failed> {
    let Some(connection) = &caller.connection else { return Ok(caller.patience_ms) };
    let begun = Instant::now();
    if !connection.page().take_place(Duration::from_millis(caller.patience_ms)).await {
        return Err(Failed::not_done(&NotDone::Overloaded { retry_after_ms: UNREAD_RETRY_MS }));
    }
    let waited_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(caller.patience_ms.saturating_sub(waited_ms).max(1))
}

pub(super) fn mismatched() -> Failed {
    Failed::bug("the node answered another query")
}
