//! Creates a shard, changes its voters, and hands over its lead.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::{ChangeMembers, ServerState};
use skep_protocol::entry::Charter;
use skep_protocol::ids::{NodeId, RaftId};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::signing::Place;

use super::condition::matched;
use super::heir::{Candidate, heir};
use super::{MembershipError, Shard};
use crate::net::{Action, in_words};
use crate::raft::types::Member;

impl Shard {
    /// The member that a node is at present.
    fn present(&self, node: NodeId) -> Result<Member, MembershipError> {
        let parts = &self.inner.parts;
        if node == parts.node {
            let name = Some(parts.config.node.name.clone());
            return Ok(Member { node, incarnation: parts.incarnation, name, charter: None });
        }
        let peer = parts.peers.connected(node).ok_or(MembershipError::Unreachable { node })?;
        let name = parts.peers.name(node);
        Ok(Member { node, incarnation: peer.hello.incarnation, name, charter: None })
    }

    fn check_leads(&self) -> Result<(), MembershipError> {
        // The view follows the group a moment later.
        let leads = self.inner.view.borrow().ready && self.metrics().state == ServerState::Leader;
        if leads { Ok(()) } else { Err(MembershipError::NotLeader { leader: self.leader() }) }
    }

    pub(crate) fn voters(&self) -> BTreeMap<RaftId, Member> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let member = |id: RaftId| Some((id, membership.get_node(&id)?.clone()));
        if is_on(Mutant::NonVotersCounted) {
            return membership.nodes().filter_map(|(id, _)| member(*id)).collect();
        }
        membership.voter_ids().filter_map(member).collect()
    }

    /// The voters once a change that is under way is finished; the present voters if there is none.
    pub(super) fn wanted_voters(&self) -> BTreeMap<RaftId, Member> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let wanted = membership.get_joint_config().last().cloned().unwrap_or_default();
        wanted.into_iter().filter_map(|id| Some((id, membership.get_node(&id)?.clone()))).collect()
    }

    /// Whether a change of voters is under way, or was cut off halfway.
    pub(super) fn is_joint(&self) -> bool {
        self.metrics().membership_config.membership().get_joint_config().len() > 1
    }

    /// What the shard is, as the node that made it said together with the first voters, before an entry says so.
    pub(super) fn charter(&self) -> Option<Charter> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        membership.nodes().find_map(|(_, member)| member.charter.as_deref().cloned())
    }

    /// Whether a place is this shard's, whatever its genesis.
    pub(super) fn is_here(&self, place: &Place) -> bool {
        place.site == self.inner.parts.config.node.site && place.shard == self.inner.id
    }

    /// Refuses a charter of another shard, or one whose first operator has not shown that it has its key.
    fn check_charter(&self, charter: &Charter) -> Result<(), MembershipError> {
        if !self.is_here(&charter.place) {
            return Err(MembershipError::Charter("it is of another site or shard".to_owned()));
        }
        if charter.first.is_some() && charter.shown().is_none() {
            let why = "the first operator has not signed that it is the first operator of this site, shard and genesis";
            return Err(MembershipError::Charter(why.to_owned()));
        }
        Ok(())
    }

    /// Creates the shard with these voters; this node must be one of them.
    pub(crate) async fn initialize(&self, voters: &[NodeId], charter: Charter) -> Result<(), MembershipError> {
        self.check_charter(&charter)?;
        if voters.is_empty() || voters.len() > limits::VOTERS_MAX {
            return Err(MembershipError::Voters(format!("{} voters; give 1 to {}", voters.len(), limits::VOTERS_MAX)));
        }
        if !voters.contains(&self.inner.parts.node) {
            return Err(MembershipError::Voters("this node must be among the voters; ask one that is".to_owned()));
        }
        if self.raft().is_initialized().await.map_err(raft_error)? {
            return Err(MembershipError::Exists);
        }
        self.check_marked(voters)?;
        let members = voters.iter().map(|node| self.present(*node).map(|member| (member.raft_id(), member)));
        let mut members: BTreeMap<RaftId, Member> = members.collect::<Result<_, _>>()?;
        if members.len() != voters.len() {
            return Err(MembershipError::Voters("a voter is named twice".to_owned()));
        }
        if let Some(own) = members.get_mut(&self.inner.parts.raft_id()) {
            own.charter = Some(Box::new(charter));
        }
        self.check_common_version(voters)?;
        for voter in voters.iter().filter(|voter| **voter != self.inner.parts.node) {
            self.check_holds_nothing(*voter).await?;
        }
        self.raft().initialize(members).await.map_err(raft_error)?;
        // The log has it already; the caller wants to see the voters.
        let mut metrics = self.raft().metrics();
        while self.voters().is_empty() && metrics.changed().await.is_ok() {}
        Ok(())
    }

    /// A shard of voters who are not marked would never have a leader. And a voter that was away while others took the
    /// place of those that it knew follows a leader whom two nodes elected that it knows, or has marked.
    fn check_marked(&self, voters: &[NodeId]) -> Result<(), MembershipError> {
        let parts = &self.inner.parts;
        if parts.peers.is_of_site() {
            return voters.iter().try_for_each(|node| self.check_role(*node));
        }
        let marked = parts.config.marked_voters();
        let missing = voters.iter().find(|node| **node != parts.node && !marked.contains(node));
        missing.map_or(Ok(()), |node| {
            Err(MembershipError::Voters(format!(
                "{node} is not marked as a voter in the list of this node; set voter = true in its [[peers]] in the \
                 configuration of every node, of each voter first, start them again, and ask again"
            )))
        })
    }

    /// Refuses a node without the right: at a site a certificate says who may vote.
    fn check_role(&self, node: NodeId) -> Result<(), MembershipError> {
        if self.inner.parts.peers.may(node, Action::Vote, None) {
            return Ok(());
        }
        let why = "has shown no certificate with the role voter or witness; invite it with that role, and ask again";
        Err(MembershipError::Voters(format!("{node} {why}")))
    }

    /// Refuses a node that holds a replica. A group made anew over a replica of an earlier one would have two histories
    /// under one name: the last good copy would follow the nodes that forgot.
    async fn check_holds_nothing(&self, node: NodeId) -> Result<(), MembershipError> {
        let holds = self.inner.parts.ask_for_replica(node, self.id()).await?;
        if holds { Err(MembershipError::HeldBy { node }) } else { Ok(()) }
    }

    /// Makes a node a voter under its present incarnation, in place of an earlier one.
    pub(crate) async fn add_voter(&self, node: NodeId) -> Result<(), MembershipError> {
        let _one_at_a_time = self.inner.changing_members.lock().await;
        self.check_leads()?;
        self.finish_change().await?;
        let member = self.present(node)?;
        let id = member.raft_id();
        if self.inner.acked.is_forgetful(id) {
            return Err(MembershipError::Forgot { node });
        }
        if self.inner.state.read().is_former(id) {
            return Err(MembershipError::OfGroupBefore { node });
        }
        self.check_speaks(node)?;
        self.check_lineage(node).await?;
        self.check_marked(&[node])?;
        let mut voters = self.voters();
        let earlier: Vec<RaftId> = voters.iter().filter(|(_, m)| m.node == node).map(|(id, _)| *id).collect();
        if earlier == [id] {
            return Ok(());
        }
        voters.retain(|id, _| !earlier.contains(id));
        if voters.len() >= limits::VOTERS_MAX {
            return Err(MembershipError::Voters(format!("there are {} voters already", voters.len())));
        }
        // The node catches up as a learner first, so that the new quorum does not wait for it.
        self.raft().add_learner(id, member.clone(), false).await.map_err(raft_error)?;
        let caught_up = self.wait_caught_up(id);
        if tokio::time::timeout(Duration::from_secs(60), caught_up).await.is_err() {
            return Err(MembershipError::Raft(format!("{node} did not catch up within a minute; try again")));
        }
        // The node may have been started again meanwhile, as another build.
        self.check_speaks(node)?;
        voters.insert(id, member);
        self.replace_voters(voters).await
    }

    /// Refuses a node that has a replica of another shard under this shard's number. This node asks it, since it may
    /// not have known when it connected. If it does not answer, its last word counts, and it has to be reached before
    /// it can catch up.
    async fn check_lineage(&self, node: NodeId) -> Result<(), MembershipError> {
        let parts = &self.inner.parts;
        if node == parts.node {
            return Ok(());
        }
        let asked = parts.peers.ask_shards(node, Duration::from_millis(parts.config.rpc_timeout_ms)).await;
        let theirs = asked.unwrap_or_else(|| parts.peers.shards_of(node));
        let Some(own) = self.lineage() else { return Ok(()) };
        match theirs.iter().find(|their| their.shard == own.shard && !their.belongs_with(&own)) {
            None => Ok(()),
            Some(their) => {
                Err(MembershipError::AnotherShard { node, why: in_words((parts.node, &own), (node, their)) })
            }
        }
    }

    /// Waits until a learner holds what the log held when the wait began.
    async fn wait_caught_up(&self, id: RaftId) {
        let mut metrics = self.raft().metrics();
        let target = metrics.borrow_watched().last_log_index;
        loop {
            let now = metrics.borrow_watched().clone();
            let Some(replication) = &now.replication else { return };
            let matched = replication.get(&id).copied().flatten().map(|m| m.index);
            if matched >= target || metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes a voter out.
    pub(crate) async fn remove_voter(&self, node: NodeId) -> Result<(), MembershipError> {
        let _one_at_a_time = self.inner.changing_members.lock().await;
        self.check_leads()?;
        self.finish_change().await?;
        let mut voters = self.voters();
        let before = voters.len();
        voters.retain(|_, member| member.node != node);
        if voters.len() == before {
            return Err(MembershipError::NotVoter { node });
        }
        if voters.is_empty() {
            return Err(MembershipError::Voters("it is the last voter".to_owned()));
        }
        if node == self.inner.parts.node {
            // A leader that has become no voter goes on leading for a while, and openraft does not expect more changes.
            let leader = self.transfer_leader(None).await?;
            return Err(MembershipError::HandedOver { leader });
        }
        self.replace_voters(voters).await
    }

    /// Finishes a change that an earlier leader left halfway, unless another task changes the voters.
    pub(super) async fn settle_members(&self) -> Result<(), MembershipError> {
        let _one_at_a_time = self.inner.changing_members.lock().await;
        self.check_leads()?;
        self.finish_change().await
    }

    /// Takes out the voters that a cut-off change was to take out; does nothing if there is no such change. Until then
    /// both the old voters and the new ones must agree, so that the loss of a leaving voter counts as if it stayed.
    async fn finish_change(&self) -> Result<(), MembershipError> {
        if !self.is_joint() {
            return Ok(());
        }
        let wanted = self.wanted_voters();
        let metrics = self.metrics();
        if !wanted.contains_key(&metrics.id) {
            // A leader does not take itself out: one of the voters that stay finishes the change.
            let candidate = |(id, member): (&RaftId, &Member)| {
                let (holds, can_lead) = (matched(&metrics, id), self.check_can_lead(*id, member));
                Candidate { id: *id, node: member.node, holds, can_lead }
            };
            let to = heir(&wanted.iter().map(candidate).collect::<Vec<_>>())?;
            let leader = match self.in_time(hand_over(self, to, true)).await {
                // The new leader finishes the change, or hands on the lead in its turn.
                Err(MembershipError::NotTaken { leader, .. }) => leader,
                taken => taken?,
            };
            return Err(MembershipError::HandedOver { leader });
        }
        self.replace_voters(wanted).await
    }

    async fn replace_voters(&self, voters: BTreeMap<RaftId, Member>) -> Result<(), MembershipError> {
        let ids = voters.into_keys().collect();
        let change = self.raft().change_membership(ChangeMembers::ReplaceAllVoters(ids), false);
        change.await.map(drop).map_err(|e| MembershipError::Unknown(e.to_string()))
    }
}

/// What a test needs to cut off a change of voters halfway.
#[cfg(test)]
impl Shard {
    /// Sends the log to a node without a vote, until it has caught up.
    pub(crate) async fn take_in(&self, node: NodeId) -> Result<(), MembershipError> {
        let member = self.present(node)?;
        let id = member.raft_id();
        self.raft().add_learner(id, member, false).await.map_err(raft_error)?;
        self.wait_caught_up(id).await;
        Ok(())
    }

    /// Makes these nodes, which already get the log, the voters, whether they are reached at the time or not.
    pub(crate) async fn vote_by(&self, nodes: &[NodeId]) -> Result<(), MembershipError> {
        let metrics = self.metrics();
        let members = metrics.membership_config.membership().nodes();
        let wanted = members.filter(|(_, member)| nodes.contains(&member.node));
        self.replace_voters(wanted.map(|(id, member)| (*id, member.clone())).collect()).await
    }

    /// Whether two sets of voters must agree, as far as this node knows.
    pub(crate) fn is_between_voters(&self) -> bool {
        self.is_joint()
    }
}

/// Hands the lead to a voter, or to the other voter that holds most of the log, and waits until a node leads; returns
/// the leader. If the caller named a voter, another leader is an error. If not, the chosen voter may be away, and
/// another one is as good.
pub(super) async fn transfer_leader(shard: &Shard, to: Option<NodeId>) -> Result<NodeId, MembershipError> {
    shard.check_leads()?;
    let metrics = shard.metrics();
    let voters = shard.voters();
    let target = match to {
        Some(node) if node == shard.inner.parts.node => return Ok(node),
        Some(node) => {
            // An earlier incarnation may be on its way out beside the present one.
            let of_node = || voters.iter().filter(move |(_, member)| member.node == node);
            let can_lead = |(id, member): &(&RaftId, &Member)| shard.check_can_lead(**id, member).is_ok();
            let (id, member) =
                of_node().find(can_lead).or_else(|| of_node().next()).ok_or(MembershipError::NotVoter { node })?;
            shard.check_can_lead(*id, member)?;
            *id
        }
        None => {
            let can_lead =
                |(id, member): &(&RaftId, &Member)| **id != metrics.id && shard.check_can_lead(**id, member).is_ok();
            let best = voters.iter().filter(can_lead).max_by_key(|(id, _)| matched(&metrics, id));
            *best.ok_or_else(|| MembershipError::Voters("no other voter is connected".to_owned()))?.0
        }
    };
    hand_over(shard, target, to.is_some()).await
}

/// Hands the lead to a voter that can take it, and waits until a node leads: see [`transfer_leader`].
async fn hand_over(shard: &Shard, target: RaftId, is_named: bool) -> Result<NodeId, MembershipError> {
    let (metrics, voters) = (shard.metrics(), shard.voters());
    let local = metrics.id;
    let term = metrics.current_term;
    shard.inner.beats.hand_over(term);
    shard.raft().trigger().transfer_leader(target).await.map_err(raft_error)?;
    let mut metrics = shard.raft().metrics();
    loop {
        let now = metrics.borrow_watched().clone();
        // The voters may have refused the lead, and elected this node again.
        if let Some(id) = now.current_leader.filter(|leader| *leader != local || now.current_term > term) {
            let node = |id: &RaftId| voters.get(id).map(|member| member.node);
            let leader = node(&id).ok_or(MembershipError::NotLeader { leader: None })?;
            return match node(&target).filter(|to| *to != leader && (id == local || is_named)) {
                Some(to) => Err(MembershipError::NotTaken { to, leader }),
                None => Ok(leader),
            };
        }
        if now.state == ServerState::Shutdown || metrics.changed().await.is_err() {
            return Err(MembershipError::Raft("the group stopped meanwhile".to_owned()));
        }
    }
}

impl Shard {
    /// Hands over the lead, within a time limit.
    pub(crate) async fn transfer_leader(&self, to: Option<NodeId>) -> Result<NodeId, MembershipError> {
        self.in_time(transfer_leader(self, to)).await
    }

    /// Whether a voter could lead, however much of the log it holds.
    fn check_can_lead(&self, id: RaftId, member: &Member) -> Result<(), MembershipError> {
        let node = member.node;
        let peer = self.inner.parts.peers.connected(node).ok_or(MembershipError::Unreachable { node })?;
        if peer.raft_id() != id {
            return Err(MembershipError::OtherIncarnation { node });
        }
        if self.inner.acked.is_forgetful(id) {
            return Err(MembershipError::Forgot { node });
        }
        self.check_speaks(node)
    }

    async fn in_time(
        &self,
        handed: impl Future<Output = Result<NodeId, MembershipError>>,
    ) -> Result<NodeId, MembershipError> {
        // The time of an election on these links, a few times over: a second candidate may have to stand.
        let patience = Duration::from_millis(self.borne_ms().saturating_mul(4));
        match tokio::time::timeout(patience, handed).await {
            Ok(result) => result,
            Err(_) => Err(MembershipError::Unknown(
                "no other voter took the lead in time; look at 'skep shard status'".to_owned(),
            )),
        }
    }
}

fn raft_error(error: impl std::fmt::Display) -> MembershipError {
    MembershipError::Raft(error.to_string())
}
