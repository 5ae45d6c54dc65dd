//! Presets: defaults that differ by kind of network.

use std::fmt;
use std::str::FromStr;

/// The kind of network that a node is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// A site's own network: failover within half a second when the network is quiet.
    #[default]
    Lan,
    /// A slow or far network: patience of seconds.
    Wan,
    /// Many nodes on one machine: more patience than a LAN, since all share its cores.
    Sim,
}

impl Preset {
    /// The values of the preset, as a configuration file would give them.
    pub(crate) fn values(self) -> &'static str {
        match self {
            Self::Lan => include_str!("../presets/lan.toml"),
            Self::Wan => include_str!("../presets/wan.toml"),
            Self::Sim => include_str!("../presets/sim.toml"),
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lan => "lan",
            Self::Wan => "wan",
            Self::Sim => "sim",
        })
    }
}

impl FromStr for Preset {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "lan" => Ok(Self::Lan),
            "wan" => Ok(Self::Wan),
            "sim" => Ok(Self::Sim),
            other => Err(format!("{other:?} is not a preset; use lan, wan or sim")),
        }
    }
}
