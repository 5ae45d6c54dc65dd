//! `skep agent`

mod view;

use clap::Subcommand;
use skep_client::{Read, Role, pages, v1};

use super::as_of::{PAGE, Pages};
use super::resend::Resend;
use super::{Common, Failure};
use view::{Receipt, View};

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
        Receipt { agent: receipt.agent, index: receipt.index }.print(common.output)
    }
}

async fn list(client: &skep_client::Client, common: &Common, stale: bool) -> Result<(), Failure> {
    let read = if stale { Read::Stale } else { Read::Linearizable };
    let mut listed = Pages::new();
    let ask = async |after: String| client.agents(&after, PAGE, read).await;
    pages(ask, |page: v1::ListAgentsReply| listed.add(page.as_of, page.agents.into_iter().map(View::from))).await?;
    listed.print(common.output, "agents")
}
