//! Following what the log of a shard changes.

use skep_protocol::ids::ShardId;
use skep_protocol::query::HistoryRecord;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::calls::{Call, Calls};
use crate::failure::Failed;

/// Events of one watcher that wait for it to read. The watch itself waits then.
const EVENTS_QUEUED_MAX: usize = 256;

/// Tells a watcher what the changes from an index on mean, then those that follow, as long as it listens. From an index
/// of none only what follows.
pub(crate) fn follow<Event: Send + 'static>(
    calls: Calls,
    shard: ShardId,
    mut from: Option<u64>,
    events_of: impl Fn(&HistoryRecord) -> Vec<Event> + Send + 'static,
) -> ReceiverStream<Result<Event, Status>> {
    let (events, stream) = mpsc::channel(EVENTS_QUEUED_MAX);
    tokio::spawn(async move {
        loop {
            let page = calls.ask(|answer| Call::Changes { shard, from, answer }).await;
            let mut page = match page {
                Ok(Some(page)) => page,
                Ok(None) => return drop(events.send(Err(Failed::no_replica().into_status())).await),
                Err(_) => return drop(events.send(Err(Failed::stopping().into_status())).await),
            };
            let nothing = page.sets.is_empty();
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
            from = Some(page.next);
            let next = page.next;
            let more = async {
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
