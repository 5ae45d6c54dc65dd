//! What comes in from neighbours, before anybody looks at it.
//!
//! gossipsub remembers each message that comes in, of any topic and however many there are, and tells its transform nothing of
//! who passed it on. The behaviour around it does (see [`crate::gossip`]): whatever is over a neighbour's share, or of a topic
//! that nobody hears here, is dropped before it is remembered. So is what finds no place among what waits to be verified: each
//! message that is let in has its place from then on, since many may come in before one of them is looked at.

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

/// As much as so many messages costs one that nobody honest passes on: each of them is verified first.
const RUBBISH_COSTS: u64 = 64;

/// A place among what waits to be verified.
#[derive(Debug)]
struct Place {
    of_neighbour: OwnedSemaphorePermit,
    of_all: mpsc::OwnedPermit<Arrived>,
}

#[derive(Debug)]
struct State {
    /// Whose messages gossipsub is looking at.
    from: Option<PeerId>,
    heard: BTreeSet<String>,
    quotas: Quotas<PeerId>,
    /// The places of each neighbour that nobody has taken.
    places: BTreeMap<PeerId, Arc<Semaphore>>,
    /// Those of messages that were let in, and are not handed over yet.
    kept: BTreeMap<PeerId, Vec<Place>>,
}

impl State {
    /// Keeps a place for a message of a neighbour. Whether there was one.
    fn keep_place(&mut self, neighbour: PeerId, arrived: &mpsc::Sender<Arrived>) -> bool {
        let new = || Arc::new(Semaphore::new(limits::ENVELOPES_PER_NEIGHBOUR_QUEUED_MAX));
        let places = Arc::clone(self.places.entry(neighbour).or_insert_with(new));
        let Ok(of_neighbour) = places.try_acquire_owned() else { return false };
        let Ok(of_all) = arrived.clone().try_reserve_owned() else { return false };
        self.kept.entry(neighbour).or_default().push(Place { of_neighbour, of_all });
        true
    }
}

/// The gate. Never locked while anything is waited for.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    /// To whoever verifies.
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

    /// What comes now is from a neighbour; from nobody if there is none.
    pub(crate) fn comes_from(&self, neighbour: Option<PeerId>) {
        self.state().from = neighbour;
    }

    /// A topic is heard here.
    pub(crate) fn hears(&self, topic: &TopicPath) {
        self.state().heard.insert(topic.as_str().to_owned());
    }

    /// A topic is heard here no more.
    pub(crate) fn leaves(&self, topic: &TopicPath) {
        self.state().heard.remove(topic.as_str());
    }

    /// Hands over a neighbour's message to be verified, at the place that it got when it was let in. Whether it had one.
    pub(crate) fn hand_over(&self, id: MessageId, from: PeerId, topic: String, data: Vec<u8>) -> bool {
        let Some(place) = self.state().kept.get_mut(&from).and_then(Vec::pop) else { return false };
        drop(place.of_all.send(Arrived { id, from, topic, data, place: place.of_neighbour }));
        true
    }

    /// All that was let in so far, and is new, was handed over: the places of the rest are free.
    pub(crate) fn all_handed_over(&self) {
        self.state().kept.clear();
    }

    /// A neighbour passed on what nobody honest does.
    pub(crate) fn rubbish(&self, neighbour: PeerId, now: Instant) {
        self.state().quotas.drain(neighbour, RUBBISH_COSTS, now);
    }

    /// Whether a message of so many bytes may come in.
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
        // Before it is remembered: what finds no place may still come from somebody else.
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

    /// A gate, and what it hands over: at most so much waits.
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
        // One place is left, and nothing is handed over before both were looked at.
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
        assert_eq!(hand_over(&gate, from, 1), 0, "it has no place any more");
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
        assert!(gated.inbound_transform(raw()).is_err(), "it is of nobody");
        gate.comes_from(Some(PeerId::random()));
        let message = gated.inbound_transform(raw()).unwrap();
        assert_eq!((message.data, message.topic), (vec![1, 2, 3], TopicHash::from_raw("s/robots/pose")));
    }
}
