//! What an agent holds, and until when.

use std::collections::{BTreeMap, BTreeSet};

use skep_protocol::v1;
use tokio::sync::{oneshot, watch};

use super::{Expected, Fenced, LeaseLeft};

/// One claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClaimKey {
    pub(crate) task: Vec<u8>,
    pub(crate) epoch: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    /// The attachment under which it was last granted; only renewals of that one prolong it.
    generation: u64,
    until_ms: u64,
}

/// The claims of one agent, as its node told of them.
///
/// A claim is usable for as long as the lease of the attachment under which it was granted. A new attachment prolongs
/// nothing until its node has said what is held under it.
pub(crate) struct Holdings {
    generation: u64,
    /// Until when the lease of this generation lasts; none before its first renewal.
    until_ms: Option<u64>,
    held: BTreeMap<ClaimKey, Held>,
    /// Granted under a lease that was not confirmed yet.
    early: Vec<(ClaimKey, Box<v1::Task>)>,
    expected: BTreeMap<Vec<u8>, Expected>,
    changed: watch::Sender<u64>,
}

impl Default for Holdings {
    fn default() -> Self {
        Self {
            generation: 0,
            until_ms: None,
            held: BTreeMap::new(),
            early: Vec::new(),
            expected: BTreeMap::new(),
            changed: watch::channel(0).0,
        }
    }
}

/// What became of a grant.
pub(super) enum Granted {
    /// It is new, and waits to be worked on.
    New(ClaimKey, Box<v1::Task>),
    /// It was claimed by name, and whoever did has it; or it was known.
    Taken,
}

impl Holdings {
    /// The agent was attached anew.
    pub(super) fn attached(&mut self) {
        self.generation += 1;
        self.until_ms = None;
        self.early.clear();
        self.expected.clear();
    }

    /// Everything is lost: the attachment has ended.
    pub(super) fn lose_all(&mut self) {
        self.held.clear();
        self.early.clear();
        self.expected.clear();
        self.note();
    }

    /// The node told of all that is held under a new attachment: what else was remembered is lost.
    pub(super) fn keep_only(&mut self, held: &BTreeSet<ClaimKey>) {
        self.held.retain(|key, _| held.contains(key));
        self.note();
    }

    /// The agent's software let go of a claim; whether it was held.
    pub(super) fn let_go(&mut self, key: &ClaimKey) -> bool {
        self.held.remove(key).is_some()
    }

    pub(super) fn lost(&mut self, key: &ClaimKey) {
        self.held.remove(key);
        self.early.retain(|(early, _)| early != key);
        self.note();
    }

    fn note(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Whoever claims a task by name waits for its grant.
    pub(super) fn expect(&mut self, task: &[u8]) -> oneshot::Receiver<(ClaimKey, Box<v1::Task>)> {
        let (sender, granted) = oneshot::channel();
        self.expected.insert(task.to_vec(), sender);
        granted
    }

    pub(super) fn forget_expected(&mut self, task: &[u8]) {
        self.expected.remove(task);
    }

    /// A claim was granted. New ones wait for the first renewal of their lease.
    pub(super) fn granted(&mut self, key: ClaimKey, task: Box<v1::Task>) -> Option<Granted> {
        let (generation, until_ms) = (self.generation, self.until_ms);
        if let Some(held) = self.held.get_mut(&key) {
            held.generation = generation;
            held.until_ms = held.until_ms.max(until_ms.unwrap_or(0));
            return Some(Granted::Taken);
        }
        let Some(until_ms) = until_ms else {
            self.early.push((key, task));
            return None;
        };
        self.held.insert(key.clone(), Held { generation, until_ms });
        Some(self.hand_out(key, task))
    }

    fn hand_out(&mut self, key: ClaimKey, task: Box<v1::Task>) -> Granted {
        match self.expected.remove(&key.task) {
            Some(expected) => match expected.send((key, task)) {
                Ok(()) => Granted::Taken,
                // Whoever claimed it does not wait any more.
                Err((key, task)) => Granted::New(key, task),
            },
            None => Granted::New(key, task),
        }
    }

    /// The lease was renewed until an instant of the boot clock. Returns what waited for it.
    pub(super) fn renewed(&mut self, until_ms: u64) -> Vec<Granted> {
        self.until_ms = self.until_ms.max(Some(until_ms));
        let generation = self.generation;
        for held in self.held.values_mut().filter(|held| held.generation == generation) {
            held.until_ms = held.until_ms.max(until_ms);
        }
        self.note();
        let early = std::mem::take(&mut self.early);
        early.into_iter().filter_map(|(key, task)| self.granted(key, task)).collect()
    }

    pub(super) fn check(&self, key: &ClaimKey, now_ms: u64) -> Result<LeaseLeft, Fenced> {
        let held = self.held.get(key).ok_or(Fenced::ClaimLost)?;
        if now_ms >= held.until_ms {
            return Err(Fenced::LeaseEnded { ago_ms: now_ms - held.until_ms });
        }
        Ok(LeaseLeft { at_ms: now_ms, until_ms: held.until_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(epoch: u64) -> ClaimKey {
        ClaimKey { task: vec![1], epoch }
    }

    fn is_new(granted: Option<Granted>) -> bool {
        matches!(granted, Some(Granted::New(..)))
    }

    fn held() -> Holdings {
        let mut holdings = Holdings::default();
        holdings.attached();
        holdings.renewed(1_000);
        assert!(is_new(holdings.granted(key(1), Box::default())));
        holdings
    }

    #[test]
    fn a_claim_ends_with_its_lease_on_the_agents_own_clock() {
        let holdings = held();
        assert_eq!(holdings.check(&key(1), 999), Ok(LeaseLeft { at_ms: 999, until_ms: 1_000 }));
        assert_eq!(holdings.check(&key(1), 1_000), Err(Fenced::LeaseEnded { ago_ms: 0 }));
    }

    #[test]
    fn a_grant_before_the_first_renewal_waits_for_it() {
        let mut holdings = Holdings::default();
        holdings.attached();
        assert!(holdings.granted(key(1), Box::default()).is_none());
        assert_eq!(holdings.check(&key(1), 0), Err(Fenced::ClaimLost));
        assert_eq!(holdings.renewed(500).len(), 1);
        assert!(holdings.check(&key(1), 499).is_ok());
    }

    #[test]
    fn a_new_attachment_prolongs_only_what_it_was_granted() {
        let mut holdings = held();
        holdings.attached();
        holdings.renewed(5_000);
        assert_eq!(holdings.check(&key(1), 2_000), Err(Fenced::LeaseEnded { ago_ms: 1_000 }));
        assert!(!is_new(holdings.granted(key(1), Box::default())), "the one that is held goes on");
        assert!(holdings.check(&key(1), 4_999).is_ok());
    }

    #[test]
    fn what_a_new_attachment_does_not_hold_is_lost() {
        let mut holdings = held();
        holdings.attached();
        holdings.keep_only(&BTreeSet::from([key(1)]));
        assert!(holdings.check(&key(1), 0).is_ok());
        holdings.keep_only(&BTreeSet::new());
        assert_eq!(holdings.check(&key(1), 0), Err(Fenced::ClaimLost));
    }

    #[test]
    fn a_claim_that_was_taken_back_is_fenced_at_once() {
        let mut holdings = held();
        holdings.lost(&key(1));
        assert_eq!(holdings.check(&key(1), 0), Err(Fenced::ClaimLost));
        assert!(is_new(holdings.granted(key(2), Box::default())), "another epoch is another claim");
    }

    #[test]
    fn whoever_claimed_by_name_gets_the_grant_and_nobody_else() {
        let mut holdings = held();
        let mut granted = holdings.expect(&[7]);
        let claim = ClaimKey { task: vec![7], epoch: 3 };
        assert!(!is_new(holdings.granted(claim.clone(), Box::default())));
        assert_eq!(granted.try_recv().map(|(key, _)| key), Ok(claim));
    }
}
