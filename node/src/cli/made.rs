//! What there is of a node in a directory.

use std::path::Path;

use skep_protocol::places::{Places, SOCKET_PATH_BYTES_MAX};

use super::Failure;

/// What there is of a node. Its configuration is made last: with it, and its key, it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// Nothing that makes a node.
    Nothing,
    /// A key, and no configuration: making it was cut off, or somebody took the configuration away.
    WithoutConfig,
    /// A configuration, and no key.
    WithoutKey,
    /// A node.
    Whole,
}

impl Made {
    /// Looks into a directory.
    pub(crate) fn find(places: &Places) -> Result<Self, Failure> {
        let there = |path: &Path| match path.try_exists() {
            Ok(there) => Ok(there),
            Err(error) => Err(Failure::failed(format!("{}: {error}", path.display()))),
        };
        Ok(match (there(&places.key())?, there(&places.config())?) {
            (false, false) => Self::Nothing,
            (true, false) => Self::WithoutConfig,
            (false, true) => Self::WithoutKey,
            (true, true) => Self::Whole,
        })
    }
}

/// A directory whose socket nobody could bind is none for a node.
pub(crate) fn check_socket(places: &Places) -> Result<(), Failure> {
    let Some(by) = places.socket_too_long_by() else { return Ok(()) };
    let socket = places.socket();
    Err(Failure::usage(format!(
        "{}: the path of its socket may have {SOCKET_PATH_BYTES_MAX} bytes and is {by} too long; give a shorter --dir",
        socket.display()
    )))
}

/// What is said of a configuration whose key is not there.
pub(crate) fn without_key(places: &Places) -> Failure {
    let (key, config) = (places.key(), places.config());
    Failure::failed(format!(
        "{} is there and {} is not: restore the key from a copy, or move the configuration away and make another node",
        config.display(),
        key.display()
    ))
}
