//! The data plane: subscribers and publishers on this machine, and the mesh.

use std::collections::BTreeMap;

use skep_api::TopicTold;
use skep_engine::{Event, SubscriberKey, TopicEffect, TopicEvent};
use skep_mesh::MeshHandle;
use skep_protocol::telemetry::{Envelope, Publication, TopicPath};
use tokio::sync::mpsc;

/// The subscribers and publishers of this node, and what the mesh receives.
pub(super) struct TopicsPort {
    mesh: MeshHandle,
    /// What other nodes sent.
    pub(super) received: mpsc::Receiver<Envelope>,
    pub(super) publications: mpsc::Receiver<Publication>,
    subscribers: BTreeMap<SubscriberKey, mpsc::Sender<TopicTold>>,
}

impl TopicsPort {
    pub(super) fn new(
        (mesh, received): (MeshHandle, mpsc::Receiver<Envelope>),
        publications: mpsc::Receiver<Publication>,
    ) -> Self {
        Self { mesh, received, publications, subscribers: BTreeMap::new() }
    }

    /// A client subscribes.
    pub(super) fn subscribed(
        &mut self,
        subscriber: u64,
        topics: Vec<TopicPath>,
        values: mpsc::Sender<TopicTold>,
    ) -> Event {
        let subscriber = SubscriberKey(subscriber);
        self.subscribers.insert(subscriber, values);
        Event::Topic(TopicEvent::Subscribed { subscriber, topics })
    }

    /// A subscriber ends.
    pub(super) fn unsubscribed(&mut self, subscriber: u64) -> Event {
        let subscriber = SubscriberKey(subscriber);
        self.subscribers.remove(&subscriber);
        Event::Topic(TopicEvent::Unsubscribed { subscriber })
    }

    /// Carries out what the engine wants of the data plane.
    pub(super) fn carry_out(&mut self, effect: TopicEffect) {
        match effect {
            TopicEffect::Publish(publication) => self.mesh.publish(publication),
            TopicEffect::Listen(topic) => self.mesh.subscribe(topic),
            TopicEffect::Leave(topic) => self.mesh.unsubscribe(&topic),
            TopicEffect::Deliver { subscriber, value } => {
                let (publication, sender, age_ms) = (Box::new(value.publication), value.sender, value.age_ms);
                // A slow subscriber misses a value; newer ones follow.
                let told = TopicTold::Value { publication, sender, age_ms };
                let _ = self.subscribers.get(&subscriber).map(|values| values.try_send(told));
            }
            TopicEffect::Refuse { subscriber } => {
                let _ = self.subscribers.remove(&subscriber).map(|values| values.try_send(TopicTold::Refused));
            }
            TopicEffect::NotIts { sender, source } => self.mesh.not_its(sender, &source),
        }
    }
}
