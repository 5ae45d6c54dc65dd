//! Bounds of snapshots, of the log on disk, and of the history.

/// Size of a state up to which a snapshot is made as often as the number of entries says, in bytes: it costs little.
pub const SNAPSHOT_BYTES_CHEAP: u64 = 4 * 1024 * 1024;
/// Bytes of entries behind the last snapshot beyond which one is made however large the state is. Before, one of a
/// larger state waits until as much was logged as it would write, so that snapshots write no more than the log does.
pub const SNAPSHOT_LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Largest snapshot that a receiver accepts. Refused, and the sender retries later.
pub const SNAPSHOT_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// How long a part of a snapshot is kept on the disk of which nothing more comes, in milliseconds. Then it is let go
/// of, and the snapshot starts over.
pub const SNAPSHOT_PART_KEPT_MS: u64 = 10 * 60 * 1_000;
/// How long a leader makes no other snapshot after a chunk of the last one was taken, in milliseconds: another one
/// could not go on where that one ended. One is made all the same once the log takes [`LOG_BYTES_SOFT_MAX`].
pub const SNAPSHOT_HELD_MS: u64 = 60 * 1_000;
/// Writes waiting for the store's writer thread. Senders wait at it. Each place takes memory, whether anything is in it
/// or not; all shards of a node together have fewer under way, and the writer takes all that waits at a time.
pub const STORE_WRITES_QUEUED_MAX: usize = 1_024;
/// Bytes that the store's writer puts into one durable batch before it syncs.
pub const STORE_BATCH_BYTES_SOFT_MAX: usize = 4 * 1024 * 1024;
/// Bytes of the log on disk beyond which a snapshot is made and what it covers is dropped.
pub const LOG_BYTES_SOFT_MAX: u64 = 256 * 1024 * 1024;
/// Bytes of recent log entries kept in memory, per shard; older ones are read from the store.
pub const LOG_CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of what entries did that are in memory and in no table of the history. With more, all of it is written: about
/// so much a crash takes, and a start applies again.
pub const HISTORY_PENDING_BYTES_SOFT_MAX: usize = 8 * 1024 * 1024;
/// Entries whose changes are in memory and in no table of the history. With more, all of it is written.
pub const HISTORY_PENDING_ENTRIES_SOFT_MAX: usize = 65_536;
/// How long what an entry did is in no table of the history, if neither a snapshot waits for it nor there is much, in
/// milliseconds. It can be read meanwhile; each table costs a card some pages, and is merged with others later.
pub const HISTORY_FLUSH_AFTER_MS: u64 = 15 * 60 * 1_000;
/// Bytes of what entries did that wait for the tables of the history before that is pressure: what brings work is
/// refused as `Overloaded`, and applying waits for up to [`HISTORY_APPLY_WAIT_MS_MAX`].
pub const HISTORY_QUEUED_BYTES_SOFT_MAX: usize = 16 * 1024 * 1024;
/// Bytes of what entries did that wait for the tables of the history. More is left out of memory and is a gap: it is
/// worked out again from the log, which is kept until then, or fetched from another voter.
pub const HISTORY_QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long applying waits, each time that it is told to go on, for a history that is written more slowly than entries
/// come, in milliseconds. Then it goes on all the same.
pub const HISTORY_APPLY_WAIT_MS_MAX: u64 = 1_000;
/// Bytes of what entries did that the history takes from its queue at a time. More follow.
pub const HISTORY_BATCH_BYTES_SOFT_MAX: usize = 4 * 1024 * 1024;
/// Bytes of changes in one row of the history. What one entry did and is more is kept in several.
pub const HISTORY_PIECE_BYTES_SOFT_MAX: usize = 128 * 1024;
/// Segments into which the history of a shard is cut over the time and the bytes that it is kept for: so much of it
/// goes at a time.
pub const HISTORY_SEGMENTS: u64 = 16;
/// Segments of the history of one shard, however slowly they fill. The oldest one goes for one more.
pub const HISTORY_SEGMENTS_MAX: usize = 64;
/// Gaps in the history of one shard. With one more the two lowest become one, and what is between them is fetched
/// again.
pub const HISTORY_GAPS_MAX: usize = 1_024;
/// How long the history is kept, by the shard's clock, unless the configuration says otherwise, in milliseconds: 90
/// days.
pub const HISTORY_RETENTION_MS_DEFAULT: u64 = 90 * 24 * 60 * 60 * 1_000;
/// Bytes of history on one node, of all shards, unless the configuration says otherwise. The oldest segment goes beyond
/// it.
pub const HISTORY_BYTES_DEFAULT: u64 = 4 * 1024 * 1024 * 1024;
/// Fewest bytes of history that can be configured. Refused as invalid below.
pub const HISTORY_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Bytes of history that stay on a node however full its disk is. While it is nearly full, the oldest segment goes as
/// long as as much is left, one a second: the log, and what ends work, have the room first.
pub const HISTORY_BYTES_LEAST: u64 = 16 * 1024 * 1024;
/// Longest time that the history can be configured to be kept, in days. Refused as invalid beyond.
pub const HISTORY_DAYS_MAX: u64 = 3_650;
/// Bytes of history a second that a node fetches from others, on however quick a link, and it rests for as long as each
/// answer took. One answer is under way at a time, of as many bytes as the link carries at once.
pub const HISTORY_FILL_BYTES_PER_S: u64 = 4 * 1024 * 1024;
/// Entries of a gap that are fetched in their order before those below them. The latest are fetched first.
pub const HISTORY_FILL_ENTRIES_MAX: u64 = 4_096;
/// Damaged histories that are kept for people to look at. With so many there, one more is not set aside: the history is
/// out of service until one of them is removed.
pub const HISTORIES_SET_ASIDE_MAX: u32 = 8;
/// Bytes of entries behind the last snapshot beyond which another one is made, or as many as that one has: so much a
/// start reads and applies again.
pub const REPLAY_BYTES_SOFT_MAX: u64 = 16 * 1024 * 1024;
