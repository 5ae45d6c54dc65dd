//! The node's identity: an ed25519 key in a file.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use libp2p_identity::Keypair;
use skep_protocol::ids::NodeId;
use skep_protocol::seed::{from_digits, to_digits};
use zeroize::Zeroizing;

use crate::whole::{ReadableBy, write_whole};

/// The most bytes that are read of a key's file: the buffer never moves as it grows, so that no copy of the secret
/// stays behind.
const KEY_FILE_BYTES_MAX: usize = 1_024;

/// The text before the digits of a seed in a key's file.
const FORM: &str = "skep ed25519 seed ";

/// Why a node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The operating system refused to read or write the file.
    #[error("{path}: {source}")]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Other users can read the key.
    #[error(
        "{path} can be read by others (mode {mode:o}); run 'chmod 600' on it, or make a new key if it may be known"
    )]
    Exposed {
        /// The path of the file.
        path: PathBuf,
        /// The mode of the file.
        mode: u32,
    },
    /// The file holds no key.
    #[error("{path} is not a Skep key; restore it from a copy, or run 'skep init' in another directory")]
    Malformed {
        /// The path of the file.
        path: PathBuf,
    },
}

/// The node's secret key. Its debug form shows only the public half. Dropping it wipes it from memory.
#[derive(Clone)]
pub struct Identity {
    seed: Zeroizing<[u8; 32]>,
    keypair: Keypair,
    node: NodeId,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.node)
    }
}

impl Identity {
    /// Makes the identity with this secret seed; none if the cryptographic library refuses it.
    pub fn from_seed(seed: [u8; 32]) -> Option<Self> {
        let seed = Zeroizing::new(seed);
        // The library wipes the seed that it is given.
        let keypair = Keypair::ed25519_from_bytes(*seed).ok()?;
        let public = keypair.public().try_into_ed25519().ok()?.to_bytes();
        Some(Self { seed, keypair, node: NodeId::from_public_key(public) })
    }

    /// Makes a key and keeps it in a new file that only its owner can read.
    ///
    /// # Errors
    /// [`IdentityError::Io`], also if the file exists already.
    pub fn create(path: &Path, seed: [u8; 32]) -> Result<Self, IdentityError> {
        let io = |source| IdentityError::Io { path: path.to_owned(), source };
        let identity = Self::from_seed(seed).ok_or_else(|| IdentityError::Malformed { path: path.to_owned() })?;
        let seed = Zeroizing::new(seed);
        let line = Zeroizing::new(format!("{FORM}{}\n", to_digits(&seed).as_str()));
        write_whole(path, line.as_bytes(), ReadableBy::Owner).map_err(io)?;
        Ok(identity)
    }

    /// Reads the key from its file.
    ///
    /// # Errors
    /// [`IdentityError`] if there is no file, other users can read it, or it holds no key.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let io = |source| IdentityError::Io { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(io)?;
        let mode = file.metadata().map_err(io)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX));
        let malformed = || IdentityError::Malformed { path: path.to_owned() };
        file.take(KEY_FILE_BYTES_MAX as u64).read_to_string(&mut text).map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => malformed(),
            _ => io(e),
        })?;
        let seed = text.trim().strip_prefix(FORM).and_then(from_digits).ok_or_else(malformed)?;
        Self::from_seed(*seed).ok_or_else(malformed)
    }

    /// The id of the node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The secret seed, for the mesh and for votes, which build keys of their own from it.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        self.seed.clone()
    }

    pub(crate) fn keypair(&self) -> &Keypair {
        &self.keypair
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_kept_to_its_owner_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let made = Identity::create(&path, [9; 32]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Identity::load(&path).unwrap().node(), made.node());
        assert!(Identity::create(&path, [8; 32]).is_err(), "a key is never overwritten");
        assert!(!format!("{made:?}").contains("0909"));

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Identity::load(&path), Err(IdentityError::Exposed { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "rubbish").unwrap();
        assert!(matches!(Identity::load(&path), Err(IdentityError::Malformed { .. })));
    }

    #[test]
    fn node_ids_are_libp2p_peer_ids() {
        let identity = Identity::from_seed([1; 32]).unwrap();
        assert_eq!(identity.node().to_string(), identity.keypair().public().to_peer_id().to_string());
    }
}
