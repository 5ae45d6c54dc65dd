//! What can be wrong with the files of a site: what, where, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use skep_protocol::codec::CodecError;
use skep_trust::{ChainError, RevocationError, RootError};

/// Why the files of a site cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SiteFilesError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read or change it.
    #[error(
        "{path} is open to others (mode {mode:o}): run 'chmod {to:o} {path}', and restore the directory from a copy if \
         somebody may have changed it"
    )]
    Open {
        /// Which file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        to: u32,
    },
    /// Others can read a key that speaks for the site.
    #[error(
        "others can read the root key {path} (mode {mode:o}): run 'chmod 600 {path}' if nobody did, or make the site \
         anew"
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is no root key.
    #[error("{path} is not a root key of Skep: restore it from a copy, or make the site anew in another directory")]
    NoRootKey {
        /// Which file.
        path: PathBuf,
    },
    /// It is larger than it can be.
    #[error("{path} is larger than {max} bytes, and no file of a site is: restore it from a copy, or join again")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// How large it can be.
        max: u64,
    },
    /// It is not what was written.
    #[error("{path}: {why}; restore it from a copy, or join again")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// It is another kind of file.
    #[error("{path} is no {what}: give the file that 'skep join --request' or 'skep site sign' wrote")]
    NotThat {
        /// Which file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
    /// It is what was written, and is not understood.
    #[error("{path}: {source}; upgrade this node if a newer one wrote it")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: CodecError,
    },
    /// A root document does not hold.
    #[error("{path}: {source}; restore it from a copy, or join again")]
    Root {
        /// Which file.
        path: PathBuf,
        /// What does not hold.
        source: RootError,
    },
    /// A revocation does not hold.
    #[error("{path}: {source}; restore it from a copy, or join again")]
    Revocation {
        /// Which file.
        path: PathBuf,
        /// What does not hold.
        source: Box<RevocationError>,
    },
    /// The chain is none.
    #[error("{path}: {source}; restore it from a copy, or join again")]
    Chain {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: ChainError,
    },
    /// The node knew more.
    #[error(
        "{path} is older than what this node knew: {what}. Put the latest copy of the whole directory in its place, or \
         join again"
    )]
    Older {
        /// Which directory.
        path: PathBuf,
        /// What it knew.
        what: String,
    },
}

impl SiteFilesError {
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
