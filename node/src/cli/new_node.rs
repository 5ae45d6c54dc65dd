//! A node's directory as it is being made: its key and its store first, its configuration last.

use std::fs::DirBuilder;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;

use clap::Args;
use skep_consensus::{Identity, ReadableBy, write_whole};
use skep_protocol::ids::Incarnation;
use skep_protocol::node_dir::NodeDir;
use skep_protocol::text::{NodeName, SiteName};
use skep_store::{Store, StoreOptions};

use super::Failure;
use super::made::{Made, check_socket, keep_to_owner, without_key};

/// Where a new node is to listen.
#[derive(Debug, Args)]
pub(crate) struct Ports {
    /// Address of this machine at which the node listens for other nodes, such as 10.0.0.7
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// First of its ports, 1 to 65533: for the mesh; the next one is for the control plane, and the one after for the API with --tcp
    #[arg(long, default_value_t = 7340)]
    port: u16,
    /// Serve the API on a loopback TCP port as well, with a token, for software that cannot use the Unix socket. Every user of
    /// this machine can connect to that port
    #[arg(long)]
    tcp: bool,
}

/// Where a node listens.
pub(crate) struct Addresses {
    mesh: SocketAddr,
    /// Its control plane.
    pub(crate) control: String,
    /// Its API over TCP, if it serves that.
    pub(crate) api: Option<String>,
}

impl Ports {
    /// Addresses with these ports. The API is on loopback, wherever the others are.
    pub(crate) fn addresses(&self) -> Result<Addresses, Failure> {
        let api = self.port.checked_add(2).filter(|_| self.port > 0);
        let api = api.ok_or_else(|| Failure::usage("give a --port from 1 to 65533"))?;
        let address = |port: u16| SocketAddr::new(self.listen, port);
        let api = SocketAddr::from((Ipv4Addr::LOCALHOST, api));
        Ok(Addresses {
            mesh: address(self.port),
            control: address(self.port + 1).to_string(),
            api: self.tcp.then(|| api.to_string()),
        })
    }
}

impl Addresses {
    /// Its mesh, as peers dial it.
    pub(crate) fn mesh(&self) -> String {
        let version = if self.mesh.is_ipv4() { "ip4" } else { "ip6" };
        format!("/{version}/{}/udp/{}/quic-v1", self.mesh.ip(), self.mesh.port())
    }

    /// The commented example of a configuration, with these values.
    pub(crate) fn configuration(&self, name: &NodeName, site: &SiteName) -> String {
        let api = self.api.as_ref().map_or("# listen = \"off\"".to_owned(), |api| format!("listen = \"{api}\""));
        skep_config::EXAMPLE
            .replace("name = \"node\"", &format!("name = \"{name}\""))
            .replace("site = \"site\"", &format!("site = \"{site}\""))
            .replace("# listen = \"127.0.0.1:7341\"", &format!("listen = \"{}\"", self.control))
            .replace("# listen = \"127.0.0.1:7340\"", &format!("listen = \"{}\"", self.mesh))
            .replace("# listen = \"off\"", &api)
    }
}

/// A node that has all but its configuration.
pub(crate) struct NewNode {
    node_dir: NodeDir,
    /// Who it is.
    pub(crate) identity: Identity,
    /// That of its data.
    pub(crate) incarnation: Incarnation,
}

impl NewNode {
    /// How much of a node a directory holds, if there is room in it for one that is new or half made.
    pub(crate) fn room(node_dir: &NodeDir) -> Result<Made, Failure> {
        check_socket(node_dir)?;
        match Made::find(node_dir)? {
            made @ (Made::Nothing | Made::WithoutConfig) => Ok(made),
            Made::WithoutKey => Err(without_key(node_dir)),
            Made::Whole => {
                let dir = node_dir.dir.display();
                Err(Failure::failed(format!("{dir} holds a node already; use another --dir, or move it away")))
            }
        }
    }

    /// Makes a directory with a key and a store, or goes on where an earlier attempt was cut off.
    pub(crate) fn begin(node_dir: NodeDir) -> Result<Self, Failure> {
        let made = Self::room(&node_dir)?;
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
        Ok(Self { identity, incarnation: store.incarnation(), node_dir })
    }

    /// Where its files are.
    pub(crate) fn node_dir(&self) -> &NodeDir {
        &self.node_dir
    }

    /// Writes the configuration: with it, the node is made.
    pub(crate) fn end(&self, configuration: &str) -> Result<(), Failure> {
        let path = self.node_dir.config();
        write_whole(&path, configuration.as_bytes(), ReadableBy::Owner)
            .map_err(|e| Failure::failed(format!("{}: {e}", path.display())))
    }
}
