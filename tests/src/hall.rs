//! A site with an operator, and agents that take commands.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use skep_client::command::{Command, CommandClass, SignedCommand, Target};
use skep_client::{AgentOptions, AttachedAgent, Client, CommandId, CommandOffers, OperatorSecret, Role};

use crate::{Ran, Site};

/// Short leases and heartbeat intervals, so that their ends come soon.
pub const QUICK: [&str; 2] = ["agents.lease_ttl_ms=1500", "agents.heartbeat_ms=200"];

/// A site with its first operator, whose key is in a file.
pub struct Hall {
    /// The site.
    pub site: Site,
    /// The path of the file with the operator's key.
    pub key: PathBuf,
}

impl Hall {
    /// Starts nodes, with a shard on the first of them, and its first operator.
    ///
    /// # Panics
    /// If that fails: the test cannot go on.
    pub async fn up(binary: &str, nodes: usize, voters: usize) -> Self {
        Self::on(Site::up(binary, nodes, voters, &QUICK).await)
    }

    /// The first operator of a running site.
    ///
    /// # Panics
    /// If that fails: the test cannot go on.
    #[allow(clippy::unwrap_used, reason = "a harness: what fails here fails the test")]
    pub fn on(site: Site) -> Self {
        let operator = site.net.operator().unwrap().key().to_string();
        let listed = site.skep(0, &["operator", "list", "-o", "json"]).json();
        assert_eq!(listed[0]["operator"], operator.as_str());
        Self { key: site.net.operator_key(), site }
    }

    /// A client of one of the nodes.
    pub fn client(&self, node: usize) -> Client {
        self.site.net.nodes[node].client()
    }

    /// Sends a command with the program, as the operator does.
    ///
    /// # Panics
    /// If the program cannot be run.
    pub fn send(&self, node: usize, args: &[&str]) -> Ran {
        let key = self.key.to_string_lossy();
        let args: Vec<&str> =
            ["command", "send", "--key", &key, "-o", "json"].into_iter().chain(args.iter().copied()).collect();
        self.site.skep(node, &args)
    }
}

/// Attaches a robot's software that takes commands.
///
/// # Panics
/// If that fails: the test cannot go on.
#[allow(clippy::unwrap_used, reason = "a harness: what fails here fails the test")]
pub async fn attach(client: &Client, name: &str, groups: &[&str]) -> (AttachedAgent, CommandOffers) {
    let role = Role { name: "robot".into(), max_concurrent: Some(1), ..Role::default() };
    let mut agent = AttachedAgent::attach(client, AgentOptions::new(name, role), None).await.unwrap();
    let offers = agent.take_commands(groups).unwrap();
    (agent, offers)
}

/// How often each command was started, as the world sees it.
pub type Starts = Arc<Mutex<BTreeMap<Vec<u8>, u32>>>;

/// Does every command, and answers with what `result` makes of the arguments.
///
/// # Panics
/// If another thread panicked while it counted.
#[allow(clippy::unwrap_used, reason = "a harness: what fails here fails the test")]
pub async fn obey(mut offers: CommandOffers, starts: Starts, result: fn(Vec<u8>) -> Vec<u8>) {
    while let Some(offer) = offers.next().await {
        offer.accept();
        let Ok(running) = offer.start().await else { continue };
        *starts.lock().unwrap().entry(running.command.id.clone()).or_default() += 1;
        let result = result(running.command.args.clone());
        let _ = running.succeed(result).await;
    }
}

/// A routine command for a robot, signed by an operator.
///
/// # Panics
/// If the node does not know the shard's clock: the test cannot go on.
#[allow(clippy::unwrap_used, reason = "a harness: what fails here fails the test")]
pub async fn signed(
    client: &Client,
    operator: &OperatorSecret,
    to: &str,
    valid_ms: u64,
    args: Vec<u8>,
) -> SignedCommand {
    let command = Command {
        place: client.place().await.unwrap(),
        id: CommandId::from_bytes(uuid::Uuid::now_v7().into_bytes()),
        target: Target::Agent(to.parse().unwrap()),
        verb: "goto".parse().unwrap(),
        content_type: "".parse().unwrap(),
        args: args.into(),
        deadline: client.deadline_in(valid_ms).await.unwrap(),
        class: CommandClass::Routine,
        idempotent: false,
        supersedes: None,
        parent: None,
        trace: "".parse().unwrap(),
        waves: None,
        operator: operator.key(),
    };
    command.sign(operator).unwrap()
}
