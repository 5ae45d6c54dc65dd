//! `skep bench`

use clap::Subcommand;

use super::{Common, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Durable task creates
    Commit,
}

impl Bench {
    pub(crate) fn run(self, _common: &Common) -> Result<(), Failure> {
        Err(Failure::failed("soon"))
    }
}
