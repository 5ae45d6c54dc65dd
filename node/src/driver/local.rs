//! What callers ask of this node itself, whichever node leads.

use std::time::Instant;

use skep_admission::SiteHandle;
use skep_api::{AdmitFailure, ChangesPage, MemberChange, NodeView, ShardFailure, ShardRow};
use skep_config::NodeConfig;
use skep_consensus::join::NotJoined;
use skep_consensus::{ConsensusHandle, MembershipError};
use skep_engine::Connectivity;
use skep_mesh::MeshHandle;
use skep_protocol::ids::ShardId;
use skep_protocol::outcome::NotDone;
use skep_protocol::pressure::DiskPressure;
use skep_protocol::query::{Answer, Query, QueryFailure, QueryReply};
use skep_protocol::shard_status::ShardStatus;
use tokio::sync::oneshot;

use super::site::faults_of_site;
use super::views::{node_view, row};

/// When a caller may ask a replica again that has as many queries as it may, in milliseconds.
const OVERLOADED_RETRY_MS: u64 = 100;

/// This node's own replicas, and its names.
pub(super) struct LocalPort {
    consensus: ConsensusHandle,
    mesh: MeshHandle,
    config: NodeConfig,
    site: Option<SiteHandle>,
    started: Instant,
}

impl LocalPort {
    pub(super) fn new(
        consensus: ConsensusHandle,
        mesh: MeshHandle,
        config: NodeConfig,
        site: Option<SiteHandle>,
    ) -> Self {
        Self { consensus, mesh, config, site, started: Instant::now() }
    }

    /// Reads this node's replica of a shard as it is.
    pub(super) fn read(&self, shard: ShardId, query: Query, answer: oneshot::Sender<Result<QueryReply, NotDone>>) {
        let consensus = self.consensus.clone();
        tokio::spawn(async move {
            let reply = consensus.read(shard, query).await;
            let _ = answer.send(reply.map_err(not_done));
        });
    }

    /// Reads changes of this node's replica.
    pub(super) fn changes(
        &self,
        shard: ShardId,
        from: Option<(u64, u32)>,
        answer: oneshot::Sender<Result<ChangesPage, NotDone>>,
    ) {
        tokio::spawn(changes(self.consensus.clone(), shard, from, answer));
    }

    /// A shard as this node sees it; none if the node takes no part in it.
    pub(super) fn shard(&self, shard: ShardId, connectivity: Connectivity) -> Option<Box<ShardRow>> {
        Some(Box::new(row(self.consensus.status(shard)?, connectivity)))
    }

    /// The node as it sees itself. `journals` says how full their disk is, whether they take urgent commands, and how
    /// many have no place for a statement.
    pub(super) fn node(&self, journals: (DiskPressure, bool, usize)) -> NodeView {
        let up_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut view = node_view(&self.consensus, &self.mesh, &self.config, up_ms, journals);
        if let Some(site) = &self.site {
            view.faults.extend(faults_of_site(site, up_ms).into_iter().map(|report| (0, report)));
        }
        view
    }

    /// Answers the request to join of a machine without a network, if this node issues.
    pub(super) fn admit(&self, request: Vec<u8>, answer: oneshot::Sender<Result<Vec<u8>, AdmitFailure>>) {
        let consensus = self.consensus.clone();
        tokio::spawn(async move {
            let admitted = consensus.admit_by_file(request.into()).await;
            let failure = |why: NotJoined| {
                let unknown = matches!(why, NotJoined::Later(_));
                AdmitFailure { message: why.to_string(), unknown }
            };
            let _ = answer.send(admitted.map_err(failure));
        });
    }

    /// Changes the members of a shard.
    pub(super) fn members(
        &self,
        shard: ShardId,
        change: MemberChange,
        answer: oneshot::Sender<Result<Option<Box<ShardStatus>>, ShardFailure>>,
    ) {
        let consensus = self.consensus.clone();
        tokio::spawn(async move {
            let changed = match change {
                MemberChange::Init { voters, genesis, first } => {
                    consensus.init_shard(shard, voters, genesis, first.map(|first| *first)).await
                }
                MemberChange::Transfer(to) => consensus.transfer_leader(shard, to).await.map(drop),
                MemberChange::Add(node) => consensus.add_voter(shard, node).await,
                MemberChange::Remove(node) => consensus.remove_voter(shard, node).await,
            };
            let _ = answer.send(match changed {
                Ok(()) => Ok(consensus.status(shard).map(Box::new)),
                Err(error) => {
                    let retryable = matches!(error, MembershipError::Unreachable { .. });
                    let unknown = matches!(error, MembershipError::Unknown(_));
                    Err(ShardFailure { message: error.to_string(), retryable, unknown })
                }
            });
        });
    }
}

/// Why this node's own replica did not answer.
fn not_done(failure: QueryFailure) -> NotDone {
    match failure {
        QueryFailure::NoReplica(_) | QueryFailure::NotLeader(_) => NotDone::NoReplica,
        QueryFailure::NoQuorum => NotDone::NoQuorum,
        QueryFailure::Overloaded => NotDone::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS },
        QueryFailure::Storage(why) => NotDone::Storage(why),
    }
}

/// Reads changes of this node's replica.
async fn changes(
    consensus: ConsensusHandle,
    shard: ShardId,
    from: Option<(u64, u32)>,
    answer: oneshot::Sender<Result<ChangesPage, NotDone>>,
) {
    if consensus.view(shard).is_none() {
        return drop(answer.send(Err(NotDone::NoReplica)));
    }
    let progress = consensus.history_progress(shard);
    let (from, skip) = from.unwrap_or_else(|| (*progress.borrow(), 0));
    let page = match consensus.read(shard, Query::Changes { from, skip }).await {
        Ok(QueryReply { answer: Answer::Changes { sets, next, skip, edge }, .. }) => {
            Ok(ChangesPage { sets, next, skip, edge, progress })
        }
        Ok(_) => Err(NotDone::Storage("the replica answered another query".to_owned())),
        Err(failure) => Err(not_done(failure)),
    };
    let _ = answer.send(page);
}
