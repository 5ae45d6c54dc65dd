//! What each member acknowledged to this node as the leader of a term, and who forgot it.
//!
//! openraft takes for granted that a member holds what it acknowledged. A disk that was restored from a copy holds less:
//! with debug assertions the leader's group then fails; without them the leader sends the same again, is refused, and
//! does so for ever, while whoever asks is told that all is well. Worse is what the member does in the next election: it
//! gives its vote to a leader that lacks an entry which counts as acknowledged because this member had it. So the leader
//! looks for itself, tells the member, and has nothing to do with it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_protocol::ids::RaftId;

use super::types::{LogId, Vote};

/// What a member answers that forgot what it had acknowledged. It is on the wire: leaders know it by its text.
pub(crate) const FORGOT: &str = "this node forgot entries that it had acknowledged, and takes part no more; move its data \
                                 directory away, start it, and run 'skep shard add-voter' with its id on the leader";

#[derive(Debug, Default)]
struct State {
    /// The vote by which this node led last.
    vote: Option<Vote>,
    /// The last entry that each member acknowledged to the leader of that vote.
    upto: BTreeMap<RaftId, LogId>,
    /// Members that hold less than they acknowledged.
    forgetful: BTreeSet<RaftId>,
}

/// What members of one group acknowledged to this node. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acked(Arc<Mutex<State>>);

impl Acked {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last entry that a member acknowledged to the leader of this vote.
    ///
    /// Under one vote a member drops nothing that it has acknowledged: it is in the log of the one leader that it follows.
    pub(crate) fn upto(&self, vote: &Vote, member: RaftId) -> Option<LogId> {
        let state = self.state();
        state.upto.get(&member).copied().filter(|_| state.vote == Some(*vote))
    }

    /// A member acknowledged everything up to an entry to the leader of this vote.
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

    /// A member holds less than it acknowledged, as it says or as its answer shows. Whether this is news.
    pub(crate) fn forgot(&self, member: RaftId) -> bool {
        self.state().forgetful.insert(member)
    }

    /// Whether a member holds less than it acknowledged, as far as it has shown since this node leads.
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
