//! Fills the history, from the log and from peers.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use skep_protocol::change::ChangeSet;
use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use skep_protocol::query::{Answer, Query, QueryFailure, QueryReply};
use skep_store::set_bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::replay::fill_from_log;
use crate::shard::Shard;
use crate::threads::Errand;

/// Interval between two attempts to fill a gap in the history.
const FILL_EVERY: Duration = Duration::from_secs(1);
/// Number of a gap's entries that are fetched first, in their order.
const WINDOW_FIRST: u64 = 64;
/// The most answers for the entries that are fetched in their order: after more answers, the node fetches fewer entries
/// at a time.
const ANSWERS_PER_WINDOW: u32 = 4;

/// Fills what is missing in the history. The node works out from its own log what can be applied again. What is older,
/// such as what an installed snapshot covers, it fetches from a voter that has it: the latest first, one answer at a
/// time, with as long a rest after each answer as that took. What was fetched stays, so that an interrupted fetch goes
/// on where it was cut off. What no voter has is lost. The shards of a node take `turns`.
pub(crate) async fn fill_history(shard: Shard, turns: Arc<Semaphore>) {
    let history = shard.parts().store.history().clone();
    let mut progress = history.progress(shard.id());
    let mut window = WINDOW_FIRST;
    loop {
        // At most once a second, and for as long as there is a gap: a node that can fill it may come later.
        tokio::time::sleep(FILL_EVERY).await;
        if history.gap(shard.id()).is_none() && progress.changed().await.is_err() {
            return;
        }
        while let Some(gap) = history.gap(shard.id()) {
            let Ok(turn) = turns.acquire().await else { return };
            let filled = fill_latest(&shard, &gap, &mut window).await;
            drop(turn);
            if !filled {
                break;
            }
        }
    }
}

/// A point of the history: an index, and how many changes of that entry come before it.
type HistoryPoint = (u64, u32);

/// What the voters have of a gap.
enum Found {
    /// Changes from a point on, and the point up to which the gap stays open.
    Changes(Vec<ChangeSet>, HistoryPoint),
    /// No voter has these entries.
    Nobody(Range<u64>),
    /// Not all voters have answered.
    Unknown,
}

/// Fills the end of a gap; false if going on at once would be of no use.
async fn fill_latest(shard: &Shard, gap: &Range<u64>, window: &mut u64) -> bool {
    let (parts, id) = (shard.parts(), shard.id());
    let history = parts.store.history();
    if history.is_failing() {
        return false;
    }
    if history.is_full_below(id, gap.end) {
        history.lose(id, gap.clone());
        return true;
    }
    let own = from_own_log(shard, gap).await;
    if own == OwnLog::Filled {
        return true;
    }
    let mut at: HistoryPoint = (gap.end.saturating_sub(*window).max(gap.start), 0);
    let mut answers = 0;
    while at.0 < gap.end {
        let begun = Instant::now();
        match ask_voters(shard, at, gap).await {
            Found::Changes(mut sets, next) => {
                sets.retain(|set| set.index < gap.end);
                let bytes: usize = sets.iter().map(set_bytes).sum();
                let covers = at.0..next.0.min(gap.end);
                let filling = history.clone();
                let fill = move || filling.fill(id, at.1, &sets, covers);
                // The disk may be full: the node tries again later.
                if !parts.threads.offload(Errand::Files, fill).await.unwrap_or(false) {
                    return false;
                }
                tokio::time::sleep(rest(begun.elapsed(), bytes)).await;
                at = next;
                answers += 1;
            }
            Found::Nobody(range) => {
                let gone = lost(&range, own);
                if gone.is_empty() {
                    return false;
                }
                history.lose(id, gone);
                return true;
            }
            Found::Unknown => return false,
        }
    }
    if answers > ANSWERS_PER_WINDOW {
        *window = (*window / 2).max(1);
    } else if answers <= 1 {
        *window = (*window * 2).min(limits::HISTORY_FILL_ENTRIES_MAX);
    }
    true
}

/// The rest after an answer of this many bytes that took this long. Half of the link, and of the disks at both ends,
/// stays free for other work, and the node never fetches faster than a fixed rate.
fn rest(took: Duration, bytes: usize) -> Duration {
    let at_rate = Duration::from_secs_f64(bytes as f64 / limits::HISTORY_FILL_BYTES_PER_S as f64);
    took.max(at_rate.saturating_sub(took))
}

/// What a look into the log of this node found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnLog {
    /// The log held what was missing, and the node has filled it in.
    Filled,
    /// The log does not hold what is missing.
    Older,
    /// The log may hold what is missing from this index on, but this attempt cannot work it out: another build, or
    /// another attempt, may.
    From(u64),
}

/// Works out from the log what the entries of a gap did, as far as this node can apply them again: it need not ask
/// another node for those.
async fn from_own_log(shard: &Shard, gap: &Range<u64>) -> OwnLog {
    let (parts, id) = (shard.parts(), shard.id());
    let Some(held) = held(gap, parts.store.history().base(id)) else { return OwnLog::Older };
    let from = OwnLog::From(held.start);
    if shard.unfit().is_some() {
        return from;
    }
    let (store, build) = (parts.store.clone(), parts.build);
    let fill = move || fill_from_log(&store, id, &build, held);
    match parts.threads.offload(Errand::Snapshots, fill).await {
        Ok(Ok(true)) => OwnLog::Filled,
        Ok(Ok(false)) => OwnLog::Older,
        Ok(Err(error)) | Err(error) => {
            tracing::warn!(shard = %id, %error, "cannot work out from the log what is missing in the history");
            from
        }
    }
}

/// The entries of a gap that can be applied again, from the snapshot and the log; none if all are older.
fn held(gap: &Range<u64>, base: u64) -> Option<Range<u64>> {
    (base < gap.end).then_some(gap.start.max(base)..gap.end)
}

/// The entries that this node stops looking for: no voter has them, and the log of this node cannot hold them.
fn lost(nobody: &Range<u64>, own: OwnLog) -> Range<u64> {
    match own {
        OwnLog::From(from) => nobody.start..nobody.end.min(from),
        OwnLog::Filled | OwnLog::Older => nobody.clone(),
    }
}

/// Fetches changes from a point in a gap on. The leader is asked first, and then every other voter, since one may lack
/// what another has.
async fn ask_voters(shard: &Shard, at: HistoryPoint, gap: &Range<u64>) -> Found {
    let parts = shard.parts();
    let leader = shard.view().borrow().leader;
    let mut voters: Vec<NodeId> = shard.voters().into_values().map(|member| member.node).collect();
    // A node that does not vote does not know which node might have the changes.
    let mut everybody_says = voters.contains(&parts.node);
    voters.retain(|node| *node != parts.node);
    voters.sort_by_key(|node| Some(*node) != leader);
    let mut lacking = gap.clone();
    for voter in voters {
        let query = Query::Changes { from: at.0, skip: at.1 };
        let reply = match parts.peers.connected(voter) {
            Some(_) => parts.query(voter, shard.id(), &query).await,
            None => Err(QueryFailure::NoQuorum),
        };
        let Ok(QueryReply { answer: Answer::Changes { sets, next, skip, edge }, .. }) = reply else {
            everybody_says = false;
            continue;
        };
        if (next, skip) > at {
            return Found::Changes(sets, (next, skip));
        }
        match edge.lacks(at.0) {
            Some((from, end)) => lacking = lacking.start.max(from)..lacking.end.min(end),
            // This voter has not come so far.
            None => everybody_says = false,
        }
    }
    if everybody_says && !lacking.is_empty() { Found::Nobody(lacking) } else { Found::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_applied_again_is_asked_of_nobody_and_never_lost() {
        assert_eq!(held(&(10..30), 20), Some(20..30), "the log has the end of it");
        assert_eq!(held(&(20..30), 10), Some(20..30), "all of it");
        assert_eq!((held(&(10..20), 20), held(&(0..5), 20)), (None, None), "nothing");
        assert_eq!(lost(&(10..30), OwnLog::From(20)), 10..20);
        assert!(lost(&(20..30), OwnLog::From(20)).is_empty());
        assert_eq!(lost(&(10..20), OwnLog::Older), 10..20);
    }

    #[test]
    fn a_fill_leaves_half_of_the_link_to_others_and_is_never_faster_than_its_rate() {
        let (second, rate) = (Duration::from_secs(1), limits::HISTORY_FILL_BYTES_PER_S as usize);
        assert_eq!(rest(second, 1), second, "a thin link");
        assert_eq!(rest(second / 10, rate), second * 9 / 10, "a quick one");
        assert_eq!(rest(Duration::ZERO, 0), Duration::ZERO);
    }
}
