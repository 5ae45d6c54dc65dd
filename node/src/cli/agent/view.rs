//! How the command line shows agents.

use serde::Serialize;
use skep_client::v1;

use crate::cli::Failure;
use crate::cli::output::{Format, Row, one, span};

#[derive(Serialize)]
pub(super) struct Receipt {
    pub(super) agent: String,
    pub(super) index: u64,
}

impl Receipt {
    pub(super) fn print(&self, format: Format) -> Result<(), Failure> {
        one(format, self, &[("agent", self.agent.clone()), ("index", self.index.to_string())])
    }
}

#[derive(Serialize)]
pub(super) struct View {
    agent: String,
    role: String,
    capabilities: Vec<String>,
    stateful: bool,
    held: u32,
    max_concurrent: u32,
    /// The number of agents of other roles that share a capability with this one.
    overlaps: u32,
    /// The node that serves the agent; empty while none does.
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
