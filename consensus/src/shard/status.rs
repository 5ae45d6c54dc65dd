//! What a shard looks like from this node.

use openraft::{RaftMetrics, ServerState};
use skep_protocol::fault::FaultReport;
use skep_protocol::fleet::FleetVersions;
use skep_protocol::ids::{Genesis, Incarnation, NodeId, RaftId, ShardId};
use skep_protocol::query::{Counts, Dropped};
use skep_protocol::recovery::ShardRecovery;
use skep_protocol::text::NodeName;
use skep_protocol::time::LogInstant;
use skep_store::HistoryStanding;

use super::Shard;
use crate::raft::acked::FORGOT;
use crate::raft::types::{LogId, Member, TypeConfig};

/// What this node is in the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardRole {
    /// It orders entries.
    Leader,
    /// It votes and follows.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It follows without a vote: not (or not any more) a member under its present incarnation.
    Learner,
    /// The shard was not created yet, as far as this node knows.
    Uninitialised,
    /// Its replica is out of service.
    Down,
}

impl std::fmt::Display for ShardRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Uninitialised => "uninitialised",
            Self::Down => "down",
        })
    }
}

/// What a change of voters that is under way has in mind for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoterStanding {
    /// It votes before and after; or there is no change.
    Stays,
    /// It votes beside the old ones, and will vote without them.
    Joins,
    /// It votes until the change is finished.
    Leaves,
}

impl std::fmt::Display for VoterStanding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Stays => "voter",
            Self::Joins => "joining",
            Self::Leaves => "leaving",
        })
    }
}

/// A voter of the shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoterStatus {
    /// The node.
    pub node: NodeId,
    /// Under which incarnation it votes.
    pub incarnation: Incarnation,
    /// Its id in the group.
    pub raft_id: RaftId,
    /// For people.
    pub name: Option<NodeName>,
    /// The last index that it is known to hold. Only the leader knows.
    pub matched: Option<u64>,
    /// Whether it stays.
    pub standing: VoterStanding,
    /// How long ago it last answered its leader, in milliseconds. Only the leader knows, and not of itself.
    pub heard_ms: Option<u64>,
    /// The fleet versions that it can apply, as it says. None while it is not connected.
    pub speaks: Option<FleetVersions>,
}

/// A shard as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    /// Which.
    pub shard: ShardId,
    /// What this node is in it.
    pub role: ShardRole,
    /// The term.
    pub term: u64,
    /// Who leads.
    pub leader: Option<NodeId>,
    /// The last entry in the log.
    pub last_log: Option<u64>,
    /// The last entry known to be committed.
    pub committed: Option<u64>,
    /// The last entry applied.
    pub applied: Option<u64>,
    /// The last entry in the snapshot.
    pub snapshot: Option<u64>,
    /// The last entry purged.
    pub purged: Option<u64>,
    /// The rolling digest.
    pub digest: u128,
    /// The log clock as this node knows it.
    pub clock: Option<LogInstant>,
    /// The meaning of entries that the shard has agreed on; zero before it has.
    pub fleet_version: u32,
    /// The newest that this node can apply.
    pub fleet_version_max: u32,
    /// The voters for whose sake it is not raised to that, as far as they have said. Only the leader knows.
    pub held_back_by: Vec<NodeId>,
    /// The random bytes with which the shard began; none before its first entry.
    pub genesis: Option<Genesis>,
    /// What the shard was before it was recovered last; none if it never was.
    pub recovery: Option<ShardRecovery>,
    /// The voters.
    pub voters: Vec<VoterStatus>,
    /// How many objects there are.
    pub counts: Counts,
    /// What it has let go of since it was made, because it keeps no more.
    pub dropped: Dropped,
    /// Request ids remembered.
    pub dedup_ids: u64,
    /// Bytes written to the node's log since its start.
    pub log_bytes: u64,
    /// What took the replica out of service.
    pub fault: Option<String>,
    /// Everything that is wrong.
    pub faults: Vec<FaultReport>,
    /// How the history of what entries did stands.
    pub history: HistoryStanding,
}

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
        let faults = self.faults();
        let fleet_version_max = self.inner.site.build.versions.max;
        let raised = self.fleet_version() >= fleet_version_max;
        let held_back_by =
            if role == ShardRole::Leader && !raised { self.agreement().held_back_by } else { Vec::new() };
        let history = self.inner.site.store.history().standing(self.inner.id);
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
            log_bytes: self.inner.site.store.written().total(),
            fault,
            faults,
            history,
        }
    }
    /// What is known of a voter.
    fn voter_status(
        &self,
        metrics: &RaftMetrics<TypeConfig>,
        role: ShardRole,
        raft_id: RaftId,
        member: Member,
    ) -> VoterStatus {
        let is_local = raft_id == metrics.id;
        let matched = metrics.replication.as_ref().and_then(|all| all.get(&raft_id).copied().flatten());
        // What a voter forgot, it is not known to hold.
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

/// What a change of voters that is under way has in mind for one of them.
fn standing(metrics: &RaftMetrics<TypeConfig>, id: &RaftId) -> VoterStanding {
    let configs = metrics.membership_config.membership().get_joint_config();
    match (configs.first(), configs.last()) {
        (Some(before), Some(after)) if before.contains(id) && !after.contains(id) => VoterStanding::Leaves,
        (Some(before), Some(after)) if after.contains(id) && !before.contains(id) => VoterStanding::Joins,
        _ => VoterStanding::Stays,
    }
}
