//! What a replica must know of itself for as long as its directory lives: that it forgot something.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use skep_protocol::ids::ShardId;

use super::disk::{Disk, read_all, replace};
use super::{StoreError, lock};

/// All shards of a node take less.
const BYTES_MAX: u64 = 4_096;

/// The shards in which this directory forgot what it had acknowledged. The file exists only if there is one.
#[derive(Clone)]
pub struct Marks {
    disk: Arc<dyn Disk>,
    path: Arc<PathBuf>,
    forgot: Arc<Mutex<BTreeSet<ShardId>>>,
}

impl Marks {
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join("forgot");
        let text = match read_all(&*disk, &path, BYTES_MAX) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| StoreError::corrupt(&path, "it is not text"))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(StoreError::io(&path, e)),
        };
        let shard = |line: &str| {
            let number = line
                .trim()
                .parse::<u32>()
                .map_err(|_| StoreError::corrupt(&path, "a line is not the number of a shard"));
            number.map(ShardId)
        };
        let forgot: BTreeSet<ShardId> = text.lines().map(shard).collect::<Result<_, _>>()?;
        Ok(Self { disk, path: Arc::new(path), forgot: Arc::new(Mutex::new(forgot)) })
    }

    /// Whether this directory forgot what it had acknowledged in a shard.
    pub fn has_forgotten(&self, shard: ShardId) -> bool {
        lock(&self.forgot).contains(&shard)
    }

    /// Notes durably that this directory forgot what it had acknowledged in a shard.
    ///
    /// # Errors
    /// [`StoreError::Io`]; then this process knows it until it ends.
    pub fn note_forgotten(&self, shard: ShardId) -> Result<(), StoreError> {
        let mut forgot = lock(&self.forgot);
        forgot.insert(shard);
        let text: String = forgot.iter().map(|shard| format!("{}\n", shard.0)).collect();
        // This is done under the lock, so that the later of two writes stays.
        replace(&*self.disk, &self.path, &[text.as_bytes()]).map_err(|e| StoreError::io(&self.path, e))
    }
}
