//! What a running node has of its site: the view that both planes share, and the files behind it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_admission::{KeepError, SiteHandle};
use skep_config::{MeshConfig, PeerConfig};
use skep_consensus::Identity;
use skep_protocol::ids::Incarnation;
use skep_protocol::node_dir::NodeDir;
use skep_protocol::text::SiteName;
use skep_trust::{Chain, MemberAddress, PublicKey, Refusal, SiteClock, SiteTime, SiteView};

use super::addresses::multiaddress;
use super::error::SiteFilesError;
use super::files::{Kept, SiteFiles};
use super::first::FirstShards;

/// Why a node with the files of a site does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeldError {
    /// The files cannot be used.
    #[error(transparent)]
    Files(#[from] SiteFilesError),
    /// The certificate is of another node.
    #[error("{dir}: {why}; restore the whole directory from one copy, or join the site with a directory of its own")]
    OtherNode {
        /// The directory of the site's files.
        dir: String,
        /// What does not fit.
        why: Box<Refusal>,
    },
    /// The configuration names another site.
    #[error("node.site is {configured} in the configuration, and the node belongs to the site {site}: set it to that")]
    OtherName {
        /// As it is configured.
        configured: SiteName,
        /// As the root document says.
        site: SiteName,
    },
}

/// The files of a site, of which one thread at a time writes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Keeper(Arc<Mutex<SiteFiles>>);

impl Keeper {
    fn files(&self) -> MutexGuard<'_, SiteFiles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, view: &SiteView) -> Result<(), KeepError> {
        // The time that was written down stays.
        let kept = self.files().keep(view, SiteTime::default());
        kept.map_err(|error| KeepError { why: error.to_string() })
    }

    /// Writes down that site time is not earlier than this.
    pub(super) fn keep_time(&self, time: SiteTime) -> Result<(), SiteFilesError> {
        self.files().keep_time(time)
    }

    fn keep_chain(&self, chain: &Chain) -> Result<(), KeepError> {
        self.files().write_chain(chain).map_err(|error| KeepError { why: error.to_string() })
    }

    /// Writes down where members are said to be.
    pub(super) fn keep_hints(&self, members: &[MemberAddress]) -> Result<(), SiteFilesError> {
        self.files().write_hints(members)
    }

    /// The node has made the first shards.
    pub(super) fn forget_first(&self) -> Result<(), SiteFilesError> {
        self.files().forget_first()
    }
}

/// What a node has of its site.
pub(crate) struct HeldSite {
    /// What both planes judge by.
    pub(crate) handle: SiteHandle,
    pub(super) keeper: Keeper,
    /// The shards that this node is to make.
    pub(super) first: Option<FirstShards>,
    /// Where members are said to be.
    pub(super) hints: Vec<MemberAddress>,
}

impl HeldSite {
    /// What the files in a node's directory say; none if the node belongs to no site, and a list says whom it lets in.
    ///
    /// # Errors
    /// [`HeldError`] if the files cannot be used, or are not of this node.
    pub(crate) fn open(
        node_dir: &NodeDir,
        identity: &Identity,
        configured: &SiteName,
    ) -> Result<Option<Self>, HeldError> {
        let files = SiteFiles::of(node_dir);
        if !files.are_there()? {
            return Ok(None);
        }
        let kept = files.read()?;
        let site = &kept.view.root().document().name;
        if site != configured {
            return Err(HeldError::OtherName { configured: configured.clone(), site: site.clone() });
        }
        let key = PublicKey::from(identity.node());
        match kept.own(key) {
            Ok(_) => {}
            Err(why @ Refusal::WrongKey { .. }) => {
                return Err(HeldError::OtherNode { dir: node_dir.site().display().to_string(), why: Box::new(why) });
            }
            // Also if a root document dropped its issuer: its own agents go on, and it may be let in again.
            Err(why) => tracing::error!(%why, "the members of the site refuse this node"),
        }
        let first = files.first()?;
        let Kept { view, chain, time, hints } = kept;
        let handle = SiteHandle::new(view, chain, key, SiteClock::AtLeast(time));
        let keeper = Keeper(Arc::new(Mutex::new(files)));
        let kept_by = keeper.clone();
        handle.keep_with(move |view| kept_by.keep(view));
        let kept_by = keeper.clone();
        handle.keep_own_with(move |chain| kept_by.keep_chain(chain));
        Ok(Some(Self { handle, keeper, first, hints }))
    }

    /// The incarnation with which this node redeemed its invitation.
    pub(super) fn joined_as(&self) -> Option<Incarnation> {
        let chain = self.handle.hello().chain;
        let sponsor = chain.links().first()?.sponsor.as_ref()?;
        Some(sponsor.request.incarnation)
    }

    /// Adds where members are said to be to what is configured of that. Nobody is let in by it.
    pub(crate) fn add_hints(&self, control: &mut Vec<PeerConfig>, mesh: &mut MeshConfig) {
        for hint in self.hints.iter().filter(|hint| hint.node != self.handle.key()) {
            let peer = PeerConfig {
                id: hint.node.node(),
                name: None,
                control: hint.control,
                mesh: hint.mesh.map(multiaddress),
                voter: false,
            };
            for peers in [&mut *control, &mut mesh.peers] {
                if peers.iter().all(|known| known.id != peer.id) {
                    peers.push(peer.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::found::tests::{NODE, hall, secret};

    /// A node's directory with the files of a site whose first node has this key.
    fn directory() -> (tempfile::TempDir, NodeDir) {
        let dir = tempfile::tempdir().unwrap();
        let node_dir = NodeDir::of(dir.path());
        let founded = hall(2).unwrap();
        let hint = |n: u8, at: &str| MemberAddress {
            node: secret(n).public(),
            control: Some(at.parse().unwrap()),
            mesh: Some(at.parse().unwrap()),
        };
        let hints = vec![hint(NODE, "10.0.0.1:1"), hint(30, "10.0.0.2:2"), hint(31, "10.0.0.3:3")];
        let kept = Kept { view: founded.view, chain: founded.chain, time: SiteTime(5_000), hints };
        SiteFiles::of(&node_dir).create(&kept, None).unwrap();
        (dir, node_dir)
    }

    fn identity(dir: &NodeDir, n: u8) -> Identity {
        Identity::create(&dir.key(), [n; 32]).unwrap()
    }

    fn name(text: &str) -> SiteName {
        SiteName::new(text).unwrap()
    }

    #[test]
    fn a_node_without_the_files_of_a_site_belongs_to_none_and_one_with_anothers_does_not_run() {
        let (dir, node_dir) = directory();
        let other = tempfile::tempdir().unwrap();
        let other = NodeDir::of(other.path());
        std::fs::create_dir_all(&other.dir).unwrap();
        let of_another = identity(&other, 99);
        assert!(HeldSite::open(&other, &of_another, &name("hall")).unwrap().is_none());
        let refused = HeldSite::open(&node_dir, &of_another, &name("hall")).err().unwrap();
        assert!(matches!(refused, HeldError::OtherNode { .. }), "{refused}");
        let own = identity(&node_dir, NODE);
        let refused = HeldSite::open(&node_dir, &own, &name("yard")).err().unwrap();
        assert!(refused.to_string().contains("node.site is yard"), "{refused}");
        let held = HeldSite::open(&node_dir, &own, &name("hall")).unwrap().unwrap();
        assert_eq!(held.handle.clock(), SiteClock::AtLeast(SiteTime(5_000)));
        assert!(held.first.is_none() && held.joined_as().is_some());
        drop(dir);
    }

    #[test]
    fn hints_are_addresses_of_others_and_what_is_configured_of_a_member_comes_before_them() {
        let (_dir, node_dir) = directory();
        let held = HeldSite::open(&node_dir, &identity(&node_dir, NODE), &name("hall")).unwrap().unwrap();
        let configured =
            PeerConfig { id: secret(30).public().node(), name: None, control: None, mesh: None, voter: false };
        let (config, _) = skep_config::load_in_site(None, &skep_config::Overrides::default()).unwrap();
        let (mut control, mut mesh) = (vec![configured.clone()], config.mesh);
        held.add_hints(&mut control, &mut mesh);
        assert_eq!((control.len(), &control[0], mesh.peers.len()), (2, &configured, 2));
        assert_eq!(control[1].control, Some("10.0.0.3:3".parse().unwrap()));
        assert_eq!(mesh.peers[0].mesh.as_deref(), Some("/ip4/10.0.0.2/udp/2/quic-v1"));
        assert!(control.iter().chain(&mesh.peers).all(|peer| !peer.voter && peer.id != secret(NODE).public().node()));
    }
}
