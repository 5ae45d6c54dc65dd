//! Directories of test sites. The software trusts what it finds in one, and may run as root there: so each directory
//! belongs to its user, and only that user can put anything into it.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use crate::error::{LaunchError, io_error};

/// The file in a test site's directory that lists its nodes.
pub(crate) const LIST: &str = "testnet.json";

/// Whether a node's directory is one of a test site that this user has made.
pub fn is_of_testnet(node: &Path) -> bool {
    let list = node.canonicalize().ok().and_then(|node| Some(node.parent()?.join(LIST)));
    let known = list.and_then(|list| std::fs::symlink_metadata(list).ok());
    known.is_some_and(|known| known.is_file() && known.uid() == geteuid().as_raw())
}

/// Makes a directory that did not exist before, for its user only. It stays.
///
/// # Errors
/// [`LaunchError::Io`].
pub fn made(name: &str) -> Result<PathBuf, LaunchError> {
    let prefix = format!("skep-{name}-");
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).permissions(Permissions::from_mode(0o700));
    builder.tempdir().map(tempfile::TempDir::keep).map_err(io_error("a directory for what is to be run"))
}

/// Makes the directory that the user asked for, or checks that the existing one belongs to this user and that no other
/// user can write there.
///
/// # Errors
/// [`LaunchError::Io`]: also if it is a link, belongs to another user, or is shared as `/tmp` is.
pub fn own(dir: &Path) -> Result<(), LaunchError> {
    let failed = || io_error(dir.display().to_string());
    let refused = |why: String| Err(failed()(io::Error::new(io::ErrorKind::PermissionDenied, why)));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed())?;
    let known = std::fs::symlink_metadata(dir).map_err(failed())?;
    let (owner, user, mode) = (known.uid(), geteuid().as_raw(), known.mode() & 0o7777);
    if !known.is_dir() {
        return refused("it is a link; give the directory itself".to_owned());
    }
    if owner != user {
        return refused(format!(
            "it belongs to user {owner}, and this process runs as user {user}; give another --dir"
        ));
    }
    match mode & 0o022 {
        0 => Ok(()),
        _ if mode & 0o1000 != 0 => refused("everybody may put things there; give a directory in it".to_owned()),
        _ => std::fs::set_permissions(dir, Permissions::from_mode(mode & !0o022)).map_err(failed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};

    fn mode(dir: &Path) -> u32 {
        std::fs::metadata(dir).unwrap().mode() & 0o7777
    }

    #[test]
    fn each_run_has_a_directory_of_its_own_that_is_its_users_only() {
        let (one, other) = (made("place").unwrap(), made("place").unwrap());
        assert_ne!(one, other);
        assert_eq!((mode(&one), mode(&other)), (0o700, 0o700));
        std::fs::remove_dir(one).unwrap();
        std::fs::remove_dir(other).unwrap();
    }

    #[test]
    fn a_node_is_of_a_test_site_if_that_lists_its_nodes() {
        let site = tempfile::tempdir().unwrap();
        let node = site.path().join("n0");
        std::fs::create_dir(&node).unwrap();
        assert!(!is_of_testnet(&node));
        std::fs::write(site.path().join(LIST), "[]").unwrap();
        assert!(is_of_testnet(&node) && !is_of_testnet(&site.path().join("n1")));
    }

    #[test]
    fn a_directory_of_somebody_else_or_of_everybody_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a").join("b");
        own(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
        std::fs::set_permissions(&dir, Permissions::from_mode(0o775)).unwrap();
        own(&dir).unwrap();
        assert_eq!(mode(&dir), 0o755, "nobody else writes there");
        let link = parent.path().join("link");
        symlink(&dir, &link).unwrap();
        assert!(own(&link).is_err());
        std::fs::set_permissions(&dir, Permissions::from_mode(0o1777)).unwrap();
        assert!(own(&dir).is_err());
        assert_eq!(mode(&dir), 0o1777, "it is left as it is");
        std::fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
        match chown(&dir, Some(65_534), None) {
            Ok(()) => assert!(own(&dir).unwrap_err().to_string().contains("65534")),
            Err(why) => println!("the owner is not tried: {why}"),
        }
    }
}
