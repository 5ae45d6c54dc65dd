//! Following what the log of a shard changes.

use skep_protocol::history::{HistoryEdge, HistoryRecord};
use skep_protocol::ids::ShardId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Host;
use crate::calls::{Call, Calls};
use crate::drain::until;
use crate::failure::Failed;

/// Events of one watcher that wait for it to read. The watch itself waits then.
const EVENTS_QUEUED_MAX: usize = 256;

impl Host {
    /// Tells a watcher what the changes from an index on mean, then those that follow, as long as it listens and the node serves.
    /// From an index of none only what follows. Ends with what to do where the history begins later, or what entries did is lost.
    pub(super) fn follow<Event: Send + 'static>(
        &self,
        shard: ShardId,
        from: Option<u64>,
        events_of: impl Fn(&HistoryRecord) -> Vec<Event> + Send + 'static,
    ) -> ReceiverStream<Result<Event, Failed>> {
        let (events, stream) = mpsc::channel(EVENTS_QUEUED_MAX);
        let (calls, stopped) = (self.calls.clone(), self.stopped.clone());
        tokio::spawn(async move {
            let failed = tokio::select! {
                failed = tell(&calls, &events, shard, from, events_of) => failed,
                // It does not keep the node from stopping, and hears why it ends.
                () = until(stopped) => Some(Failed::stopping()),
            };
            if let Some(failed) = failed {
                // A watcher that does not read does not hear why.
                let _ = events.try_send(Err(failed));
            }
        });
        ReceiverStream::new(stream)
    }
}

/// Tells until nobody listens, or until it cannot go on: why not.
async fn tell<Event: Send + 'static>(
    calls: &Calls,
    events: &mpsc::Sender<Result<Event, Failed>>,
    shard: ShardId,
    from: Option<u64>,
    events_of: impl Fn(&HistoryRecord) -> Vec<Event>,
) -> Option<Failed> {
    let mut from = from.map(|index| (index, 0));
    loop {
        let mut page = match calls.ask(|answer| Call::Changes { shard, from, answer }).await {
            Ok(Ok(page)) => page,
            Ok(Err(why)) => return Some(Failed::not_done(&why)),
            Err(_) => return Some(Failed::stopping()),
        };
        let nothing = page.sets.is_empty();
        if nothing && let Some(gone) = gone(page.next, &page.edge) {
            return Some(gone);
        }
        for set in page.sets {
            let (index, term) = (set.index, set.term);
            for change in set.changes {
                for event in events_of(&HistoryRecord { index, term, change }) {
                    if events.send(Ok(event)).await.is_err() {
                        return None;
                    }
                }
            }
        }
        from = Some((page.next, page.skip));
        let (next, skip) = (page.next, page.skip);
        let more = async {
            // The rest of what one entry did.
            if skip > 0 && !nothing {
                return Ok(());
            }
            // Readable and yet nothing came: there is a gap, and it is being filled.
            if nothing && *page.progress.borrow() > next {
                return page.progress.changed().await;
            }
            page.progress.wait_for(|readable| *readable > next).await.map(drop)
        };
        tokio::select! {
            () = events.closed() => return None,
            more = more => if more.is_err() { return Some(Failed::stopping()) },
        }
    }
}

/// What a watcher is told that wants what there is none of, and will be none.
fn gone(index: u64, edge: &HistoryEdge) -> Option<Failed> {
    if index < edge.begins {
        return Some(Failed::history_gone(format!("the history begins at entry {}", edge.begins), edge.begins));
    }
    let lost = edge.missing.filter(|missing| missing.lost)?;
    Some(Failed::history_gone(format!("no voter has what entries {} to {} did", lost.from, lost.end - 1), lost.end))
}

#[cfg(test)]
mod tests {
    use skep_protocol::history::Missing;

    use super::*;

    #[test]
    fn a_watcher_is_told_where_to_go_on() {
        let lost = Missing { from: 7, end: 9, lost: true };
        let edge = HistoryEdge { begins: 5, begins_at: None, missing: None };
        assert!(gone(4, &edge).unwrap().failure.help.contains("from 5"));
        assert!(gone(5, &edge).is_none());
        let edge = HistoryEdge { missing: Some(lost), ..edge };
        assert!(gone(8, &edge).unwrap().failure.help.contains("from 9"));
        let edge = HistoryEdge { missing: Some(Missing { lost: false, ..lost }), ..edge };
        assert!(gone(8, &edge).is_none(), "it is being fetched");
    }
}
