//! Where a node keeps its things.

use std::path::{Path, PathBuf};

/// The directory that is used when none is given: `$SKEP_DIR`, `$STATE_DIRECTORY`, `$XDG_STATE_HOME/skep`,
/// `$HOME/.local/state/skep`. `variable` reads the environment.
pub fn default_dir(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given("SKEP_DIR")
        .or_else(|| given("STATE_DIRECTORY"))
        .or_else(|| given("XDG_STATE_HOME").map(|dir| dir.join("skep")))
        .or_else(|| given("HOME").map(|dir| dir.join(".local/state/skep")))
}

/// The files of a node's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The directory.
    pub dir: PathBuf,
}

impl Places {
    /// The files of this directory.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("skep.toml")
    }

    /// The node's secret key, 0600.
    pub fn key(&self) -> PathBuf {
        self.dir.join("node.key")
    }

    /// The durable store.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The journals of the node's agents.
    pub fn journals(&self) -> PathBuf {
        self.dir.join("journals")
    }

    /// The API's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("api.sock")
    }

    /// The token for the API over TCP, 0600.
    pub fn token(&self) -> PathBuf {
        self.dir.join("token")
    }
}
