//! What was proposed lately: the orchestrator does not propose it again before the shard applies it.

use std::collections::BTreeMap;

use skep_protocol::time::LogInstant;

use super::RETRY_AFTER_MS;

/// When something is due, of which kind, and its id.
type Due<K, I> = (LogInstant, K, I);

/// The latest proposals for what is due. It holds no more than that, and nothing here walks all that will be due one
/// day: that may be a million items, and the orchestrator looks at it at every event.
#[derive(Clone, Debug)]
pub(super) struct Proposed<K, I>(BTreeMap<Due<K, I>, LogInstant>);

impl<K, I> Default for Proposed<K, I> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, I: Ord> Proposed<K, I> {
    /// Forgets the proposals that were applied, whose item is therefore not due, and those that had no effect.
    pub(super) fn forget(&mut self, is_due: impl Fn(&Due<K, I>) -> bool, now: LogInstant) {
        self.0.retain(|due, at| is_due(due) && now.since_ms(*at) < RETRY_AFTER_MS);
    }

    /// The items that are due and were not proposed. `dues` gives all items that will be due, soonest first.
    pub(super) fn fresh(
        &self,
        dues: impl Iterator<Item = Due<K, I>>,
        now: LogInstant,
    ) -> impl Iterator<Item = Due<K, I>> {
        dues.take_while(move |(at, _, _)| *at <= now).filter(move |due| !self.0.contains_key(due))
    }

    /// Notes that these items are proposed.
    pub(super) fn extend(&mut self, dues: impl IntoIterator<Item = Due<K, I>>, now: LogInstant) {
        self.0.extend(dues.into_iter().map(|due| (due, now)));
    }

    /// When the next item is due or may be proposed again. `dues` gives all items that will be due, soonest first.
    pub(super) fn poll_timeout(&self, mut dues: impl Iterator<Item = Due<K, I>>) -> Option<LogInstant> {
        let fresh = dues.find(|due| !self.0.contains_key(due)).map(|(at, _, _)| at);
        let again = self.0.values().min().map(|at| at.plus_ms(RETRY_AFTER_MS));
        [fresh, again].into_iter().flatten().min()
    }
}
