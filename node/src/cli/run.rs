//! `skep run`

use std::ffi::OsString;
use std::io::IsTerminal as _;

use clap::Args;
use skep_protocol::fleet::Build;
use skep_testnet::site::place;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::made::{Made, check_socket, keep_to_owner, without_key};
use super::{Common, Failure, config};
use crate::run::{RunError, run};

/// Run a node
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A value of the configuration, such as control.listen=127.0.0.1:7341, in place of the file's; repeat for more
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Write log lines as JSON
    #[arg(long)]
    log_json: bool,
    /// Stop when standard input ends, as a launcher's children do
    #[arg(long, hide = true)]
    while_stdin: bool,
}

/// What to do when there is no node in the directory.
const FIRST_STEPS: &str = "there is no node here yet. First steps:
  skep init --dir DIR --name NAME     makes the node's key and a commented configuration
  (list the other nodes as [[peers]] in DIR/skep.toml, and mark the voters among them: voter = true)
  skep run --dir DIR                  runs the node
  skep key new                        makes an operator's key, once
  skep shard init --voters ID,ID,ID --operator KEY   once, when three nodes run
Or make a site, whose first node takes work as soon as it runs:
  skep site init SITE --dir DIR       makes its keys, its operator's key and its first node
  skep run --dir DIR                  runs the node";

/// What the node logs without SKEP_LOG. libp2p warns of each thing that a peer does wrong: as often as the peer likes.
const LOGGED: &str = "info,openraft=error,libp2p=error,quinn=warn,fjall=warn,lsm_tree=warn";

/// What the node logs. A word alone must be a level: the filter would take a misspelt level for the name of a module,
/// and log nothing else.
fn filter(given: Option<OsString>) -> Result<EnvFilter, Failure> {
    let given = given.filter(|given| !given.is_empty()).unwrap_or_else(|| OsString::from(LOGGED));
    let usage = |why: &str| {
        let given = given.display();
        Failure::usage(format!(
            "SKEP_LOG={given}: {why}; give a LEVEL (error, warn, info, debug, trace, off), or MODULE=LEVEL, with commas"
        ))
    };
    let text = given.to_str().ok_or_else(|| usage("it is not UTF-8 text"))?;
    let is_word = |part: &&str| !part.contains(['=', '[', '{']);
    let misspelt = text.split(',').map(str::trim).filter(is_word).find(|part| part.parse::<LevelFilter>().is_err());
    if let Some(word) = misspelt {
        return Err(usage(&format!("{word:?} is not a level")));
    }
    EnvFilter::try_new(text).map_err(|error| usage(&error.to_string()))
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::WritesKeys => Self::usage(error),
            RunError::System(_) | RunError::Node(_) => Self::failed(error),
        }
    }
}

impl Run {
    pub(crate) fn run(self, common: &Common, build: Build) -> Result<(), Failure> {
        let node_dir = common.node_dir()?;
        let dir = node_dir.dir.display();
        match Made::find(&node_dir)? {
            Made::Whole => {}
            Made::Nothing => return Err(Failure::usage(format!("{dir}: {FIRST_STEPS}"))),
            Made::WithoutKey => return Err(without_key(&node_dir)),
            Made::WithoutConfig => {
                let (key, config) = (node_dir.key(), node_dir.config());
                return Err(Failure::usage(format!(
                    "{} exists and {} does not: 'skep init' was cut off, or the configuration was moved away. \
                     'skep init --dir {dir}' goes on with the same key",
                    key.display(),
                    config.display()
                )));
            }
        }
        check_socket(&node_dir)?;
        let flag = |text: &String| {
            let (key, value) = text.split_once('=')?;
            Some((key.to_owned(), value.to_owned(), format!("set {key}")))
        };
        let flags: Option<Vec<_>> = self.set.iter().map(flag).collect();
        let flags = flags.ok_or_else(|| Failure::usage("--set takes KEY=VALUE"))?;
        let (config, _) = config::read(common, flags)?;
        if config.checks.cuts.is_some() && !place::is_of_testnet(&node_dir.dir) {
            return Err(Failure::usage(format!(
                "testnet.cuts: {dir} is not the directory of a testnet's node, and no other node can be cut off"
            )));
        }
        let filter = filter(std::env::var_os("SKEP_LOG"))?;
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal() && !plain)
            // The subscriber panics if it reports on standard error that standard error cannot be written.
            .log_internal_errors(false);
        if self.log_json {
            logs.json().init();
        } else {
            logs.init();
        }
        if keep_to_owner(&node_dir.dir, false)? {
            tracing::warn!(dir = %node_dir.dir.display(), "the node's directory was open to other users; the node has closed it");
        }
        Ok(run(config, &node_dir, self.while_stdin, build)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt as _;

    #[test]
    fn what_is_to_be_logged_is_understood_or_refused() {
        let with = |text: &str| filter(Some(OsString::from(text)));
        for good in ["", "debug", "WARN", "info,skep_consensus=debug", LOGGED, "off", "[span]=debug"] {
            assert!(with(good).is_ok(), "{good:?}");
        }
        assert!(filter(None).is_ok());
        for bad in ["loud", "info,dbug", "skep=loud", "skep_mesh"] {
            assert!(with(bad).is_err(), "{bad:?}");
        }
        assert!(filter(Some(OsString::from_vec(vec![0xff]))).is_err());
    }
}
