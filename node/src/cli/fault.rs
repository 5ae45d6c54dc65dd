//! Faults, and what to do about them.

use serde::Serialize;
use skep_client::v1::Fault;

/// A fault of a shard.
#[derive(Serialize)]
pub(crate) struct FaultView {
    shard: u32,
    name: String,
    node: String,
    detail: String,
    advice: String,
}

impl From<Fault> for FaultView {
    fn from(fault: Fault) -> Self {
        let Fault { shard, name, node, detail, advice } = fault;
        Self { shard, name, node, detail, advice }
    }
}

impl FaultView {
    /// The fault as lines for people.
    pub(crate) fn lines(&self) -> [(&'static str, String); 2] {
        let of = if self.node.is_empty() { String::new() } else { format!(" {}", self.node) };
        let what = format!("{}{of}: {}", self.name, self.detail);
        [("fault", what), ("what to do", self.advice.clone())]
    }
}
