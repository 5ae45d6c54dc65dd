//! What comes in from neighbours, before anybody looks at it.
//!
//! gossipsub remembers each message that comes in, of any topic and however many there are, and tells its transform nothing of
//! who passed it on. The behaviour around it does (see [`crate::gossip`]): whatever is over a neighbour's share, or of a topic
//! that nobody hears here, is dropped before it is remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;
use libp2p::gossipsub::{DataTransform, Message, RawMessage, TopicHash};
use skep_protocol::limits;
use skep_protocol::telemetry::TopicPath;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::envelopes::Dropped;
use crate::quotas::{OF_NEIGHBOUR, Quotas, Share, Verdict};

/// As much as so many messages costs one that nobody honest passes on: each of them is verified first.
const RUBBISH_COSTS: u64 = 64;

#[derive(Debug)]
struct State {
    /// Whose messages gossipsub is looking at.
    from: Option<PeerId>,
    heard: BTreeSet<String>,
    quotas: Quotas<PeerId>,
    /// The places of each neighbour among what waits to be verified.
    places: BTreeMap<PeerId, Arc<Semaphore>>,
}

/// The gate. Never locked while anything is waited for.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    dropped: Arc<Dropped>,
}

impl Gate {
    pub(crate) fn new(dropped: Arc<Dropped>) -> Self {
        Self::with(OF_NEIGHBOUR, dropped)
    }

    fn with(share: Share, dropped: Arc<Dropped>) -> Self {
        let (quotas, places) = (Quotas::new(share), BTreeMap::new());
        Self { state: Mutex::new(State { from: None, heard: BTreeSet::new(), quotas, places }), dropped }
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

    /// A place for a neighbour's message among those that wait to be verified; none while too many are its.
    pub(crate) fn place(&self, neighbour: PeerId) -> Option<OwnedSemaphorePermit> {
        let new = || Arc::new(Semaphore::new(limits::ENVELOPES_PER_NEIGHBOUR_QUEUED_MAX));
        let places = Arc::clone(self.state().places.entry(neighbour).or_insert_with(new));
        places.try_acquire_owned().ok()
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
        let is_heard = state.heard.contains(topic.as_str());
        let has_place = state.places.get(&from).is_none_or(|places| places.available_permits() > 0);
        drop(state);
        if let Verdict::Over(said) = verdict {
            self.dropped.overflow();
            if let Some(times) = said {
                tracing::warn!(peer = %from, times, "a neighbour sends more than its share; the rest is dropped");
            }
        }
        let is_within = is_heard && verdict == Verdict::Within;
        // Before it is remembered: what finds no place may still come from somebody else.
        if is_within && !has_place {
            self.dropped.overflow();
        }
        is_within && has_place
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

    fn gate(messages: u64) -> Gate {
        let gate = Gate::with(Share::of(messages, 1_000_000), Arc::default());
        gate.hears(&topic());
        gate
    }

    fn let_in(gate: &Gate, topic: &str, times: usize, now: Instant) -> usize {
        (0..times).filter(|_| gate.lets_in(&TopicHash::from_raw(topic), 3, now)).count()
    }

    #[test]
    fn whoever_sends_without_end_is_heard_for_its_share_and_others_as_before() {
        let (gate, now) = (gate(100), Instant::now());
        gate.comes_from(Some(PeerId::random()));
        assert_eq!(let_in(&gate, "s/robots/pose", 20_000, now), 100);
        assert_eq!(gate.dropped.counts(), (19_900, 0), "what is dropped is counted");
        gate.comes_from(Some(PeerId::random()));
        assert_eq!(let_in(&gate, "s/robots/pose", 100, now), 100);
    }

    #[test]
    fn what_finds_no_place_is_not_let_in_and_may_still_come_from_others() {
        let (gate, now, busy) = (gate(100), Instant::now(), PeerId::random());
        let mut places: Vec<_> = std::iter::from_fn(|| gate.place(busy)).collect();
        gate.comes_from(Some(busy));
        assert_eq!((let_in(&gate, "s/robots/pose", 1, now), gate.dropped.counts()), (0, (1, 0)));
        gate.comes_from(Some(PeerId::random()));
        assert_eq!(let_in(&gate, "s/robots/pose", 1, now), 1);
        places.pop();
        gate.comes_from(Some(busy));
        assert_eq!(let_in(&gate, "s/robots/pose", 1, now), 1);
    }

    #[test]
    fn what_nobody_hears_here_is_not_let_in_and_costs_its_sender_what_it_sent() {
        let (gate, now) = (gate(100), Instant::now());
        gate.comes_from(Some(PeerId::random()));
        assert_eq!(let_in(&gate, "s/robots/battery", 60, now), 0);
        assert_eq!(let_in(&gate, "s/robots/pose", 100, now), 40);
        gate.comes_from(Some(PeerId::random()));
        assert_eq!(let_in(&gate, "s/robots/pose", 1, now), 1);
        gate.leaves(&topic());
        assert_eq!(let_in(&gate, "s/robots/pose", 1, now), 0);
    }

    #[test]
    fn a_neighbour_has_so_many_places_and_no_more_and_each_its_own() {
        let gate = gate(100);
        let (one, other) = (PeerId::random(), PeerId::random());
        let mut places: Vec<OwnedSemaphorePermit> = std::iter::from_fn(|| gate.place(one)).collect();
        assert_eq!(places.len(), limits::ENVELOPES_PER_NEIGHBOUR_QUEUED_MAX);
        assert!(gate.place(other).is_some());
        places.pop();
        assert!(gate.place(one).is_some(), "a place that was left is another's");
    }

    #[test]
    fn whoever_passes_on_rubbish_is_soon_not_heard() {
        let (gate, now, liar) = (gate(2 * RUBBISH_COSTS), Instant::now(), PeerId::random());
        gate.comes_from(Some(liar));
        gate.rubbish(liar, now);
        assert_eq!(let_in(&gate, "s/robots/pose", 1, now), 1);
        gate.rubbish(liar, now);
        assert_eq!(let_in(&gate, "s/robots/pose", 1, now), 0);
    }

    #[test]
    fn the_transform_of_gossip_refuses_what_the_gate_does_not_let_in_and_changes_nothing() {
        let gate = Arc::new(gate(1));
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
