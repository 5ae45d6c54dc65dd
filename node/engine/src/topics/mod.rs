//! Topics of the data plane: who listens here, and the latest that was heard.

mod latest;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use skep_protocol::telemetry::{Envelope, Publication, TopicPath};
use skep_protocol::text::AgentId;

use crate::key::SubscriberKey;
use latest::{Latest, LatestValues};

/// What happened on the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicEvent {
    /// Somebody on this machine says something.
    Published(Publication),
    /// Something was received, and verified.
    Received(Envelope),
    /// Somebody on this machine listens.
    Subscribed {
        /// Its name, not in use.
        subscriber: SubscriberKey,
        /// To what.
        topics: Vec<TopicPath>,
    },
    /// It listens no more.
    Unsubscribed {
        /// Its name.
        subscriber: SubscriberKey,
    },
}

/// The latest that was heard of a source on a topic from one sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatestValue {
    /// What.
    pub publication: Publication,
    /// The node that sent it.
    pub sender: NodeId,
    /// How long ago it was heard, in milliseconds.
    pub age_ms: u64,
}

/// What the topics' machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicEffect {
    /// Send it to whoever subscribes elsewhere.
    Publish(Publication),
    /// Hear a topic from now on.
    Listen(TopicPath),
    /// Hear it no more.
    Leave(TopicPath),
    /// Tell a subscriber. One that has no room misses it.
    Deliver {
        /// Whom.
        subscriber: SubscriberKey,
        /// What.
        value: LatestValue,
    },
    /// There are too many topics or subscribers for this one: end it.
    Refuse {
        /// Whom.
        subscriber: SubscriberKey,
    },
    /// Another node said something of an agent that this node serves. Nobody is told; it is to be counted.
    NotIts {
        /// The node that signed it.
        sender: NodeId,
        /// The agent.
        source: AgentId,
    },
}

/// Who listens on this node, and the latest values of what they listen to.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    local: NodeId,
    subscribers: BTreeMap<SubscriberKey, BTreeSet<TopicPath>>,
    /// The subscribers of each topic that is heard.
    heard: BTreeMap<TopicPath, BTreeSet<SubscriberKey>>,
    latest: LatestValues,
    /// Counts local publications.
    sequence: u64,
    effects: VecDeque<TopicEffect>,
}

impl Topics {
    pub(crate) fn new(local: NodeId) -> Self {
        Self {
            local,
            subscribers: BTreeMap::new(),
            heard: BTreeMap::new(),
            latest: LatestValues::default(),
            sequence: 0,
            effects: VecDeque::new(),
        }
    }

    pub(crate) fn handle(&mut self, event: TopicEvent, now_ms: u64) {
        match event {
            TopicEvent::Published(publication) => {
                self.sequence += 1;
                let (sender, sequence) = (self.local, self.sequence);
                self.effects.push_back(TopicEffect::Publish(publication.clone()));
                self.note(Latest { publication, sender, process: 0, sequence, at_ms: now_ms });
            }
            TopicEvent::Received(envelope) => {
                let Envelope { sender, process, sequence, publication } = envelope;
                self.note(Latest { publication, sender, process, sequence, at_ms: now_ms });
            }
            TopicEvent::Subscribed { subscriber, topics } => self.on_subscribed(subscriber, topics, now_ms),
            TopicEvent::Unsubscribed { subscriber } => self.on_unsubscribed(subscriber),
        }
    }

    /// Another node said something of an agent that this node serves.
    pub(crate) fn refuse(&mut self, sender: NodeId, source: AgentId) {
        self.effects.push_back(TopicEffect::NotIts { sender, source });
    }

    pub(crate) fn poll_effect(&mut self) -> Option<TopicEffect> {
        self.effects.pop_front()
    }

    fn on_subscribed(&mut self, subscriber: SubscriberKey, topics: Vec<TopicPath>, now_ms: u64) {
        let topics: BTreeSet<TopicPath> = topics.into_iter().collect();
        let new = topics.iter().filter(|topic| !self.heard.contains_key(*topic)).count();
        let full = self.subscribers.len() >= limits::SUBSCRIBERS_MAX;
        if full || self.heard.len() + new > limits::TOPICS_PER_NODE_MAX {
            return self.effects.push_back(TopicEffect::Refuse { subscriber });
        }
        for topic in &topics {
            let listeners = self.heard.entry(topic.clone()).or_default();
            if listeners.is_empty() {
                self.effects.push_back(TopicEffect::Listen(topic.clone()));
            }
            listeners.insert(subscriber);
            let known = self.latest.of_topic(topic).into_iter();
            let values: Vec<LatestValue> = known.map(|latest| value(latest, now_ms)).collect();
            self.effects.extend(values.into_iter().map(|value| TopicEffect::Deliver { subscriber, value }));
        }
        self.subscribers.insert(subscriber, topics);
    }

    fn on_unsubscribed(&mut self, subscriber: SubscriberKey) {
        for topic in self.subscribers.remove(&subscriber).unwrap_or_default() {
            let Some(listeners) = self.heard.get_mut(&topic) else { continue };
            listeners.remove(&subscriber);
            if listeners.is_empty() {
                self.heard.remove(&topic);
                self.latest.forget_topic(&topic);
                self.effects.push_back(TopicEffect::Leave(topic));
            }
        }
    }

    fn note(&mut self, latest: Latest) {
        let Some(listeners) = self.heard.get(&latest.publication.topic) else { return };
        if self.latest.overtakes(&latest) {
            return;
        }
        for subscriber in listeners {
            let value = value(&latest, latest.at_ms);
            self.effects.push_back(TopicEffect::Deliver { subscriber: *subscriber, value });
        }
        self.latest.keep(latest);
    }
}

fn value(latest: &Latest, now_ms: u64) -> LatestValue {
    let age_ms = now_ms.saturating_sub(latest.at_ms);
    LatestValue { publication: latest.publication.clone(), sender: latest.sender, age_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_protocol::text::ContentType;

    const LOCAL: NodeId = NodeId::from_public_key([1; 32]);
    const OTHER: NodeId = NodeId::from_public_key([2; 32]);

    fn topic(kind: &str) -> TopicPath {
        TopicPath::new(format!("s/robots/{kind}")).unwrap()
    }

    fn says(kind: &str, source: &str, text: &str) -> Publication {
        let source = AgentId::new(source).unwrap();
        Publication {
            topic: topic(kind),
            source,
            content_type: ContentType::default(),
            payload: text.as_bytes().to_vec(),
        }
    }

    fn envelope(process: u64, sequence: u64, text: &str) -> TopicEvent {
        TopicEvent::Received(Envelope { sender: OTHER, process, sequence, publication: says("pose", "r1", text) })
    }

    fn handle(topics: &mut Topics, event: TopicEvent, now_ms: u64) -> Vec<TopicEffect> {
        topics.handle(event, now_ms);
        std::iter::from_fn(|| topics.poll_effect()).collect()
    }

    fn subscribe(topics: &mut Topics, n: u64, kinds: &[&str], now_ms: u64) -> Vec<TopicEffect> {
        let of = kinds.iter().map(|kind| topic(kind)).collect();
        handle(topics, TopicEvent::Subscribed { subscriber: SubscriberKey(n), topics: of }, now_ms)
    }

    fn delivered(effects: &[TopicEffect]) -> Vec<(u64, String, u64)> {
        let told = |effect: &TopicEffect| match effect {
            TopicEffect::Deliver { subscriber, value } => {
                Some((subscriber.0, String::from_utf8(value.publication.payload.clone()).unwrap(), value.age_ms))
            }
            _ => None,
        };
        effects.iter().filter_map(told).collect()
    }

    #[test]
    fn what_is_said_here_goes_out_and_to_listeners_here() {
        let mut topics = Topics::new(LOCAL);
        let said = says("pose", "r1", "a");
        assert_eq!(handle(&mut topics, TopicEvent::Published(said.clone()), 0), [TopicEffect::Publish(said.clone())]);
        subscribe(&mut topics, 1, &["pose"], 0);
        let effects = handle(&mut topics, TopicEvent::Published(said), 5);
        assert_eq!(delivered(&effects), [(1, "a".to_owned(), 0)]);
    }

    #[test]
    fn a_topic_is_heard_while_somebody_listens() {
        let mut topics = Topics::new(LOCAL);
        assert_eq!(subscribe(&mut topics, 1, &["pose"], 0), [TopicEffect::Listen(topic("pose"))]);
        assert_eq!(subscribe(&mut topics, 2, &["pose"], 0), []);
        let leave = |n| TopicEvent::Unsubscribed { subscriber: SubscriberKey(n) };
        assert_eq!(handle(&mut topics, leave(1), 0), []);
        assert_eq!(handle(&mut topics, leave(2), 0), [TopicEffect::Leave(topic("pose"))]);
        assert!(handle(&mut topics, envelope(1, 1, "late"), 0).is_empty());
    }

    #[test]
    fn the_latest_wins_and_a_newcomer_hears_it_with_its_age() {
        let mut topics = Topics::new(LOCAL);
        subscribe(&mut topics, 1, &["pose"], 0);
        assert_eq!(delivered(&handle(&mut topics, envelope(1, 2, "new"), 10)).len(), 1);
        assert!(handle(&mut topics, envelope(1, 1, "old"), 20).is_empty(), "it was overtaken");
        assert!(handle(&mut topics, envelope(1, 2, "new"), 20).is_empty(), "it was heard");
        assert_eq!(delivered(&subscribe(&mut topics, 2, &["pose"], 110)), [(2, "new".to_owned(), 100)]);
        let restarted = handle(&mut topics, envelope(9, 1, "again"), 120);
        assert_eq!(delivered(&restarted).len(), 2, "a sender that restarts counts anew");
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_goes_first() {
        let mut topics = Topics::new(LOCAL);
        subscribe(&mut topics, 1, &["pose"], 0);
        for n in 0..=limits::LATEST_VALUES_MAX as u64 {
            handle(&mut topics, TopicEvent::Published(says("pose", &format!("r{n}"), "x")), n);
        }
        assert_eq!(topics.latest.sizes(), [limits::LATEST_VALUES_MAX; 4]);
        let known = delivered(&subscribe(&mut topics, 2, &["pose"], 0));
        assert_eq!(known.len(), limits::LATEST_VALUES_MAX);
        assert!(
            !topics.latest.of_topic(&topic("pose")).iter().any(|latest| latest.publication.source.as_str() == "r0")
        );
    }

    fn from(sender: NodeId, sequence: u64, source: &str, text: &str) -> TopicEvent {
        TopicEvent::Received(Envelope { sender, process: 1, sequence, publication: says("pose", source, text) })
    }

    #[test]
    fn who_speaks_for_anothers_agent_adds_to_what_is_told_of_it_and_replaces_nothing() {
        let mut topics = Topics::new(LOCAL);
        let liar = NodeId::from_public_key([9; 32]);
        subscribe(&mut topics, 1, &["pose"], 0);
        handle(&mut topics, from(OTHER, 1, "r1", "here"), 10);
        assert_eq!(delivered(&handle(&mut topics, from(liar, 99, "r1", "elsewhere"), 20)).len(), 1);
        let known = delivered(&subscribe(&mut topics, 2, &["pose"], 30));
        assert_eq!(known, [(2, "here".to_owned(), 20), (2, "elsewhere".to_owned(), 10)], "the newest last");
        assert_eq!(
            delivered(&handle(&mut topics, from(OTHER, 2, "r1", "there"), 40)).len(),
            2,
            "it is heard as before"
        );
        let known = delivered(&subscribe(&mut topics, 3, &["pose"], 50));
        assert_eq!(known, [(3, "elsewhere".to_owned(), 30), (3, "there".to_owned(), 10)]);
    }

    #[test]
    fn who_invents_sources_without_end_pushes_out_its_own() {
        let mut topics = Topics::new(LOCAL);
        let liar = NodeId::from_public_key([9; 32]);
        subscribe(&mut topics, 1, &["pose"], 0);
        for n in 0..500 {
            handle(&mut topics, from(OTHER, n, &format!("r{n}"), "here"), n);
        }
        for n in 0..2 * limits::LATEST_VALUES_MAX as u64 {
            handle(&mut topics, from(liar, n, &format!("x{n}"), "lie"), 1_000 + n);
        }
        assert_eq!(topics.latest.sizes(), [limits::LATEST_VALUES_MAX; 4]);
        let honest = topics.latest.of_topic(&topic("pose")).into_iter().filter(|latest| latest.sender == OTHER).count();
        assert_eq!(honest, 500);
        handle(&mut topics, TopicEvent::Unsubscribed { subscriber: SubscriberKey(1) }, 0);
        assert_eq!(topics.latest.sizes(), [0; 4], "what nobody listens to is not kept");
    }

    #[test]
    fn more_topics_than_the_limit_are_refused() {
        let mut topics = Topics::new(LOCAL);
        for n in 0..limits::TOPICS_PER_NODE_MAX as u64 {
            subscribe(&mut topics, n, &[&format!("k{n}")], 0);
        }
        let refused = TopicEffect::Refuse { subscriber: SubscriberKey(999) };
        assert_eq!(subscribe(&mut topics, 999, &["one-more"], 0), [refused]);
        assert!(subscribe(&mut topics, 1_000, &["k0"], 0).is_empty(), "one that is heard already costs nothing");
    }
}
