//! What the service does because there is a site.

use std::collections::BTreeSet;
use std::sync::Arc;

use libp2p::PeerId;
use skep_admission::SiteHandle;
use skep_config::MeshConfig;
use skep_protocol::ids::NodeId;
use skep_protocol::limits;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Dial, Multiaddr, Service, Step, node_id, peer_id};
use crate::admit::{Members, NotAdmitted, Refusals};
use crate::handle::KnownMembers;
use crate::speakers::Speakers;

/// The site of a mesh.
pub(super) struct Site {
    members: Members,
    /// Rises when links are to be judged anew.
    changes: watch::Receiver<u64>,
    /// Judges the members that this node has met, beside the task of the swarm.
    judging: Option<JoinHandle<()>>,
    /// The peers of the configuration: the node dials them whatever else it knows.
    configured: BTreeSet<NodeId>,
    /// Connections that were made, and whose peers were not admitted.
    refusals: Refusals,
    told: Arc<watch::Sender<KnownMembers>>,
    known: watch::Receiver<KnownMembers>,
}

impl Site {
    pub(super) fn new(site: SiteHandle, config: &MeshConfig) -> Self {
        let (told, known) = watch::channel(KnownMembers::new());
        let configured = config.peers.iter().map(|peer| peer.id).collect();
        let changes = site.changed();
        let (members, refusals) = (Members::of(site), Refusals::new());
        Self { members, changes, judging: None, configured, refusals, told: Arc::new(told), known }
    }

    pub(super) fn members(&self) -> Members {
        self.members.clone()
    }

    /// The nodes whose envelopes count.
    pub(super) fn speakers(&self) -> Speakers {
        Speakers::Members(self.members())
    }

    /// The channel through which the node says which members it knows.
    pub(super) fn told(&self) -> Arc<watch::Sender<KnownMembers>> {
        Arc::clone(&self.told)
    }

    /// Waits for the next thing to do. Nothing is lost if the caller stops waiting.
    pub(super) async fn next(&mut self) -> Step {
        loop {
            let is_idle = self.judging.is_none();
            tokio::select! {
                () = ended(&mut self.judging) => {
                    self.judging = None;
                    return Step::JudgeAnew;
                }
                Ok(()) = self.changes.changed(), if is_idle => {
                    let members = self.members.clone();
                    self.judging = Some(tokio::task::spawn_blocking(move || members.judge_all()));
                }
                Ok(()) = self.known.changed() => return Step::Members,
            }
        }
    }
}

/// Waits until the work under way has ended, if there is any.
async fn ended(under_way: &mut Option<JoinHandle<()>>) {
    match under_way {
        Some(task) => drop(task.await),
        None => std::future::pending().await,
    }
}

impl Service {
    /// Closes the connections of peers that have stopped being members, and forgets how far revoked senders have come.
    pub(super) fn judge_anew(&mut self) {
        let Some(site) = &self.site else { return };
        let members = &site.members;
        self.swarm.behaviour_mut().door.judge_all();
        self.floors.lock().keep(|sender| !members.is_revoked(*sender));
    }

    /// Takes a new set of known members.
    pub(super) fn know_members(&mut self) {
        let Some(site) = &mut self.site else { return };
        let known = site.known.borrow_and_update().clone();
        let up = self.view.borrow().up.clone();
        let is_wanted = |node: &NodeId| known.contains_key(node) || site.configured.contains(node) || up.contains(node);
        let gone = self.dials.iter().filter(|(_, dial)| !is_wanted(&dial.node)).map(|(peer, _)| *peer);
        for peer in gone.collect::<Vec<PeerId>>() {
            self.forget(&peer);
        }
        for (node, at) in known {
            let Some(peer) = peer_id(node) else { continue };
            self.expect(peer);
            match at.map(|at| at.parse::<Multiaddr>()) {
                Some(Ok(address)) if self.dials.contains_key(&peer) => {
                    self.swarm.behaviour_mut().door.know(peer, Some(&address));
                    if self.swarm.behaviour_mut().discovery().hint(peer, address.clone()) {
                        self.on_told(&peer, &address);
                    }
                }
                Some(Err(error)) => tracing::warn!(%peer, %error, "the address of a member is not a multiaddress"),
                Some(Ok(_)) | None => {}
            }
        }
    }

    /// Dials a member from then on, unless there are too many: then the member dials this node.
    pub(super) fn expect(&mut self, peer: PeerId) {
        let is_new = !self.dials.contains_key(&peer) && peer != *self.swarm.local_peer_id();
        let Some(node) = node_id(&peer).filter(|_| is_new && self.dials.len() < limits::MESH_MEMBERS_MAX) else {
            return;
        };
        self.swarm.behaviour_mut().door.know(peer, None);
        self.swarm.behaviour_mut().discovery().list(peer, None);
        self.dials.insert(peer, Dial::new(node, Instant::now()));
    }

    /// Stops dialling a node.
    fn forget(&mut self, peer: &PeerId) {
        let Some(dial) = self.dials.remove(peer) else { return };
        self.swarm.behaviour_mut().door.forget(peer);
        self.swarm.behaviour_mut().discovery().unlist(peer);
        self.view.send_modify(|view| {
            view.errors.remove(&dial.node);
            view.shared.remove(&dial.node);
        });
    }

    /// Notes that a connected peer is not admitted, or has stopped being admitted.
    pub(super) fn on_not_admitted(&mut self, peer: PeerId, dialled: bool, why: &NotAdmitted) {
        let Some(site) = &mut self.site else { return };
        if let Some(times) = site.refusals.count(why, Instant::now()) {
            tracing::warn!(%peer, dialled, kind = why.kind(), %why, times, "a connection to the mesh is not admitted");
        }
        let node = self.dials.get(&peer).map(|dial| dial.node);
        self.view.send_modify(|view| {
            view.refused.clone_from(site.refusals.counts());
            if let Some(node) = node.filter(|node| !view.up.contains(node)) {
                view.errors.insert(node, why.to_string());
            }
        });
    }
}
