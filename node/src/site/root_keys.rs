//! The files of a site's root keys. They are made once, by 'skep site init', and then put away.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use skep_consensus::{ReadableBy, write_whole};
use skep_protocol::seed::{from_digits, to_digits};
use skep_trust::{RootDocument, Sealed, SecretKey};
use zeroize::Zeroizing;

use super::error::SiteFilesError;

/// What stands before the digits of a seed in a root key's file: nobody takes it for a key of another kind.
const FORM: &str = "skep root seed ";
/// As much as is read of a key's file: its text is never moved as it grows, so that no copy of it stays behind.
const KEY_FILE_BYTES_MAX: usize = 1_024;

/// A directory with root keys, outside of any node's.
#[derive(Clone, Debug)]
pub(crate) struct RootKeys {
    dir: PathBuf,
}

impl RootKeys {
    /// Those in this directory.
    pub(crate) fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The file of one of them, from 1 on.
    pub(crate) fn file(&self, number: u32) -> PathBuf {
        self.dir.join(format!("root-{number}.key"))
    }

    /// The copy of a root document that was sealed by them.
    pub(crate) fn document(&self, version: u64) -> PathBuf {
        self.dir.join(format!("root-document-{version}"))
    }

    /// Whether a site was made with them.
    ///
    /// # Errors
    /// [`SiteFilesError::Io`] if that cannot be seen.
    pub(crate) fn are_used(&self) -> Result<bool, SiteFilesError> {
        let document = self.document(1);
        document.try_exists().map_err(SiteFilesError::io(&document))
    }

    /// So many keys. One that is there is one that an earlier attempt made, which was cut off.
    ///
    /// # Errors
    /// [`SiteFilesError`] if one can be read by others, or is none, or cannot be written.
    pub(crate) fn make(&self, count: u32) -> Result<Vec<SecretKey>, SiteFilesError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(SiteFilesError::io(&self.dir))?;
        (1..=count).map(|number| self.key(number)).collect()
    }

    fn key(&self, number: u32) -> Result<SecretKey, SiteFilesError> {
        let path = self.file(number);
        let seed: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
        let line = Zeroizing::new(format!("{FORM}{}\n", to_digits(&seed).as_str()));
        match write_whole(&path, line.as_bytes(), ReadableBy::Owner) {
            Ok(()) => Ok(SecretKey::from_seed(&seed)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load(&path),
            Err(error) => Err(SiteFilesError::io(&path)(error)),
        }
    }

    /// Puts a copy of the document beside the keys: whoever seals the next one needs it.
    ///
    /// # Errors
    /// [`SiteFilesError::Io`], also if another one is there.
    pub(crate) fn put(&self, document: &Sealed<RootDocument>) -> Result<(), SiteFilesError> {
        let (path, bytes) = (self.document(document.version), document.to_bytes());
        match write_whole(&path, &bytes, ReadableBy::Owner) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let known = std::fs::read(&path).map_err(SiteFilesError::io(&path))?;
                if known == bytes { Ok(()) } else { Err(SiteFilesError::io(&path)(error)) }
            }
            written => written.map_err(SiteFilesError::io(&path)),
        }
    }
}

/// Reads a root key, if nobody else can.
fn load(path: &Path) -> Result<SecretKey, SiteFilesError> {
    let file = File::open(path).map_err(SiteFilesError::io(path))?;
    let mode = file.metadata().map_err(SiteFilesError::io(path))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SiteFilesError::Exposed { path: path.to_owned(), mode });
    }
    let none = || SiteFilesError::NoRootKey { path: path.to_owned() };
    let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX));
    file.take(KEY_FILE_BYTES_MAX as u64).read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => none(),
        _ => SiteFilesError::io(path)(error),
    })?;
    let seed = text.trim().strip_prefix(FORM).and_then(from_digits).ok_or_else(none)?;
    Ok(SecretKey::from_seed(&seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn keys_that_an_attempt_made_are_those_of_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let keys = RootKeys::of(&dir.path().join("hall-root"));
        let public = || keys.make(3).unwrap().iter().map(SecretKey::public).collect::<Vec<_>>();
        let made = public();
        assert_eq!(public(), made);
        assert!(made[0] != made[1] && made[1] != made[2]);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&keys.dir), mode(&keys.file(1))), (0o700, 0o600));
        assert!(std::fs::read_to_string(keys.file(2)).unwrap().starts_with(FORM));
    }

    #[test]
    fn a_root_key_that_others_can_read_or_that_is_none_is_refused_with_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let keys = RootKeys::of(dir.path());
        keys.make(1).unwrap();
        let path = keys.file(1);
        for mode in [0o644, 0o640, 0o606, 0o610] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = keys.make(1).unwrap_err().to_string();
            assert!(error.contains("others can read the root key") && error.contains("chmod 600"), "{error}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        // An operator's key is none, nor is half of one.
        for text in [String::new(), "1c".repeat(32), format!("{FORM}1c"), "\u{e4}".repeat(600)] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(keys.make(1), Err(SiteFilesError::NoRootKey { .. })));
        }
    }

    #[test]
    fn keys_that_made_a_site_say_so_and_make_no_other_one() {
        let dir = tempfile::tempdir().unwrap();
        let keys = RootKeys::of(dir.path());
        assert!(!keys.are_used().unwrap());
        let founded = crate::site::found::tests::hall(2).unwrap();
        keys.put(founded.view.root().sealed()).unwrap();
        keys.put(founded.view.root().sealed()).unwrap();
        assert!(keys.are_used().unwrap());
        let other = crate::site::found::tests::hall(3).unwrap();
        assert!(keys.put(other.view.root().sealed()).is_err());
    }
}
