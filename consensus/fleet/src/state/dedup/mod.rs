//! The memory of request ids.

mod pages;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use skep_protocol::entry::Request;
use skep_protocol::ids::RequestId;
use skep_protocol::outcome::Reply;
use skep_protocol::refusal::RequestRefusal;
use skep_protocol::time::LogInstant;

use pages::{Entry, Pages};

/// Bytes of an answer that the table keeps beside its id: those of nearly all receipts. A longer one has a place of its
/// own.
const SHORT_BYTES: usize = 22;

/// An answer, encoded: decoded, each would take as much as the largest refusal.
#[derive(Clone, Debug)]
enum Answer {
    Short(u8, [u8; SHORT_BYTES]),
    Long(Box<[u8]>),
}

impl Answer {
    fn of(bytes: &[u8]) -> Self {
        if bytes.len() > SHORT_BYTES {
            return Self::Long(bytes.into());
        }
        let mut short = [0; SHORT_BYTES];
        short[..bytes.len()].copy_from_slice(bytes);
        Self::Short(bytes.len() as u8, short)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(length, bytes) => &bytes[..usize::from(*length).min(SHORT_BYTES)],
            Self::Long(bytes) => bytes,
        }
    }

    /// The answer. Bytes that say nothing are those of a request that was answered, and is not to be done again.
    fn reply(&self) -> Reply {
        postcard::from_bytes(self.bytes()).unwrap_or(Reply::Refused(RequestRefusal::IdReused.into()))
    }
}

/// An id that the shard remembers, and its answer.
#[derive(Clone, Debug)]
struct Known {
    id: RequestId,
    body_hash: u64,
    answer: Answer,
}

impl Entry for Known {
    type Key = RequestId;

    fn key(&self) -> RequestId {
        self.id
    }

    fn due(&self) -> Option<LogInstant> {
        None
    }
}

/// When a remembered id was first sent, and until when the shard remembers it. It takes 28 bytes, and there are as many
/// as ids: no field is aligned to more than 4.
#[derive(Clone, Debug)]
struct Sent {
    first_sent: [u32; 2],
    valid_ms: u32,
    id: RequestId,
}

impl Sent {
    fn new(id: RequestId, first_sent: LogInstant, valid_ms: u32) -> Self {
        let raw = first_sent.raw();
        Self { first_sent: [(raw >> 32) as u32, raw as u32], valid_ms, id }
    }

    fn first_sent(&self) -> LogInstant {
        let [high, low] = self.first_sent;
        LogInstant::from_raw((u64::from(high) << 32) | u64::from(low))
    }

    fn deadline(&self) -> LogInstant {
        LogInstant::from_raw(self.first_sent().raw().saturating_add(u64::from(self.valid_ms)))
    }
}

impl Entry for Sent {
    type Key = (LogInstant, RequestId);

    fn key(&self) -> Self::Key {
        (self.first_sent(), self.id)
    }

    fn due(&self) -> Option<LogInstant> {
        Some(self.deadline())
    }
}

/// A remembered request, as a snapshot has it: in the order of first sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remembered<'a> {
    /// Milliseconds from when the one before it was first sent.
    after_ms: u64,
    valid_ms: u32,
    id: RequestId,
    body_hash: [u8; 8],
    answer: &'a [u8],
}

/// Request ids and their answers, each until its deadline, and bounded in number.
///
/// An id need not be remembered past its deadline, because the shard refuses a retry as expired from then on. When the
/// table is full, the shard forgets the ids that were first sent earliest and the floor rises above them: it refuses a
/// request first sent below the floor, and never does it, since it may be a retry of a forgotten one.
///
/// The floor does not pass the clock, or no client could send anything before the clock had come so far: only a part of
/// the table holds ids that were first sent ahead of the clock, so that the shard can forget another one first.
///
/// There are up to a million of them, in the memory of a robot. So they lie in two lists of pages: by id the answers,
/// and by time when they were first sent and until when they are remembered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dedup {
    known: Pages<Known>,
    sent: Pages<Sent>,
    floor: LogInstant,
    /// The shard's clock at the last entry.
    now: LogInstant,
    /// Number of ids that were first sent after that.
    ahead: usize,
}

impl Dedup {
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn floor(&self) -> LogInstant {
        self.floor
    }

    /// All remembered requests, as a snapshot has them.
    pub(crate) fn records(&self) -> impl Iterator<Item = Remembered<'_>> {
        let mut before = LogInstant::ZERO;
        self.sent.iter().filter_map(move |sent| {
            let known = self.known.get(&sent.id)?;
            let after_ms = sent.first_sent().since_ms(before);
            before = sent.first_sent();
            let (body_hash, answer) = (known.body_hash.to_le_bytes(), known.answer.bytes());
            Some(Remembered { after_ms, valid_ms: sent.valid_ms, id: sent.id, body_hash, answer })
        })
    }

    /// An empty table, as of the time of a snapshot.
    pub(crate) fn empty(floor: LogInstant, now: LogInstant) -> Self {
        Self { floor, now, ..Self::default() }
    }

    /// Takes over the next record of a snapshot. False if the record cannot be right.
    pub(crate) fn restore(&mut self, record: &Remembered<'_>, before: &mut LogInstant) -> bool {
        let Some(first_sent) = before.raw().checked_add(record.after_ms).map(LogInstant::from_raw) else {
            return false;
        };
        *before = first_sent;
        if self.known.get(&record.id).is_some() || postcard::from_bytes::<Reply>(record.answer).is_err() {
            return false;
        }
        let (body_hash, answer) = (u64::from_le_bytes(record.body_hash), Answer::of(record.answer));
        self.put(Sent::new(record.id, first_sent, record.valid_ms), body_hash, answer);
        true
    }

    /// Forgets the ids whose deadline has passed at this time.
    pub(crate) fn forget_expired(&mut self, now: LogInstant) {
        if now > self.now {
            let first = LogInstant::from_raw(self.now.raw().saturating_add(1));
            let since = self.sent.iter_from((first, RequestId::from_bytes([0; 16])));
            let reached = since.take_while(|sent| sent.first_sent() <= now).count();
            self.ahead = self.ahead.saturating_sub(reached);
            self.now = now;
        }
        loop {
            let expired = self.sent.take_due(now);
            if expired.is_empty() {
                return;
            }
            for sent in expired {
                self.forgot(&sent);
            }
        }
    }

    /// The answer to a request that the shard answered before; none if this is not one.
    pub(crate) fn recall(&self, request: &Request, body_hash: u64) -> Option<Reply> {
        let known = self.known.get(&request.id)?;
        let same = known.body_hash == body_hash;
        Some(if same { known.answer.reply() } else { Reply::Refused(RequestRefusal::IdReused.into()) })
    }

    /// Whether the table has no room for an id that was first sent ahead of the clock.
    pub(crate) fn is_full_ahead(&self, ids_max: u64, ahead_part: u64) -> bool {
        self.ahead as u64 >= ids_max / ahead_part.max(1)
    }

    /// Remembers an answer to a request whose id is not known, and whose window was checked. Returns how many ids the
    /// shard forgot for it before their deadlines.
    pub(crate) fn remember(&mut self, request: &Request, body_hash: u64, reply: &Reply, ids_max: u64) -> u64 {
        let mut forgotten = 0;
        while self.len() as u64 >= ids_max.max(1) {
            let Some(sent) = self.sent.pop_first() else { break };
            self.forgot(&sent);
            forgotten += 1;
            self.floor = self.floor.max(sent.first_sent().plus_ms(1));
        }
        // No client asks for more than a day, and 32 bits are 49 of them.
        let valid_ms = u32::try_from(request.deadline.since_ms(request.first_sent)).unwrap_or(u32::MAX);
        // Encoding plain data into memory cannot fail.
        let answer = Answer::of(&postcard::to_stdvec(reply).unwrap_or_default());
        self.put(Sent::new(request.id, request.first_sent, valid_ms), body_hash, answer);
        forgotten
    }

    fn put(&mut self, sent: Sent, body_hash: u64, answer: Answer) {
        self.ahead += usize::from(sent.first_sent() > self.now);
        self.known.insert(Known { id: sent.id, body_hash, answer });
        self.sent.insert(sent);
    }

    /// Counts an id that was taken out of the list by time.
    fn forgot(&mut self, sent: &Sent) {
        self.ahead = self.ahead.saturating_sub(usize::from(sent.first_sent() > self.now));
        self.known.remove(&sent.id);
    }
}

#[cfg(test)]
impl Dedup {
    /// About how many bytes of memory the table takes.
    fn approximate_bytes(&self) -> usize {
        let long = |known: &Known| match &known.answer {
            Answer::Short(..) => 0,
            Answer::Long(bytes) => bytes.len() + 16,
        };
        let owned: usize = self.known.iter().map(long).sum();
        self.known.approximate_bytes() + self.sent.approximate_bytes() + owned
    }

    /// Panics unless both lists have the same ids.
    fn check(&self) {
        self.known.check();
        self.sent.check();
        assert_eq!(self.known.len(), self.sent.len());
        assert!(self.sent.iter().all(|sent| self.known.get(&sent.id).is_some()));
        assert_eq!(self.ahead, self.sent.iter().filter(|sent| sent.first_sent() > self.now).count());
    }
}
