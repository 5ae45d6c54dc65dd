//! `skep init`

use clap::Args;
use serde::Serialize;
use skep_protocol::text::{NodeName, SiteName};

use super::new_node::{NewNode, Ports};
use super::output::one;
use super::{Common, Failure};

/// Make a node's directory with its key, incarnation and configuration
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Name of the node: up to 64 letters, digits and any of . _ - / :
    #[arg(long, default_value = "node")]
    name: String,
    /// Name of the node's site: up to 64 letters, digits and any of . _ - :
    #[arg(long, default_value = "site")]
    site: String,
    #[command(flatten)]
    ports: Ports,
}

#[derive(Serialize)]
struct View {
    node: String,
    name: String,
    incarnation: String,
    dir: String,
    config: String,
    control: String,
    mesh: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<String>,
}

impl Init {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        let name = NodeName::new(&self.name).map_err(Failure::usage)?;
        let site = SiteName::new(&self.site).map_err(Failure::usage)?;
        let addresses = self.ports.addresses()?;
        let made = NewNode::begin(common.node_dir()?)?;
        made.end(&addresses.configuration(&name, &site))?;
        let node_dir = made.node_dir();
        let node = View {
            node: made.identity.node().to_string(),
            name: name.to_string(),
            incarnation: made.incarnation.to_string(),
            dir: node_dir.dir.display().to_string(),
            config: node_dir.config().display().to_string(),
            mesh: addresses.mesh(),
            control: addresses.control,
            api: addresses.api,
        };
        let lines = [
            ("node", node.node.clone()),
            ("directory", node.dir.clone()),
            (
                "next",
                format!(
                    "list its peers in {}, voters with voter = true, then 'skep run --dir {}'",
                    node.config, node.dir
                ),
            ),
        ];
        one(common.output, &node, &lines)
    }
}
