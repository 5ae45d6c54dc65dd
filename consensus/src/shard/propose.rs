//! From requests to entries: the proposal queue of a leader.
//!
//! The leader puts waiting requests into one entry together. With one client an entry holds one request and leaves at
//! once. With hundreds of clients, an entry holds what arrived while the entries before it were on their way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use skep_protocol::codec::Encoded;
use skep_protocol::entry::{Entry, EntryBody, Request};
use skep_protocol::frame::Proposal;
use skep_protocol::leader::LeaderHint;
use skep_protocol::limits;
use skep_protocol::operator::OperatorRefusal;
use skep_protocol::outcome::{ProposeOutcome, Reply};
use skep_protocol::refusal::{Refusal, RequestRefusal};
use skep_protocol::signing::Verdicts;
use tokio::sync::{mpsc, oneshot};

use super::Shard;
use crate::raft::types::{ApplyReply, EntryBytes, TypeConfig};
use crate::threads::{Errand, Threads};

/// The longest wait for an entry of other proposers, by the leader and by nodes that ask it. The wait has to end some
/// day, and the time that disks take needs no other measure: a caller that wants to hear sooner has a patience of its
/// own, and a leader that loses its quorum waits no longer than [`LOST_PATIENCE`].
pub(crate) const ENTRY_PATIENCE: Duration = Duration::from_secs(60);
/// How long a leader that has no quorum, or has stopped leading, waits for its entries: another leader may commit them,
/// or it finds its quorum again.
const LOST_PATIENCE: Duration = Duration::from_secs(5);
/// The answer while the history is behind: that lasts for a while.
const HISTORY_BEHIND: ProposeOutcome = ProposeOutcome::Overloaded { retry_after_ms: 200 };
/// The answer for want of room.
const OVERLOADED: ProposeOutcome = ProposeOutcome::Overloaded { retry_after_ms: 20 };

/// Requests that one sender wants proposed, and where their outcomes go.
pub(crate) struct Submission {
    requests: Vec<Request>,
    outcomes: oneshot::Sender<Vec<ProposeOutcome>>,
    room: QueueRoom,
}

/// The requests that wait, by count and bytes.
#[derive(Debug, Default)]
pub(crate) struct Queued {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// Room in the queue. Dropping this gives it back.
struct QueueRoom {
    queued: Arc<Queued>,
    requests: usize,
    bytes: usize,
}

impl QueueRoom {
    /// Takes room; none if the queue is full. `ends_work`: requests that end work have room of their own, or a full
    /// queue would keep itself full.
    fn take(queued: &Arc<Queued>, requests: usize, bytes: usize, ends_work: bool) -> Option<Self> {
        let room = Self { queued: Arc::clone(queued), requests, bytes };
        let waiting = queued.requests.fetch_add(requests, Ordering::Relaxed) + requests;
        let waiting_bytes = queued.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let reserved = if ends_work { 0 } else { limits::PROPOSALS_RESERVED_SHARE };
        let of = |max: usize| max - max / 100 * reserved;
        let fits =
            waiting <= of(limits::PROPOSALS_QUEUED_MAX) && waiting_bytes <= of(limits::PROPOSAL_BYTES_QUEUED_MAX);
        fits.then_some(room)
    }
}

impl Drop for QueueRoom {
    fn drop(&mut self) {
        self.queued.requests.fetch_sub(self.requests, Ordering::Relaxed);
        self.queued.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Shard {
    /// Proposes requests, and waits until each is applied, refused, or of unknown outcome.
    pub(crate) async fn propose(&self, requests: Vec<Request>) -> Vec<ProposeOutcome> {
        let count = requests.len();
        let all = |outcome: ProposeOutcome| vec![outcome; count];
        if !self.inner.view.borrow().ready {
            return all(self.not_leader());
        }
        if self.inner.parts.store.is_exhausted() {
            return all(ProposeOutcome::DiskFull);
        }
        if let Some(node) = self.inner.relief.blocked_by() {
            return all(ProposeOutcome::VotersFull { node });
        }
        let pressure = match &self.inner.parts.store {
            store if store.is_low() => Some(ProposeOutcome::DiskFull),
            store if store.history().is_behind() => Some(HISTORY_BEHIND),
            _ => None,
        };
        if !requests.iter().any(|request| pressure.is_some() || request.op.is_signed_by_operator()) {
            return self.enqueue(requests).await;
        }
        // A request that waits for a helper counts like one that waits for an entry.
        let Some(room) = self.room_for(&requests) else { return all(OVERLOADED) };
        let (threads, verdicts) = (&self.inner.parts.threads, Arc::clone(&self.inner.verdicts));
        let (requests, refused) = refuse_early(threads, verdicts, requests, pressure).await;
        drop(room);
        if refused.iter().any(Option::is_some) {
            let rest = requests.into_iter().zip(&refused).filter(|(_, refused)| refused.is_none());
            let rest: Vec<Request> = rest.map(|(request, _)| request).collect();
            let mut rest = if rest.is_empty() { Vec::new() } else { self.enqueue(rest).await }.into_iter();
            let next = |refused: Option<_>| refused.or_else(|| rest.next()).unwrap_or(ProposeOutcome::Unknown);
            return refused.into_iter().map(next).collect();
        }
        self.enqueue(requests).await
    }

    /// A place for requests among those that wait; none if the queue is full.
    fn room_for(&self, requests: &[Request]) -> Option<QueueRoom> {
        let bytes = requests.iter().map(Request::bytes_bound).sum();
        QueueRoom::take(&self.inner.queued, requests.len(), bytes, Proposal::is_reserved_for(requests))
    }

    /// Waits for a place in an entry, and for the outcome.
    async fn enqueue(&self, requests: Vec<Request>) -> Vec<ProposeOutcome> {
        let count = requests.len();
        let all = |outcome: ProposeOutcome| vec![outcome; count];
        let Some(room) = self.room_for(&requests) else { return all(OVERLOADED) };
        let (outcomes, answered) = oneshot::channel();
        if self.inner.submissions.try_send(Submission { requests, outcomes, room }).is_err() {
            return all(OVERLOADED);
        }
        answered.await.unwrap_or_else(|_| all(ProposeOutcome::Unknown))
    }

    /// Proposes an entry of the leader's own, as the leader of a term, and waits until it is applied. None if it was
    /// not applied, or if that is unknown.
    ///
    /// The leader waits until its term ends, however long disks take: a caller that gave up would only propose the
    /// entry again.
    pub(super) async fn write_as(&self, term: u64, body: EntryBody) -> Option<ApplyReply> {
        let has_no_room = self.inner.parts.store.is_exhausted() || self.inner.relief.blocked_by().is_some();
        // Without its clock or rules a leader could not even say that there is no room; and such an entry is hardly
        // larger than a vote.
        if has_no_room && !matches!(body, EntryBody::ClockLost | EntryBody::Rules(_) | EntryBody::Founding(_)) {
            return None;
        }
        let (responder, written) = ProgressResponder::<TypeConfig, ClientWriteResult<TypeConfig>>::complete_only();
        let stamping = self.inner.stamping.lock().await;
        let stamp = self.inner.clock.now().unwrap_or_default();
        let bytes = Entry { stamp, term, body }.encode().ok()?;
        let data = EntryBytes(Bytes::from(bytes));
        self.raft().write(data).with_leader(term).responder(responder).await.ok()?;
        drop(stamping);
        tokio::select! {
            // In order, and not at random: each simulated run takes the same way.
            biased;
            answer = written => match answer {
                Ok(Ok(response)) => Some(response.data),
                Ok(Err(_)) | Err(_) => None,
            },
            () = self.term_ends(term) => None,
        }
    }

    /// Waits until this node has stopped leading a term.
    async fn term_ends(&self, term: u64) {
        let mut metrics = self.raft().metrics();
        loop {
            let now = self.metrics();
            let leads = now.state == ServerState::Leader && now.current_term == term;
            if !leads || now.running_state.is_err() || metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns when the leader stops waiting for an entry with clients' requests. While this node has its quorum the
    /// entry is on its way, and keeps its place among those in flight: another entry would only come behind it.
    async fn entry_is_given_up(&self) {
        let mut view = self.view();
        let lost = async {
            loop {
                // This ends also if the task that changes the view is gone.
                if view.wait_for(|view| !view.ready).await.is_err() {
                    return;
                }
                let found = tokio::time::timeout(LOST_PATIENCE, view.wait_for(|view| view.ready)).await;
                if !found.is_ok_and(|found| found.is_ok()) {
                    return;
                }
            }
        };
        // The lead was lost, or the entry took too long: the outcome is unknown either way.
        let _ = tokio::time::timeout(ENTRY_PATIENCE, lost).await;
    }
}

/// Answers what is refused before it is proposed: requests that bring work while there is pressure, such as a disk that
/// is nearly full, and requests that the named operator did not sign. Helper threads verify the signatures, and the
/// verdicts are known when the entry is applied here.
async fn refuse_early(
    threads: &Threads,
    verdicts: Arc<Verdicts>,
    requests: Vec<Request>,
    pressure: Option<ProposeOutcome>,
) -> (Vec<Request>, Vec<Option<ProposeOutcome>>) {
    let count = requests.len();
    let look = move || {
        let refused = requests.iter().map(|request| {
            if pressure.is_some() && request.op.brings_work() {
                return pressure.clone();
            }
            request.op.look_up(&verdicts);
            request.op.forged().map(|operator| ProposeOutcome::Refused(OperatorRefusal::NotSigned(operator).into()))
        });
        let refused = refused.collect();
        (requests, refused)
    };
    match threads.offload(Errand::Signatures, look).await {
        Ok(looked_at) => looked_at,
        Err(_) => (Vec::new(), vec![Some(OVERLOADED); count]),
    }
}

/// The outcomes of the submissions in one entry, and where they go.
type Answers = Vec<(oneshot::Sender<Vec<ProposeOutcome>>, Vec<ProposeOutcome>)>;

/// Serves the proposal queue of a shard until the shard is closed.
pub(super) async fn run(shard: Shard, mut queue: mpsc::Receiver<Submission>) {
    let mut waiting: VecDeque<Submission> = VecDeque::new();
    let mut in_flight = FuturesUnordered::new();
    loop {
        tokio::select! {
            // In order, and not at random: each simulated run takes the same way.
            biased;
            Some(answers) = in_flight.next() => answer(answers),
            submission = queue.recv(), if waiting.len() < limits::PROPOSALS_QUEUED_MAX => match submission {
                Some(submission) => waiting.push_back(submission),
                None => return,
            },
        }
        while let Ok(submission) = queue.try_recv() {
            waiting.push_back(submission);
        }
        while !waiting.is_empty() && in_flight.len() < limits::ENTRIES_IN_FLIGHT_MAX {
            let batch = next_batch(&mut waiting);
            in_flight.push(send(shard.clone(), batch));
        }
    }
}

/// As many submissions as one entry holds, but at least one.
fn next_batch(waiting: &mut VecDeque<Submission>) -> Vec<Submission> {
    let (mut requests, mut bytes) = (0, 0);
    let mut batch = Vec::new();
    while let Some(next) = waiting.front() {
        requests += next.requests.len();
        bytes += next.room.bytes;
        let full = requests > limits::REQUESTS_PER_ENTRY_MAX || bytes > limits::ENTRY_BYTES_SOFT_MAX;
        if full && !batch.is_empty() {
            break;
        }
        batch.extend(waiting.pop_front());
    }
    batch
}

async fn send(shard: Shard, batch: Vec<Submission>) -> Answers {
    let mut requests = Vec::new();
    let mut shares = Vec::new();
    for submission in batch {
        shares.push((submission.outcomes, submission.requests.len()));
        requests.extend(submission.requests);
    }
    let (mut replies, failed) = match write(&shard, requests).await {
        Ok(reply) => {
            let (index, stamp) = (reply.index, reply.stamp);
            let outcome = move |reply| match reply {
                Reply::Refused(Refusal::Request(RequestRefusal::Deposed)) => {
                    ProposeOutcome::NotLeader(LeaderHint::default())
                }
                reply => ProposeOutcome::Applied { index, stamp, reply },
            };
            (reply.replies.into_iter().map(outcome).collect(), ProposeOutcome::Unknown)
        }
        Err(outcome) => (VecDeque::new(), outcome),
    };
    let mut next = || replies.pop_front().unwrap_or_else(|| failed.clone());
    shares.into_iter().map(|(sender, count)| (sender, (0..count).map(|_| next()).collect())).collect()
}

async fn write(shard: &Shard, requests: Vec<Request>) -> Result<ApplyReply, ProposeOutcome> {
    let stamping = shard.inner.stamping.lock().await;
    let view = *shard.inner.view.borrow();
    let stamp = shard.inner.clock.now().filter(|_| view.ready).ok_or_else(|| shard.not_leader())?;
    let entry = Entry { stamp, term: view.term, body: EntryBody::Requests(requests) };
    let bytes = entry.encode().map_err(|error| {
        tracing::error!(%error, "requests within their limits do not fit into an entry");
        OVERLOADED
    })?;
    let (responder, written) = ProgressResponder::<TypeConfig, ClientWriteResult<TypeConfig>>::complete_only();
    let data = EntryBytes(Bytes::from(bytes));
    // An error means that the core is gone: it did not take the entry.
    let sent = shard.raft().write(data).with_leader(view.term).responder(responder).await;
    sent.map_err(|_| ProposeOutcome::NotLeader(LeaderHint::default()))?;
    drop(stamping);
    tokio::select! {
        // In order, and not at random: each simulated run takes the same way.
        biased;
        answer = written => match answer {
            Ok(Ok(response)) => Ok(response.data),
            // The entry was not appended: the lease ran out, or another node leads.
            Ok(Err(ClientWriteError::ForwardToLeader(_))) => Err(shard.not_leader()),
            Ok(Err(_)) | Err(_) => Err(ProposeOutcome::Unknown),
        },
        () = shard.entry_is_given_up() => Err(ProposeOutcome::Unknown),
    }
}

fn answer(answers: Answers) {
    for (sender, outcomes) in answers {
        // A sender that has stopped waiting needs no answer.
        let _ = sender.send(outcomes);
    }
}
