//! What a shard looks like from this node.

use openraft::{RaftMetrics, ServerState};
use skep_protocol::ids::RaftId;
pub use skep_protocol::shard_status::{ShardRole, ShardStatus, VoterStanding, VoterStatus};

use super::Shard;
use crate::raft::acked::FORGOT;
use crate::raft::types::{LogId, Member, TypeConfig};

impl Shard {
    /// The status of the shard as this node sees it.
    pub(crate) fn status(&self) -> ShardStatus {
        let metrics = self.metrics();
        let voters = self.voters();
        let forgot = self.has_forgotten().then(|| FORGOT.to_owned());
        let aside = forgot.or_else(|| self.unfit().map(ToString::to_string));
        let fault = metrics.running_state.as_ref().err().map(ToString::to_string).or(aside);
        let role = match metrics.state {
            _ if fault.is_some() => ShardRole::Down,
            _ if voters.is_empty() => ShardRole::Uninitialised,
            ServerState::Leader => ShardRole::Leader,
            ServerState::Candidate => ShardRole::Candidate,
            ServerState::Follower => ShardRole::Follower,
            ServerState::Learner => ShardRole::Learner,
            ServerState::Shutdown => ShardRole::Down,
        };
        let faults = self.faults();
        let fleet_version_max = self.inner.parts.build.versions.max;
        let raised = self.fleet_version() >= fleet_version_max;
        let held_back_by =
            if role == ShardRole::Leader && !raised { self.agreement().held_back_by } else { Vec::new() };
        let history = self.inner.parts.store.history().standing(self.inner.id);
        let voter = |(id, member)| self.voter_status(&metrics, role, id, member);
        let voters = voters.into_iter().map(voter).collect();
        let state = self.inner.state.read();
        let index = |id: LogId| id.index;
        ShardStatus {
            shard: self.inner.id,
            role,
            term: metrics.current_term.max(metrics.vote.leader_id().term),
            leader: self.leader(),
            last_log: metrics.last_log_index,
            committed: metrics.local_committed.map(index),
            applied: state.applied().map(|position| position.index),
            snapshot: metrics.snapshot.map(index),
            purged: metrics.purged.map(index),
            digest: state.digest(),
            clock: self.inner.clock.now(),
            fleet_version: state.fleet_version(),
            fleet_version_max,
            held_back_by,
            genesis: state.place().map(|place| place.genesis),
            recovery: state.recovery().map(|signed| signed.statement().clone()),
            voters,
            counts: state.counts(),
            dropped: state.dropped(),
            dedup_ids: state.dedup_ids() as u64,
            log_bytes: self.inner.parts.store.written().total(),
            fault,
            faults,
            history,
        }
    }
    /// What this node knows of a voter.
    fn voter_status(
        &self,
        metrics: &RaftMetrics<TypeConfig>,
        role: ShardRole,
        raft_id: RaftId,
        member: Member,
    ) -> VoterStatus {
        let is_local = raft_id == metrics.id;
        let matched = metrics.replication.as_ref().and_then(|all| all.get(&raft_id).copied().flatten());
        // A voter is not known to hold what it forgot.
        let matched = matched.map(|id| id.index).filter(|_| !self.inner.acked.is_forgetful(raft_id));
        let own = metrics.last_log_index.filter(|_| is_local && role == ShardRole::Leader);
        VoterStatus {
            node: member.node,
            incarnation: member.incarnation,
            raft_id,
            matched: matched.or(own),
            standing: standing(metrics, &raft_id),
            heard_ms: self.voter_age_ms(&raft_id).filter(|_| !is_local),
            speaks: self.speaks(raft_id, &member),
            name: member.name,
        }
    }
}

/// What a change of voters that is under way does with one of them.
fn standing(metrics: &RaftMetrics<TypeConfig>, id: &RaftId) -> VoterStanding {
    let configs = metrics.membership_config.membership().get_joint_config();
    match (configs.first(), configs.last()) {
        (Some(before), Some(after)) if before.contains(id) && !after.contains(id) => VoterStanding::Leaves,
        (Some(before), Some(after)) if after.contains(id) && !before.contains(id) => VoterStanding::Joins,
        _ => VoterStanding::Stays,
    }
}
