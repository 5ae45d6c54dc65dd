//! Why a store cannot be opened or read, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use skep_protocol::ids::ShardId;

/// What an operator should do about a store that lost something. A directory of which no other node has a copy is all
/// that is left of its shards.
const REPLACE: &str = "Nothing was changed. If other voters have its shards, move the data directory away and start again: the \
                       node then waits under a new incarnation until one of them runs 'skep shard add-voter'. If no other \
                       node has them, keep the directory, and restore it from a copy";

/// Why a store cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error("{path} is in use by another Skep process; stop that one first, or use another directory")]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// A recovery made the directory and was cut off.
    #[error(
        "{path} is half made, as the file HALF-MADE in it says: a recovery of a shard made it and was cut off, and nothing is \
         in it that is not elsewhere. Use the data directory beside it, without '.recovering-' and what follows in its name; \
         the next 'skep run' or 'skep shard recover' there removes this one"
    )]
    HalfMade {
        /// The half made directory.
        path: PathBuf,
    },
    /// A newer Skep wrote it.
    #[error("{path} has format {found}; this Skep reads up to {supported}. Upgrade Skep, or use another directory")]
    NewerFormat {
        /// The file or directory.
        path: PathBuf,
        /// The format that was found.
        found: u32,
        /// The newest format that this Skep reads.
        supported: u32,
    },
    /// An older Skep wrote it, in a format that was never released.
    #[error(
        "{path} has format {found}, which was never released; this Skep reads format {supported}. Run the Skep that wrote \
         it, or use another directory"
    )]
    OlderFormat {
        /// The file or directory.
        path: PathBuf,
        /// The format that was found.
        found: u32,
        /// The format that this Skep reads.
        supported: u32,
    },
    /// A file is damaged.
    #[error("{path} is damaged: {why}. {REPLACE}")]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// A file that does not belong to the store is in a directory where each file counts.
    #[error("{path} is not a file of Skep's; remove it, or move it elsewhere, and start again. Nothing was changed")]
    Foreign {
        /// The foreign file.
        path: PathBuf,
    },
    /// Entries of a shard do not fit together.
    #[error("the log of shard {shard} is damaged: {why}. {REPLACE}")]
    CorruptLog {
        /// The shard's number.
        shard: ShardId,
        /// What was found.
        why: String,
    },
    /// The log is missing though there was one.
    #[error("the log is missing though {marked} records were durable. {REPLACE}")]
    LogMissing {
        /// How many records were durable.
        marked: u64,
    },
    /// The writer has ended: the store is being closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn corrupt(path: &Path, why: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), why: why.into() }
    }

    /// What was lost, if something was. The advice depends on what the store is for: this one is for shards.
    pub(super) fn lost(&self) -> Option<String> {
        match self {
            Self::Corrupt { path, why } => Some(format!("{} is damaged: {why}", path.display())),
            Self::CorruptLog { why, .. } => Some(format!("their log is damaged: {why}")),
            Self::LogMissing { marked } => Some(format!("their log is missing though {marked} records were durable")),
            Self::Io { .. }
            | Self::InUse { .. }
            | Self::HalfMade { .. }
            | Self::NewerFormat { .. }
            | Self::OlderFormat { .. }
            | Self::Foreign { .. }
            | Self::Closed => None,
        }
    }
}
