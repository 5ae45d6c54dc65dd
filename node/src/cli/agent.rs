//! `skep agent`

use clap::Subcommand;
use serde::Serialize;
use skep_client::{Read, Role, pages, v1};

use super::as_of::{PAGE, Pages};
use super::output::{Row, one, span};
use super::resend::Resend;
use super::{Common, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Agent {
    /// Register an agent, or change its role
    Register {
        /// Id of the agent
        agent: String,
        /// Name of the role
        #[arg(long, default_value = "worker")]
        role: String,
        /// Capability that the agent has; repeat for more
        #[arg(long = "capability", value_name = "NAME")]
        capabilities: Vec<String>,
        /// Most tasks that the agent may hold at a time: 1 to 1024
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
        max_concurrent: u32,
        /// The agent keeps state of its own
        #[arg(long)]
        stateful: bool,
        #[command(flatten)]
        resend: Resend,
    },
    /// Remove an agent that holds no task
    Remove {
        /// Id of the agent
        agent: String,
        #[command(flatten)]
        resend: Resend,
    },
    /// List agents
    List {
        /// Answer from this node's replica without asking the leader
        #[arg(long)]
        stale: bool,
    },
}

#[derive(Serialize)]
struct Receipt {
    agent: String,
    index: u64,
}

#[derive(Serialize)]
struct View {
    agent: String,
    role: String,
    capabilities: Vec<String>,
    stateful: bool,
    held: u32,
    max_concurrent: u32,
    /// Agents of other roles that share a capability with it.
    overlaps: u32,
    /// The node that serves it; empty while none does.
    node: String,
    attachment: u64,
    lease_ttl_ms: u64,
}

impl Row for View {
    const COLUMNS: &'static [&'static str] =
        &["agent", "role", "capabilities", "held", "max", "node", "lease", "overlaps"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.agent.clone(),
            self.role.clone(),
            self.capabilities.join(","),
            self.held.to_string(),
            self.max_concurrent.to_string(),
            self.node.chars().rev().take(8).collect::<Vec<_>>().into_iter().rev().collect(),
            if self.node.is_empty() { String::new() } else { span(self.lease_ttl_ms) },
            self.overlaps.to_string(),
        ]
    }
}

impl From<v1::Agent> for View {
    fn from(agent: v1::Agent) -> Self {
        let role = agent.role.unwrap_or_default();
        Self {
            agent: agent.id,
            role: role.name,
            capabilities: role.capabilities,
            stateful: role.stateful,
            held: agent.held,
            max_concurrent: role.max_concurrent.unwrap_or(1),
            overlaps: agent.overlaps,
            node: agent.node,
            attachment: agent.attachment,
            lease_ttl_ms: agent.lease_ttl.map_or(0, |ttl| ttl.seconds as u64 * 1_000 + ttl.nanos as u64 / 1_000_000),
        }
    }
}

impl Agent {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let client = common.client()?;
        let receipt = match self {
            Self::Register { agent, role, capabilities, max_concurrent, stateful, resend } => {
                let role = Role { name: role, capabilities, stateful, max_concurrent: Some(max_concurrent) };
                resend.client(&client).await?.register_agent(&agent, role).await?
            }
            Self::Remove { agent, resend } => resend.client(&client).await?.remove_agent(&agent).await?,
            Self::List { stale } => return list(&client, common, stale).await,
        };
        let receipt = Receipt { agent: receipt.agent, index: receipt.index };
        one(common.output, &receipt, &[("agent", receipt.agent.clone()), ("index", receipt.index.to_string())])
    }
}

async fn list(client: &skep_client::Client, common: &Common, stale: bool) -> Result<(), Failure> {
    let read = if stale { Read::Stale } else { Read::Linearizable };
    let mut listed = Pages::new();
    let ask = async |after: String| client.agents(&after, PAGE, read).await;
    pages(ask, |page: v1::ListAgentsReply| listed.add(page.as_of, page.agents.into_iter().map(View::from))).await?;
    listed.print(common.output, "agents")
}
