//! The threads of the control plane and the handle to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skep_admission::SiteHandle;
use skep_config::ControlConfig;
use skep_protocol::attempt::{AttemptTarget, Outcome, Work};
use skep_protocol::ballot::BallotKey;
use skep_protocol::entry::Request;
use skep_protocol::fault::FaultReport;
use skep_protocol::fleet::Build;
use skep_protocol::frame::{FRAME_VERSION, Hello};
use skep_protocol::ids::{Genesis, Incarnation, NodeId, ShardId};
use skep_protocol::leader::LeaderHint;
use skep_protocol::limits;
use skep_protocol::operator::SignedFirst;
use skep_protocol::outcome::ProposeOutcome;
use skep_protocol::query::{Query, QueryFailure, QueryReply};
use skep_protocol::signing::Place;
use skep_protocol::time::LogInstant;
use skep_store::disk::once_there_is_room;
use skep_store::{Store, StoreError};
use skep_trust::{JoinRequest, Sealed, SecretKey};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clocks;
use crate::directory::Directory;
use crate::identity::Identity;
use crate::net::{ControlPlane, NotJoined, PeerView, Peers, Registrar, Setup};
use crate::random::Chance;
use crate::recover::clear_leftovers;
use crate::settings::store_options;
use crate::shard::{FromLeader, MembershipError, NodeParts, STOP_PATIENCE, Shard, ShardStatus, ShardView};
use crate::shards::Shards;
use crate::threads::{Threads, control_runtime, work_runtime};
use crate::{roles, rpc};

/// How long a runtime that ends waits for the work of its threads.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);
/// How long the node waits for the end of the control thread: three steps of its shards, a moment for its connections,
/// and two runtimes.
const CONTROL_PATIENCE: Duration = STOP_PATIENCE.saturating_mul(3).saturating_add(SHUTDOWN_PATIENCE.saturating_mul(3));
/// How long the node waits until the log and the history have written what they hold. What is not written by then was
/// not acknowledged, or a start makes it again from the log.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A shard's group cannot be opened. The reason as text.
    #[error("{0}")]
    Shard(String),
    /// The endpoint cannot be bound, or not be secured. The reason as text.
    #[error("{0}")]
    Listen(String),
    /// A thread cannot be started.
    #[error("a thread of the control plane cannot be started: {0}")]
    Thread(std::io::Error),
}

/// The running control plane. The node owns it; other code uses [`handle`](Self::handle).
pub struct Consensus {
    handle: ConsensusHandle,
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

/// Handle of the control plane, for any runtime. Cheap to clone.
#[derive(Clone)]
pub struct ConsensusHandle {
    shards: Arc<Shards>,
    address: Option<SocketAddr>,
}

impl Consensus {
    /// Opens the store, starts the threads, opens every shard in the store, and listens. Also returns the channel of
    /// what leaders say to this node. `build`: what this build can apply. `site`: what is known of the site whose
    /// members are let in; none if the node lets in the peers that the configuration lists.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way. Nothing runs then.
    pub fn start(
        identity: Identity,
        config: ControlConfig,
        data: &Path,
        build: Build,
        site: Option<SiteHandle>,
    ) -> Result<(Self, mpsc::Receiver<FromLeader>), StartError> {
        let store = Store::open(data, rand::random(), store_options(&config.store))?;
        clear_leftovers(data);
        let (started, starting) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let (sender, updates) = mpsc::channel(limits::CLAIMS_UPDATES_QUEUED_MAX);
        let body = move || run(identity, (config, build, site), store, sender, &started, stopped);
        let thread = std::thread::Builder::new().name("skep-control".to_owned()).spawn(body);
        let thread = thread.map_err(StartError::Thread)?;
        match starting.recv() {
            Ok(Ok(handle)) => Ok((Self { handle, stop, thread }, updates)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StartError::Shard("the control plane's thread ended at its start".to_owned())),
        }
    }

    /// The handle.
    pub fn handle(&self) -> ConsensusHandle {
        self.handle.clone()
    }

    /// Hands over the lead of every shard that this node leads, and stops. Every wait has an end: what waits for a disk
    /// that is full or does not answer ends with the process.
    pub fn stop(self) {
        let Self { handle, stop, thread } = self;
        drop(stop);
        let (ended, ends) = std::sync::mpsc::channel();
        let close = move || {
            let _ = thread.join();
            let _ = ended.send(());
            // The last handle closes the store, which writes what it holds.
            drop(handle);
            let _ = ended.send(());
        };
        let closing = std::thread::Builder::new().name("skep-stop".to_owned()).spawn(close);
        let waits = closing.is_ok();
        if waits && ends.recv_timeout(CONTROL_PATIENCE).and_then(|()| ends.recv_timeout(CLOSE_PATIENCE)).is_err() {
            tracing::warn!("a disk does not answer: the node stops without waiting for it");
        }
    }
}

fn run(
    identity: Identity,
    config: (ControlConfig, Build, Option<SiteHandle>),
    store: Store,
    updates: mpsc::Sender<FromLeader>,
    started: &std::sync::mpsc::Sender<Result<ConsensusHandle, StartError>>,
    stopped: oneshot::Receiver<()>,
) {
    // Raft has this thread for itself: measurements show that this keeps elections on time under a storm elsewhere.
    let (control, work) = match control_runtime().and_then(|control| Ok((control, work_runtime()?))) {
        Ok(runtimes) => runtimes,
        Err(error) => return drop(started.send(Err(StartError::Thread(error)))),
    };
    let threads = Threads::new(control.handle().clone(), work.handle().clone());
    control.block_on(async {
        match start(identity, config, store, threads, updates).await {
            Ok((shards, plane)) => {
                let handle = ConsensusHandle { shards: Arc::clone(&shards), address: plane.local_address() };
                let _ = started.send(Ok(handle));
                let _ = stopped.await;
                let open = shards.all();
                futures::future::join_all(open.iter().map(Shard::shut_down)).await;
                plane.close().await;
            }
            Err(error) => drop(started.send(Err(error))),
        }
    });
    // The threads that ask something of Raft end first. By now every lead was handed over.
    work.shutdown_timeout(SHUTDOWN_PATIENCE);
    control.shutdown_timeout(SHUTDOWN_PATIENCE);
}

async fn start(
    identity: Identity,
    (config, build, site): (ControlConfig, Build, Option<SiteHandle>),
    store: Store,
    threads: Threads,
    updates: mpsc::Sender<FromLeader>,
) -> Result<(Arc<Shards>, ControlPlane), StartError> {
    let hello = hello(&config, build, &store);
    let clocks = Clocks::default();
    let (node, key) = (identity.node(), Arc::new(BallotKey::from_seed(&identity.seed())));
    let seals = Arc::new(SecretKey::from_seed(&identity.seed()));
    let setup = Setup {
        identity,
        hello,
        listen: config.listen,
        peers: config.peers.clone(),
        site,
        idle_timeout: Duration::from_millis(config.idle_timeout_ms),
        clocks: clocks.clone(),
        threads: threads.clone(),
        class_of: rpc::class_of,
    };
    let (peers, incarnation) = (ControlPlane::peers(&setup), store.incarnation());
    let parts = NodeParts {
        node,
        incarnation,
        key,
        seals,
        build,
        config: Arc::new(config),
        store,
        threads: threads.clone(),
        peers: peers.clone(),
        clocks,
        chance: Chance::default(),
        updates,
    };
    let shards = Shards::new(parts);
    warn_if_nobody_is_marked(&shards);
    open_all(&shards).await?;
    let kept = shards.parts.store.voter_list().load();
    let mut memory = roles::Memory::of(&shards, &kept);
    roles::look(&shards, &mut memory);
    shards.parts.peers.have(shards.lineages());
    let plane = listen(setup, peers, &shards)?;
    threads.work().spawn(roles::follow(Arc::clone(&shards), memory));
    threads.work().spawn(roles::remember(Arc::clone(&shards), kept));
    Ok((shards, plane))
}

/// Opens the shards in the store, one after another: nothing listens yet, so that a shard that waits for room holds up
/// no call.
async fn open_all(shards: &Shards) -> Result<(), StartError> {
    for shard in shards.parts.store.shards() {
        let snapshots = shards.parts.store.snapshots();
        once_there_is_room(|| std::future::ready(snapshots.hold(shard))).await?;
        shards.open(shard).await.map_err(StartError::Shard)?;
    }
    Ok(())
}

/// Listens. At a site the node also receives machines that want to join, and renews its own certificate.
fn listen(setup: Setup, peers: Peers, shards: &Arc<Shards>) -> Result<ControlPlane, StartError> {
    let directory = peers.is_of_site().then(|| Directory::new(Arc::clone(shards)));
    let registrar = directory.clone().map(|directory| Arc::new(directory) as Arc<dyn Registrar>);
    let dispatch = Arc::new(Arc::clone(shards));
    let plane = ControlPlane::start(setup, peers, dispatch, registrar).map_err(StartError::Listen)?;
    if let Some(directory) = directory {
        shards.parts.threads.work().spawn(directory.keep_renewed());
    }
    Ok(plane)
}

/// What this run of the process says of itself. The node does not know yet of which shards it has replicas.
fn hello(config: &ControlConfig, build: Build, store: &Store) -> Hello {
    Hello {
        frame_version_min: FRAME_VERSION,
        frame_version_max: FRAME_VERSION,
        fleet: build.versions,
        incarnation: store.incarnation(),
        process: rand::random(),
        name: config.node.name.clone(),
        site: config.node.site.clone(),
        shards: Vec::new(),
    }
}

fn warn_if_nobody_is_marked(shards: &Shards) {
    let parts = &shards.parts;
    let lists_somebody = !parts.peers.is_of_site() && !parts.config.peers.is_empty();
    if lists_somebody && shards.belief.marked.is_empty() && parts.store.shards().is_empty() {
        let advice = "set voter = true in the [[peers]] of each node that votes or is to vote";
        tracing::warn!(
            advice,
            "no peer is marked as a voter: this node believes no other node, and finds no leader but itself"
        );
    }
}

impl ConsensusHandle {
    /// Runs work on the control plane's threads beside Raft's, and waits for the result. The work goes on if the caller
    /// stops waiting.
    async fn beside<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.shards.parts.threads.work().spawn(work).await.ok()
    }

    /// The id of this node.
    pub fn node(&self) -> NodeId {
        self.shards.parts.node
    }

    /// The incarnation of its data directory.
    pub fn incarnation(&self) -> Incarnation {
        self.shards.parts.incarnation
    }

    /// The address on which the control plane listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The shards that this node takes part in.
    pub fn shards(&self) -> Vec<ShardId> {
        self.shards.all().iter().map(Shard::id).collect()
    }

    /// Follows the number of shards that were opened.
    pub fn shards_opened(&self) -> watch::Receiver<usize> {
        self.shards.opened.subscribe()
    }

    /// Follows the view of a shard: who leads it.
    pub fn view(&self, shard: ShardId) -> Option<watch::Receiver<ShardView>> {
        self.shards.shard(shard).map(|shard| shard.view())
    }

    /// What this node's replica of a shard knows of who leads it.
    pub fn leader_hint(&self, shard: ShardId) -> Option<LeaderHint> {
        self.shards.shard(shard).map(|shard| shard.hint())
    }

    /// Notes what this node learned from others of who leads a shard: the node tells peers that ask, and keeps
    /// connections to the voters.
    pub fn learned(&self, shard: ShardId, hint: LeaderHint) {
        self.shards.learn(shard, |known| known.hint = hint);
    }

    /// Notes whether this node looks for a leader of a shard in vain: then it also asks nodes that are no voters.
    pub fn lost(&self, shard: ShardId, lost: bool) {
        self.shards.learn(shard, |known| known.lost = lost);
    }

    /// Follows connects and disconnects of peers.
    pub fn peer_changes(&self) -> watch::Receiver<u64> {
        self.shards.parts.peers.changes()
    }

    /// All peers as they are at this instant.
    pub fn peers(&self) -> Vec<PeerView> {
        self.shards.parts.peers.views()
    }

    /// The members that may vote by their certificates, of those that this node has met; none where the configuration
    /// says whom to believe.
    pub fn members_that_vote(&self) -> Option<BTreeSet<NodeId>> {
        let peers = &self.shards.parts.peers;
        peers.is_of_site().then(|| peers.members_that_vote())
    }

    /// How many nodes this node refused at a site since it started, and how many links of members it cut, by kind.
    pub fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.shards.parts.peers.refused()
    }

    /// Speaks with none of these nodes from then on, and with all others again: for testnets.
    pub fn cut_off(&self, nodes: BTreeSet<NodeId>) {
        self.shards.parts.peers.cut_off(nodes);
    }

    /// The log clock of a shard as this node knows it.
    pub fn clock(&self, shard: ShardId) -> Option<LogInstant> {
        self.shards.shard(shard)?.clock().now()
    }

    /// Tries a piece of work for the leader of a shard: at this node, or at another node that is thought to lead.
    pub async fn attempt(&self, shard: ShardId, target: AttemptTarget, work: Work) -> Outcome {
        rpc::attempt(&self.shards, shard, target, work).await
    }

    /// Tries requests that travel together; returns the outcome of each, in their order.
    pub async fn propose(&self, shard: ShardId, target: AttemptTarget, requests: Vec<Request>) -> Vec<ProposeOutcome> {
        rpc::propose(&self.shards, shard, target, requests).await
    }

    /// Answers a query from this node's replica as it is.
    ///
    /// # Errors
    /// [`QueryFailure`] says why there is no answer.
    pub async fn read(&self, shard: ShardId, query: Query) -> Result<QueryReply, QueryFailure> {
        let no_replica = || QueryFailure::NoReplica(LeaderHint::default());
        self.shards.shard(shard).ok_or_else(no_replica)?.query_stale(query).await
    }

    /// Answers the request to join of a machine without a network, if this node issues: the directory redeems the
    /// invitation, and the machine gets a certificate. Gives the reply as this node sealed it. The same request again
    /// gets the same member.
    ///
    /// # Errors
    /// [`NotJoined`] says why there is no reply.
    pub async fn admit_by_file(&self, request: Bytes) -> Result<Vec<u8>, NotJoined> {
        let refused = |why: &dyn std::fmt::Display| NotJoined::Refused(why.to_string());
        if !self.shards.parts.peers.is_of_site() {
            return Err(refused(&"this node is of no site"));
        }
        let request = Sealed::<JoinRequest>::from_bytes(&request).map_err(|e| refused(&e))?;
        request.check_channel(None).map_err(|e| refused(&e))?;
        if !request.holds() {
            return Err(refused(&"the request is not sealed as a request to join is"));
        }
        let joining = Directory::new(Arc::clone(&self.shards)).join(request);
        self.beside(joining).await.unwrap_or_else(|| Err(NotJoined::Later("the node is stopping".to_owned())))
    }

    /// Follows the first index whose changes cannot be read here yet.
    pub fn history_progress(&self, shard: ShardId) -> watch::Receiver<u64> {
        self.shards.parts.store.history().progress(shard)
    }

    /// A shard as this node sees it.
    pub fn status(&self, shard: ShardId) -> Option<ShardStatus> {
        let mut status = self.shards.shard(shard).map(|shard| shard.status())?;
        status.faults.extend(self.faults());
        Some(status)
    }

    /// The faults of this node and of its peers that belong to no shard.
    pub fn faults(&self) -> Vec<FaultReport> {
        let peers = &self.shards.parts.peers;
        peers.shared_identities().into_iter().chain(peers.strays()).collect()
    }

    /// Creates a shard with these voters; this node must be one of them. `genesis` is random; `first` shows that the
    /// first operator has its key.
    /// [`ShardId::DIRECTORY`] begins with the first root document of this node's site.
    ///
    /// # Errors
    /// [`MembershipError`] says what to do.
    pub async fn init_shard(
        &self,
        shard: ShardId,
        voters: Vec<NodeId>,
        genesis: Genesis,
        first: Option<SignedFirst>,
    ) -> Result<(), MembershipError> {
        let shards = Arc::clone(&self.shards);
        let place = Place { site: shards.parts.config.node.site.clone(), shard, genesis };
        let init = async move {
            let charter = shards.charter(place, first)?;
            shards.check_unheard(shard)?;
            shards.parts.peers.reach(&voters).await;
            let shard = shards.open(shard).await.map_err(MembershipError::Raft)?;
            shard.initialize(&voters, charter).await
        };
        self.beside(init).await.unwrap_or_else(stopped)
    }

    /// Hands the lead of a shard to a voter; if none is named, to the other voter that holds most of the log.
    ///
    /// # Errors
    /// [`MembershipError`] says what to do.
    pub async fn transfer_leader(&self, shard: ShardId, to: Option<NodeId>) -> Result<NodeId, MembershipError> {
        let shard = self.member_of(shard)?;
        self.beside(async move { shard.transfer_leader(to).await }).await.unwrap_or_else(stopped)
    }

    /// Makes a node a voter under its present incarnation, in place of an earlier one.
    ///
    /// # Errors
    /// [`MembershipError`] says what to do.
    pub async fn add_voter(&self, shard: ShardId, node: NodeId) -> Result<(), MembershipError> {
        let (shards, shard) = (Arc::clone(&self.shards), self.member_of(shard)?);
        let add = async move {
            shards.parts.peers.reach(&[node]).await;
            shard.add_voter(node).await
        };
        self.beside(add).await.unwrap_or_else(stopped)
    }

    /// Takes a voter out of a shard.
    ///
    /// # Errors
    /// [`MembershipError`] says what to do.
    pub async fn remove_voter(&self, shard: ShardId, node: NodeId) -> Result<(), MembershipError> {
        let shard = self.member_of(shard)?;
        self.beside(async move { shard.remove_voter(node).await }).await.unwrap_or_else(stopped)
    }

    fn member_of(&self, shard: ShardId) -> Result<Shard, MembershipError> {
        self.shards.shard(shard).ok_or(MembershipError::NoReplica { shard })
    }
}

fn stopped<T>() -> Result<T, MembershipError> {
    Err(MembershipError::Unknown("the node is stopping".to_owned()))
}

#[cfg(test)]
impl ConsensusHandle {
    /// The directory of the site, as this node asks it.
    pub(crate) fn directory(&self) -> Directory {
        Directory::new(Arc::clone(&self.shards))
    }
}
