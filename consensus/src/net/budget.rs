//! How many bytes peers may have a node hold for them.
//!
//! A call takes as much as its header announces, before any of its body is read, until it is answered; an answer that may be large as
//! much as it may have, before it is made, until it is written. Whoever has none left waits: what it sends stays in its own memory, and
//! on the way. So one peer takes so much and no more, whatever it sends, and whether it reads or not.
//!
//! What brings work has the largest share. What ends it, and what agents live by, have shares of their own: who proposes much holds up
//! neither its own ends nor its renewals.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_protocol::frame::FrameKind;
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

/// Room for calls that are no group's own, by what they are about.
#[derive(Clone, Debug)]
struct Shares {
    /// What brings work, and questions.
    work: Arc<Semaphore>,
    /// What ends work.
    ends: Arc<Semaphore>,
    /// Heartbeats of nodes, which renew leases, and what leaders have for agents.
    agents: Arc<Semaphore>,
}

impl Shares {
    /// So many bytes of what brings work, and so many of each of the others.
    fn of(work: usize, others: usize) -> Self {
        Self { work: of_bytes(work), ends: of_bytes(others), agents: of_bytes(others) }
    }

    fn of_kind(&self, kind: FrameKind) -> Arc<Semaphore> {
        Arc::clone(match kind {
            FrameKind::End => &self.ends,
            FrameKind::Heartbeat | FrameKind::Claims | FrameKind::Pull | FrameKind::Leads => &self.agents,
            _ => &self.work,
        })
    }
}

/// For all peers of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct NodeBudget(Shares);

impl Default for NodeBudget {
    fn default() -> Self {
        Self(Shares::of(limits::CALL_BYTES_UNDER_WAY_MAX, limits::KEPT_CALL_BYTES_UNDER_WAY_MAX))
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

/// For one connection.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    node: NodeBudget,
    calls: Shares,
    /// What groups say between voters does not wait behind the calls of the same peer, either.
    groups: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    /// Those that may wait until there is something to tell keep neither the others waiting nor each other. Pulls take nothing
    /// while they wait: see [`Room`].
    pulls: Arc<Semaphore>,
    command_ends: Arc<Semaphore>,
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
        Self {
            node,
            calls: Shares::of(calls, limits::KEPT_CALL_BYTES_PER_PEER_MAX),
            groups: of_bytes(calls),
            answers: of_bytes(answers),
            pulls: of_bytes(answers),
            command_ends: of_bytes(answers),
        }
    }

    /// Waits until there is room for a call of so many bytes. What voters say to each other in a group waits for no other calls, and
    /// votes and beats not even for entries: those are held until a disk has them, and of a few bytes there are no more than calls.
    pub(super) async fn call(&self, bytes: usize, kind: FrameKind) -> Held {
        let (of_voters, units) = (kind.is_of_voters(), units(bytes));
        if of_voters && bytes <= limits::WORD_BYTES_MAX {
            return Held { _of_peer: None, _of_node: None };
        }
        let of_peer = if of_voters { Arc::clone(&self.groups) } else { self.calls.of_kind(kind) };
        let _of_peer = of_peer.acquire_many_owned(units).await.ok();
        let _of_node = match of_voters {
            true => None,
            false => self.node.0.of_kind(kind).acquire_many_owned(units).await.ok(),
        };
        Held { _of_peer, _of_node }
    }

    /// Waits until there is room for an answer of so many bytes.
    pub(super) async fn answer(&self, bytes: usize, waits: Waits) -> Held {
        let of_peer = match waits {
            Waits::No => &self.answers,
            Waits::ForEnd => &self.command_ends,
        };
        let _of_peer = Arc::clone(of_peer).acquire_many_owned(units(bytes)).await.ok();
        Held { _of_peer, _of_node: None }
    }

    /// Waits until there is room for what a pull tells.
    async fn pulled(&self, bytes: usize) -> Held {
        // More than there is would be waited for without end.
        let units = units(bytes.min(limits::LARGE_ANSWER_BYTES_PER_PEER_MAX));
        let _of_peer = Arc::clone(&self.pulls).acquire_many_owned(units).await.ok();
        Held { _of_peer, _of_node: None }
    }
}

/// Room for the answer to one call that may wait until there is something to tell. Such a call takes nothing while it waits, so that a
/// node whose agents are in many shards has one at each of them. Without a budget there is always room. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Room(Option<Arc<Taken>>);

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

impl Room {
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

    /// All that there is room for now.
    fn all(budget: &Budget, kind: FrameKind) -> Vec<Held> {
        std::iter::from_fn(|| budget.call(limits::CALL_BYTES_MAX, kind).now_or_never()).collect()
    }

    fn has_room(budget: &Budget, kind: FrameKind) -> bool {
        budget.call(limits::CALL_BYTES_MAX, kind).now_or_never().is_some()
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
        assert!(has_room(&first, FrameKind::Query), "what was given back is there again");
        // Many peers have all that there is.
        let others: Vec<Budget> = (0..100).map(|_| Budget::new(first.node.clone())).collect();
        for budget in &others {
            held.extend(all(budget, FrameKind::Propose));
        }
        assert!(!has_room(&second, FrameKind::Propose));
        assert!(has_room(&second, FrameKind::Append), "voters go on");
        assert!(second.answer(limits::CALL_BYTES_MAX, Waits::No).now_or_never().is_some());
        // Entries of a group that a slow disk has not written keep no beat waiting.
        held.extend(all(&second, FrameKind::Append));
        assert!(second.call(limits::WORD_BYTES_MAX, FrameKind::Beat).now_or_never().is_some());
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
    fn pulls_take_nothing_while_they_wait_and_so_much_and_no_more_once_there_is_something_to_tell() {
        let budget = Budget::new(NodeBudget::default());
        let rooms: Vec<Room> = (0..limits::CALLS_IN_FLIGHT_MAX).map(|_| Room::within(&budget)).collect();
        // Each looks, finds nothing, and waits.
        for room in &rooms {
            assert!(room.take(limits::PULL_BYTES_SOFT_MAX).now_or_never().is_some());
            room.give_back();
        }
        let tells = |room: &&Room| room.take(limits::PULL_BYTES_SOFT_MAX).now_or_never().is_some();
        assert_eq!(rooms.iter().filter(tells).count(), 16);
        let page = budget.answer(limits::CALL_BYTES_MAX, Waits::No).now_or_never();
        assert!(page.is_some(), "pages do not wait for them");
        drop(rooms);
        let room = Room::within(&budget);
        assert!(room.take(usize::MAX).now_or_never().is_some(), "what was written makes room, and for anything");
        assert!(Room::within(&budget).take(1).now_or_never().is_none());
        assert!(Room::default().take(usize::MAX).now_or_never().is_some(), "a node's own agents are told from memory");
    }

    #[test]
    fn what_a_node_and_all_nodes_propose_holds_up_neither_ends_nor_renewals() {
        let node = NodeBudget::default();
        let peers: Vec<Budget> = (0..100).map(|_| Budget::new(node.clone())).collect();
        let mut held: Vec<Held> = peers.iter().flat_map(|peer| all(peer, FrameKind::Propose)).collect();
        assert_eq!(held.len(), limits::CALL_BYTES_UNDER_WAY_MAX / limits::CALL_BYTES_MAX);
        let kept = [FrameKind::End, FrameKind::Heartbeat, FrameKind::Pull];
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
            assert!(budget.call(kind.body_bytes_max(), kind).now_or_never().is_some(), "{kind:?}");
        }
    }
}
