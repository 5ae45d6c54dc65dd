//! What each member acknowledged to this node while this node led a term, and which members forgot it.
//!
//! openraft takes for granted that a member holds what it acknowledged. A disk that was restored from a copy holds
//! less. With debug assertions the leader's group then fails. Without them the leader sends the same entries again, the
//! member refuses them, and so on for ever, while the leader answers that all is well. Worse is what the member does in
//! the next election: it gives its vote to a leader that lacks an entry which counts as acknowledged because this
//! member had it. So the leader finds such a member itself, tells it, and does not count on it from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_protocol::ids::RaftId;

use super::types::{LogId, Vote};

/// The answer of a member that forgot what it had acknowledged. The text is on the wire: leaders know the answer by it.
pub(crate) const FORGOT: &str = "this node forgot entries that it had acknowledged, and takes part no more; move its data \
                                 directory away, start it, and run 'skep shard add-voter' with its id on the leader";

#[derive(Debug, Default)]
struct State {
    /// The vote by which this node last led.
    vote: Option<Vote>,
    /// The last entry that each member acknowledged to the leader with that vote.
    upto: BTreeMap<RaftId, LogId>,
    /// Members that hold less than they acknowledged.
    forgetful: BTreeSet<RaftId>,
}

/// What the members of one group acknowledged to this node. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acked(Arc<Mutex<State>>);

impl Acked {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last entry that a member acknowledged to the leader with this vote.
    ///
    /// Under one vote a member drops no entry that it has acknowledged: the entry is in the log of the one leader that
    /// it follows.
    pub(crate) fn upto(&self, vote: &Vote, member: RaftId) -> Option<LogId> {
        let state = self.state();
        state.upto.get(&member).copied().filter(|_| state.vote == Some(*vote))
    }

    /// Notes that a member acknowledged all entries up to this one to the leader with this vote.
    pub(crate) fn note(&self, vote: &Vote, member: RaftId, upto: Option<LogId>) {
        let mut state = self.state();
        if state.vote.is_none_or(|known| known < *vote) {
            *state = State { vote: Some(*vote), ..State::default() };
        }
        if state.vote == Some(*vote) {
            let known = state.upto.get(&member).copied();
            if let Some(upto) = known.max(upto) {
                state.upto.insert(member, upto);
            }
        }
    }

    /// Notes that a member holds less than it acknowledged: the member said so, or its answer shows it. Returns whether
    /// this is news.
    pub(crate) fn forgot(&self, member: RaftId) -> bool {
        self.state().forgetful.insert(member)
    }

    /// Whether a member has shown, since this node leads, that it holds less than it acknowledged.
    pub(crate) fn is_forgetful(&self, member: RaftId) -> bool {
        self.state().forgetful.contains(&member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::impls::leader_id_std::LeaderId;

    fn vote(term: u64) -> Vote {
        Vote { leader_id: LeaderId { term, voted_for: RaftId(1) }, committed: true }
    }

    fn id(term: u64, index: u64) -> LogId {
        LogId { leader_id: term.into(), index }
    }

    #[test]
    fn what_was_acknowledged_counts_for_one_leader_and_never_goes_back() {
        let (acked, member) = (Acked::default(), RaftId(2));
        assert_eq!(acked.upto(&vote(3), member), None);
        acked.note(&vote(3), member, Some(id(3, 9)));
        acked.note(&vote(3), member, Some(id(2, 7)));
        acked.note(&vote(3), member, None);
        assert_eq!(acked.upto(&vote(3), member), Some(id(3, 9)));
        assert_eq!(acked.upto(&vote(4), member), None, "a later leader may have had it dropped");
        assert!(acked.forgot(member) && !acked.forgot(member));
        acked.note(&vote(4), member, Some(id(3, 4)));
        acked.note(&vote(3), member, Some(id(3, 12)));
        assert_eq!(acked.upto(&vote(4), member), Some(id(3, 4)), "a late answer to an earlier leader says nothing");
        assert!(!acked.is_forgetful(member), "the next leader sees for itself");
    }
}
