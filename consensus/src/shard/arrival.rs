//! What has arrived of a leader's snapshot, and how long this node keeps it.
//!
//! The snapshot comes in chunks, over as many connections as that takes, and goes to a file: memory holds only chunks
//! that overtook others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use skep_protocol::frame::SnapshotId;
use skep_protocol::ids::RaftId;
use skep_protocol::limits;
use skep_store::{PartFile, PartHead};
use tokio::time::Instant;

/// The refusal to begin or install another snapshot.
const INSTALLING: &str = "a snapshot is being installed on this node";
/// The refusal of a chunk.
const NOT_ARRIVING: &str = "the snapshot is not arriving; begin it again";

/// The order in which chunks are written.
#[derive(Debug)]
struct Order {
    /// Bytes of the whole snapshot.
    bytes: u64,
    /// Bytes that are written, without a gap.
    there: u64,
    /// Chunks that are to be written, by their offsets in bytes.
    ahead: BTreeMap<u64, Bytes>,
}

impl Order {
    /// Takes a chunk at an offset. A chunk that overtook too many others is dropped: the leader sends it again.
    fn take(&mut self, at: u64, chunk: Bytes) -> Result<(), String> {
        let end = at.checked_add(chunk.len() as u64).filter(|end| *end <= self.bytes);
        if end.is_none() || chunk.is_empty() || chunk.len() > limits::SNAPSHOT_CHUNK_BYTES_MAX {
            return Err("a chunk of the snapshot is not what it should be".to_owned());
        }
        if end <= Some(self.there) {
            return Ok(());
        }
        let waiting: usize = self.ahead.values().map(Bytes::len).sum();
        let has_place = self.ahead.len() < limits::SNAPSHOT_CHUNKS_UNDER_WAY_MAX
            && waiting + chunk.len() <= limits::SNAPSHOT_BYTES_UNDER_WAY_MAX;
        let is_known = self.ahead.get(&at).is_some_and(|known| known.len() >= chunk.len());
        if !is_known && (at <= self.there || has_place) {
            self.ahead.insert(at, chunk);
        }
        Ok(())
    }

    /// The chunk to be written next, without a gap; none if it has not come.
    fn next_chunk(&mut self) -> Option<Bytes> {
        while let Some(first) = self.ahead.first_entry().filter(|first| *first.key() <= self.there) {
            let (at, chunk) = first.remove_entry();
            let known = usize::try_from(self.there - at).unwrap_or(usize::MAX);
            if known < chunk.len() {
                return Some(chunk.slice(known..));
            }
        }
        None
    }
}

/// A snapshot that is arriving.
#[derive(Debug)]
struct Part {
    file: Arc<PartFile>,
    order: Order,
    /// When the last bytes of it came, or when it began.
    grew: Instant,
    /// Since when this node waits for its next chunk.
    waits_since: Instant,
}

impl Part {
    fn is_whole(&self) -> bool {
        self.order.there == self.order.bytes
    }
}

/// The one place for a snapshot that arrives.
#[derive(Debug)]
enum Slot {
    /// No snapshot arrives, and no file is left.
    Empty,
    /// A snapshot is arriving.
    Arriving(Part),
    /// There may be the file of a snapshot that came no further, or that came to an earlier process. The transfer goes
    /// on if the leader begins it again.
    Left {
        /// The index of the last entry in it, if this process knows.
        index: Option<u64>,
        since: Instant,
    },
}

impl Default for Slot {
    fn default() -> Self {
        Self::Left { index: None, since: Instant::now() }
    }
}

impl Slot {
    /// Frees the place of a snapshot that got no chunk for too long. Returns whether its file is of no further use:
    /// this node has applied everything in it (`applied`), the transfer did not go on for very long, or the disk needs
    /// the room.
    fn look(&mut self, applied: Option<u64>, is_low: bool) -> bool {
        let waits = Duration::from_millis(limits::SNAPSHOT_CHUNK_WAIT_MS);
        let kept = Duration::from_millis(limits::SNAPSHOT_PART_KEPT_MS);
        if let Self::Arriving(part) = self
            && part.waits_since.elapsed() >= waits
        {
            *self = Self::Left { index: Some(part.file.head().index), since: part.grew };
        }
        let is_over = match self {
            Self::Empty => false,
            Self::Arriving(part) => applied >= Some(part.file.head().index) || part.grew.elapsed() >= kept,
            Self::Left { index, since } => {
                is_low || since.elapsed() >= kept || index.is_some_and(|index| applied >= Some(index))
            }
        };
        if is_over {
            *self = Self::Empty;
        }
        is_over
    }
}

/// The snapshot that is arriving: at most one at a time.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    slot: Mutex<Slot>,
    /// Held by each task that works with the file of the snapshot, in the order in which they ask.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Held while a snapshot is installed, which may have to wait for room on the disk. A call that begins it anew, or
    /// another one, is refused at once: waiting calls would keep those of other shards from an answer.
    installing: tokio::sync::Mutex<()>,
}

impl Arrival {
    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until the returned guard is dropped, no snapshot begins or is installed. An error if one is being installed.
    pub(super) fn installs(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, String> {
        self.installing.try_lock().map_err(|_| INSTALLING.to_owned())
    }

    /// How many bytes have come of a snapshot that is begun again, if it is the one that is arriving.
    pub(super) fn goes_on(&self, head: &PartHead) -> Option<u64> {
        match &*self.slot() {
            Slot::Arriving(part) if part.file.head() == head => Some(part.order.there),
            _ => None,
        }
    }

    /// Notes that the arriving snapshot was begun again, and that there is room for it: the wait for its next chunk
    /// starts anew.
    pub(super) fn wait_anew(&self) {
        if let Slot::Arriving(part) = &mut *self.slot() {
            part.waits_since = Instant::now();
        }
    }

    /// Stops the arrival until another snapshot has a file. Returns the instant since which the file has not grown.
    pub(super) fn set_aside(&self) -> Instant {
        let mut slot = self.slot();
        let since = match &*slot {
            Slot::Empty => Instant::now(),
            Slot::Arriving(part) => part.grew,
            Slot::Left { since, .. } => *since,
        };
        *slot = Slot::Left { index: None, since };
        since
    }

    /// A snapshot arrives to a file that already holds `there` bytes, and has not grown since an instant.
    pub(super) fn begin(&self, file: PartFile, there: u64, since: Instant) {
        let now = Instant::now();
        let grew = if there > 0 { since } else { now };
        let order = Order { bytes: file.head().id.bytes, there, ahead: BTreeMap::new() };
        *self.slot() = Slot::Arriving(Part { file: Arc::new(file), order, grew, waits_since: now });
    }

    /// Takes a chunk of the snapshot that a node sends under a name.
    pub(super) fn take(&self, (from, id): (RaftId, SnapshotId), at: u64, chunk: Bytes) -> Result<(), String> {
        match &mut *self.slot() {
            Slot::Arriving(part) if (part.file.head().from, part.file.head().id) == (from, id) => {
                part.order.take(at, chunk)
            }
            _ => Err(NOT_ARRIVING.to_owned()),
        }
    }

    /// What is to be written next of the arriving snapshot: the file, the chunk, and its offset in bytes; none if that
    /// has not come.
    pub(super) fn next_chunk(&self) -> Option<(Arc<PartFile>, Bytes, u64)> {
        let mut slot = self.slot();
        let Slot::Arriving(part) = &mut *slot else { return None };
        let bytes = part.order.next_chunk()?;
        Some((Arc::clone(&part.file), bytes, part.order.there))
    }

    /// Counts bytes that were written; returns how many are there. No bytes are written while no snapshot arrives.
    pub(super) fn grow(&self, bytes: u64) -> u64 {
        let mut slot = self.slot();
        let Slot::Arriving(part) = &mut *slot else { return 0 };
        if bytes > 0 {
            part.order.there += bytes;
            let now = Instant::now();
            (part.grew, part.waits_since) = (now, now);
        }
        part.order.there
    }

    /// The file of a snapshot that has arrived whole, for the task that installs it.
    pub(super) fn take_whole(&self, head: &PartHead) -> Option<Arc<PartFile>> {
        let mut slot = self.slot();
        let file = match &*slot {
            Slot::Arriving(part) if part.file.head() == head && part.is_whole() => Arc::clone(&part.file),
            _ => return None,
        };
        *slot = Slot::Empty;
        Some(file)
    }

    /// See [`Slot::look`].
    pub(super) fn look(&self, applied: Option<u64>, is_low: bool) -> bool {
        self.slot().look(applied, is_low)
    }
}

#[cfg(test)]
mod tests {
    use skep_protocol::ids::ShardId;
    use skep_store::{Store, StoreOptions};
    use xxhash_rust::xxh3::xxh3_128;

    use super::*;

    fn order(bytes: u64) -> Order {
        Order { bytes, there: 0, ahead: BTreeMap::new() }
    }

    /// Takes a chunk, and writes what there is to be written; returns how many bytes are there then.
    fn take(order: &mut Order, written: &mut Vec<u8>, at: u64, chunk: &'static [u8]) -> Result<u64, String> {
        order.take(at, Bytes::from_static(chunk))?;
        while let Some(next) = order.next_chunk() {
            written.extend_from_slice(&next);
            order.there += next.len() as u64;
        }
        Ok(order.there)
    }

    #[test]
    fn whoever_begins_or_installs_a_snapshot_while_one_is_installed_is_told_so_at_once() {
        let arrival = Arrival::default();
        let installing = arrival.installs().unwrap();
        assert_eq!(arrival.installs().unwrap_err(), INSTALLING);
        drop(installing);
        assert!(arrival.installs().is_ok());
    }

    #[test]
    fn chunks_that_overtake_each_other_or_come_twice_make_one_snapshot() {
        let (mut order, mut written) = (order(9), Vec::new());
        let mut take = |at, chunk| take(&mut order, &mut written, at, chunk);
        assert_eq!(take(6, b"678"), Ok(0));
        assert_eq!(take(0, b"012"), Ok(3));
        assert_eq!(take(0, b"01234"), Ok(5), "a retry may be cut otherwise");
        assert_eq!(take(1, b"12"), Ok(5));
        assert_eq!(take(3, b"345"), Ok(9));
        assert!(order.ahead.is_empty());
        assert_eq!(written, b"012345678");
    }

    #[test]
    fn a_chunk_that_is_not_of_the_snapshot_is_refused_and_few_are_kept_ahead() {
        let (mut order, mut written) = (order(1 << 30), Vec::new());
        assert!(take(&mut order, &mut written, 0, b"").is_err());
        assert!(take(&mut order, &mut written, (1 << 30) - 1, b"01").is_err(), "it ends behind what was announced");
        assert!(take(&mut order, &mut written, u64::MAX, b"01").is_err());
        let too_long = Bytes::from(vec![0; limits::SNAPSHOT_CHUNK_BYTES_MAX + 1]);
        assert!(order.take(0, too_long).is_err());
        for at in 1..1_000 {
            assert_eq!(take(&mut order, &mut written, 2 * at, b"0"), Ok(0));
        }
        assert_eq!(order.ahead.len(), limits::SNAPSHOT_CHUNKS_UNDER_WAY_MAX);
        order.ahead.clear();
        let chunk = Bytes::from(vec![0; limits::SNAPSHOT_CHUNK_BYTES_MAX]);
        for at in 1..1_000 {
            order.take(2 * at * chunk.len() as u64, chunk.clone()).unwrap();
        }
        assert_eq!(order.ahead.values().map(Bytes::len).sum::<usize>(), limits::SNAPSHOT_BYTES_UNDER_WAY_MAX);
        assert_eq!(take(&mut order, &mut written, 0, b"what comes next has a place always"), Ok(34));
    }

    const STATE: &[u8] = b"the whole state";

    fn head() -> PartHead {
        let id = SnapshotId { bytes: STATE.len() as u64, digest: xxh3_128(STATE) };
        PartHead { from: RaftId(7), id, index: 5, meta: Bytes::from_static(b"meta") }
    }

    /// A leader begins its snapshot; returns how many bytes are there.
    fn begin(store: &Store, arrival: &Arrival) -> u64 {
        if let Some(there) = arrival.goes_on(&head()) {
            return there;
        }
        let since = arrival.set_aside();
        let (file, there) = store.snapshots().begin_part(ShardId::FIRST, head(), |_| true).unwrap().unwrap();
        arrival.begin(file, there, since);
        there
    }

    fn chunk(arrival: &Arrival, at: u64, bytes: &'static [u8]) -> Result<u64, String> {
        arrival.take((head().from, head().id), at, Bytes::from_static(bytes))?;
        while let Some((file, bytes, at)) = arrival.next_chunk() {
            file.write(&bytes, at).unwrap();
            arrival.grow(bytes.len() as u64);
        }
        Ok(arrival.grow(0))
    }

    async fn pass_ms(ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
    }

    fn store(dir: &std::path::Path) -> Store {
        Store::open(dir, [3; 16], StoreOptions::default()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_of_which_no_chunk_comes_gives_its_place_back_and_what_came_goes_on_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let (store, arrival) = (store(dir.path()), Arrival::default());
        begin(&store, &arrival);
        assert_eq!(chunk(&arrival, 0, &STATE[..9]), Ok(9));
        pass_ms(limits::SNAPSHOT_CHUNK_WAIT_MS - 1).await;
        assert!(!arrival.look(None, true) && matches!(*arrival.slot(), Slot::Arriving(_)));
        assert_eq!(chunk(&arrival, 0, &STATE[..9]), Ok(9));
        pass_ms(1).await;
        assert!(!arrival.look(None, false), "what came may go on");
        assert!(matches!(*arrival.slot(), Slot::Left { .. }), "what came before keeps no place");
        assert_eq!(chunk(&arrival, 9, &STATE[9..]).unwrap_err(), NOT_ARRIVING);
        // A leader that only begins the snapshot again and again keeps it no longer.
        for passed in 1..limits::SNAPSHOT_PART_KEPT_MS / limits::SNAPSHOT_CHUNK_WAIT_MS {
            assert_eq!(begin(&store, &arrival), 9, "after {passed} times as long");
            pass_ms(limits::SNAPSHOT_CHUNK_WAIT_MS - 1).await;
            assert!(!arrival.look(None, false));
        }
        pass_ms(limits::SNAPSHOT_CHUNK_WAIT_MS).await;
        assert!(arrival.look(None, false), "its file is kept for ever");
        assert!(matches!(*arrival.slot(), Slot::Empty) && !arrival.look(None, false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_of_a_snapshot_goes_once_it_is_of_no_use_or_the_disk_needs_its_room() {
        let dir = tempfile::tempdir().unwrap();
        let (store, arrival) = (store(dir.path()), Arrival::default());
        begin(&store, &arrival);
        assert!(!arrival.look(Some(4), false) && arrival.look(Some(5), false), "all of it is applied");
        begin(&store, &arrival);
        pass_ms(limits::SNAPSHOT_CHUNK_WAIT_MS).await;
        assert!(arrival.look(None, true), "no leader sends it, and there is no room");
        // An earlier process may have left a file.
        let arrival = Arrival::default();
        assert!(!arrival.look(Some(5), false));
        pass_ms(limits::SNAPSHOT_PART_KEPT_MS).await;
        assert!(arrival.look(None, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_is_for_whoever_installs_it_once_it_is_whole_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let (store, arrival) = (store(dir.path()), Arrival::default());
        begin(&store, &arrival);
        assert_eq!(chunk(&arrival, 9, &STATE[9..]), Ok(0));
        assert!(arrival.take_whole(&head()).is_none());
        assert_eq!(chunk(&arrival, 0, &STATE[..9]), Ok(15));
        assert!(arrival.take_whole(&PartHead { from: RaftId(8), ..head() }).is_none());
        let file = arrival.take_whole(&head()).unwrap();
        assert_eq!(file.load().unwrap().as_deref(), Some(STATE));
        assert!(arrival.take_whole(&head()).is_none());
    }
}
