//! `skep config`

mod view;

use std::ffi::OsString;

use clap::Subcommand;
use skep_config::{Config as Checked, Overrides, Setting, key_of_variable, load, load_in_site};

use super::output::{rows, tell};
use super::{Common, Failure};
use crate::site::files::SiteFiles;
use view::Value;

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print every value of the node's configuration
    Show {
        /// Also print where each value came from
        #[arg(long)]
        origin: bool,
    },
}

/// Reads the configuration of the node in the directory.
pub(crate) fn read(common: &Common, flags: Vec<(String, String, String)>) -> Result<(Checked, Vec<Setting>), Failure> {
    let node_dir = common.node_dir()?;
    let file = node_dir.config();
    let there = file.try_exists().map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
    let overrides = Overrides { flags, environment: environment(std::env::vars_os())? };
    let file = there.then_some(file.as_path());
    let is_of_site = SiteFiles::of(&node_dir).are_there().map_err(Failure::failed)?;
    let read = if is_of_site { load_in_site(file, &overrides) } else { load(file, &overrides) };
    read.map_err(Failure::failed)
}

/// The environment as text. A variable that is no text is left out, unless it would set a value.
fn environment(all: impl Iterator<Item = (OsString, OsString)>) -> Result<Vec<(String, String)>, Failure> {
    let mut texts = Vec::new();
    for (name, value) in all {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => texts.push((name, value)),
            Err(value) if key_of_variable(&name).is_some() => {
                return Err(Failure::usage(format!("{name} is not UTF-8 text: {}", value.display())));
            }
            Err(_) => {}
        }
    }
    Ok(texts)
}

impl Config {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        let Self::Show { origin } = self;
        let (_, settings) = read(common, Vec::new())?;
        let file = common.node_dir()?.config();
        if !file.exists() {
            tell(&format!("{} does not exist: these are the values of a node without a configuration", file.display()));
        }
        rows(common.output, &settings.into_iter().map(|setting| Value::of(setting, origin)).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt as _;

    #[test]
    fn a_variable_that_is_no_text_is_not_passed_over_in_silence() {
        let odd = || OsString::from_vec(vec![0xff]);
        let all =
            |name: &str| environment([(OsString::from(name), odd()), ("HOME".into(), "/root".into())].into_iter());
        assert!(all("SKEP_NODE__NAME").is_err());
        assert_eq!(all("OTHER").unwrap(), [("HOME".to_owned(), "/root".to_owned())]);
        assert!(all("SKEP_DIR").is_ok(), "it is taken as it is, elsewhere");
    }
}
