//! Bounds of what one node takes part in, and of what it does at a time.

/// Shards in which one node may take part. It refuses frames for one more.
pub const SHARDS_PER_NODE_MAX: usize = 64;
/// Most peers in a configuration. Refused as invalid.
pub const PEERS_MAX: usize = 1_024;
/// Requests that the router holds. One more is refused as `Overloaded`.
pub const ROUTED_REQUESTS_MAX: usize = 16_384;
/// Stale queries that a replica answers at a time. One more is refused as `Overloaded`.
pub const STALE_QUERIES_MAX: usize = 64;
/// Pages, and reads of the history, that a node answers at a time, those that wait for a thread included. One more is
/// refused as `Overloaded`.
pub const PAGES_QUEUED_MAX: usize = 256;
/// Threads beside the control thread, for agents, proposals, pulls, queries and handshakes. More work waits for them.
pub const WORK_THREADS: usize = 1;
/// Threads that verify signatures, and do nothing else. More work waits for them, counted among the requests that may
/// wait for a place in an entry.
pub const SIGNATURE_THREADS: usize = 2;
/// Threads that verify proofs of leadership, and do nothing else: no storm of commands delays a new leader. More wait
/// for them, of each voter and shard one. One more of the same voter is refused, and that voter shows it again.
pub const PROOF_THREADS: usize = 1;
/// Threads that answer pages and read the history. More wait for them.
pub const PAGE_THREADS: usize = 2;
/// Threads that make, check, keep and load snapshots. As many shards do so at a time, and others wait.
pub const SNAPSHOT_THREADS: usize = 2;
/// Threads that read entries which are no longer in memory. Each shard has one read for each follower that lags, and
/// one of its own; further reads wait.
pub const ENTRY_THREADS: usize = 2;
/// Threads that write what a node keeps beside the log. Each shard has few writes at a time; further writes wait.
pub const FILE_THREADS: usize = 2;
/// Descriptors that connections of the local API leave to logs, peers and all else that a node opens; a quarter of all
/// where that is less.
pub const DESCRIPTORS_KEPT: u64 = 256;
