//! Paths of the files that a node keeps.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket, in bytes (unix(7): `sun_path`, with a zero at its end).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The directory of a node if the operator gives none: `$SKEP_DIR`, `$STATE_DIRECTORY`, `$XDG_STATE_HOME/skep`,
/// `$HOME/.local/state/skep`. `variable` reads the environment; a path need not be text.
pub fn default_dir(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    given("SKEP_DIR")
        .or_else(|| given("STATE_DIRECTORY"))
        .or_else(|| given("XDG_STATE_HOME").map(|dir| dir.join("skep")))
        .or_else(|| given("HOME").map(|dir| dir.join(".local/state/skep")))
}

/// The files of a node's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDir {
    /// Path of the directory.
    pub dir: PathBuf,
}

impl NodeDir {
    /// The files of this directory.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Path of the configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("skep.toml")
    }

    /// Path of the node's secret key, mode 0600.
    pub fn key(&self) -> PathBuf {
        self.dir.join("node.key")
    }

    /// Path of the durable store.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Path of the journals of the node's agents.
    pub fn journals(&self) -> PathBuf {
        self.dir.join("journals")
    }

    /// Path of what the data plane keeps: how often this node was started, and which telemetry is old.
    pub fn mesh(&self) -> PathBuf {
        self.dir.join("mesh")
    }

    /// Path of the files of the node's site, mode 0700.
    pub fn site(&self) -> PathBuf {
        self.dir.join("site")
    }

    /// The request to join of a machine without a network, until it is answered.
    pub fn join_request(&self) -> PathBuf {
        self.dir.join("join-request")
    }

    /// The API's Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("api.sock")
    }

    /// By how many bytes the path of the API's socket is too long for a socket; none if it is not.
    pub fn socket_too_long_by(&self) -> Option<usize> {
        self.socket().as_os_str().as_bytes().len().checked_sub(SOCKET_PATH_BYTES_MAX).filter(|by| *by > 0)
    }

    /// Path of the token for the API over TCP, mode 0600.
    pub fn token(&self) -> PathBuf {
        self.dir.join("token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt as _;

    #[test]
    fn a_directory_is_taken_from_the_environment_as_it_is() {
        let odd = OsString::from_vec(b"/srv/\xff".to_vec());
        let known = |name: &str| match name {
            "SKEP_DIR" => Some(odd.clone()),
            "HOME" => Some("/home/u".into()),
            _ => None,
        };
        assert_eq!(default_dir(known), Some(PathBuf::from(odd.clone())));
        let unset = |name: &str| match name {
            "SKEP_DIR" => Some(OsString::new()),
            "HOME" => Some("/home/u".into()),
            _ => None,
        };
        assert_eq!(default_dir(unset), Some("/home/u/.local/state/skep".into()));
    }

    #[test]
    fn a_socket_has_a_longest_path() {
        let dir = |bytes: usize| NodeDir::of(Path::new(&"d".repeat(bytes - "/api.sock".len())));
        assert_eq!(dir(SOCKET_PATH_BYTES_MAX).socket_too_long_by(), None);
        assert_eq!(dir(SOCKET_PATH_BYTES_MAX + 3).socket_too_long_by(), Some(3));
    }
}
