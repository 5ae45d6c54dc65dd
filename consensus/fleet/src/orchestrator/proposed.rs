//! What was proposed lately, and is not proposed again before it is applied.

use std::collections::BTreeMap;

use skep_protocol::time::LogInstant;

use super::RETRY_AFTER_MS;

/// When something is due, why, and what.
type Due<K, I> = (LogInstant, K, I);

/// What was proposed lately of what is due. It holds no more than that, and nothing here walks all that will be due some
/// day: there may be a million of it, and it is looked at whenever anything happens.
#[derive(Clone, Debug)]
pub(super) struct Proposed<K, I>(BTreeMap<Due<K, I>, LogInstant>);

impl<K, I> Default for Proposed<K, I> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, I: Ord> Proposed<K, I> {
    /// Lets go of what was applied, and so is not due any more, and of what came to nothing.
    pub(super) fn forget(&mut self, is_due: impl Fn(&Due<K, I>) -> bool, now: LogInstant) {
        self.0.retain(|due, at| is_due(due) && now.since_ms(*at) < RETRY_AFTER_MS);
    }

    /// What is due by now and was not proposed, of all that will be, soonest first.
    pub(super) fn fresh(
        &self,
        dues: impl Iterator<Item = Due<K, I>>,
        now: LogInstant,
    ) -> impl Iterator<Item = Due<K, I>> {
        dues.take_while(move |(at, _, _)| *at <= now).filter(move |due| !self.0.contains_key(due))
    }

    /// These are proposed now.
    pub(super) fn extend(&mut self, dues: impl IntoIterator<Item = Due<K, I>>, now: LogInstant) {
        self.0.extend(dues.into_iter().map(|due| (due, now)));
    }

    /// When there is something to decide next, of all that will be due, soonest first.
    pub(super) fn poll_timeout(&self, mut dues: impl Iterator<Item = Due<K, I>>) -> Option<LogInstant> {
        let fresh = dues.find(|due| !self.0.contains_key(due)).map(|(at, _, _)| at);
        let again = self.0.values().min().map(|at| at.plus_ms(RETRY_AFTER_MS));
        [fresh, again].into_iter().flatten().min()
    }
}
