//! Peers that every node lists and that the launcher does not start.

use std::fs::OpenOptions;
use std::io::Write as _;

use serde::Serialize;

use super::Testnet;
use crate::error::{LaunchError, io_error};

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeAddress {
    /// Its PeerId.
    pub node: String,
    /// Its control plane itself, whatever relay is before it: an IP address and a port.
    pub control: String,
    /// Its mesh: a multiaddress.
    pub mesh: String,
}

impl Testnet {
    /// Where its nodes are, in their order.
    pub fn addresses(&self) -> Vec<NodeAddress> {
        let address = |node: &super::TestNode| NodeAddress {
            node: node.id.clone(),
            control: node.control.clone(),
            mesh: node.mesh.clone(),
        };
        self.nodes.iter().map(address).collect()
    }

    /// Has every node list one more peer, which votes nowhere, from its next start on. Nobody knows where it is.
    ///
    /// # Errors
    /// [`LaunchError::Io`] if a configuration cannot be written.
    pub fn list(&self, peer: &str) -> Result<(), LaunchError> {
        self.add_peer(peer, "")
    }

    /// The same of one that every node has marked as a voter, and believes.
    ///
    /// # Errors
    /// As of [`list`](Self::list).
    pub fn list_voter(&self, peer: &str) -> Result<(), LaunchError> {
        self.add_peer(peer, "voter = true\n")
    }

    fn add_peer(&self, peer: &str, settings: &str) -> Result<(), LaunchError> {
        for node in &self.nodes {
            let path = node.dir.join("skep.toml");
            let what = || io_error(path.display().to_string());
            let mut file = OpenOptions::new().append(true).open(&path).map_err(what())?;
            write!(file, "\n[[peers]]\nid = \"{peer}\"\n{settings}").map_err(what())?;
        }
        Ok(())
    }
}
