//! Configuration of a node: takes layers, and gives validated sections.
//!
//! **Contract.** The node reads its configuration once. Precedence is flag, `SKEP_*` environment, file, preset,
//! default; the origin of every value is kept. An unknown key is an error that names file, line and key. Each part of
//! the node gets its own section and nothing else.
//!
//! **Must not know** what the parts do with their sections. This crate reads the one file that it is told to read and
//! binds nothing.

mod layers;
mod listen;
mod preset;
mod raw;
mod sections;

pub use layers::{ConfigError, Origin, Overrides, Setting, key_of_variable, load, load_in_site};
pub use listen::cannot_listen;
pub use preset::Preset;
pub use raw::RawConfig;
pub use sections::{
    ApiConfig, ChecksConfig, Config, ControlConfig, EngineConfig, MeshConfig, NodeConfig, PeerConfig, Policy,
    StoreConfig, TESTNET_SITE,
};

/// The commented configuration that `skep init` writes.
pub const EXAMPLE: &str = include_str!("../skep.toml");
