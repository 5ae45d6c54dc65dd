//! A node as a whole: it takes its directory, its port and its keys, runs its parts, and drains them.

use std::time::Duration;

use skep_api::{Api, ApiError, Calls};
use skep_config::Config;
use skep_consensus::{Consensus, FromLeader, Identity, IdentityError, StartError};
use skep_mesh::{Mesh, MeshError};
use skep_protocol::fleet::Build;
use skep_protocol::journal::JournalReport;
use skep_protocol::node_dir::NodeDir;
use skep_store::{JournalError, Journals, StoreOptions};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};

use crate::checks;
use crate::descriptors;
use crate::driver::Driver;
use crate::site::held::{HeldError, HeldSite};
use crate::token::{TokenError, token};

/// How long tasks of the runtime may take to end once everything is drained.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(2);

/// Why a node does not run, or did not end as it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// The node's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The files of the node's site.
    #[error(transparent)]
    Site(#[from] Box<HeldError>),
    /// The journals of the node's agents.
    #[error(transparent)]
    Journals(#[from] JournalError),
    /// The node's log, or its control plane.
    #[error(transparent)]
    Consensus(#[from] StartError),
    /// The node's mesh.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The token of the node's API.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The node's API.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The driver ended by a fault of its own.
    #[error("the driver failed: {0}")]
    Driver(#[from] JoinError),
}

/// A node that holds its directory and control port; mesh, API and driver do not run yet.
pub(crate) struct Node {
    identity: Identity,
    config: Config,
    /// What is known of the node's site; none if the configuration lists whom the node lets in.
    site: Option<HeldSite>,
    node_dir: NodeDir,
    /// How many files and sockets the process may have open.
    descriptors: u64,
    journals: (Journals, mpsc::Receiver<JournalReport>),
    consensus: Consensus,
    from_leaders: mpsc::Receiver<FromLeader>,
}

/// A node that serves.
pub(crate) struct Running {
    runtime: Runtime,
    consensus: Consensus,
    parts: Parts,
}

/// The parts that run on the runtime.
struct Parts {
    api: Api,
    mesh: Mesh,
    driving: JoinHandle<()>,
    /// Dropping it ends the driver.
    stop: oneshot::Sender<()>,
    /// Whether a shard has a leader.
    ready: watch::Receiver<bool>,
}

impl Node {
    /// Takes the node's directory and the port of its control plane, and opens its files. `build` says which versions
    /// of entries the node can apply.
    ///
    /// # Errors
    /// [`NodeError`] says what keeps the node from starting.
    pub(crate) fn bind(mut config: Config, node_dir: &NodeDir, build: Build) -> Result<Self, NodeError> {
        let descriptors = descriptors::raise();
        let identity = Identity::load(&node_dir.key())?;
        tracing::info!(node = %identity.node(), name = %config.node.name, site = %config.node.site, "starting");
        let site = HeldSite::open(node_dir, &identity, &config.node.site).map_err(Box::new)?;
        if let Some(site) = &site {
            tracing::info!(id = %site.handle.site(), "certificates of the site say whom this node lets in");
            site.add_hints(&mut config.control.peers, &mut config.mesh);
        }
        // What may keep the node from starting comes before other nodes hear of it.
        let journals = Journals::open(&node_dir.journals(), rand::random(), StoreOptions::default().on_fatal)?;
        let known = site.as_ref().map(|site| site.handle.clone());
        let (consensus, from_leaders) =
            Consensus::start(identity.clone(), config.control.clone(), &node_dir.data(), build, known)?;
        Ok(Self { identity, config, site, node_dir: node_dir.clone(), descriptors, journals, consensus, from_leaders })
    }

    /// Starts the mesh, the API and the driver on a runtime.
    ///
    /// # Errors
    /// [`NodeError`] says what keeps the node from running; the parts that were started have ended by then.
    pub(crate) fn spawn(self, runtime: Runtime) -> Result<Running, NodeError> {
        let Self { identity, config, site, node_dir, descriptors, journals, consensus, from_leaders } = self;
        let control = (&consensus, from_leaders);
        match runtime.block_on(start((&identity, config, &node_dir, descriptors), site, control, journals)) {
            Ok(parts) => Ok(Running { runtime, consensus, parts }),
            Err(error) => {
                end(runtime, consensus);
                Err(error)
            }
        }
    }
}

impl Running {
    /// Serves until the node is told to stop, and says through the API when it can serve.
    pub(crate) fn serve_until(&mut self, told_to_stop: impl Future<Output = ()>) {
        let Parts { api, ready, .. } = &mut self.parts;
        self.runtime.block_on(async {
            let mut told_to_stop = std::pin::pin!(told_to_stop);
            loop {
                let is_ready = *ready.borrow_and_update();
                api.set_ready(is_ready).await;
                tokio::select! {
                    () = &mut told_to_stop => return,
                    changed = ready.changed() => if changed.is_err() { return },
                }
            }
        });
    }

    /// Refuses new calls, answers those under way, and then stops the driver, the mesh and the control plane.
    ///
    /// # Errors
    /// [`NodeError::Driver`] if the driver failed. Everything has ended all the same.
    pub(crate) fn drain(self) -> Result<(), NodeError> {
        tracing::info!("draining");
        let Self { runtime, consensus, parts } = self;
        let Parts { api, mesh, driving, stop, .. } = parts;
        let driven = runtime.block_on(async {
            api.stop().await;
            drop(stop);
            let driven = driving.await;
            mesh.stop().await;
            driven
        });
        end(runtime, consensus);
        Ok(driven?)
    }
}

async fn start(
    (identity, config, node_dir, descriptors): (&Identity, Config, &NodeDir, u64),
    site: Option<HeldSite>,
    (consensus, from_leaders): (&Consensus, mpsc::Receiver<FromLeader>),
    journals: (Journals, mpsc::Receiver<JournalReport>),
) -> Result<Parts, NodeError> {
    let known = site.as_ref().map(|site| site.handle.clone());
    let (mesh, received) = Mesh::start_in(known.clone(), *identity.seed(), &config.mesh, Some(&node_dir.mesh()))?;
    let (calls, calls_in) = Calls::channel();
    let token = config.api.listen.map(|_| token(&node_dir.token())).transpose()?;
    let (socket, connections) = (node_dir.socket(), descriptors::for_callers(descriptors));
    let api = Api::start(&config.api, &socket, token, calls.clone(), connections).await?;
    let control = consensus.handle().address().map(|address| address.to_string()).unwrap_or_default();
    let tcp = api.address().map_or("off".to_owned(), |address| address.to_string());
    tracing::info!(socket = %socket.display(), %tcp, %control, "serving");
    checks::start(&config.checks, &node_dir.dir, &consensus.handle(), &mesh.handle());
    if let Some(site) = site {
        site.start(&consensus.handle(), &mesh.handle(), &calls);
    }
    let (control, mesh_ends) = ((consensus.handle(), from_leaders), (mesh.handle(), received));
    let (driver, ready) = Driver::new((config, known), control, mesh_ends, (calls, calls_in), journals);
    let (stop, stopped) = oneshot::channel();
    let driving = tokio::spawn(driver.run(stopped));
    Ok(Parts { api, mesh, driving, stop, ready })
}

/// Ends the parts below the API: the tasks, and then the control plane, which hands its leads over.
fn end(runtime: Runtime, consensus: Consensus) {
    runtime.shutdown_timeout(RUNTIME_PATIENCE);
    consensus.stop();
    tracing::info!("stopped");
}
