//! How many bytes peers may have a node hold for them.
//!
//! A call takes as much as its header announces, before any of its body is read, until it is answered; an answer that may be large as
//! much as it may have, before it is made, until it is written. Whoever has none left waits: what it sends stays in its own memory, and
//! on the way. So one peer takes so much and no more, whatever it sends, and whether it reads or not.

use std::sync::Arc;

use skep_protocol::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is counted at a time, in bytes.
const UNIT: usize = 1_024;

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

fn of_bytes(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(bytes / UNIT))
}

/// For all peers of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct NodeBudget(Arc<Semaphore>);

impl Default for NodeBudget {
    fn default() -> Self {
        Self(of_bytes(limits::CALL_BYTES_UNDER_WAY_MAX))
    }
}

/// For one connection.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    node: NodeBudget,
    calls: Arc<Semaphore>,
    /// What groups say between voters does not wait behind the calls of the same peer, either.
    groups: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    /// Those that may wait until there is something to tell do not keep the others waiting.
    pulls: Arc<Semaphore>,
}

/// What was taken. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    _of_peer: Option<OwnedSemaphorePermit>,
    _of_node: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(super) fn new(node: NodeBudget) -> Self {
        let (calls, answers) = (limits::CALL_BYTES_PER_PEER_MAX, limits::LARGE_ANSWER_BYTES_PER_PEER_MAX);
        let (answers, pulls) = (of_bytes(answers), of_bytes(answers));
        Self { node, calls: of_bytes(calls), groups: of_bytes(calls), answers, pulls }
    }

    /// Waits until there is room for a call of so many bytes. What voters say to each other in a group waits for no other calls, and
    /// votes and beats not even for entries: those are held until a disk has them, and of a few bytes there are no more than calls.
    pub(super) async fn call(&self, bytes: usize, of_voters: bool) -> Held {
        if of_voters && bytes <= limits::WORD_BYTES_MAX {
            return Held { _of_peer: None, _of_node: None };
        }
        let units = units(bytes);
        let of_peer = if of_voters { &self.groups } else { &self.calls };
        let _of_peer = Arc::clone(of_peer).acquire_many_owned(units).await.ok();
        let node = Arc::clone(&self.node.0);
        let _of_node = if of_voters { None } else { node.acquire_many_owned(units).await.ok() };
        Held { _of_peer, _of_node }
    }

    /// Waits until there is room for an answer of so many bytes.
    pub(super) async fn answer(&self, bytes: usize, to_pull: bool) -> Held {
        let of_peer = if to_pull { &self.pulls } else { &self.answers };
        let _of_peer = Arc::clone(of_peer).acquire_many_owned(units(bytes)).await.ok();
        Held { _of_peer, _of_node: None }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_peer_takes_so_much_and_no_more_and_keeps_neither_others_nor_voters_waiting() {
        let node = NodeBudget::default();
        let (first, second) = (Budget::new(node.clone()), Budget::new(node));
        let take = |budget: &Budget| budget.call(limits::CALL_BYTES_MAX, false).now_or_never();
        let mut held: Vec<Held> = std::iter::from_fn(|| take(&first)).collect();
        assert_eq!(held.len(), limits::CALL_BYTES_PER_PEER_MAX / limits::CALL_BYTES_MAX);
        assert!(take(&second).is_some(), "another peer does not wait for it");
        assert!(first.call(limits::CALL_BYTES_MAX, true).now_or_never().is_some(), "nor do its own votes");
        held.pop();
        assert!(take(&first).is_some(), "what was given back is there again");
        // Many peers have all that there is.
        let others: Vec<Budget> = (0..100).map(|_| Budget::new(first.node.clone())).collect();
        for budget in &others {
            held.extend(std::iter::from_fn(|| take(budget)));
        }
        assert_eq!(held.len(), limits::CALL_BYTES_UNDER_WAY_MAX / limits::CALL_BYTES_MAX);
        assert!(take(&second).is_none());
        assert!(second.call(limits::CALL_BYTES_MAX, true).now_or_never().is_some(), "voters go on");
        assert!(second.answer(limits::CALL_BYTES_MAX, false).now_or_never().is_some());
        // Entries of a group that a slow disk has not written keep no beat waiting.
        let entries = || second.call(limits::CALL_BYTES_MAX, true).now_or_never();
        held.extend(std::iter::from_fn(entries));
        assert!(second.call(limits::WORD_BYTES_MAX, true).now_or_never().is_some());
        // Nor do pulls that wait keep pages waiting.
        held.extend(std::iter::from_fn(|| second.answer(limits::PULL_BYTES_SOFT_MAX, true).now_or_never()));
        assert!(second.answer(limits::CALL_BYTES_MAX, false).now_or_never().is_some());
    }
}
