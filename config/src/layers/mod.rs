//! Merges the layers into a configuration, with the origin of every value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use toml::Table;

use crate::preset::Preset;
use crate::raw::RawConfig;
use crate::sections::{Admits, Config};

/// The default values, below every preset.
const DEFAULTS: &str = include_str!("../../presets/default.toml");

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The built-in defaults.
    Default,
    /// The values of a preset.
    Preset(Preset),
    /// The configuration file, by its path.
    File(PathBuf),
    /// An environment variable, by its name.
    Environment(String),
    /// A flag, by its name.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(preset) => write!(f, "preset {preset}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// One value of the configuration and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, as `section.key`.
    pub key: String,
    /// The value, as text.
    pub value: String,
    /// Where the value came from.
    pub origin: Origin,
}

/// Values from outside the file: key, value, and the name of the flag or variable.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Flags, each as key, value and the name of the flag.
    pub flags: Vec<(String, String, String)>,
    /// All variables of the environment. Those that start with `SKEP_` and name a key count.
    pub environment: Vec<(String, String)>,
}

/// Why the node has no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The file is empty. A configuration has at least a preset, so this file was probably cut off.
    #[error("{path} is empty: it may be cut off. Restore it, or write at least: preset = \"lan\"")]
    Empty {
        /// The path of the file.
        path: PathBuf,
    },
    /// The file is not TOML, or has a key or a value that it must not have.
    #[error("{path}:{line}:{column}: {key}{message}")]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The column, counted from 1.
        column: usize,
        /// The key and a colon; empty if the key is not known.
        key: String,
        /// What is wrong, as text.
        message: String,
    },
    /// A value is out of bounds.
    #[error("{key}: {why} (from {origin})")]
    Value {
        /// The key, as `section.key`.
        key: String,
        /// What is wrong, as text.
        why: String,
        /// The origin of the value, as text.
        origin: String,
    },
}

struct Layer {
    origin: Origin,
    data: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.data.clone()))
    }
}

/// Reads the file, if there is one, and merges all layers. The node lets in the peers that it lists.
///
/// # Errors
/// [`ConfigError`] names the file or the key.
pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<(Config, Vec<Setting>), ConfigError> {
    load_for(file, overrides, Admits::Listed)
}

/// The same for a node of a site, which lets in members by their certificates. It may list no peer: each is only an
/// address at which a member may be.
///
/// # Errors
/// [`ConfigError`] names the file or the key.
pub fn load_in_site(file: Option<&Path>, overrides: &Overrides) -> Result<(Config, Vec<Setting>), ConfigError> {
    load_for(file, overrides, Admits::Members)
}

fn load_for(file: Option<&Path>, overrides: &Overrides, admits: Admits) -> Result<(Config, Vec<Setting>), ConfigError> {
    let file_table = file.map(read_file).transpose()?;
    let mut upper = Vec::new();
    if let (Some(path), Some(table)) = (file, &file_table) {
        upper.push(layer(Origin::File(path.to_owned()), table)?);
    }
    for (variable, value) in &overrides.environment {
        if let Some(key) = key_of_variable(variable) {
            upper.push(single(Origin::Environment(variable.clone()), &key, value));
        }
    }
    for (key, value, flag) in &overrides.flags {
        upper.push(single(Origin::Flag(flag.clone()), key, value));
    }
    let preset = preset_of(&upper)?;
    let mut layers = vec![
        layer(Origin::Default, &built_in(DEFAULTS)?)?,
        layer(Origin::Preset(preset), &built_in(preset.values())?)?,
    ];
    layers.append(&mut upper);
    let origins: BTreeMap<String, Origin> = layers.iter().map(|l| (l.origin.to_string(), l.origin.clone())).collect();
    let merged = layers.into_iter().fold(Figment::new(), |figment, layer| figment.merge(layer));
    let origin = |key: &str| {
        let found = merged.find_metadata(list_of(key)).and_then(|m| origins.get(m.name.as_ref()));
        found.cloned().unwrap_or(Origin::Default)
    };
    let raw: RawConfig = merged.extract_lossy().map_err(|e| {
        let key = e.path.join(".");
        ConfigError::Value { origin: origin(&key).to_string(), why: e.kind.to_string(), key }
    })?;
    let config = Config::check(&raw, admits).map_err(|e| ConfigError::Value {
        origin: origin(&e.key).to_string(),
        key: e.key,
        why: e.why,
    })?;
    // figment copies all layers for each lookup, and a list of peers has thousands of values.
    let mut found: BTreeMap<String, Origin> = BTreeMap::new();
    let setting = |(key, value): (String, _)| {
        let origin = found.entry(list_of(&key).to_owned()).or_insert_with(|| origin(&key)).clone();
        Setting { origin, key, value }
    };
    let settings = flatten(&raw).into_iter().map(setting).collect();
    Ok((config, settings))
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.to_owned(), source })?;
    if text.trim_matches(|c: char| c.is_whitespace() || c == '\0').is_empty() {
        return Err(ConfigError::Empty { path: path.to_owned() });
    }
    toml::from_str::<RawConfig>(&text).map_err(|e| located(path, &text, &e))?;
    text.parse().map_err(|e| located(path, &text, &e))
}

fn located(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    let whole_line = text.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default();
    let section = before.lines().rev().map(str::trim).find(|l| l.starts_with('['));
    let section = section.map_or("", |l| l.trim_matches(['[', ']']));
    let key = whole_line.split('=').next().unwrap_or_default().trim();
    let dot = if section.is_empty() { "" } else { "." };
    ConfigError::File {
        path: path.to_owned(),
        line,
        column: text.get(line_start..start).map_or(0, |l| l.chars().count()) + 1,
        key: if key.is_empty() { String::new() } else { format!("{section}{dot}{key}: ") },
        message: error.message().to_owned(),
    }
}

fn built_in(text: &str) -> Result<Table, ConfigError> {
    text.parse().map_err(|e| located(Path::new("(built in)"), text, &e))
}

fn layer(origin: Origin, table: &Table) -> Result<Layer, ConfigError> {
    match Value::serialize(table) {
        Ok(Value::Dict(_, data)) => Ok(Layer { origin, data }),
        Ok(_) | Err(_) => Err(ConfigError::Value {
            key: String::new(),
            why: "the value is not a table".to_owned(),
            origin: origin.to_string(),
        }),
    }
}

fn single(origin: Origin, key: &str, value: &str) -> Layer {
    let mut data = Dict::new();
    put(&mut data, key, Value::from(value.to_owned()));
    Layer { origin, data }
}

fn put(data: &mut Dict, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            data.insert(key.to_owned(), value);
        }
        Some((head, rest)) => {
            let mut inner = Dict::new();
            put(&mut inner, rest, value);
            data.insert(head.to_owned(), Value::from(inner));
        }
    }
}

/// The key that a variable of the environment sets: `SKEP_CONTROL__LISTEN` is `control.listen`, and `SKEP_PRESET` is
/// `preset`. Other variables have another meaning.
pub fn key_of_variable(variable: &str) -> Option<String> {
    let name = variable.strip_prefix("SKEP_")?;
    (name == "PRESET" || name.contains("__")).then(|| name.to_lowercase().replace("__", "."))
}

/// The key itself, or that of the list around it: figment finds nothing within a list, and a list is of one layer.
fn list_of(key: &str) -> &str {
    let is_place = |part: &&str| part.parse::<usize>().is_ok();
    let names = key.split('.').take_while(|part| !is_place(part));
    let bytes: usize = names.map(|name| name.len() + 1).sum();
    key.get(..bytes.saturating_sub(1)).unwrap_or(key)
}

fn preset_of(layers: &[Layer]) -> Result<Preset, ConfigError> {
    let last = layers.iter().rev().find_map(|l| Some((l, l.data.get("preset")?.as_str()?)));
    let Some((layer, text)) = last else { return Ok(Preset::default()) };
    text.parse().map_err(|why| ConfigError::Value { key: "preset".to_owned(), why, origin: layer.origin.to_string() })
}

/// All values as `section.key` and text.
fn flatten(raw: &RawConfig) -> Vec<(String, String)> {
    fn walk(prefix: &str, value: &Value, out: &mut Vec<(String, String)>) {
        let join = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
        match value {
            Value::Dict(_, dict) => dict.iter().for_each(|(key, value)| walk(&join(key), value, out)),
            Value::Array(_, items) => {
                items.iter().enumerate().for_each(|(at, value)| walk(&join(&at.to_string()), value, out));
            }
            Value::Empty(..) => {}
            Value::Bool(_, yes) => out.push((prefix.to_owned(), yes.to_string())),
            other => {
                let text = other.as_str().map(ToOwned::to_owned);
                let text = text.or_else(|| other.to_u128().map(|n| n.to_string()));
                out.push((prefix.to_owned(), text.unwrap_or_default()));
            }
        }
    }
    let mut out = Vec::new();
    if let Ok(value) = Value::serialize(raw) {
        walk("", &value, &mut out);
    }
    out
}

#[cfg(test)]
mod tests;
