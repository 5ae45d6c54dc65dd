//! `skep init`

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;

use clap::Args;
use serde::Serialize;
use skep_consensus::{Identity, ReadableBy, write_whole};
use skep_protocol::text::{NodeName, SiteName};
use skep_store::{Store, StoreOptions};

use super::made::{Made, check_socket, keep_to_owner, without_key};
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
    /// First of its ports, 1 to 65533: for the mesh; the next one is for the control plane, and the one after for the API with --tcp
    #[arg(long, default_value_t = 7340)]
    port: u16,
    /// Serve the API on a loopback TCP port as well, with a token, for software that cannot use the Unix socket. Every user of
    /// this machine can connect to that port
    #[arg(long)]
    tcp: bool,
}

#[derive(Serialize)]
struct NewNode {
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
        let node_dir = common.node_dir()?;
        check_socket(&node_dir)?;
        let name = NodeName::new(&self.name).map_err(Failure::usage)?;
        let site = SiteName::new(&self.site).map_err(Failure::usage)?;
        let api_port = self.port.checked_add(2).filter(|_| self.port > 0);
        let api_port = api_port.ok_or_else(|| Failure::usage("give a --port from 1 to 65533"))?;
        let made = Made::find(&node_dir)?;
        match made {
            Made::Nothing | Made::WithoutConfig => {}
            Made::WithoutKey => return Err(without_key(&node_dir)),
            Made::Whole => {
                let dir = node_dir.dir.display();
                return Err(Failure::failed(format!("{dir} holds a node already; use another --dir, or move it away")));
            }
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&node_dir.dir)
            .map_err(|e| Failure::failed(format!("{}: {e}", node_dir.dir.display())))?;
        keep_to_owner(&node_dir.dir, made == Made::Nothing)?;
        let store = Store::open(&node_dir.data(), rand::random(), StoreOptions::default()).map_err(Failure::failed)?;
        // A key that is there is one that an earlier attempt made, which was cut off: it goes on where that ended.
        let identity = match made {
            Made::WithoutConfig => Identity::load(&node_dir.key()),
            Made::Nothing | Made::WithoutKey | Made::Whole => Identity::create(&node_dir.key(), rand::random()),
        };
        let identity = identity.map_err(Failure::failed)?;
        let address = |port: u16| format!("127.0.0.1:{port}");
        let (mesh, control) = (address(self.port), address(self.port + 1));
        let api = self.tcp.then(|| address(api_port));
        let config = configuration(&name, &site, (mesh.as_str(), control.as_str(), api.as_deref()));
        // Last: with it, the node is made.
        write_whole(&node_dir.config(), config.as_bytes(), ReadableBy::Owner)
            .map_err(|e| Failure::failed(format!("{}: {e}", node_dir.config().display())))?;
        let node = NewNode {
            node: identity.node().to_string(),
            name: name.to_string(),
            incarnation: store.incarnation().to_string(),
            dir: node_dir.dir.display().to_string(),
            config: node_dir.config().display().to_string(),
            control,
            mesh: format!("/ip4/127.0.0.1/udp/{}/quic-v1", self.port),
            api,
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

/// The commented example with this node's values.
fn configuration(name: &NodeName, site: &SiteName, (mesh, control, api): (&str, &str, Option<&str>)) -> String {
    skep_config::EXAMPLE
        .replace("name = \"node\"", &format!("name = \"{name}\""))
        .replace("site = \"site\"", &format!("site = \"{site}\""))
        .replace("# listen = \"127.0.0.1:7341\"", &format!("listen = \"{control}\""))
        .replace("# listen = \"127.0.0.1:7340\"", &format!("listen = \"{mesh}\""))
        .replace(
            "# listen = \"off\"",
            &api.map_or("# listen = \"off\"".to_owned(), |api| format!("listen = \"{api}\"")),
        )
}
