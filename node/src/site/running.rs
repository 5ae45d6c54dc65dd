//! What a node of a site does beside its planes, for as long as it runs.

use skep_api::Calls;
use skep_consensus::ConsensusHandle;
use skep_mesh::MeshHandle;

use super::held::HeldSite;
use super::members::Members;
use super::{begin, directory, time};

impl HeldSite {
    /// Begins all of it on this runtime, which ends it.
    pub(crate) fn start(self, consensus: &ConsensusHandle, mesh: &MeshHandle, calls: &Calls) {
        let joined_as = self.joined_as();
        let Self { handle, keeper, first, hints } = self;
        let chain = handle.hello().chain;
        match first {
            Some(first) if joined_as == Some(consensus.incarnation()) => {
                tokio::spawn(begin::begin(first, chain, keeper.clone(), consensus.clone()));
            }
            Some(_) => tracing::error!(
                "the data with which this site was to begin is gone: this node makes no shards. If no other node holds \
                 the site's shards, make the site anew"
            ),
            None => {}
        }
        tokio::spawn(directory::follow(handle.clone(), consensus.clone()));
        tokio::spawn(time::follow(handle, keeper.clone(), calls.clone()));
        let (consensus, mesh, calls) = (consensus.clone(), mesh.clone(), calls.clone());
        tokio::spawn(Members { consensus, mesh, calls, keeper, hints }.follow());
    }
}
