//! Following what the log of a shard changes.

use skep_protocol::ids::ShardId;
use skep_protocol::query::{HistoryEdge, HistoryRecord};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::calls::{Call, Calls};
use crate::failure::Failed;

/// Events of one watcher that wait for it to read. The watch itself waits then.
const EVENTS_QUEUED_MAX: usize = 256;

/// Tells a watcher what the changes from an index on mean, then those that follow, as long as it listens. From an index
/// of none only what follows. Ends with what to do where the history begins later, or what entries did is lost.
pub(crate) fn follow<Event: Send + 'static>(
    calls: Calls,
    shard: ShardId,
    from: Option<u64>,
    events_of: impl Fn(&HistoryRecord) -> Vec<Event> + Send + 'static,
) -> ReceiverStream<Result<Event, Status>> {
    let (events, stream) = mpsc::channel(EVENTS_QUEUED_MAX);
    let mut from = from.map(|index| (index, 0));
    tokio::spawn(async move {
        loop {
            let page = calls.ask(|answer| Call::Changes { shard, from, answer }).await;
            let mut page = match page {
                Ok(Some(page)) => page,
                Ok(None) => return drop(events.send(Err(Failed::no_replica().into_status())).await),
                Err(_) => return drop(events.send(Err(Failed::stopping().into_status())).await),
            };
            let nothing = page.sets.is_empty();
            if nothing && let Some(gone) = gone(page.next, &page.edge) {
                return drop(events.send(Err(gone.into_status())).await);
            }
            for set in page.sets {
                let (index, term) = (set.index, set.term);
                for change in set.changes {
                    for event in events_of(&HistoryRecord { index, term, change }) {
                        if events.send(Ok(event)).await.is_err() {
                            return;
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
                () = events.closed() => return,
                more = more => if more.is_err() { return },
            }
        }
    });
    ReceiverStream::new(stream)
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
    use skep_protocol::query::Missing;

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
