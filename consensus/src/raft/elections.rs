//! The proofs of one group's elections: the signed votes that this node gives, the votes that it collects as a
//! candidate, and the leaders that have shown to this node that a quorum elected them.
//!
//! A voter that answers with a vote signs it. A candidate counts a vote only with its signature: so a node that
//! openraft says was elected can prove it. A node follows no leader whose proof it has not seen. A node knows by its
//! own vote which leaders it has followed, also after a restart: it writes the vote down as that of a leader only after
//! the proof.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver as _;
use openraft::type_config::alias::WatchReceiverOf;
use serde::{Deserialize, Serialize};
use skep_protocol::ballot::{Ballot, BallotKey, Election, Knowledge, LeaderProof, Voter, VoterSet, VotersDigest};
use skep_protocol::codec::Encoded as _;
use skep_protocol::ids::{Genesis, NodeId, RaftId, ShardId};
use skep_protocol::limits;
use skep_protocol::recovery::Lineage;
use tokio::sync::watch;

use super::machine::SharedState;
use super::types::{StoredMembership, TypeConfig, Vote};

/// The reason why a node takes nothing from a leader. The text is on the wire: leaders know it, and show the proof
/// again.
pub(crate) const UNPROVEN: &str = "the sender has not shown to this node that it was elected in this term";

/// The metrics of the group, as they change.
type Metrics = WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>;

/// What a candidate says of its election beside its vote. Voters sign it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Candidacy {
    genesis: Option<Genesis>,
    voters: VotersDigest,
}

/// The subject of an election of this node, and the votes in it.
struct Campaign {
    election: Election,
    voters: VoterSet,
    ballots: BTreeMap<RaftId, Ballot>,
}

/// The members that this node has shown the proof of its term to.
#[derive(Default)]
struct Own {
    campaign: Option<Campaign>,
    /// For each member: the term of the proof, and the number of the run of the member's process that saw it.
    shown: BTreeMap<RaftId, (u64, u64)>,
}

/// Where this node reads what the shard is and who votes in it.
struct Sources {
    state: SharedState,
    metrics: Metrics,
}

struct Inner {
    shard: ShardId,
    local: RaftId,
    key: Arc<BallotKey>,
    sources: OnceLock<Sources>,
    own: Mutex<Own>,
    /// The nodes of which a proof is being verified.
    verifying: Mutex<BTreeSet<NodeId>>,
    /// The last term of which a proof was verified, and its leader.
    proven: watch::Sender<Option<(u64, RaftId)>>,
}

/// The elections of one group. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Elections(Arc<Inner>);

/// The verification of a proof that a node has shown, until it is dropped.
pub(crate) struct Verification {
    elections: Elections,
    node: NodeId,
}

impl Drop for Verification {
    fn drop(&mut self) {
        self.elections.verifying().remove(&self.node);
    }
}

/// Who votes, as a membership says.
fn voter_set(stored: &StoredMembership) -> Option<VoterSet> {
    let membership = stored.membership();
    let voter = |id: &RaftId| {
        let member = membership.get_node(id)?;
        Some(Voter { node: member.node, incarnation: member.incarnation })
    };
    let group = |ids: &BTreeSet<RaftId>| ids.iter().map(voter).collect::<Option<Vec<Voter>>>();
    VoterSet::of(membership.get_joint_config().iter().map(group).collect::<Option<Vec<_>>>()?)
}

fn leader_of(vote: &Vote) -> (u64, RaftId) {
    (vote.leader_id.term, vote.leader_id.voted_for)
}

impl Sources {
    fn metrics(&self) -> RaftMetrics<TypeConfig> {
        self.metrics.borrow_watched().clone()
    }

    /// How the shard began: from its first entry, or from the membership that the node that made it wrote.
    fn lineage(&self, shard: ShardId, stored: &StoredMembership) -> Option<Lineage> {
        let applied = self.state.read().lineage().filter(|lineage| lineage.shard == shard);
        applied.or_else(|| {
            let charter = stored.membership().nodes().find_map(|(_, member)| member.charter.as_deref())?;
            let place = &charter.place;
            (place.shard == shard).then(|| Lineage { shard, genesis: place.genesis, past: Vec::new() })
        })
    }
}

impl Elections {
    pub(crate) fn new(shard: ShardId, local: RaftId, key: Arc<BallotKey>) -> Self {
        let (sources, own, proven) = (OnceLock::new(), Mutex::default(), watch::channel(None).0);
        Self(Arc::new(Inner { shard, local, key, sources, own, verifying: Mutex::default(), proven }))
    }

    /// Begins to read what the shard is and who votes, once the group is open.
    pub(crate) fn follow(&self, state: SharedState, metrics: Metrics) {
        let _ = self.0.sources.set(Sources { state, metrics });
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.0.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verifying(&self) -> MutexGuard<'_, BTreeSet<NodeId>> {
        self.0.verifying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn campaign(&self, term: u64, sources: &Sources, stored: &StoredMembership) -> Option<Campaign> {
        let Inner { shard, local, ref key, .. } = *self.0;
        let voters = voter_set(stored)?;
        let genesis = sources.lineage(shard, stored).map(|lineage| lineage.genesis);
        let election = Election { shard, genesis, term, candidate: local, voters: voters.digest() };
        Some(Campaign { election, voters, ballots: [(local, key.vote(&election, local))].into() })
    }

    /// What this node says as a candidate with this vote, once it knows which voters are to elect it: openraft tells of
    /// its vote only after writing it. None if the group has ended.
    pub(super) async fn stand(&self, vote: &Vote) -> Option<Candidacy> {
        let sources = self.0.sources.get()?;
        let (term, _) = leader_of(vote);
        let mut metrics = sources.metrics.clone();
        let known = loop {
            let known = metrics.borrow_watched().clone();
            if known.vote >= *vote {
                break known;
            }
            metrics.changed().await.ok()?;
        };
        let mut own = self.own();
        if own.campaign.as_ref().is_none_or(|campaign| campaign.election.term < term) {
            own.campaign = self.campaign(term, sources, &known.membership_config);
        }
        let campaign = own.campaign.as_ref().filter(|campaign| campaign.election.term == term)?;
        Some(Candidacy { genesis: campaign.election.genesis, voters: campaign.election.voters })
    }

    /// Counts a vote for this node if the member's node has signed it. Returns whether the vote counts.
    pub(super) fn collect(&self, vote: &Vote, (target, node): (RaftId, NodeId), ballot: Option<Ballot>) -> bool {
        let (term, _) = leader_of(vote);
        let of_term = |campaign: &Campaign| campaign.election.term == term;
        let Some(election) = self.own().campaign.as_ref().filter(|one| of_term(one)).map(|one| one.election) else {
            return false;
        };
        let Some(ballot) = ballot.filter(|ballot| ballot.voter == target && ballot.is_signed(&election, node)) else {
            return false;
        };
        let mut own = self.own();
        let Some(campaign) = own.campaign.as_mut().filter(|campaign| of_term(campaign)) else { return false };
        campaign.ballots.insert(target, ballot);
        true
    }

    /// The proof that this node leads by this vote, for a member whose process has not seen it in this run. The proof
    /// counts as shown from then on.
    pub(super) fn to_show(&self, vote: &Vote, target: RaftId, process: u64) -> Option<Vec<u8>> {
        let (term, leader) = leader_of(vote);
        if leader != self.0.local || !vote.committed {
            return None;
        }
        let mut own = self.own();
        if own.shown.get(&target) == Some(&(term, process)) {
            return None;
        }
        // A sole voter asks no other voter for a vote.
        if own.campaign.as_ref().is_none_or(|campaign| campaign.election.term < term) {
            let sources = self.0.sources.get()?;
            own.campaign = self.campaign(term, sources, &sources.metrics().membership_config);
        }
        let Campaign { election, voters, ballots } = own.campaign.as_ref().filter(|one| one.election.term == term)?;
        let proof = LeaderProof::new(election, voters.clone(), ballots.values().copied()).encode().ok()?;
        // Entries of members that left are kept for one term at most.
        own.shown.retain(|_, (shown, _)| *shown == term);
        own.shown.insert(target, (term, process));
        Some(proof)
    }

    /// Notes that a member has not seen the proof after all.
    pub(super) fn hide(&self, target: RaftId) {
        self.own().shown.remove(&target);
    }

    /// Signs that this node has voted for a candidate. This node does not judge what the candidate says of the shard
    /// and its voters: the candidate's log may be ahead. The ballot is good only for this member, this candidate, and a
    /// shard of this number.
    pub(crate) fn grant(&self, vote: &Vote, candidacy: Candidacy) -> Ballot {
        let (term, candidate) = leader_of(vote);
        let Candidacy { genesis, voters } = candidacy;
        let election = Election { shard: self.0.shard, genesis, term, candidate, voters };
        self.0.key.vote(&election, self.0.local)
    }

    /// What this node knows of the shard, by which it judges a proof.
    pub(crate) fn knowledge(&self, believed: BTreeSet<NodeId>) -> Knowledge {
        let shard = self.0.shard;
        let Some(sources) = self.0.sources.get() else {
            return Knowledge { shard, lineage: None, sets: Vec::new(), believed };
        };
        let metrics = sources.metrics();
        let memberships = [&metrics.membership_config, &metrics.committed_membership_config];
        let sets = memberships.into_iter().filter_map(|stored| voter_set(stored)).collect();
        Knowledge { shard, lineage: sources.lineage(shard, &metrics.membership_config), sets, believed }
    }

    /// Begins to verify a proof that a node has shown; none while another one of it is being verified.
    pub(crate) fn begin_to_verify(&self, node: NodeId) -> Option<Verification> {
        let begins = self.verifying().insert(node);
        begins.then(|| Verification { elections: self.clone(), node })
    }

    /// It was verified that a leader was elected.
    pub(crate) fn note_proven(&self, vote: &Vote) {
        let leader = leader_of(vote);
        self.0.proven.send_if_modified(|known| {
            let is_news = known.is_none_or(|known| known.0 < leader.0);
            if is_news {
                *known = Some(leader);
            }
            is_news
        });
    }

    /// Whether this node has verified the election of a leader.
    pub(crate) fn is_proven(&self, vote: &Vote) -> bool {
        *self.0.proven.borrow() == Some(leader_of(vote))
    }

    /// The same as `is_proven`, but waits for a moment: the proof may come later than what the leader sends.
    pub(crate) async fn until_proven(&self, vote: &Vote) -> bool {
        let leader = Some(leader_of(vote));
        let mut proven = self.0.proven.subscribe();
        let wait = Duration::from_millis(limits::PROOF_WAIT_MS);
        tokio::time::timeout(wait, proven.wait_for(|known| *known == leader)).await.is_ok_and(|known| known.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use openraft::impls::leader_id_std::LeaderId;
    use skep_protocol::ids::Incarnation;

    use super::*;

    fn elections(n: u8) -> Elections {
        let key = BallotKey::from_seed(&[n; 32]);
        let local = RaftId::derive(key.node(), Incarnation([n; 16]));
        Elections::new(ShardId::FIRST, local, Arc::new(key))
    }

    fn vote(term: u64, of: &Elections) -> Vote {
        Vote { leader_id: LeaderId { term, voted_for: of.0.local }, committed: true }
    }

    fn stands(candidate: &Elections, term: u64, others: &[&Elections]) -> Candidacy {
        let voter = |one: &Elections| Voter { node: one.0.key.node(), incarnation: Incarnation([0; 16]) };
        let voters = VoterSet::of([others.iter().map(|one| voter(one)).chain([voter(candidate)]).collect()]).unwrap();
        let (shard, local) = (ShardId::FIRST, candidate.0.local);
        let election = Election { shard, genesis: None, term, candidate: local, voters: voters.digest() };
        let ballots = BTreeMap::new();
        candidate.own().campaign = Some(Campaign { election, voters, ballots });
        Candidacy { genesis: None, voters: election.voters }
    }

    #[test]
    fn a_vote_counts_only_if_its_voter_signed_it_for_this_candidate_and_term() {
        let [candidate, voter, other] = [1, 2, 3].map(elections);
        let candidacy = stands(&candidate, 7, &[&voter, &other]);
        let (asked, target) = (vote(7, &candidate), (voter.0.local, voter.0.key.node()));
        let granted = voter.grant(&asked, candidacy);
        assert!(!candidate.collect(&asked, target, None), "nothing shows it");
        assert!(!candidate.collect(&asked, target, Some(other.grant(&asked, candidacy))), "it is another one's");
        assert!(!candidate.collect(&asked, target, Some(voter.grant(&vote(6, &candidate), candidacy))));
        assert!(!candidate.collect(&asked, target, Some(voter.grant(&vote(7, &other), candidacy))));
        assert!(!candidate.collect(&vote(8, &candidate), target, Some(granted)), "it asked for none in that term");
        assert!(candidate.collect(&asked, target, Some(granted)));
    }

    #[test]
    fn a_proof_is_shown_once_to_each_run_of_a_member_and_again_if_that_has_not_seen_it() {
        let [candidate, voter] = [1, 2].map(elections);
        stands(&candidate, 7, &[&voter]);
        let (led, member) = (vote(7, &candidate), voter.0.local);
        assert!(candidate.to_show(&Vote { committed: false, ..led }, member, 1).is_none(), "it is not elected");
        assert!(candidate.to_show(&vote(7, &voter), member, 1).is_none(), "a node shows no other node's proof");
        assert!(candidate.to_show(&led, member, 1).is_some());
        assert!(candidate.to_show(&led, member, 1).is_none());
        assert!(candidate.to_show(&led, member, 2).is_some(), "it started again");
        candidate.hide(member);
        assert!(candidate.to_show(&led, member, 2).is_some());
    }

    #[test]
    fn of_each_node_one_proof_at_a_time_is_verified() {
        let [voter, other, node] = [1, 2, 3].map(elections);
        let (voter, other) = (voter.0.key.node(), other.0.key.node());
        let under_way = node.begin_to_verify(voter).unwrap();
        assert!(node.begin_to_verify(voter).is_none(), "however many it shows");
        assert!(node.begin_to_verify(other).is_some());
        drop(under_way);
        assert!(node.begin_to_verify(voter).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_was_elected_later_is_waited_for_and_an_earlier_proof_does_not_take_its_place() {
        let [one, other, node] = [1, 2, 3].map(elections);
        assert!(!node.until_proven(&vote(7, &one)).await);
        let waiting = {
            let (node, led) = (node.clone(), vote(7, &one));
            tokio::spawn(async move { node.until_proven(&led).await })
        };
        tokio::task::yield_now().await;
        node.note_proven(&vote(7, &one));
        assert!(waiting.await.unwrap());
        node.note_proven(&vote(6, &other));
        node.note_proven(&vote(7, &other));
        assert!(node.is_proven(&vote(7, &one)) && !node.is_proven(&vote(7, &other)), "one leads in a term");
    }
}
