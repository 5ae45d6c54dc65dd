//! Peers that were not let in, or are out again: counted by kind, and told once for each kind and peer and minute.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use tokio::time::Instant;

/// How far two lines about one peer and one kind are apart.
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct State {
    counts: BTreeMap<&'static str, u64>,
    /// When the minute began whose lines are in `told`.
    minute: Option<Instant>,
    told: BTreeSet<(&'static str, NodeId)>,
    /// Refusals of a kind since its last line.
    held_back: BTreeMap<&'static str, u64>,
}

/// Who was not let in.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<State>);

impl Refusals {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal. If a line of the audit is due: how many of that kind there were since its last line, this one
    /// not counted. Whoever makes keys without end fills no log: so many lines a minute there are.
    fn note(&self, kind: &'static str, peer: NodeId) -> Option<u64> {
        let mut state = self.state();
        *state.counts.entry(kind).or_default() += 1;
        if state.minute.is_none_or(|minute| minute.elapsed() >= MINUTE) {
            state.minute = Some(Instant::now());
            state.told.clear();
        }
        let has_room = state.told.len() < limits::REFUSALS_TOLD_PER_MINUTE_MAX;
        if has_room && state.told.insert((kind, peer)) {
            return Some(state.held_back.remove(kind).unwrap_or(0));
        }
        *state.held_back.entry(kind).or_default() += 1;
        None
    }

    /// A peer was not let in, or is out again.
    pub(super) fn tell(&self, kind: &'static str, peer: NodeId, why: &dyn std::fmt::Display) {
        if let Some(more) = self.note(kind, peer) {
            tracing::warn!(audit = "admission", kind, node = %peer, %why, more, "the control plane refused a node");
        }
    }

    /// How many there were, by kind.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state().counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u16) -> NodeId {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        NodeId::from_public_key(key)
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_and_peer_fills_a_line_a_minute_and_all_are_counted() {
        let refusals = Refusals::default();
        let lines = |kind, of: u16| refusals.note(kind, node(of));
        assert_eq!((lines("revoked", 1), lines("revoked", 2), lines("expired", 1)), (Some(0), Some(0), Some(0)));
        assert_eq!((lines("revoked", 1), lines("revoked", 1), lines("expired", 1)), (None, None, None));
        tokio::time::advance(MINUTE).await;
        assert_eq!((lines("revoked", 1), lines("expired", 1)), (Some(2), Some(1)), "nothing is left out of the count");
        assert_eq!(refusals.counts(), BTreeMap::from([("expired", 3), ("revoked", 5)]));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_makes_keys_without_end_fills_no_log_and_no_memory() {
        let refusals = Refusals::default();
        let told = (0..10_000).filter(|n| refusals.note("self-made", node(*n)).is_some()).count();
        assert_eq!(told, limits::REFUSALS_TOLD_PER_MINUTE_MAX);
        assert_eq!(refusals.state().told.len(), limits::REFUSALS_TOLD_PER_MINUTE_MAX);
        tokio::time::advance(MINUTE).await;
        assert_eq!(refusals.note("self-made", node(0)), Some(10_000 - told as u64));
    }
}
