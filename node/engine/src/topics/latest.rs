//! The latest values that the node heard: one value for each topic, source and sender.
//!
//! The table keeps senders apart. A sender that speaks for another node's agent can add to what is told of the agent,
//! under its own name, and replace nothing.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use skep_protocol::telemetry::{Publication, TopicPath};
use skep_protocol::text::AgentId;

/// The topic of a value, its source, and its sender.
type Key = (TopicPath, AgentId, NodeId);

#[derive(Clone, Debug)]
pub(super) struct Latest {
    pub(super) publication: Publication,
    pub(super) sender: NodeId,
    pub(super) process: u64,
    pub(super) sequence: u64,
    pub(super) at_ms: u64,
}

impl Latest {
    fn key(&self) -> Key {
        (self.publication.topic.clone(), self.publication.source.clone(), self.sender)
    }
}

/// The table of latest values. When it is full, the oldest value goes: that of the sender with the most values, if it
/// has more than a share.
#[derive(Clone, Debug, Default)]
pub(super) struct LatestValues {
    of: BTreeMap<Key, Latest>,
    by_age: BTreeSet<(u64, Key)>,
    /// The keys of each sender, oldest first.
    of_sender: BTreeMap<NodeId, BTreeSet<(u64, Key)>>,
    sizes: BTreeSet<(usize, NodeId)>,
}

impl LatestValues {
    /// Whether the table has a value that is as new.
    pub(super) fn overtakes(&self, latest: &Latest) -> bool {
        let known = self.of.get(&latest.key());
        known.is_some_and(|known| known.process == latest.process && known.sequence >= latest.sequence)
    }

    /// The values of a topic, the oldest first: a reader that takes the last one takes the newest.
    pub(super) fn of_topic(&self, topic: &TopicPath) -> Vec<&Latest> {
        let first = (topic.clone(), AgentId::first(), NodeId::from_public_key([0; 32]));
        let of = self.of.range(first..).take_while(|((of, ..), _)| of == topic);
        let mut of: Vec<&Latest> = of.map(|(_, latest)| latest).collect();
        of.sort_by_key(|latest| latest.at_ms);
        of
    }

    /// Keeps a value in place of the one before it.
    pub(super) fn keep(&mut self, latest: Latest) {
        let key = latest.key();
        self.forget(&key);
        let aged = (latest.at_ms, key.clone());
        self.by_age.insert(aged.clone());
        self.resize(latest.sender, |of| _ = of.insert(aged));
        self.of.insert(key, latest);
        while self.of.len() > limits::LATEST_VALUES_MAX {
            let Some(oldest) = self.oldest() else { return };
            self.forget(&oldest);
        }
    }

    /// Forgets a topic without subscribers, whose values would only grow old.
    pub(super) fn forget_topic(&mut self, topic: &TopicPath) {
        let keys: Vec<Key> = self.of_topic(topic).into_iter().map(Latest::key).collect();
        keys.iter().for_each(|key| self.forget(key));
    }

    /// The key of the value that goes next.
    fn oldest(&self) -> Option<Key> {
        let most = self.sizes.last().filter(|(size, _)| *size > limits::LATEST_VALUES_PER_SENDER_MAX);
        let of_most = most.and_then(|(_, sender)| self.of_sender.get(sender)?.first());
        of_most.or(self.by_age.first()).map(|(_, key)| key.clone())
    }

    fn forget(&mut self, key: &Key) {
        let Some(latest) = self.of.remove(key) else { return };
        let aged = (latest.at_ms, key.clone());
        self.by_age.remove(&aged);
        self.resize(latest.sender, |of| _ = of.remove(&aged));
    }

    fn resize(&mut self, sender: NodeId, change: impl FnOnce(&mut BTreeSet<(u64, Key)>)) {
        let of = self.of_sender.entry(sender).or_default();
        self.sizes.remove(&(of.len(), sender));
        change(of);
        if of.is_empty() {
            self.of_sender.remove(&sender);
        } else {
            self.sizes.insert((of.len(), sender));
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 4] {
        let of_senders = self.of_sender.values().map(BTreeSet::len).sum();
        [self.of.len(), self.by_age.len(), of_senders, self.sizes.iter().map(|(size, _)| size).sum()]
    }
}
