//! What there is of a node in a directory.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::process::geteuid;
use skep_protocol::node_dir::{NodeDir, SOCKET_PATH_BYTES_MAX};

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
    pub(crate) fn find(node_dir: &NodeDir) -> Result<Self, Failure> {
        let there = |path: &Path| match path.try_exists() {
            Ok(there) => Ok(there),
            Err(error) => Err(Failure::failed(format!("{}: {error}", path.display()))),
        };
        Ok(match (there(&node_dir.key())?, there(&node_dir.config())?) {
            (false, false) => Self::Nothing,
            (true, false) => Self::WithoutConfig,
            (false, true) => Self::WithoutKey,
            (true, true) => Self::Whole,
        })
    }
}

/// A directory whose socket nobody could bind is none for a node.
pub(crate) fn check_socket(node_dir: &NodeDir) -> Result<(), Failure> {
    let Some(by) = node_dir.socket_too_long_by() else { return Ok(()) };
    let socket = node_dir.socket();
    Err(Failure::usage(format!(
        "{}: the path of its socket may have {SOCKET_PATH_BYTES_MAX} bytes and is {by} too long; give a shorter --dir",
        socket.display()
    )))
}

/// Sees to it that a node's directory is for its owner only, who is the user of this process: whether it was open to others. It
/// is shut, unless there is something in it and it is `only_if_empty`.
pub(crate) fn keep_to_owner(dir: &Path, only_if_empty: bool) -> Result<bool, Failure> {
    let failed = |why: io::Error| Failure::failed(format!("{}: {why}", dir.display()));
    let shown = dir.display();
    let known = std::fs::metadata(dir).map_err(failed)?;
    let (owner, own) = (known.uid(), geteuid().as_raw());
    if owner != own {
        return Err(Failure::failed(format!(
            "{shown} belongs to user {owner}, and this process runs as user {own}: run it as its owner, or 'chown -R {own}' it"
        )));
    }
    let mode = known.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(false);
    }
    if only_if_empty && std::fs::read_dir(dir).map_err(failed)?.next().is_some() {
        return Err(Failure::failed(format!(
            "{shown} is open to others (mode {mode:o}) and not empty: 'chmod 700' it, or give another --dir"
        )));
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode & !0o077)).map_err(failed)?;
    Ok(true)
}

/// What is said of a configuration whose key is not there.
pub(crate) fn without_key(node_dir: &NodeDir) -> Failure {
    let (key, config) = (node_dir.key(), node_dir.config());
    Failure::failed(format!(
        "{} is there and {} is not: restore the key from a copy, or move the configuration away and make another node",
        config.display(),
        key.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_shut_to_others_and_one_with_other_things_in_it_only_on_purpose() {
        let made = tempfile::tempdir().unwrap();
        let dir = made.path().to_owned();
        let mode = || std::fs::metadata(&dir).unwrap().mode() & 0o777;
        let open = || std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        open();
        assert!(keep_to_owner(&dir, true).unwrap());
        assert_eq!(mode(), 0o700);
        assert!(!keep_to_owner(&dir, true).unwrap());
        std::fs::write(dir.join("letters"), "").unwrap();
        open();
        assert!(keep_to_owner(&dir, true).is_err());
        assert_eq!(mode(), 0o755);
        assert!(keep_to_owner(&dir, false).unwrap());
        assert_eq!(mode(), 0o700);
    }
}
