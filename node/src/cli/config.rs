//! `skep config`

use clap::Subcommand;
use serde::Serialize;
use skep_config::{Config as Checked, Overrides, Setting, load};

use super::output::{Row, rows};
use super::{Common, Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print every value
    Show {
        /// And where it came from
        #[arg(long)]
        origin: bool,
    },
}

#[derive(Serialize)]
struct Value {
    key: String,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
}

impl Row for Value {
    const COLUMNS: &'static [&'static str] = &["key", "value", "origin"];
    fn cells(&self) -> Vec<String> {
        vec![self.key.clone(), self.value.clone(), self.origin.clone().unwrap_or_default()]
    }
}

/// Reads the configuration of the node in the directory.
pub(crate) fn read(common: &Common, flags: Vec<(String, String, String)>) -> Result<(Checked, Vec<Setting>), Failure> {
    let places = common.places()?;
    let file = places.config();
    let overrides = Overrides { flags, environment: environment() };
    load(file.exists().then_some(file.as_path()), &overrides).map_err(Failure::failed)
}

/// The environment, as far as it is text.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl Config {
    pub(crate) fn run(self, common: &Common) -> Result<(), Failure> {
        let Self::Show { origin } = self;
        let (_, settings) = read(common, Vec::new())?;
        let value = |setting: Setting| Value {
            key: setting.key,
            value: setting.value,
            origin: origin.then(|| setting.origin.to_string()),
        };
        rows(common.output, &settings.into_iter().map(value).collect::<Vec<_>>())
    }
}
