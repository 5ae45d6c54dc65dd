//! How many bytes peers may have a node hold for them.
//!
//! A call takes as much as its header announces, before any of its body is read, until it is answered; an answer that may be large as
//! much as it may have, before it is made, until it is written. Whoever has none left waits: what it sends stays in its own memory, and
//! on the way. So one peer takes so much and no more, whatever it sends, and whether it reads or not.
//!
//! What brings work has the largest share. What ends it, what agents live by, and questions have shares of their own: who proposes much
//! holds up neither its own ends nor its renewals, and nobody's reads. A word waits for nothing, and neither does the first call of each
//! kind that is not large: peers that hold all there is for calls that do not come keep nobody else from these.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_protocol::frame::FrameKind;
use skep_protocol::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::calls::Class;

/// What is counted at a time, in bytes.
const UNIT: usize = 1_024;

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// Room for so many bytes.
#[derive(Clone, Debug)]
struct Share {
    room: Arc<Semaphore>,
    /// How many wait for some.
    waiting: Arc<AtomicUsize>,
}

impl Share {
    fn of_bytes(bytes: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(bytes / UNIT)), waiting: Arc::default() }
    }

    fn try_take(&self, units: u32) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        Arc::clone(&self.room).try_acquire_many_owned(units)
    }

    /// Waits for room.
    async fn take(&self, units: u32) -> Option<OwnedSemaphorePermit> {
        if let Ok(taken) = self.try_take(units) {
            return Some(taken);
        }
        let _counted = InLine::at(self);
        Arc::clone(&self.room).acquire_many_owned(units).await.ok()
    }
}

/// Somebody who waits for room, until it is dropped.
struct InLine(Arc<AtomicUsize>);

impl InLine {
    fn at(share: &Share) -> Self {
        share.waiting.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&share.waiting))
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Room for calls that are no group's own, by what they are about.
#[derive(Clone, Debug)]
struct Shares {
    /// What brings work.
    work: Share,
    /// What ends work.
    ends: Share,
    /// Heartbeats of nodes, which renew leases, and what leaders have for agents.
    agents: Share,
    /// Questions.
    queries: Share,
}

impl Shares {
    /// So many bytes of what brings work, and so many of each of the others.
    fn of(work: usize, others: usize) -> Self {
        let of = Share::of_bytes;
        Self { work: of(work), ends: of(others), agents: of(others), queries: of(others) }
    }

    fn of_class(&self, class: Class) -> &Share {
        match class {
            Class::End => &self.ends,
            Class::Agents => &self.agents,
            Class::Query => &self.queries,
            Class::Urgent | Class::Append | Class::Propose | Class::Snapshot => &self.work,
        }
    }
}

/// What an answer that may be large waits for before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// For nothing.
    No,
    /// Until a command has ended.
    ForEnd,
}

/// Room for answers that may be large. Those that may wait until there is something to tell keep neither the others waiting nor each
/// other.
#[derive(Clone, Debug)]
struct Answers {
    pages: Share,
    /// They take nothing while they wait: see [`AnswerRoom`].
    pulls: Share,
    command_ends: Share,
}

impl Answers {
    /// So many bytes of pages, and so many of each of the others.
    fn of(pages: usize, others: usize) -> Self {
        let of = Share::of_bytes;
        Self { pages: of(pages), pulls: of(others), command_ends: of(others) }
    }

    fn of_wait(&self, waits: Waits) -> &Share {
        match waits {
            Waits::No => &self.pages,
            Waits::ForEnd => &self.command_ends,
        }
    }
}

/// For all peers of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct NodeBudget {
    calls: Shares,
    answers: Answers,
}

impl Default for NodeBudget {
    fn default() -> Self {
        let calls = Shares::of(limits::CALL_BYTES_UNDER_WAY_MAX, limits::KEPT_CALL_BYTES_UNDER_WAY_MAX);
        let answers = Answers::of(limits::LARGE_ANSWER_BYTES_UNDER_WAY_MAX, limits::WAITING_ANSWER_BYTES_UNDER_WAY_MAX);
        Self { calls, answers }
    }
}

/// For one connection.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    node: NodeBudget,
    calls: Shares,
    /// Calls that are counted nowhere else.
    first: Shares,
    /// What groups say between voters does not wait behind the calls of the same peer, either.
    groups: Share,
    answers: Answers,
}

/// What was taken. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    _of_peer: Option<OwnedSemaphorePermit>,
    _of_node: Option<OwnedSemaphorePermit>,
    /// Of what that is, if all peers share it.
    share: Option<Share>,
}

impl Held {
    fn of_peer(taken: Option<OwnedSemaphorePermit>) -> Self {
        Self { _of_peer: taken, _of_node: None, share: None }
    }

    /// Waits for both.
    async fn of_both(peer: &Share, node: &Share, units: u32) -> Self {
        let _of_peer = peer.take(units).await;
        Self { _of_peer, _of_node: node.take(units).await, share: Some(node.clone()) }
    }

    /// Whether somebody waits for room of which this is a part.
    pub(super) fn is_waited_for(&self) -> bool {
        self.share.as_ref().is_some_and(|share| share.waiting.load(Ordering::Relaxed) > 0)
    }
}

impl Budget {
    pub(super) fn new(node: NodeBudget) -> Self {
        let (calls, answers) = (limits::CALL_BYTES_PER_PEER_MAX, limits::LARGE_ANSWER_BYTES_PER_PEER_MAX);
        let first = limits::FIRST_CALL_BYTES_PER_PEER_MAX;
        Self {
            node,
            calls: Shares::of(calls, limits::KEPT_CALL_BYTES_PER_PEER_MAX),
            first: Shares::of(first, first),
            groups: Share::of_bytes(calls),
            answers: Answers::of(answers, answers),
        }
    }

    /// Waits until there is room for a call of so many bytes. What voters say to each other in a group waits for no other calls, and a
    /// word, such as a vote, a beat or a renewal of few, for nothing at all: of a few bytes there are no more than calls.
    pub(super) async fn call(&self, bytes: usize, (kind, class): (FrameKind, Class)) -> Held {
        let (of_voters, units) = (kind.is_of_voters(), units(bytes));
        if bytes <= limits::WORD_BYTES_MAX {
            return Held::of_peer(None);
        }
        if of_voters {
            return Held::of_peer(self.groups.take(units).await);
        }
        if let Ok(first) = self.first.of_class(class).try_take(units) {
            return Held::of_peer(Some(first));
        }
        Held::of_both(self.calls.of_class(class), self.node.calls.of_class(class), units).await
    }

    /// Waits until there is room for an answer of so many bytes.
    pub(super) async fn answer(&self, bytes: usize, waits: Waits) -> Held {
        Held::of_both(self.answers.of_wait(waits), self.node.answers.of_wait(waits), units(bytes)).await
    }

    /// Waits until there is room for what a pull tells.
    async fn pulled(&self, bytes: usize) -> Held {
        // More than there is would be waited for without end.
        let units = units(bytes.min(limits::LARGE_ANSWER_BYTES_PER_PEER_MAX));
        Held::of_both(&self.answers.pulls, &self.node.answers.pulls, units).await
    }
}

/// Room for the answer to one call that may wait until there is something to tell. Such a call takes nothing while it waits, so that a
/// node whose agents are in many shards has one at each of them. Without a budget there is always room. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct AnswerRoom(Option<Arc<Taken>>);

/// What such a call has taken.
#[derive(Debug)]
struct Taken {
    budget: Budget,
    held: Mutex<Option<Held>>,
}

impl Taken {
    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AnswerRoom {
    pub(super) fn within(budget: &Budget) -> Self {
        Self(Some(Arc::new(Taken { budget: budget.clone(), held: Mutex::default() })))
    }

    /// Waits until there is room for an answer of so many bytes, which is made next. It is kept until the answer is written.
    pub(crate) async fn take(&self, bytes: usize) {
        let Some(taken) = &self.0 else { return };
        self.give_back();
        let held = taken.budget.pulled(bytes).await;
        *taken.held() = Some(held);
    }

    /// There was nothing to tell.
    pub(crate) fn give_back(&self) {
        if let Some(taken) = &self.0 {
            drop(taken.held().take());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use skep_protocol::frame::Header;
    use skep_protocol::ids::ShardId;

    use super::*;

    /// As calls of a kind come.
    fn of(kind: FrameKind) -> (FrameKind, Class) {
        (kind, crate::rpc::class_of(kind))
    }

    /// All that there is room for now.
    fn all(budget: &Budget, kind: FrameKind) -> Vec<Held> {
        std::iter::from_fn(|| budget.call(limits::CALL_BYTES_MAX, of(kind)).now_or_never()).collect()
    }

    fn has_room(budget: &Budget, kind: FrameKind) -> bool {
        budget.call(limits::CALL_BYTES_MAX, of(kind)).now_or_never().is_some()
    }

    #[test]
    fn a_peer_takes_so_much_and_no_more_and_keeps_neither_others_nor_voters_waiting() {
        let node = NodeBudget::default();
        let (first, second) = (Budget::new(node.clone()), Budget::new(node));
        let mut held = all(&first, FrameKind::Propose);
        assert_eq!(held.len(), limits::CALL_BYTES_PER_PEER_MAX / limits::CALL_BYTES_MAX);
        assert!(has_room(&second, FrameKind::Propose), "another peer does not wait for it");
        assert!(has_room(&first, FrameKind::Append), "nor do its own entries");
        held.pop();
        assert!(has_room(&first, FrameKind::Propose), "what was given back is there again");
        // Many peers have all that there is.
        let others: Vec<Budget> = (0..100).map(|_| Budget::new(first.node.clone())).collect();
        for budget in &others {
            held.extend(all(budget, FrameKind::Propose));
        }
        assert!(!has_room(&second, FrameKind::Propose));
        assert!(has_room(&second, FrameKind::Append), "voters go on");
        assert!(second.answer(limits::CALL_BYTES_MAX, Waits::No).now_or_never().is_some());
        let word = second.call(limits::WORD_BYTES_MAX, of(FrameKind::Twin)).now_or_never();
        assert!(word.is_some(), "a word waits for nothing");
        // Entries of a group that a slow disk has not written keep no beat waiting.
        held.extend(all(&second, FrameKind::Append));
        assert!(second.call(limits::WORD_BYTES_MAX, of(FrameKind::Beat)).now_or_never().is_some());
    }

    #[test]
    fn a_peer_has_so_many_answers_made_and_those_that_wait_keep_no_others_waiting() {
        let budget = Budget::new(NodeBudget::default());
        let all =
            |bytes, waits| -> Vec<Held> { std::iter::from_fn(|| budget.answer(bytes, waits).now_or_never()).collect() };
        let ends = all(limits::COMMAND_END_ANSWER_BYTES_MAX, Waits::ForEnd);
        assert_eq!(ends.len(), limits::CALLS_IN_FLIGHT_MAX, "a stream is not held up before it has as many calls");
        let pages = all(limits::CALL_BYTES_MAX, Waits::No);
        assert_eq!(pages.len(), 16);
    }

    #[test]
    fn all_peers_have_so_many_answers_made_and_pages_keep_neither_pulls_nor_ends_waiting() {
        let node = NodeBudget::default();
        let peers: Vec<Budget> = (0..100).map(|_| Budget::new(node.clone())).collect();
        let pages = |peer: &Budget| -> Vec<Held> {
            std::iter::from_fn(|| peer.answer(limits::CALL_BYTES_MAX, Waits::No).now_or_never()).collect()
        };
        let mut held: Vec<Held> = peers.iter().flat_map(pages).collect();
        assert_eq!(held.len(), limits::LARGE_ANSWER_BYTES_UNDER_WAY_MAX / limits::CALL_BYTES_MAX);
        let last = &peers[99];
        assert!(last.answer(limits::COMMAND_END_ANSWER_BYTES_MAX, Waits::ForEnd).now_or_never().is_some());
        assert!(AnswerRoom::within(last).take(limits::PULL_BYTES_SOFT_MAX).now_or_never().is_some());
        held.pop();
        assert_eq!(pages(last).len(), 1, "what was read makes room");
        let rooms: Vec<AnswerRoom> =
            peers.iter().flat_map(|peer| (0..16).map(move |_| AnswerRoom::within(peer))).collect();
        let told = rooms.iter().filter(|room| room.take(limits::PULL_BYTES_SOFT_MAX).now_or_never().is_some());
        assert_eq!(told.count(), limits::WAITING_ANSWER_BYTES_UNDER_WAY_MAX / limits::PULL_BYTES_SOFT_MAX);
    }

    #[test]
    fn peers_that_hold_all_there_is_keep_the_first_calls_of_others_from_nothing_and_are_known_to_be_waited_for() {
        let node = NodeBudget::default();
        let peers: Vec<Budget> = (0..100).map(|_| Budget::new(node.clone())).collect();
        let (last, bytes) = (&peers[99], limits::FIRST_CALL_BYTES_PER_PEER_MAX);
        let held: Vec<Held> = peers.iter().flat_map(|peer| all(peer, FrameKind::Propose)).collect();
        let first = last.call(bytes, of(FrameKind::Propose)).now_or_never();
        assert!(first.is_some() && last.call(bytes, of(FrameKind::Propose)).now_or_never().is_none());
        assert!(held.iter().all(|held| !held.is_waited_for()));
        let mut waits = Box::pin(last.call(bytes, of(FrameKind::Propose)));
        assert!((&mut waits).now_or_never().is_none());
        assert!(held[0].is_waited_for() && !first.as_ref().is_some_and(Held::is_waited_for));
        drop(waits);
        assert!(!held[0].is_waited_for());
        drop(first);
        assert!(last.call(bytes, of(FrameKind::Propose)).now_or_never().is_some());
    }

    #[test]
    fn pulls_take_nothing_while_they_wait_and_so_much_and_no_more_once_there_is_something_to_tell() {
        let budget = Budget::new(NodeBudget::default());
        let rooms: Vec<AnswerRoom> = (0..limits::CALLS_IN_FLIGHT_MAX).map(|_| AnswerRoom::within(&budget)).collect();
        // Each looks, finds nothing, and waits.
        for room in &rooms {
            assert!(room.take(limits::PULL_BYTES_SOFT_MAX).now_or_never().is_some());
            room.give_back();
        }
        let tells = |room: &&AnswerRoom| room.take(limits::PULL_BYTES_SOFT_MAX).now_or_never().is_some();
        assert_eq!(rooms.iter().filter(tells).count(), 16);
        let page = budget.answer(limits::CALL_BYTES_MAX, Waits::No).now_or_never();
        assert!(page.is_some(), "pages do not wait for them");
        drop(rooms);
        let room = AnswerRoom::within(&budget);
        assert!(room.take(usize::MAX).now_or_never().is_some(), "what was written makes room, and for anything");
        assert!(AnswerRoom::within(&budget).take(1).now_or_never().is_none());
        assert!(
            AnswerRoom::default().take(usize::MAX).now_or_never().is_some(),
            "a node's own agents are told from memory"
        );
    }

    #[test]
    fn what_a_node_and_all_nodes_propose_holds_up_neither_ends_nor_renewals() {
        let node = NodeBudget::default();
        let peers: Vec<Budget> = (0..100).map(|_| Budget::new(node.clone())).collect();
        let mut held: Vec<Held> = peers.iter().flat_map(|peer| all(peer, FrameKind::Propose)).collect();
        assert_eq!(held.len(), limits::CALL_BYTES_UNDER_WAY_MAX / limits::CALL_BYTES_MAX);
        let kept = [FrameKind::End, FrameKind::Heartbeat, FrameKind::Pull, FrameKind::Query];
        assert!(peers.iter().all(|peer| kept.iter().all(|kind| has_room(peer, *kind))));
        // Nor do these hold up each other, and there is so much of each and no more.
        let ends = all(&peers[0], FrameKind::End);
        assert_eq!(ends.len(), limits::KEPT_CALL_BYTES_PER_PEER_MAX / limits::CALL_BYTES_MAX);
        assert!(has_room(&peers[0], FrameKind::Heartbeat) && has_room(&peers[1], FrameKind::End));
        held.extend(ends);
        held.extend(peers[1..].iter().flat_map(|peer| all(peer, FrameKind::End)));
        let most = limits::CALL_BYTES_UNDER_WAY_MAX + limits::KEPT_CALL_BYTES_UNDER_WAY_MAX;
        assert_eq!(held.len(), most / limits::CALL_BYTES_MAX);
        assert!(has_room(&peers[99], FrameKind::Heartbeat));
    }

    #[test]
    fn the_largest_call_of_each_kind_finds_room_where_there_is_nothing_else() {
        let kind = FrameKind::Beat;
        let header = Header { kind, shard: ShardId::FIRST, clock: None, call: 1, body_bytes: 0 }.encode();
        let kinds = (0..=u8::MAX).filter_map(|byte| {
            let mut header = header;
            header[3] = byte;
            Header::decode(&header).ok().map(|header| header.kind)
        });
        for kind in kinds {
            let budget = Budget::new(NodeBudget::default());
            assert!(budget.call(kind.body_bytes_max(), of(kind)).now_or_never().is_some(), "{kind:?}");
        }
    }
}
