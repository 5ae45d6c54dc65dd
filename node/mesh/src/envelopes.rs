//! Signs outgoing envelopes and verifies incoming ones, each on a thread of its own: no flood of incoming envelopes
//! delays what this node says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libp2p::PeerId;
use libp2p::gossipsub::{MessageAcceptance, MessageId};
use libp2p::identity::{Keypair, PublicKey, ed25519};
use skep_protocol::codec::Encoded as _;
use skep_protocol::ids::NodeId;
use skep_protocol::telemetry::{Envelope, Publication, SignedEnvelope, TopicPath};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use crate::kept::SharedFloors;
use crate::quotas::{OF_ORIGIN, Quotas, Verdict};
use crate::speakers::{NotHeard, Speakers};

/// An envelope that arrived, and that gossip had not seen before.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// Its id in gossip.
    pub(crate) id: MessageId,
    /// The neighbour that passed it on.
    pub(crate) from: PeerId,
    /// The topic, as text.
    pub(crate) topic: String,
    /// The encoded [`SignedEnvelope`].
    pub(crate) data: Vec<u8>,
    /// Its place among those that wait. Dropped once the envelope was verified.
    pub(crate) place: OwnedSemaphorePermit,
}

/// An envelope that was verified or refused.
#[derive(Debug)]
pub(crate) struct Judged {
    /// Its id in gossip.
    pub(crate) id: MessageId,
    /// The neighbour that passed it on.
    pub(crate) from: PeerId,
    /// Whether gossip passes it on.
    pub(crate) verdict: MessageAcceptance,
}

/// A signed envelope to send.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The topic.
    pub(crate) topic: TopicPath,
    /// The encoded [`SignedEnvelope`].
    pub(crate) data: Vec<u8>,
}

/// Counts what the data plane had to drop.
#[derive(Debug, Default)]
pub struct DroppedEnvelopes {
    /// Publications and envelopes for which there was no room, and those over a sender's share.
    overflow: AtomicU64,
    /// Envelopes that are malformed, wrongly signed, old, or of a node that is not admitted.
    invalid: AtomicU64,
}

impl DroppedEnvelopes {
    /// The number that found no room or were over a share, and the number that were not accepted.
    pub fn counts(&self) -> (u64, u64) {
        (self.overflow.load(Ordering::Relaxed), self.invalid.load(Ordering::Relaxed))
    }

    pub(crate) fn overflow(&self) {
        self.overflow.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn invalid(&self) {
        self.invalid.fetch_add(1, Ordering::Relaxed);
    }
}

/// The thread that signs.
pub(crate) struct Signer {
    pub(crate) key: Keypair,
    pub(crate) local: NodeId,
    pub(crate) process: u64,
    pub(crate) outgoing: mpsc::Sender<Outgoing>,
    pub(crate) dropped: Arc<DroppedEnvelopes>,
}

impl Signer {
    /// Works until all senders of publications are gone.
    pub(crate) fn run(self, mut publications: mpsc::Receiver<Publication>) {
        let mut sequence = 0;
        while let Some(publication) = publications.blocking_recv() {
            sequence += 1;
            if let Some(outgoing) = self.sign(publication, sequence)
                && self.outgoing.try_send(outgoing).is_err()
            {
                self.dropped.overflow();
            }
        }
    }

    fn sign(&self, publication: Publication, sequence: u64) -> Option<Outgoing> {
        let topic = publication.topic.clone();
        let envelope = Envelope { sender: self.local, process: self.process, sequence, publication };
        let envelope = envelope.encode().ok()?;
        let signature = self.key.sign(&SignedEnvelope::signed_bytes(&envelope)).ok()?;
        let data = SignedEnvelope { envelope, signature }.encode().ok()?;
        Some(Outgoing { topic, data })
    }
}

/// Why an envelope is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// The envelope is malformed or wrongly signed: no honest node passes it on.
    Rubbish,
    /// Its sender is not admitted here, or may not say this. The neighbour may admit the sender, and then did no wrong.
    NotHeard(NotHeard),
    /// This node has heard the envelope, or a later one. The neighbour that passes it on may have heard neither.
    Old,
    /// Its sender says more than its share. At the neighbour it may have been within.
    Over,
}

/// The thread that verifies.
pub(crate) struct Verifier {
    /// The nodes whose envelopes are accepted.
    speakers: Speakers,
    floors: SharedFloors,
    origins: Quotas<NodeId>,
    judged: mpsc::Sender<Judged>,
    received: mpsc::Sender<Envelope>,
    dropped: Arc<DroppedEnvelopes>,
}

impl Verifier {
    pub(crate) fn new(
        speakers: Speakers,
        floors: SharedFloors,
        judged: mpsc::Sender<Judged>,
        received: mpsc::Sender<Envelope>,
        dropped: Arc<DroppedEnvelopes>,
    ) -> Self {
        Self { speakers, floors, origins: Quotas::new(OF_ORIGIN), judged, received, dropped }
    }

    /// Works until all senders of envelopes are gone.
    pub(crate) fn run(mut self, mut arrived: mpsc::Receiver<Arrived>) {
        while let Some(Arrived { id, from, topic, data, place }) = arrived.blocking_recv() {
            let verdict = self.verify(&topic, &data, Instant::now());
            drop(place);
            if self.judged.try_send(Judged { id, from, verdict }).is_err() {
                self.dropped.overflow();
            }
        }
    }

    fn verify(&mut self, topic: &str, data: &[u8], now: Instant) -> MessageAcceptance {
        match self.accept(topic, data, now) {
            Ok(envelope) => {
                if self.received.try_send(envelope).is_err() {
                    self.dropped.overflow();
                }
                MessageAcceptance::Accept
            }
            Err(refused) => {
                if refused == Refused::Over {
                    self.dropped.overflow();
                } else {
                    self.dropped.invalid();
                }
                // An honest neighbour may have had reason to pass on the others.
                if refused == Refused::Rubbish { MessageAcceptance::Reject } else { MessageAcceptance::Ignore }
            }
        }
    }

    fn accept(&mut self, topic: &str, data: &[u8], now: Instant) -> Result<Envelope, Refused> {
        let envelope = self.open(topic, data)?;
        // Only after the signature is the sender certain: before, any node could use up the share of another, or end
        // what it says. And an envelope that is sent again does not count as its sender's.
        let sender = envelope.sender;
        if !self.floors.lock().take(sender, envelope.process, envelope.sequence) {
            return Err(Refused::Old);
        }
        if let Verdict::Over(said) = self.origins.take(sender, data.len(), now) {
            if let Some(times) = said {
                tracing::warn!(peer = %sender, times, "a node says more than its share; the rest is dropped");
            }
            return Err(Refused::Over);
        }
        Ok(envelope)
    }

    /// The envelope, if it is whole, of its topic and not old, and if an admitted node that may say it signed it.
    fn open(&self, topic: &str, data: &[u8]) -> Result<Envelope, Refused> {
        let signed = SignedEnvelope::decode(data).map_err(|_| Refused::Rubbish)?;
        let envelope = Envelope::decode(&signed.envelope).map_err(|_| Refused::Rubbish)?;
        let is_of_topic = TopicPath::new(topic).is_ok_and(|topic| topic == envelope.publication.topic);
        if !is_of_topic || envelope.publication.check().is_err() {
            return Err(Refused::Rubbish);
        }
        self.speakers.check(envelope.sender, &envelope.publication.source).map_err(Refused::NotHeard)?;
        // This comes before the signature: a node that sends again what it heard causes no verification.
        if self.floors.lock().is_old(envelope.sender, envelope.process, envelope.sequence) {
            return Err(Refused::Old);
        }
        let key = ed25519::PublicKey::try_from_bytes(envelope.sender.public_key()).map_err(|_| Refused::Rubbish)?;
        let bytes = SignedEnvelope::signed_bytes(&signed.envelope);
        if PublicKey::from(key).verify(&bytes, &signed.signature) { Ok(envelope) } else { Err(Refused::Rubbish) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_protocol::limits;
    use skep_protocol::text::{AgentId, ContentType};

    const POSE: &str = "s/robots/pose";

    fn publication(text: &str) -> Publication {
        let (topic, source) = (TopicPath::new(POSE).unwrap(), AgentId::new("r1").unwrap());
        Publication { topic, source, content_type: ContentType::default(), payload: text.as_bytes().to_vec() }
    }

    fn signer(seed: u8) -> (Signer, NodeId) {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let local = NodeId::from_peer_id_bytes(&key.public().to_peer_id().to_bytes()).unwrap();
        let (outgoing, dropped) = (mpsc::channel(8).0, Arc::default());
        (Signer { key, local, process: 7, outgoing, dropped }, local)
    }

    fn verifier(admitted: &[NodeId]) -> (Verifier, mpsc::Receiver<Envelope>) {
        let (received, out) = mpsc::channel(8);
        let speakers = Speakers::Listed(admitted.iter().copied().collect());
        (Verifier::new(speakers, SharedFloors::default(), mpsc::channel(8).0, received, Arc::default()), out)
    }

    fn signed(signer: &Signer, text: &str, sequence: u64) -> Vec<u8> {
        signer.sign(publication(text), sequence).unwrap().data
    }

    #[test]
    fn an_envelope_is_accepted_from_whoever_is_admitted_and_signed_it() {
        let (sender, id) = signer(1);
        let (mut receiver, mut out) = verifier(&[id]);
        let verdict = receiver.verify(POSE, &signed(&sender, "hello", 1), Instant::now());
        assert!(matches!(verdict, MessageAcceptance::Accept));
        assert_eq!(out.try_recv().unwrap().publication, publication("hello"));
    }

    #[test]
    fn a_stranger_another_topic_and_every_flipped_bit_are_refused() {
        let (sender, id) = signer(1);
        let (receiver, _) = verifier(&[id]);
        let data = signed(&sender, "hello", 1);
        assert_eq!(receiver.open("s/robots/battery", &data), Err(Refused::Rubbish));
        for at in 0..data.len() {
            let mut spoiled = data.clone();
            spoiled[at] ^= 1;
            assert!(receiver.open(POSE, &spoiled).is_err(), "byte {at}");
        }
        assert_eq!(receiver.open(POSE, &[]), Err(Refused::Rubbish));
    }

    #[test]
    fn who_passes_on_what_is_signed_by_somebody_not_admitted_here_is_not_blamed() {
        let (mut receiver, _) = verifier(&[signer(1).1]);
        let verdict = receiver.verify(POSE, &signed(&signer(3).0, "hello", 1), Instant::now());
        assert!(matches!(verdict, MessageAcceptance::Ignore));
        assert_eq!(receiver.dropped.counts(), (0, 1));
    }

    #[test]
    fn who_says_too_much_is_not_passed_on_and_others_are() {
        let ((loud, loud_id), (quiet, quiet_id), now) = (signer(1), signer(2), Instant::now());
        let (mut receiver, _out) = verifier(&[loud_id, quiet_id]);
        // No node can use up another's share: an envelope counts only after its signature was verified.
        let mut forged = signed(&quiet, "forged", 1);
        *forged.last_mut().unwrap() ^= 1;
        for _ in 0..=limits::MESH_ORIGIN_MESSAGES_PER_S {
            receiver.origins.take(loud_id, 1, now);
            assert_eq!(receiver.accept(POSE, &forged, now), Err(Refused::Rubbish));
        }
        assert_eq!(receiver.accept(POSE, &signed(&loud, "again", 1), now), Err(Refused::Over));
        assert!(matches!(receiver.verify(POSE, &signed(&loud, "again", 2), now), MessageAcceptance::Ignore));
        assert!(receiver.accept(POSE, &signed(&quiet, "hello", 1), now).is_ok());
    }

    #[test]
    fn an_envelope_counts_once_and_who_passes_it_on_again_is_not_blamed() {
        let ((sender, id), now) = (signer(1), Instant::now());
        let (mut receiver, _out) = verifier(&[id]);
        let data = signed(&sender, "hello", 5);
        assert!(receiver.accept(POSE, &data, now).is_ok());
        // This signature is spoiled, so that only checks before the signature can tell.
        let mut spoiled = data.clone();
        *spoiled.last_mut().unwrap() ^= 1;
        assert_eq!(receiver.accept(POSE, &spoiled, now), Err(Refused::Old));
        assert!(matches!(receiver.verify(POSE, &data, now), MessageAcceptance::Ignore));
        let earlier = Signer { process: 6, ..signer(1).0 };
        assert_eq!(receiver.accept(POSE, &signed(&earlier, "before its restart", 9), now), Err(Refused::Old));
    }

    #[test]
    fn what_is_forged_makes_nothing_old() {
        let ((sender, id), now) = (signer(1), Instant::now());
        let (mut receiver, _out) = verifier(&[id]);
        let mut forged = signed(&Signer { process: u64::MAX, ..signer(1).0 }, "later", u64::MAX);
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(receiver.accept(POSE, &forged, now), Err(Refused::Rubbish));
        assert!(receiver.accept(POSE, &signed(&sender, "hello", 1), now).is_ok());
    }

    #[test]
    fn an_old_envelope_is_old_after_a_restart_of_whoever_hears_it() {
        let ((sender, id), now) = (signer(1), Instant::now());
        let dir = tempfile::tempdir().unwrap();
        let kept = crate::kept::Kept::of(dir.path());
        let (mut before, _out) = verifier(&[id]);
        let data = signed(&sender, "turn left", 5);
        assert!(before.accept(POSE, &data, now).is_ok());
        // The verifier stops.
        let (stop, stopped) = std::sync::mpsc::channel();
        drop(stop);
        kept.keep(&before.floors, &stopped);
        let (mut after, _out) = verifier(&[id]);
        after.floors = kept.read_floors(&after.speakers).into();
        assert_eq!(after.accept(POSE, &data, now), Err(Refused::Old));
        assert!(after.accept(POSE, &signed(&sender, "turn right", 6), now).is_ok());
    }
}
