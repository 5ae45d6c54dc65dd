//! The database under the history: its tables, its rows, and what to do with one that does not open.
//!
//! Each segment of a shard is a table of its own, that is, a tree of files of its own: dropping it unlinks a directory,
//! whatever is in it. The alternatives in fjall cost as much as what they remove: a tombstone for each row, and
//! compactions that carry them down to the rows; or ranges of whole files, which only works for rows in the order of
//! time, and those by task are not. Everything that a segment records of itself is a row in the same table, written
//! with the others, so that no loss of a file leaves one without the other.
//!
//! Rows go into files of tables at once, sorted, past the journal and the memory of fjall: the log is their journal.
//! Files of a segment are merged late, since each merge writes all of it again: that would wear out a robot's card for
//! the sake of reads that may wait.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fjall::compaction::Leveled;
use fjall::config::PinningPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use skep_protocol::change::{Change, ChangeKind, ChangeSet};
use skep_protocol::codec::{CodecError, Encoded};
use skep_protocol::command::CommandChange;
use skep_protocol::ids::{ShardId, TaskId};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::operator::OperatorChange;
use skep_protocol::task::TaskChange;
use xxhash_rust::xxh3::xxh3_64;

use super::shelf::{Meta, Shelf};
use crate::lock;

/// The format of the rows that a segment records of itself. Another one is refused.
const FORMAT: u8 = 2;

/// How many files of a segment are merged into one. A read looks into as many.
const FILES_MERGED: u8 = 64;
/// The most files that are kept open for reading.
const FILES_OPEN_MAX: usize = 64;

const META: u8 = 0;
const BY_INDEX: u8 = 1;
const BY_TASK: u8 = 2;

/// Why the history cannot be read or written at present.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the history fails: {why}")]
pub struct HistoryError {
    why: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The error may pass.
    Passing,
    /// The content of the disk is not what was written.
    Damage,
    /// The history can be read, but there is no room for more.
    NoRoom,
}

impl HistoryError {
    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), kind: Kind::Passing }
    }

    pub(super) fn damage(why: impl Into<String>) -> Self {
        Self { why: why.into(), kind: Kind::Damage }
    }

    /// The error of a table that needs more bytes than are free.
    pub(super) fn no_room(needed: u64, free: u64) -> Self {
        let why = format!("{needed} bytes of its disk must be free for it to be written, and {free} are; free some");
        Self { why, kind: Kind::NoRoom }
    }

    pub(super) fn is_damage(&self) -> bool {
        self.kind == Kind::Damage
    }

    pub(super) fn is_want_of_room(&self) -> bool {
        self.kind == Kind::NoRoom
    }
}

impl From<fjall::Error> for HistoryError {
    fn from(error: fjall::Error) -> Self {
        let kind = if is_damage(&error) { Kind::Damage } else { Kind::Passing };
        Self { why: error.to_string(), kind }
    }
}

impl From<CodecError> for HistoryError {
    fn from(error: CodecError) -> Self {
        Self::damage(error.to_string())
    }
}

/// Whether an error means that files are not what they were: only then the database is set aside. Want of descriptors,
/// of space or of memory, a disk that fails to read, and another process say nothing of the content.
fn is_damage(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Storage(fjall::LsmError::Io(error)) | fjall::Error::Io(error) => is_damaged_file(error),
        fjall::Error::Storage(_)
        | fjall::Error::JournalRecovery(_)
        | fjall::Error::InvalidVersion(_)
        | fjall::Error::Decompress(_)
        | fjall::Error::InvalidTrailer
        | fjall::Error::InvalidTag(_)
        | fjall::Error::Unrecoverable => true,
        // Locked, poisoned by a write that failed, deleted.
        _ => false,
    }
}

fn is_damaged_file(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), InvalidData | NotFound | UnexpectedEof)
}

/// Rows by their keys.
pub(super) type Rows = BTreeMap<Vec<u8>, Arc<[u8]>>;

/// The open database. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tables {
    pub(super) database: Database,
    segments: Arc<Mutex<BTreeMap<(ShardId, u64), Keyspace>>>,
}

/// A database that was opened, and what was found in it.
pub(super) struct Opened {
    pub(super) tables: Tables,
    pub(super) shelves: BTreeMap<ShardId, Shelf>,
    /// How many rows were read for that.
    #[cfg_attr(not(test), allow(dead_code, reason = "tests count them"))]
    pub(super) rows_read: u64,
}

impl Tables {
    /// Opens the database, or makes one. Reads one row of each segment, however many there are in it.
    fn open(dir: &Path) -> Result<Opened, HistoryError> {
        let database = Database::builder(dir)
            .cache_size(4 * 1024 * 1024)
            .max_journaling_size(64 * 1024 * 1024)
            .journal_compression(fjall::CompressionType::None)
            .max_cached_files(Some(FILES_OPEN_MAX))
            .worker_threads(1)
            .open()?;
        let tables = Self { database, segments: Arc::default() };
        let mut found: BTreeMap<ShardId, Vec<(u64, Meta)>> = BTreeMap::new();
        let mut rows_read = 0;
        for name in tables.database.list_keyspace_names() {
            let (shard, number) = parse_name(&name).ok_or_else(|| {
                let why = format!("{} has a table {:?}", dir.display(), &*name);
                HistoryError::passing(format!(
                    "{why}, of another version of Skep; move it away, and it is filled again"
                ))
            })?;
            let rows = tables.database.keyspace(&name, KeyspaceCreateOptions::default)?;
            rows_read += 1;
            match rows.get(meta_key())? {
                Some(row) => found.entry(shard).or_default().push((number, decode_meta(&row)?)),
                // A crash came between the making of this segment and its first row.
                None if rows.is_empty()? => {
                    tables.database.delete_keyspace(rows)?;
                    continue;
                }
                None => return Err(HistoryError::damage(format!("segment {} does not say what it is", &*name))),
            }
            lock(&tables.segments).insert((shard, number), rows);
        }
        let shelves = found.into_iter().map(|(shard, metas)| (shard, Shelf::load(metas))).collect();
        tracing::debug!(rows_read, "the history is open");
        Ok(Opened { tables, shelves, rows_read })
    }

    /// Opens the database. A damaged one is set aside, under a name of its own, and an empty one takes its place.
    pub(super) fn open_or_set_aside(dir: &Path) -> Result<Opened, HistoryError> {
        let error = match Self::open(dir) {
            Err(error) if error.is_damage() => error,
            opened => return opened,
        };
        let aside = set_aside(dir)
            .map_err(|e| HistoryError::passing(format!("{}; and it cannot be set aside: {e}", error.why)))?;
        let aside = aside.display();
        tracing::warn!(%error, %aside, "the history is damaged; it is set aside, and filled again from other voters");
        Self::open(dir)
    }

    /// The table of a segment; none if there is none.
    pub(super) fn get(&self, shard: ShardId, number: u64) -> Option<Keyspace> {
        lock(&self.segments).get(&(shard, number)).cloned()
    }

    /// The table of a segment, which is made if there is none.
    pub(super) fn get_or_make(&self, shard: ShardId, number: u64) -> Result<Keyspace, HistoryError> {
        if let Some(rows) = self.get(shard, number) {
            return Ok(rows);
        }
        let merged = || Arc::new(Leveled::default().with_l0_threshold(FILES_MERGED));
        let unpinned = || PinningPolicy::all(false);
        let options = || {
            let options = KeyspaceCreateOptions::default().compaction_strategy(merged());
            options.index_block_pinning_policy(unpinned()).filter_block_pinning_policy(unpinned())
        };
        let rows = self.database.keyspace(&name_of(shard, number), options)?;
        // fjall syncs the content of its directory, but not the directory's name.
        if let Some(parent) = rows.path().parent() {
            let synced = File::open(parent).and_then(|dir| dir.sync_all());
            synced.map_err(|e| HistoryError::passing(format!("{}: {e}", parent.display())))?;
        }
        lock(&self.segments).insert((shard, number), rows.clone());
        Ok(rows)
    }

    /// Drops a segment. Its files go with the result, once no reader has them open: that takes long, and belongs where
    /// nothing waits.
    pub(super) fn remove(&self, shard: ShardId, number: u64) -> Result<Option<Keyspace>, HistoryError> {
        let Some(rows) = lock(&self.segments).remove(&(shard, number)) else { return Ok(None) };
        self.database.delete_keyspace(rows.clone())?;
        Ok(Some(rows))
    }

    /// Writes rows into a segment, all of them or none, durably.
    pub(super) fn write(&self, shard: ShardId, number: u64, rows: &Rows) -> Result<(), HistoryError> {
        let table = self.get_or_make(shard, number)?;
        let mut file = table.start_ingestion()?;
        for (key, row) in rows {
            file.write(key.as_slice(), &**row)?;
        }
        Ok(file.finish()?)
    }

    /// Fails if the database gave up, as it does if its files cannot be merged.
    pub(super) fn check(&self) -> Result<(), HistoryError> {
        // Its journal is empty.
        Ok(self.database.persist(PersistMode::Buffer)?)
    }
}

/// Moves a database to a free name. It is kept there until an operator has looked at it.
fn set_aside(dir: &Path) -> io::Result<PathBuf> {
    for nth in 1..=limits::HISTORIES_SET_ASIDE_MAX {
        let aside = dir.with_extension(format!("damaged-{nth}"));
        if !aside.try_exists()? {
            std::fs::rename(dir, &aside)?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
            return Ok(aside);
        }
    }
    let why = format!("there are {} beside it; remove those that are of no use", limits::HISTORIES_SET_ASIDE_MAX);
    Err(io::Error::other(why))
}

fn name_of(shard: ShardId, number: u64) -> String {
    format!("{}-{number}", shard.0)
}

fn parse_name(name: &str) -> Option<(ShardId, u64)> {
    let (shard, number) = name.split_once('-')?;
    Some((ShardId(shard.parse().ok()?), number.parse().ok()?))
}

/// Encodes what a segment records of itself.
pub(super) fn encode_meta(meta: &Meta) -> Result<Vec<u8>, HistoryError> {
    let bytes = postcard::to_extend(meta, vec![FORMAT]).map_err(|e| HistoryError::passing(e.to_string()))?;
    Ok(sealed(bytes))
}

fn decode_meta(row: &[u8]) -> Result<Meta, HistoryError> {
    match unsealed(row)?.split_first() {
        Some((&FORMAT, body)) => postcard::from_bytes(body).map_err(|e| HistoryError::damage(e.to_string())),
        Some((format, _)) => Err(HistoryError::passing(format!(
            "it has format {format}, and this Skep reads {FORMAT}; move it away, and it is filled again"
        ))),
        None => Err(HistoryError::damage("a row is empty")),
    }
}

pub(super) fn meta_key() -> Vec<u8> {
    vec![META]
}

/// The key of an entry's changes from one of them on.
pub(super) fn index_key(index: u64, ordinal: u32) -> Vec<u8> {
    let mut key = vec![BY_INDEX];
    key.extend_from_slice(&index.to_be_bytes());
    key.extend_from_slice(&ordinal.to_be_bytes());
    key
}

/// The key of the same changes for one of the tasks in them.
pub(super) fn task_key(task: TaskId, index: u64, ordinal: u32) -> Vec<u8> {
    let mut key = vec![BY_TASK];
    key.extend_from_slice(task.as_bytes());
    key.extend_from_slice(&index.to_be_bytes());
    key.extend_from_slice(&ordinal.to_be_bytes());
    key
}

/// The index and the ordinal at the end of a key.
pub(super) fn position(key: &[u8]) -> (u64, u32) {
    let Some(tail) = key.last_chunk::<12>() else { return (0, 0) };
    let [a, b, c, d, e, f, g, h, ordinal @ ..] = *tail;
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes(ordinal))
}

pub(super) fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

pub(super) fn unsealed(bytes: &[u8]) -> Result<&[u8], HistoryError> {
    let damaged = || HistoryError::damage("a row is damaged");
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(damaged)?;
    if xxh3_64(body) == u64::from_le_bytes(*sum) { Ok(body) } else { Err(damaged()) }
}

/// The content of one row: changes of one entry from one of them on.
pub(super) struct Piece {
    pub(super) ordinal: u32,
    pub(super) row: Vec<u8>,
    pub(super) tasks: BTreeSet<TaskId>,
}

/// What an entry did, in pieces that fit into a row each. Every replica cuts it at the same places.
pub(super) fn pieces(set: &ChangeSet) -> Result<Vec<Piece>, CodecError> {
    if is_on(Mutant::LargeChangesLeftOut) {
        return Ok(piece(0, set).into_iter().collect());
    }
    let mut pieces = Vec::new();
    let mut begin = 0;
    while begin < set.changes.len() {
        let mut bytes = 0;
        let rest = set.changes.get(begin..).unwrap_or_default();
        let fits = rest.iter().take_while(|change| {
            let is_first = bytes == 0;
            bytes += change_bytes(change);
            is_first || bytes <= limits::HISTORY_PIECE_BYTES_SOFT_MAX
        });
        let count = fits.count();
        let ordinal = u32::try_from(begin).unwrap_or(u32::MAX);
        if count == set.changes.len() {
            pieces.push(piece(ordinal, set)?);
        } else {
            let changes = rest.get(..count).unwrap_or_default().to_vec();
            pieces.push(piece(ordinal, &ChangeSet { changes, ..*set })?);
        }
        begin += count.max(1);
    }
    Ok(pieces)
}

fn piece(ordinal: u32, set: &ChangeSet) -> Result<Piece, CodecError> {
    let tasks = set.changes.iter().filter_map(|change| change.what.task()).collect();
    Ok(Piece { ordinal, row: sealed(set.encode()?), tasks })
}

/// About how many bytes the changes of an entry take.
pub fn set_bytes(set: &ChangeSet) -> usize {
    set.changes.iter().map(change_bytes).sum::<usize>() + 64
}

fn change_bytes(change: &Change) -> usize {
    let payload = match &change.what {
        ChangeKind::Task { change, .. } => match change {
            TaskChange::Created { spec } => spec.payload.len() + limits::TITLE_BYTES_MAX,
            TaskChange::Completed { result, .. } => result.len(),
            TaskChange::Progressed { checkpoint, .. } => checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.len()),
            _ => 0,
        },
        ChangeKind::Operator(OperatorChange::Granted { .. }) => 2 * limits::GRANT_NAMES_MAX * limits::NAME_BYTES_MAX,
        ChangeKind::Command { change, .. } => match change {
            CommandChange::Accepted { signed, .. } => signed.body().len() + 512,
            CommandChange::Released { to, .. } => to.len() * (limits::NAME_BYTES_MAX + 16),
            CommandChange::DeliveryEnded { outcome, .. } | CommandChange::OutcomeRefused { outcome, .. } => {
                outcome.result_bytes()
            }
            _ => 0,
        },
        ChangeKind::Site(change) => change.payload_bytes(),
        _ => 0,
    };
    256 + payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_means_damage_is_taken_for_damage() {
        let os = |code: i32| fjall::Error::Io(io::Error::from_raw_os_error(code));
        let storage = |code: i32| fjall::Error::Storage(fjall::LsmError::Io(io::Error::from_raw_os_error(code)));
        // EIO, ENOMEM, EACCES, ENFILE, EMFILE, ENOSPC, EROFS.
        for code in [5, 12, 13, 23, 24, 28, 30] {
            assert!(!is_damage(&os(code)), "{code}");
            assert!(!is_damage(&storage(code)), "{code}");
        }
        assert!(!is_damage(&fjall::Error::Locked));
        assert!(!is_damage(&fjall::Error::Poisoned));
        assert!(is_damage(&fjall::Error::InvalidTrailer));
        assert!(is_damage(&fjall::Error::Unrecoverable));
        assert!(is_damage(&fjall::Error::Storage(fjall::LsmError::InvalidTrailer)));
        assert!(is_damage(&fjall::Error::Io(io::ErrorKind::UnexpectedEof.into())));
    }

    #[test]
    fn a_database_is_set_aside_under_a_name_of_its_own_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        let mut asides = BTreeSet::new();
        for nth in 0..limits::HISTORIES_SET_ASIDE_MAX {
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("of"), nth.to_string()).unwrap();
            let aside = set_aside(&path).unwrap();
            assert_eq!(std::fs::read_to_string(aside.join("of")).unwrap(), nth.to_string());
            assert!(asides.insert(aside));
        }
        std::fs::create_dir(&path).unwrap();
        assert!(set_aside(&path).is_err(), "none of them goes for another one");
        assert!(path.exists() && asides.iter().all(|aside| aside.exists()));
    }

    #[test]
    fn the_place_in_a_key_is_found_again() {
        assert_eq!(position(&index_key(7, 3)), (7, 3));
        assert_eq!(position(&task_key(TaskId::from_bytes([9; 16]), u64::MAX, 1)), (u64::MAX, 1));
        assert_eq!(parse_name(&name_of(ShardId(4), 12)), Some((ShardId(4), 12)));
        assert_eq!(parse_name("history"), None);
    }
}
