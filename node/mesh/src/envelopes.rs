//! Signing what is sent and verifying what arrives, on a thread of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use libp2p::PeerId;
use libp2p::gossipsub::{MessageAcceptance, MessageId};
use libp2p::identity::{Keypair, PublicKey, ed25519};
use skep_protocol::codec::Encoded as _;
use skep_protocol::ids::NodeId;
use skep_protocol::telemetry::{Envelope, Publication, SignedEnvelope, TopicPath};
use tokio::sync::mpsc;

use crate::service::Command;

/// Something to sign or to verify.
pub(crate) enum Job {
    /// To be signed and sent.
    Sign(Publication),
    /// Arrived, and seen for the first time.
    Verify {
        /// Its id in gossip.
        id: MessageId,
        /// Who passed it on.
        from: PeerId,
        /// On which topic.
        topic: String,
        /// The encoded [`SignedEnvelope`].
        data: Vec<u8>,
    },
}

/// What the data plane had to let go.
#[derive(Debug, Default)]
pub struct Dropped {
    /// Publications and envelopes for which there was no room.
    overflow: AtomicU64,
    /// Envelopes that are malformed, wrongly signed, or of somebody who is not admitted.
    invalid: AtomicU64,
}

impl Dropped {
    /// How many found no room, and how many were not accepted.
    pub fn counts(&self) -> (u64, u64) {
        (self.overflow.load(Ordering::Relaxed), self.invalid.load(Ordering::Relaxed))
    }

    pub(crate) fn overflow(&self) {
        self.overflow.fetch_add(1, Ordering::Relaxed);
    }
}

/// Signs and verifies.
pub(crate) struct Envelopes {
    pub(crate) key: Keypair,
    pub(crate) local: NodeId,
    /// Whose envelopes are accepted.
    pub(crate) admitted: BTreeSet<NodeId>,
    pub(crate) process: u64,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) received: mpsc::Sender<Envelope>,
    pub(crate) dropped: Arc<Dropped>,
}

impl Envelopes {
    /// Works until nobody has jobs any more.
    pub(crate) fn run(self, mut jobs: mpsc::Receiver<Job>) {
        let mut sequence = 0;
        while let Some(job) = jobs.blocking_recv() {
            let command = match job {
                Job::Sign(publication) => {
                    sequence += 1;
                    self.sign(publication, sequence)
                }
                Job::Verify { id, from, topic, data } => Some(self.verify(id, from, &topic, &data)),
            };
            if let Some(command) = command
                && self.commands.try_send(command).is_err()
            {
                self.dropped.overflow();
            }
        }
    }

    fn sign(&self, publication: Publication, sequence: u64) -> Option<Command> {
        let topic = publication.topic.clone();
        let envelope = Envelope { sender: self.local, process: self.process, sequence, publication };
        let envelope = envelope.encode().ok()?;
        let signature = self.key.sign(&SignedEnvelope::signed_bytes(&envelope)).ok()?;
        let data = SignedEnvelope { envelope, signature }.encode().ok()?;
        Some(Command::Publish { topic, data })
    }

    fn verify(&self, id: MessageId, from: PeerId, topic: &str, data: &[u8]) -> Command {
        let verdict = match self.open(topic, data) {
            Some(envelope) => {
                if self.received.try_send(envelope).is_err() {
                    self.dropped.overflow();
                }
                MessageAcceptance::Accept
            }
            None => {
                self.dropped.invalid.fetch_add(1, Ordering::Relaxed);
                MessageAcceptance::Reject
            }
        };
        Command::Judged { id, from, verdict }
    }

    /// The envelope, if it is whole, of its topic, and signed by somebody who is admitted.
    fn open(&self, topic: &str, data: &[u8]) -> Option<Envelope> {
        let signed = SignedEnvelope::decode(data).ok()?;
        let envelope = Envelope::decode(&signed.envelope).ok()?;
        let of_topic = envelope.publication.topic == TopicPath::new(topic).ok()?;
        let fits = envelope.publication.check().is_ok();
        if !of_topic || !fits || !self.admitted.contains(&envelope.sender) {
            return None;
        }
        let key = ed25519::PublicKey::try_from_bytes(envelope.sender.public_key()).ok()?;
        let bytes = SignedEnvelope::signed_bytes(&signed.envelope);
        PublicKey::from(key).verify(&bytes, &signed.signature).then_some(envelope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_protocol::text::AgentId;

    fn publication(text: &str) -> Publication {
        let (topic, source) = (TopicPath::new("s/robots/pose").unwrap(), AgentId::new("r1").unwrap());
        Publication { topic, source, content_type: String::new(), payload: text.as_bytes().to_vec() }
    }

    fn of(seed: u8, admitted: &[NodeId]) -> (Envelopes, NodeId, mpsc::Receiver<Envelope>) {
        let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
        let local = NodeId::from_peer_id_bytes(&key.public().to_peer_id().to_bytes()).unwrap();
        let (received, out) = mpsc::channel(8);
        let commands = mpsc::channel(8).0;
        let admitted = admitted.iter().copied().collect();
        let dropped = Arc::default();
        (Envelopes { key, local, admitted, process: 7, commands, received, dropped }, local, out)
    }

    fn signed(envelopes: &Envelopes, text: &str) -> Vec<u8> {
        match envelopes.sign(publication(text), 1) {
            Some(Command::Publish { data, .. }) => data,
            _ => panic!("it is signed"),
        }
    }

    #[test]
    fn an_envelope_is_accepted_from_whoever_is_admitted_and_signed_it() {
        let (sender, id, _) = of(1, &[]);
        let (receiver, _, mut out) = of(2, &[id]);
        let data = signed(&sender, "hello");
        let judged = receiver.verify(MessageId::new(b"1"), PeerId::random(), "s/robots/pose", &data);
        assert!(matches!(judged, Command::Judged { verdict: MessageAcceptance::Accept, .. }));
        assert_eq!(out.try_recv().unwrap().publication, publication("hello"));
    }

    #[test]
    fn a_stranger_another_topic_and_every_flipped_bit_are_refused() {
        let (sender, id, _) = of(1, &[]);
        let (stranger, ..) = of(3, &[]);
        let (receiver, ..) = of(2, &[id]);
        let data = signed(&sender, "hello");
        assert!(receiver.open("s/robots/battery", &data).is_none());
        assert!(receiver.open("s/robots/pose", &signed(&stranger, "hello")).is_none());
        for at in 0..data.len() {
            let mut spoiled = data.clone();
            spoiled[at] ^= 1;
            assert!(receiver.open("s/robots/pose", &spoiled).is_none(), "byte {at}");
        }
        assert!(receiver.open("s/robots/pose", &[]).is_none());
    }
}
