//! Bounds of a shard's log: requests, entries, proposals, the clock, terms and voters.

/// Request ids remembered per shard. The same on every replica, so it is no setting. When full, the floor rises and
/// requests first sent below it are refused as `RequestForgotten`.
pub const DEDUP_IDS_MAX: usize = 1_000_000;
/// So many times as many request ids are remembered as of those that were first sent ahead of the shard's clock. One
/// more of these is refused as `SentAhead` until the clock has come so far: were the table full of them, the floor
/// would rise above everybody else.
pub const DEDUP_AHEAD_PART: u64 = 4;
/// Deadline of a mutating request when its sender names none, in milliseconds.
pub const REQUEST_DEADLINE_MS_DEFAULT: u64 = 60_000;
/// Longest deadline of a mutating request, in milliseconds: 24 hours. Refused as invalid.
pub const REQUEST_DEADLINE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// How far a request's first-sending clock may lie ahead of the stamp of the entry that carries it, in milliseconds:
/// the estimate of one node may lead that of a new leader by a frame's delay and drift.
pub const CLOCK_LEAD_MS_MAX: u64 = 60_000;
/// How long other voters contradict a leader whose clock is ahead of what a voter can explain, in milliseconds, until
/// the voter takes it all the same: their machines may all have stood still together, and a shard in which nobody takes
/// entries is no use.
pub const CLOCK_CONTRADICTED_MS_MAX: u64 = 60_000;
/// Eras that the clock may be ahead of what a node knew last. What is said of a later one is not believed, and an entry
/// of one is refused: a quorum that is booted every day comes so far in almost three years.
pub const ERAS_AHEAD_MAX: u64 = 1_024;
/// Terms that a vote may be ahead of the last one that a node has seen. One of a later term is refused: an election
/// every four seconds comes so far in seven weeks.
pub const TERMS_AHEAD_MAX: u64 = 1 << 20;
/// The last term that there can be. One after it is refused by everybody, also by a node that has seen none.
pub const TERM_MAX: u64 = 1 << 48;
/// Terms by which a shard that is recovered is ahead of all that the replica saw which it goes on from: others of the
/// group before may have seen later ones.
pub const RECOVERY_TERMS_AHEAD: u64 = 1 << 16;
/// Most requests in one log entry. More wait for the next entry.
pub const REQUESTS_PER_ENTRY_MAX: usize = 512;
/// Request bytes at which an entry is closed. A single request is always smaller.
pub const ENTRY_BYTES_SOFT_MAX: usize = 256 * 1024;
/// Largest encoded log entry. Refused by the decoder.
pub const ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// Requests that may wait for a place in an entry, per shard. One more is refused as `Overloaded`.
pub const PROPOSALS_QUEUED_MAX: usize = 8_192;
/// Bytes of requests that may wait for a place in an entry, per shard. One more is refused as `Overloaded`.
pub const PROPOSAL_BYTES_QUEUED_MAX: usize = 16 * 1024 * 1024;
/// Hundredths of the proposal queue that are kept for what ends work: completions, failures, releases, cancels.
pub const PROPOSALS_RESERVED_SHARE: usize = 25;
/// Entries proposed and not yet applied, per shard. Requests wait in the queue meanwhile.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 4;
/// Voters of one shard. Refused as invalid: 3 or 5 are useful.
pub const VOTERS_MAX: usize = 7;
/// Groups of voters at a time: the one that is, and the one that takes its place. A proof of leadership that names more is
/// refused by the decoder.
pub const VOTER_GROUPS_MAX: usize = 2;
/// Nodes known to vote whose votes a proof of leadership has to have if its voters are not known: fewer only if fewer are
/// known. With fewer it is refused.
pub const KNOWN_BALLOTS_MIN: usize = 2;
/// How long what a leader sends waits for the proof that it was elected, in milliseconds: both come at the same time, on
/// different streams. Then it is refused, and the leader shows the proof again.
pub const PROOF_WAIT_MS: u64 = 200;
/// How long the disk of a leader is nearly full before the lead is handed on to a voter that has room, in milliseconds.
/// Longer where links are so slow that it takes longer to know which voters are behind.
pub const LEAD_KEPT_ON_FULL_DISK_MS: u64 = 3_000;
/// How long a leader that handed the lead on for want of room waits before it does so again, in milliseconds, whatever
/// came of it: two voters whose disks are full in turns do not pass the lead to and fro.
pub const LEAD_HANDED_ON_EVERY_MS: u64 = 60_000;
