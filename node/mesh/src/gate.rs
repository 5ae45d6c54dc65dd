//! What comes in from neighbours, before this node verifies it.
//!
//! gossipsub remembers each incoming message, of any topic and however many there are, and does not tell its transform
//! which neighbour passed the message on. The behaviour around it does (see [`crate::gossip`]). The gate drops a
//! message over a neighbour's share, or of a topic that this node does not hear, before gossipsub remembers it. It also
//! drops a message that finds no place among those that wait for verification. Each message that the gate lets in has
//! its place from then on, since many may come in before the first is verified.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;
use libp2p::gossipsub::{DataTransform, Message, MessageId, RawMessage, TopicHash};
use skep_protocol::limits;
use skep_protocol::telemetry::TopicPath;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::envelopes::{Arrived, DroppedEnvelopes};
use crate::quotas::{OF_NEIGHBOUR, Quotas, Share, Verdict};

/// A message that no honest node passes on costs its neighbour as much as this many messages: each of them is verified
/// first.
const RUBBISH_COSTS: u64 = 64;

/// A place among the messages that wait for verification.
#[derive(Debug)]
struct Place {
    of_neighbour: OwnedSemaphorePermit,
    of_all: mpsc::OwnedPermit<Arrived>,
}

#[derive(Debug)]
struct State {
    /// The neighbour whose messages gossipsub is reading.
    from: Option<PeerId>,
    heard: BTreeSet<String>,
    quotas: Quotas<PeerId>,
    /// The free places of each neighbour. A neighbour that has all of its places free need not be remembered.
    places: BTreeMap<PeerId, Arc<Semaphore>>,
    /// The places of messages that were let in, and that are not handed over yet.
    kept: BTreeMap<PeerId, Vec<Place>>,
}

impl State {
    /// Keeps a place for a message of a neighbour; returns whether there was one.
    fn keep_place(&mut self, neighbour: PeerId, arrived: &mpsc::Sender<Arrived>) -> bool {
        let new = || Arc::new(Semaphore::new(limits::ENVELOPES_PER_NEIGHBOUR_QUEUED_MAX));
        if self.places.len() >= limits::MESH_MEMBERS_MAX && !self.places.contains_key(&neighbour) {
            self.places.retain(|_, free| free.available_permits() < limits::ENVELOPES_PER_NEIGHBOUR_QUEUED_MAX);
        }
        let places = Arc::clone(self.places.entry(neighbour).or_insert_with(new));
        let Ok(of_neighbour) = places.try_acquire_owned() else { return false };
        let Ok(of_all) = arrived.clone().try_reserve_owned() else { return false };
        self.kept.entry(neighbour).or_default().push(Place { of_neighbour, of_all });
        true
    }
}

/// The gate. No task holds its lock while it waits for anything.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    /// The channel to the thread that verifies.
    arrived: mpsc::Sender<Arrived>,
    dropped: Arc<DroppedEnvelopes>,
}

impl Gate {
    pub(crate) fn new(arrived: mpsc::Sender<Arrived>, dropped: Arc<DroppedEnvelopes>) -> Self {
        Self::with(OF_NEIGHBOUR, arrived, dropped)
    }

    fn with(share: Share, arrived: mpsc::Sender<Arrived>, dropped: Arc<DroppedEnvelopes>) -> Self {
        let (quotas, places, kept) = (Quotas::new(share), BTreeMap::new(), BTreeMap::new());
        let state = State { from: None, heard: BTreeSet::new(), quotas, places, kept };
        Self { state: Mutex::new(state), arrived, dropped }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the neighbour whose messages come next; none if there is none.
    pub(crate) fn comes_from(&self, neighbour: Option<PeerId>) {
        self.state().from = neighbour;
    }

    /// Notes that this node hears a topic.
    pub(crate) fn hears(&self, topic: &TopicPath) {
        self.state().heard.insert(topic.as_str().to_owned());
    }

    /// Notes that this node has stopped hearing a topic.
    pub(crate) fn leaves(&self, topic: &TopicPath) {
        self.state().heard.remove(topic.as_str());
    }

    /// Hands a neighbour's message over for verification, with the place that it got when it was let in; returns
    /// whether it had one.
    pub(crate) fn hand_over(&self, id: MessageId, from: PeerId, topic: String, data: Vec<u8>) -> bool {
        let Some(place) = self.state().kept.get_mut(&from).and_then(Vec::pop) else { return false };
        drop(place.of_all.send(Arrived { id, from, topic, data, place: place.of_neighbour }));
        true
    }

    /// Notes that all new messages that were let in were handed over: the places of the rest are free.
    pub(crate) fn all_handed_over(&self) {
        self.state().kept.clear();
    }

    /// Notes that a neighbour passed on what no honest node does.
    pub(crate) fn rubbish(&self, neighbour: PeerId, now: Instant) {
        self.state().quotas.drain(neighbour, RUBBISH_COSTS, now);
    }

    /// Whether a message of this many bytes may come in.
    fn lets_in(&self, topic: &TopicHash, bytes: usize, now: Instant) -> bool {
        let mut state = self.state();
        let Some(from) = state.from else { return false };
        let verdict = state.quotas.take(from, bytes, now);
        let is_within = verdict == Verdict::Within && state.heard.contains(topic.as_str());
        let has_place = is_within && state.keep_place(from, &self.arrived);
        drop(state);
        if let Verdict::Over(said) = verdict {
            self.dropped.overflow();
            if let Some(times) = said {
                tracing::warn!(peer = %from, times, "a neighbour sends more than its share; the rest is dropped");
            }
        }
        // The drop comes before gossipsub remembers the message: the same message may still come from another
        // neighbour.
        if is_within && !has_place {
            self.dropped.overflow();
        }
        has_place
    }
}

/// The transform of gossipsub: it changes nothing, and refuses what the gate does not let in.
#[derive(Debug)]
pub(crate) struct Gated(pub(crate) Arc<Gate>);

impl DataTransform for Gated {
    fn inbound_transform(&self, raw: RawMessage) -> Result<Message, io::Error> {
        let bytes = raw.data.len().saturating_add(raw.topic.as_str().len());
        if !self.0.lets_in(&raw.topic, bytes, Instant::now()) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Message { source: raw.source, data: raw.data, sequence_number: raw.sequence_number, topic: raw.topic })
    }

    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> Result<Vec<u8>, io::Error> {
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> TopicPath {
        TopicPath::new("s/robots/pose").unwrap()
    }

    /// A gate, and the channel on which it hands messages over: at most `waiting_max` of them wait.
    fn gate_to(waiting_max: usize, messages: u64) -> (Gate, mpsc::Receiver<Arrived>) {
        let (arrived, waiting) = mpsc::channel(waiting_max);
        let gate = Gate::with(Share::of(messages, 1_000_000), arrived, Arc::default());
        gate.hears(&topic());
        (gate, waiting)
    }

    fn gate(messages: u64) -> (Gate, mpsc::Receiver<Arrived>) {
        gate_to(limits::ENVELOPES_QUEUED_MAX, messages)
    }

    fn let_in(gate: &Gate, topic: &str, times: usize, now: Instant) -> usize {
        (0..times).filter(|_| gate.lets_in(&TopicHash::from_raw(topic), 3, now)).count()
    }

    fn hand_over(gate: &Gate, from: PeerId, times: usize) -> usize {
        let one = |_: &usize| gate.hand_over(MessageId::new(b"id"), from, topic().as_str().to_owned(), vec![7]);
        (0..times).filter(one).count()
    }

    #[test]
    fn whoever_sends_without_end_is_heard_for_its_share_and_others_as_before() {
        let ((gate, _waiting), now) = (gate(100), Instant::now());
        gate.comes_from(Some(PeerId::random()));
        assert_eq!(let_in(&gate, "s/robots/pose", 20_000, now), 100);
        assert_eq!(gate.dropped.counts(), (19_900, 0), "what is dropped is counted");
        gate.comes_from(Some(PeerId::random()));
        assert_eq!(let_in(&gate, "s/robots/pose", 100, now), 100);
    }

    #[test]
    fn of_what_comes_in_at_once_no_more_is_let_in_than_has_a_place_and_the_rest_may_still_come_from_others() {
        let ((gate, mut waiting), now, busy) = (gate(1_000), Instant::now(), PeerId::random());
        let most = limits::ENVELOPES_PER_NEIGHBOUR_QUEUED_MAX;
        gate.comes_from(Some(busy));
        assert_eq!(let_in(&gate, "s/robots/pose", most - 1, now), most - 1);
        assert_eq!(hand_over(&gate, busy, most - 1), most - 1);
        // One place is left, and gossipsub reads both messages before either is handed over.
        assert_eq!((let_in(&gate, "s/robots/pose", 2, now), gate.dropped.counts()), (1, (1, 0)));
        assert_eq!(hand_over(&gate, busy, 1), 1, "what was let in has its place");
        gate.comes_from(Some(PeerId::random()));
        assert_eq!(let_in(&gate, "s/robots/pose", 1, now), 1);
        gate.comes_from(Some(busy));
        assert_eq!(let_in(&gate, "s/robots/pose", 1, now), 0);
        drop(waiting.try_recv().unwrap());
        assert_eq!(let_in(&gate, "s/robots/pose", 2, now), 1, "what was verified leaves its place to another");
    }

    #[test]
    fn of_all_neighbours_together_no_more_is_let_in_than_may_wait() {
        let ((gate, mut waiting), now) = (gate_to(3, 1_000), Instant::now());
        let (one, other) = (PeerId::random(), PeerId::random());
        gate.comes_from(Some(one));
        assert_eq!(let_in(&gate, "s/robots/pose", 2, now), 2);
        gate.comes_from(Some(other));
        assert_eq!((let_in(&gate, "s/robots/pose", 2, now), gate.dropped.counts()), (1, (1, 0)));
        assert_eq!((hand_over(&gate, one, 2), hand_over(&gate, other, 1)), (2, 1));
        assert_eq!(let_in(&gate, "s/robots/pose", 1, now), 0);
        drop(waiting.try_recv().unwrap());
        assert_eq!(let_in(&gate, "s/robots/pose", 1, now), 1);
    }

    #[test]
    fn what_was_let_in_and_was_known_already_keeps_no_place() {
        let ((gate, _waiting), now, from) = (gate_to(3, 1_000), Instant::now(), PeerId::random());
        gate.comes_from(Some(from));
        assert_eq!(let_in(&gate, "s/robots/pose", 3, now), 3);
        assert_eq!(hand_over(&gate, from, 1), 1);
        gate.all_handed_over();
        assert_eq!(hand_over(&gate, from, 1), 0, "it has no place");
        assert_eq!(let_in(&gate, "s/robots/pose", 3, now), 2);
    }

    #[test]
    fn what_nobody_hears_here_is_not_let_in_and_costs_its_sender_what_it_sent() {
        let ((gate, _waiting), now) = (gate(100), Instant::now());
        gate.comes_from(Some(PeerId::random()));
        assert_eq!(let_in(&gate, "s/robots/battery", 60, now), 0);
        assert_eq!(let_in(&gate, "s/robots/pose", 100, now), 40);
        gate.comes_from(Some(PeerId::random()));
        assert_eq!(let_in(&gate, "s/robots/pose", 1, now), 1);
        gate.leaves(&topic());
        assert_eq!(let_in(&gate, "s/robots/pose", 1, now), 0);
    }

    #[test]
    fn whoever_passes_on_rubbish_is_soon_not_heard() {
        let ((gate, _waiting), now, liar) = (gate(2 * RUBBISH_COSTS), Instant::now(), PeerId::random());
        gate.comes_from(Some(liar));
        gate.rubbish(liar, now);
        assert_eq!(let_in(&gate, "s/robots/pose", 1, now), 1);
        gate.rubbish(liar, now);
        assert_eq!(let_in(&gate, "s/robots/pose", 1, now), 0);
    }

    #[test]
    fn the_transform_of_gossip_refuses_what_the_gate_does_not_let_in_and_changes_nothing() {
        let (gate, _waiting) = gate(1);
        let gate = Arc::new(gate);
        let gated = Gated(Arc::clone(&gate));
        let raw = || RawMessage {
            source: None,
            data: vec![1, 2, 3],
            sequence_number: None,
            topic: TopicHash::from_raw("s/robots/pose"),
            signature: None,
            key: None,
            validated: false,
        };
        assert!(gated.inbound_transform(raw()).is_err(), "it is from no neighbour");
        gate.comes_from(Some(PeerId::random()));
        let message = gated.inbound_transform(raw()).unwrap();
        assert_eq!((message.data, message.topic), (vec![1, 2, 3], TopicHash::from_raw("s/robots/pose")));
    }
}
