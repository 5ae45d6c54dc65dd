//! Follows what the log of a shard changes.

use std::time::Duration;

use skep_protocol::change::ChangeSet;
use skep_protocol::history::{HistoryEdge, HistoryRecord};
use skep_protocol::ids::ShardId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Host;
use crate::calls::{Call, Calls};
use crate::drain::until;
use crate::failure::Failed;

/// How many events of one watcher may wait for it to read. After that the watch itself waits.
const EVENTS_QUEUED_MAX: usize = 256;
/// How long the API holds a page of changes for a watcher that does not read. After that the API drops the page, and
/// reads it again once the watcher has read the events that it was told.
const HELD_FOR: Duration = Duration::from_secs(1);

impl Host {
    /// Tells a watcher the events of the changes from an index on, then of those that follow, as long as the watcher
    /// listens and the node serves. Without an index the watcher hears only what follows. The stream ends with advice
    /// where the history begins later, or has lost what entries did.
    pub(super) fn follow<Event: Send + 'static>(
        &self,
        shard: ShardId,
        from: Option<u64>,
        events_of: impl Fn(&HistoryRecord) -> Vec<Event> + Send + Sync + 'static,
    ) -> ReceiverStream<Result<Event, Failed>> {
        let (events, stream) = mpsc::channel(EVENTS_QUEUED_MAX);
        let (calls, stopped) = (self.calls.clone(), self.stopped.clone());
        tokio::spawn(async move {
            let failed = tokio::select! {
                failed = tell(&calls, &events, shard, from, events_of) => failed,
                // The watch does not keep the node from stopping. Its watcher hears why it ends.
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

/// Tells events until the watcher is gone, or until the watch cannot go on; gives the reason for that.
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
        match say(events, std::mem::take(&mut page.sets), from, &events_of).await {
            Said::All => from = Some((page.next, page.skip)),
            Said::UpTo(index, skip) => {
                from = Some((index, skip));
                // The whole queue has to be free, or the API could drop the next page again before the watcher read
                // anything.
                if events.reserve_many(EVENTS_QUEUED_MAX).await.is_err() {
                    return None;
                }
                continue;
            }
            Said::ToNobody => return None,
        }
        let (next, skip) = (page.next, page.skip);
        let more = async {
            // The page has more of what the entry did.
            if skip > 0 && !nothing {
                return Ok(());
            }
            // The entries are readable, and yet the page is empty: the node is filling a gap in its history.
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

/// How much of a page the watcher was told.
enum Said {
    All,
    /// All changes before this index, and so many changes of it: the watcher does not read.
    UpTo(u64, u32),
    /// The watcher is gone.
    ToNobody,
}

/// Tells the events of a page that begins at `from`, as long as the watcher reads them.
async fn say<Event: Send + 'static>(
    events: &mpsc::Sender<Result<Event, Failed>>,
    sets: Vec<ChangeSet>,
    from: Option<(u64, u32)>,
    events_of: &impl Fn(&HistoryRecord) -> Vec<Event>,
) -> Said {
    for ChangeSet { index, term, changes } in sets {
        let skipped = from.filter(|(first, _)| *first == index).map_or(0, |(_, skip)| skip);
        for (change, before) in changes.into_iter().zip(skipped..) {
            let all = events_of(&HistoryRecord { index, term, change });
            let room = events.reserve_many(all.len().min(EVENTS_QUEUED_MAX));
            match tokio::time::timeout(HELD_FOR, room).await {
                // No other sender uses this channel, so the room stays.
                Ok(Ok(room)) => drop(room),
                Ok(Err(_)) => return Said::ToNobody,
                Err(_) => return Said::UpTo(index, before),
            }
            for event in all {
                if events.send(Ok(event)).await.is_err() {
                    return Said::ToNobody;
                }
            }
        }
    }
    Said::All
}

/// What a watcher is told that asks for changes which the shard has lost for good.
fn gone(index: u64, edge: &HistoryEdge) -> Option<Failed> {
    if index < edge.begins {
        return Some(Failed::history_gone(format!("the history begins at entry {}", edge.begins), edge.begins));
    }
    let lost = edge.missing.filter(|missing| missing.lost)?;
    Some(Failed::history_gone(format!("no voter has what entries {} to {} did", lost.from, lost.end - 1), lost.end))
}

#[cfg(test)]
mod tests {
    use skep_protocol::change::{Change, ChangeKind, ShardChange};
    use skep_protocol::history::Missing;
    use skep_protocol::time::LogInstant;

    use super::*;

    /// Entries from 1 on, each with three changes, from a place on.
    fn page(from: (u64, u32), entries: u64) -> Vec<ChangeSet> {
        let change = || Change {
            at: LogInstant::ZERO,
            request: None,
            what: ChangeKind::Shard(ShardChange::ClockLost { now: LogInstant::ZERO }),
        };
        let set = |index| {
            let skip = if index == from.0 { from.1 } else { 0 };
            ChangeSet { index, term: 1, changes: (skip..3).map(|_| change()).collect() }
        };
        (from.0..=entries).map(set).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_that_its_watcher_does_not_read_is_let_go_of_and_goes_on_where_that_was() {
        let entries = 200;
        let (events, mut heard) = mpsc::channel::<Result<u64, Failed>>(EVENTS_QUEUED_MAX);
        let index_of = |record: &HistoryRecord| vec![record.index];
        let (mut from, mut told, mut pages) = ((1, 0), Vec::new(), 0);
        loop {
            pages += 1;
            let begun = tokio::time::Instant::now();
            let said = say(&events, page(from, entries), Some(from), &index_of).await;
            assert!(begun.elapsed() < HELD_FOR * 2, "of virtual time");
            while let Ok(event) = heard.try_recv() {
                told.push(event.map_err(|failed| failed.failure).unwrap());
            }
            match said {
                Said::All => break,
                Said::UpTo(index, skip) => from = (index, skip),
                Said::ToNobody => panic!("the watcher listens"),
            }
        }
        let expected: Vec<u64> = (1..=entries).flat_map(|index| [index; 3]).collect();
        assert_eq!(told, expected, "each once, in order");
        assert!(pages > 2, "{pages}");
        drop(heard);
        assert!(matches!(say(&events, page((1, 0), 1), None, &index_of).await, Said::ToNobody));
    }

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
