//! `skep node`

mod view;

use clap::Subcommand;

use super::{Common, Failure};
use view::Status;

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// Show the node's names, which peers it reaches, and what is wrong
    Status,
}

impl Node {
    pub(crate) async fn run(self, common: &Common) -> Result<(), Failure> {
        let Self::Status = self;
        let reply = common.client()?.node_status().await?;
        Status::from(reply).print(common.output)
    }
}
