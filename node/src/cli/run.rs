//! `skep run`

use clap::Args;
use skep_protocol::fleet::Build;
use tracing_subscriber::EnvFilter;

use super::{Common, Failure, config};

/// Run the node
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Override a value of the configuration, such as control.listen=127.0.0.1:7341
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Log as JSON
    #[arg(long)]
    log_json: bool,
    /// Stop when standard input ends, as a launcher's children do
    #[arg(long, hide = true)]
    while_stdin: bool,
}

/// What to do when there is no node in the directory.
const FIRST_STEPS: &str = "there is no node here yet. First steps:
  skep init --dir DIR --name NAME     makes its key and a commented configuration
  (list the other nodes as [[peers]] in DIR/skep.toml)
  skep run --dir DIR                  runs it
  skep shard init --voters ID,ID,ID   once, when three of them run";

impl Run {
    pub(crate) fn run(self, common: &Common, build: Build) -> Result<(), Failure> {
        let places = common.places()?;
        if !places.key().exists() || !places.config().exists() {
            return Err(Failure::usage(format!("{}: {FIRST_STEPS}", places.dir.display())));
        }
        let flag = |text: &String| {
            let (key, value) = text.split_once('=')?;
            Some((key.to_owned(), value.to_owned(), format!("set {key}")))
        };
        let flags: Option<Vec<_>> = self.set.iter().map(flag).collect();
        let flags = flags.ok_or_else(|| Failure::usage("--set takes KEY=VALUE"))?;
        let (config, _) = config::read(common, flags)?;
        let filter = EnvFilter::try_from_env("SKEP_LOG")
            .unwrap_or_else(|_| EnvFilter::new("info,openraft=error,libp2p=warn,quinn=warn,fjall=warn,lsm_tree=warn"));
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
        if self.log_json {
            logs.json().init();
        } else {
            logs.init();
        }
        crate::run::run(config, &places, self.while_stdin, build)
    }
}
