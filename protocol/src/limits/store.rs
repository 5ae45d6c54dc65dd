//! Bounds of snapshots, of the log on disk, and of the history.

/// Size of a state, in bytes, up to which a node makes a snapshot as often as the number of entries says: it costs
/// little.
pub const SNAPSHOT_BYTES_CHEAP: u64 = 4 * 1024 * 1024;
/// Bytes of entries behind the last snapshot beyond which a node makes one however large the state is. Before, a
/// snapshot of a larger state waits until the log has grown by as much as it would write, so that snapshots write no
/// more than the log does.
pub const SNAPSHOT_LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest snapshot that a receiver accepts, in bytes. It refuses a larger one, and the sender retries later.
pub const SNAPSHOT_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// How long a receiver keeps a part of a snapshot on its disk while nothing more comes, in milliseconds. Then it lets
/// go of the part, and the snapshot starts over.
pub const SNAPSHOT_PART_KEPT_MS: u64 = 10 * 60 * 1_000;
/// How long a leader makes no other snapshot after a receiver took a chunk of the last one, in milliseconds: another
/// one could not go on where that one ended. The leader makes one all the same once the log takes
/// [`LOG_BYTES_SOFT_MAX`].
pub const SNAPSHOT_HELD_MS: u64 = 60 * 1_000;
/// Writes that wait for the store's writer thread. Senders wait at it. Each place takes memory, whether it is used or
/// not; all shards of a node together have fewer under way, and the writer takes all that waits at a time.
pub const STORE_WRITES_QUEUED_MAX: usize = 1_024;
/// Bytes that the store's writer puts into one durable batch before it syncs.
pub const STORE_BATCH_BYTES_SOFT_MAX: usize = 4 * 1024 * 1024;
/// Bytes of the log on disk beyond which a node makes a snapshot and drops the entries that it covers.
pub const LOG_BYTES_SOFT_MAX: u64 = 256 * 1024 * 1024;
/// Bytes of recent log entries that a node keeps in memory, per shard; it reads older ones from the store.
pub const LOG_CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of changes that are in memory and in no table of the history. With more, the node writes all of them: a crash
/// loses about as much, and a start applies it again.
pub const HISTORY_PENDING_BYTES_SOFT_MAX: usize = 8 * 1024 * 1024;
/// Entries whose changes are in memory and in no table of the history. With more, the node writes all of them.
pub const HISTORY_PENDING_ENTRIES_SOFT_MAX: usize = 65_536;
/// How long the changes of an entry are in no table of the history, if neither a snapshot waits for them nor there are
/// many, in milliseconds. Readers find them meanwhile; each table costs a flash card some pages, and is merged with
/// others later.
pub const HISTORY_FLUSH_AFTER_MS: u64 = 15 * 60 * 1_000;
/// Bytes of changes that wait for the tables of the history before the node is under pressure: it refuses what brings
/// work as `Overloaded`, and applying waits for up to [`HISTORY_APPLY_WAIT_MS_MAX`].
pub const HISTORY_QUEUED_BYTES_SOFT_MAX: usize = 16 * 1024 * 1024;
/// Bytes of changes that wait for the tables of the history. The node leaves more out of memory, which makes a gap: it
/// works the gap out again from the log, which it keeps until then, or fetches it from another voter.
pub const HISTORY_QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long applying waits, each time that entries are to be applied, for a history that the node writes more slowly
/// than entries come, in milliseconds. Then it goes on all the same.
pub const HISTORY_APPLY_WAIT_MS_MAX: u64 = 1_000;
/// Bytes of changes that the history takes from its queue at a time. More follow.
pub const HISTORY_BATCH_BYTES_SOFT_MAX: usize = 4 * 1024 * 1024;
/// Bytes of changes in one row of the history. Several rows hold what one entry did beyond that.
pub const HISTORY_PIECE_BYTES_SOFT_MAX: usize = 128 * 1024;
/// Segments into which the history of a shard is cut over the time and the bytes for which the node keeps it: one
/// segment goes at a time.
pub const HISTORY_SEGMENTS: u64 = 16;
/// Segments of the history of one shard, however slowly they fill. One more makes the oldest one go.
pub const HISTORY_SEGMENTS_MAX: usize = 64;
/// Gaps in the history of one shard. With one more the two lowest become one, and the node fetches again what is
/// between them.
pub const HISTORY_GAPS_MAX: usize = 1_024;
/// How long a node keeps the history, by the shard's clock, unless the configuration says otherwise, in milliseconds:
/// 90 days.
pub const HISTORY_RETENTION_MS_DEFAULT: u64 = 90 * 24 * 60 * 60 * 1_000;
/// Bytes of history on one node, of all shards, unless the configuration says otherwise. The oldest segment goes beyond
/// it.
pub const HISTORY_BYTES_DEFAULT: u64 = 4 * 1024 * 1024 * 1024;
/// Fewest bytes of history that can be configured. Refused as invalid below.
pub const HISTORY_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Bytes of history that stay on a node however full its disk is. While the disk is nearly full, the oldest segment
/// goes, one a second, as long as this much is left: the log, and what ends work, have the room first.
pub const HISTORY_BYTES_LEAST: u64 = 16 * 1024 * 1024;
/// Longest time that the history can be configured to be kept, in days. Refused as invalid beyond.
pub const HISTORY_DAYS_MAX: u64 = 3_650;
/// Bytes of history a second that a node fetches from others, on however quick a link; it rests for as long as each
/// answer took. One answer is under way at a time, of as many bytes as the link carries at once.
pub const HISTORY_FILL_BYTES_PER_S: u64 = 4 * 1024 * 1024;
/// Entries of a gap that are fetched in their order before those below them. The latest are fetched first.
pub const HISTORY_FILL_ENTRIES_MAX: u64 = 4_096;
/// Damaged histories that a node keeps for people to look at. With so many there, it does not set aside one more: the
/// history is out of service until an operator removes one of them.
pub const HISTORIES_SET_ASIDE_MAX: u32 = 8;
/// Bytes of entries behind the last snapshot beyond which a node makes another one, or as many as the snapshot has: a
/// start reads and applies as much again.
pub const REPLAY_BYTES_SOFT_MAX: u64 = 16 * 1024 * 1024;
