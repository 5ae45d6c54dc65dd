//! Peers that every node lists and that the launcher does not start.

use std::fs::OpenOptions;
use std::io::Write as _;

use serde::Serialize;

use super::Testnet;
use crate::error::{LaunchError, io_error};

/// The addresses of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeAddress {
    /// The node's PeerId.
    pub node: String,
    /// The address of its control plane itself, without a relay before it: an IP address and a port.
    pub control: String,
    /// The address of its mesh: a multiaddress.
    pub mesh: String,
}

impl Testnet {
    /// The addresses of its nodes, in their order.
    pub fn addresses(&self) -> Vec<NodeAddress> {
        let address = |node: &super::TestNode| NodeAddress {
            node: node.id.clone(),
            control: node.control.clone(),
            mesh: node.mesh.clone(),
        };
        self.nodes.iter().map(address).collect()
    }

    /// Lists one more peer at every node, which votes nowhere, from the node's next start on. No node knows the peer's
    /// address.
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
