//! What an agent holds, and for how long.

use std::collections::{BTreeMap, BTreeSet};

use skep_proto::v1;
use skep_protocol::mutant::{Mutant, is_on};
use tokio::sync::{oneshot, watch};

use super::{Expected, Fenced, LeaseLeft};

/// Names one claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimKey {
    /// The task's id, 16 bytes.
    pub task: Vec<u8>,
    /// The epoch of the claim: its fencing token.
    pub epoch: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    /// Counts the attachments; only renewals of the one under which the claim was last granted prolong it.
    generation: u64,
    until_ms: u64,
}

/// The claims of one agent, as its node told of them. They decide whether the agent may go on, without a stream or a
/// clock of their own.
///
/// A claim is usable as long as the lease of the attachment under which it was granted runs. A new attachment prolongs
/// no claim until its node has said what the agent holds under it.
pub struct Holdings {
    generation: u64,
    /// When the lease of this generation ends, on the boot clock in milliseconds; none before its first renewal.
    until_ms: Option<u64>,
    /// When the agent's lease ends, whichever attachment it was renewed for: a new attachment of the same session cuts
    /// no lease short.
    lease_ms: Option<u64>,
    held: BTreeMap<ClaimKey, Held>,
    /// Claims that the agent's software gave up and that the node may still list: they are not handed out a second
    /// time.
    over: BTreeSet<ClaimKey>,
    /// Claims that were granted before their lease was first confirmed.
    early: Vec<(ClaimKey, Box<v1::Task>, bool)>,
    expected: BTreeMap<Vec<u8>, Expected>,
    changed: watch::Sender<u64>,
}

impl Default for Holdings {
    fn default() -> Self {
        Self {
            generation: 0,
            until_ms: None,
            lease_ms: None,
            held: BTreeMap::new(),
            over: BTreeSet::new(),
            early: Vec::new(),
            expected: BTreeMap::new(),
            changed: watch::channel(0).0,
        }
    }
}

/// What a grant led to.
pub enum Granted {
    /// The grant is new; its task waits to be worked on.
    New(ClaimKey, Box<v1::Task>),
    /// The caller that claimed the task by name has it. The orchestrator may have assigned it all the same, and have
    /// spent a credit.
    ByName {
        /// Whether a credit was spent.
        spent_credit: bool,
    },
    /// The claim was known.
    Known,
}

impl Holdings {
    /// Notes that the agent was attached anew.
    pub fn attached(&mut self) {
        self.generation += 1;
        self.until_ms = None;
        self.early.clear();
        self.expected.clear();
    }

    /// Loses everything: the attachment has ended.
    pub fn lose_all(&mut self) {
        self.lease_ms = None;
        self.held.clear();
        self.over.clear();
        self.early.clear();
        self.expected.clear();
        self.note();
    }

    /// Keeps only what the node says is held under a new attachment: every other claim is lost.
    pub fn keep_only(&mut self, held: &BTreeSet<ClaimKey>) {
        self.held.retain(|key, _| held.contains(key));
        self.over.retain(|key| held.contains(key));
        self.note();
    }

    /// The agent's software gives a claim up; returns whether it was held.
    pub fn let_go(&mut self, key: &ClaimKey) -> bool {
        let was_held = self.held.remove(key).is_some();
        if was_held && !is_on(Mutant::LetGoForgotten) {
            self.over.insert(key.clone());
        }
        was_held
    }

    /// The shard took a claim back; returns whether that was before the agent's software could hear of it.
    pub fn lost(&mut self, key: &ClaimKey) -> bool {
        self.held.remove(key);
        self.over.remove(key);
        let before = self.early.len();
        self.early.retain(|(early, ..)| early != key);
        self.note();
        self.early.len() < before
    }

    fn note(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits for the grant of a task that a caller claims by name.
    pub(super) fn expect(&mut self, task: &[u8]) -> oneshot::Receiver<(ClaimKey, Box<v1::Task>)> {
        let (sender, granted) = oneshot::channel();
        self.expected.insert(task.to_vec(), sender);
        granted
    }

    pub(super) fn forget_expected(&mut self, task: &[u8]) {
        self.expected.remove(task);
    }

    /// A claim was granted. A new one waits for the first renewal of its lease.
    pub fn granted(&mut self, key: ClaimKey, task: Box<v1::Task>, spends_credit: bool) -> Option<Granted> {
        let (generation, until_ms) = (self.generation, self.until_ms);
        if self.over.contains(&key) {
            return Some(Granted::Known);
        }
        if let Some(held) = self.held.get_mut(&key) {
            held.generation = generation;
            held.until_ms = held.until_ms.max(until_ms.unwrap_or(0));
            return Some(Granted::Known);
        }
        let Some(until_ms) = until_ms else {
            self.early.push((key, task, spends_credit));
            return None;
        };
        self.held.insert(key.clone(), Held { generation, until_ms });
        Some(self.hand_out(key, task, spends_credit))
    }

    fn hand_out(&mut self, key: ClaimKey, task: Box<v1::Task>, spent_credit: bool) -> Granted {
        match self.expected.remove(&key.task) {
            Some(expected) => match expected.send((key, task)) {
                Ok(()) => Granted::ByName { spent_credit },
                // The caller that claimed it does not wait for it.
                Err((key, task)) => Granted::New(key, task),
            },
            None => Granted::New(key, task),
        }
    }

    /// The lease was renewed until an instant of the boot clock. Returns the grants that waited for that.
    pub fn renewed(&mut self, until_ms: u64) -> Vec<Granted> {
        self.until_ms = self.until_ms.max(Some(until_ms));
        self.lease_ms = self.lease_ms.max(Some(until_ms));
        let generation = self.generation;
        for held in self.held.values_mut().filter(|held| held.generation == generation) {
            held.until_ms = held.until_ms.max(until_ms);
        }
        self.note();
        let early = std::mem::take(&mut self.early);
        early.into_iter().filter_map(|(key, task, spends)| self.granted(key, task, spends)).collect()
    }

    /// Checks that the agent's lease runs at an instant of its boot clock, whatever it holds.
    ///
    /// # Errors
    /// [`Fenced::LeaseEnded`]; 0 ms ago if the lease never ran, or was taken back.
    pub fn lease(&self, now_ms: u64) -> Result<LeaseLeft, Fenced> {
        if is_on(Mutant::StartWithoutLease) {
            return Ok(LeaseLeft { at_ms: now_ms, until_ms: u64::MAX });
        }
        match self.lease_ms {
            Some(until_ms) if now_ms < until_ms => Ok(LeaseLeft { at_ms: now_ms, until_ms }),
            ended => Err(Fenced::LeaseEnded { ago_ms: ended.map_or(0, |until_ms| now_ms - until_ms) }),
        }
    }

    /// Checks that the agent owns a claim at an instant of its boot clock.
    ///
    /// # Errors
    /// [`Fenced`] says why the agent must stop.
    pub fn check(&self, key: &ClaimKey, now_ms: u64) -> Result<LeaseLeft, Fenced> {
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
        assert!(is_new(holdings.granted(key(1), Box::default(), true)));
        holdings
    }

    #[test]
    fn a_claim_ends_with_its_lease_on_the_agents_own_clock() {
        let holdings = held();
        assert_eq!(holdings.check(&key(1), 999), Ok(LeaseLeft { at_ms: 999, until_ms: 1_000 }));
        assert_eq!(holdings.check(&key(1), 1_000), Err(Fenced::LeaseEnded { ago_ms: 0 }));
    }

    #[test]
    fn the_lease_ends_on_the_agents_own_clock_and_a_new_attachment_of_the_same_run_cuts_it_not_short() {
        let mut holdings = Holdings::default();
        assert_eq!(holdings.lease(5), Err(Fenced::LeaseEnded { ago_ms: 0 }));
        holdings.attached();
        holdings.renewed(1_000);
        assert_eq!(holdings.lease(999), Ok(LeaseLeft { at_ms: 999, until_ms: 1_000 }));
        assert_eq!(holdings.lease(1_250), Err(Fenced::LeaseEnded { ago_ms: 250 }));
        holdings.attached();
        assert!(holdings.lease(999).is_ok());
        holdings.renewed(3_000);
        assert!(holdings.lease(2_999).is_ok());
        holdings.lose_all();
        assert_eq!(holdings.lease(999), Err(Fenced::LeaseEnded { ago_ms: 0 }), "another run may have the agent");
    }

    #[test]
    fn a_grant_before_the_first_renewal_waits_for_it() {
        let mut holdings = Holdings::default();
        holdings.attached();
        assert!(holdings.granted(key(1), Box::default(), true).is_none());
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
        assert!(!is_new(holdings.granted(key(1), Box::default(), true)), "the one that is held goes on");
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
        assert!(is_new(holdings.granted(key(2), Box::default(), true)), "another epoch is another claim");
    }

    #[test]
    fn what_the_software_let_go_of_is_not_handed_out_again_until_it_is_gone() {
        let mut holdings = held();
        assert!(holdings.let_go(&key(1)));
        holdings.attached();
        // The node does not know yet that the task was completed, or given back.
        holdings.keep_only(&BTreeSet::from([key(1)]));
        holdings.renewed(2_000);
        assert!(matches!(holdings.granted(key(1), Box::default(), true), Some(Granted::Known)));
        assert_eq!(holdings.check(&key(1), 0), Err(Fenced::ClaimLost));
        holdings.lost(&key(1));
        assert!(is_new(holdings.granted(key(2), Box::default(), true)));
    }

    #[test]
    fn whoever_claimed_by_name_gets_the_grant_and_nobody_else() {
        let mut holdings = held();
        let mut granted = holdings.expect(&[7]);
        let claim = ClaimKey { task: vec![7], epoch: 3 };
        assert!(!is_new(holdings.granted(claim.clone(), Box::default(), true)));
        assert_eq!(granted.try_recv().map(|(key, _)| key), Ok(claim));
    }

    #[test]
    fn a_task_that_was_assigned_and_claimed_by_name_at_once_spends_its_credit() {
        let mut holdings = held();
        let _granted = holdings.expect(&[7]);
        let claim = ClaimKey { task: vec![7], epoch: 3 };
        let granted = holdings.granted(claim, Box::default(), true);
        assert!(matches!(granted, Some(Granted::ByName { spent_credit: true })));
    }
}
