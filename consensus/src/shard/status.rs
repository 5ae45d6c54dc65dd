//! What a shard looks like from this node.

use openraft::ServerState;
use skep_protocol::ids::RaftId;
pub use skep_protocol::shard_status::{ShardRole, ShardStatus, VoterStanding, VoterStatus};

use super::Shard;
use crate::raft::acked::FORGOT;

impl Shard {
    /// The shard as this node sees it now.
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
        // What a voter forgot, it is not known to hold.
        let matched = |id: &RaftId| {
            let matched = metrics.replication.as_ref()?.get(id).copied().flatten().map(|m| m.index);
            matched.filter(|_| !self.inner.acked.is_forgetful(*id))
        };
        let local_last = metrics.last_log_index;
        let configs = metrics.membership_config.membership().get_joint_config();
        let standing = |id: &RaftId| match (configs.first(), configs.last()) {
            (Some(before), Some(after)) if before.contains(id) && !after.contains(id) => VoterStanding::Leaves,
            (Some(before), Some(after)) if after.contains(id) && !before.contains(id) => VoterStanding::Joins,
            _ => VoterStanding::Stays,
        };
        let faults = self.faults();
        let fleet_version_max = self.inner.site.build.versions.max;
        let raised = self.fleet_version() >= fleet_version_max;
        let held_back_by =
            if role == ShardRole::Leader && !raised { self.agreement().held_back_by } else { Vec::new() };
        let history = self.inner.site.store.history().standing(self.inner.id);
        let voters = voters
            .into_iter()
            .map(|(raft_id, member)| (self.speaks(raft_id, &member), raft_id, member))
            .map(|(speaks, raft_id, member)| VoterStatus {
                node: member.node,
                incarnation: member.incarnation,
                raft_id,
                name: member.name,
                matched: matched(&raft_id).or(if raft_id == metrics.id && role == ShardRole::Leader {
                    local_last
                } else {
                    None
                }),
                standing: standing(&raft_id),
                heard_ms: self.voter_age_ms(&raft_id).filter(|_| raft_id != metrics.id),
                speaks,
            })
            .collect();
        let state = self.inner.state.read();
        let index = |id: crate::raft::types::LogId| id.index;
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
            log_bytes: self.inner.site.store.written().total(),
            fault,
            faults,
            history,
        }
    }
}
