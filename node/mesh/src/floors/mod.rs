//! Which envelopes are old.
//!
//! A good signature says who said something, and not when: whoever has heard an envelope can send it again. So each sender counts
//! its envelopes, and its starts, and of each sender it is remembered how far it has come. No clock is compared.
//!
//! - Of a process that is remembered each envelope counts once. One that is late counts if it is not far behind.
//! - Of an earlier process none counts: the number of a process rises with each start of its node.
//! - A sender that is connected says which process it is, on a connection that only it can make. That holds, also if the
//!   number is lower: its directory was restored from a copy, and it counts from there.
//! - Of a process that nothing is remembered of, the first envelope counts, and none before it.
//!
//! What is remembered outlives this process, too. It is written down now and then: what was said in the last minute before a
//! crash can be told once more, until its sender says something newer.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use skep_protocol::ids::NodeId;

/// How many envelopes of a process may overtake one of it, in words of 64, of which one is only partly there: a second of what one
/// node may say.
const WORDS: usize = 16;
const WORD: u64 = 64;

/// Which of the latest envelopes of a process were seen, as bits in a ring (RFC 6479).
#[derive(Clone, Debug)]
struct Latest {
    highest: u64,
    words: [u64; WORDS],
}

impl Latest {
    /// This is the first that counts: those before it are taken for seen.
    fn from(first: u64) -> Self {
        let mut latest = Self { highest: first, words: [u64::MAX; WORDS] };
        if let Some(word) = latest.words.get_mut(place(first)) {
            *word = u64::MAX >> (WORD - 1 - first % WORD);
        }
        latest
    }

    /// Whether this one was seen, or may have been.
    fn has(&self, sequence: u64) -> bool {
        if sequence > self.highest {
            return false;
        }
        let is_behind = self.highest / WORD - sequence / WORD >= WORDS as u64;
        is_behind || self.words.get(place(sequence)).is_none_or(|word| word & bit(sequence) != 0)
    }

    /// This one was seen, which was not.
    fn see(&mut self, sequence: u64) {
        let (before, now) = (self.highest / WORD, sequence / WORD);
        // As many as there are, if it is far ahead.
        for word in (before + 1).max(now.saturating_sub(WORDS as u64 - 1))..=now {
            if let Some(word) = self.words.get_mut(place(word.saturating_mul(WORD))) {
                *word = 0;
            }
        }
        self.highest = self.highest.max(sequence);
        if let Some(word) = self.words.get_mut(place(sequence)) {
            *word |= bit(sequence);
        }
    }
}

fn place(sequence: u64) -> usize {
    usize::try_from(sequence / WORD % WORDS as u64).unwrap_or(0)
}

fn bit(sequence: u64) -> u64 {
    1 << (sequence % WORD)
}

/// How far a sender has come.
#[derive(Clone, Debug)]
struct Floor {
    process: u64,
    /// The highest number of a process that it ever had: lower ones are of earlier processes, but for the one that lives.
    past: u64,
    /// None before the first envelope of the process.
    latest: Option<Latest>,
}

/// How far all senders have come. Only of those who are admitted, so that there are as many at most.
#[derive(Clone, Debug, Default)]
pub(crate) struct Floors {
    of: BTreeMap<NodeId, Floor>,
    changed: bool,
}

impl Floors {
    /// Whether an envelope is old. What says so need not be true yet: nothing changes.
    pub(crate) fn is_old(&self, sender: NodeId, process: u64, sequence: u64) -> bool {
        let Some(floor) = self.of.get(&sender) else { return false };
        let was_seen = || floor.latest.as_ref().is_some_and(|latest| latest.has(sequence));
        if process == floor.process { was_seen() } else { process <= floor.past }
    }

    /// An envelope came that its sender has signed. Whether it is new.
    pub(crate) fn take(&mut self, sender: NodeId, process: u64, sequence: u64) -> bool {
        if self.is_old(sender, process, sequence) {
            return false;
        }
        let floor = self.of.entry(sender).or_insert(Floor { process, past: process, latest: None });
        if floor.process != process {
            *floor = Floor { process, past: floor.past.max(process), latest: None };
        }
        if let Some(latest) = &mut floor.latest {
            latest.see(sequence);
        } else {
            floor.latest = Some(Latest::from(sequence));
        }
        self.changed = true;
        true
    }

    /// A sender is connected, and says which process it is.
    pub(crate) fn lives(&mut self, sender: NodeId, process: u64) {
        let known = self.of.get(&sender);
        if known.is_none_or(|floor| floor.process != process) {
            let past = known.map_or(process, |floor| floor.past.max(process));
            self.of.insert(sender, Floor { process, past, latest: None });
            self.changed = true;
        }
    }

    /// What is to be written down, if anything is new since this was last asked.
    pub(crate) fn take_news(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.changed).then(|| self.encode())
    }

    /// What could not be written is to be written again.
    pub(crate) fn not_written(&mut self) {
        self.changed = true;
    }

    /// What it is, a checksum, and for each sender: its key, its process, the highest that it had, whether an envelope of it was seen, and the highest.
    fn encode(&self) -> Vec<u8> {
        let mut rows = Vec::with_capacity(self.of.len() * ROW_BYTES);
        for (sender, floor) in &self.of {
            rows.extend_from_slice(sender.public_key());
            rows.extend_from_slice(&floor.process.to_be_bytes());
            rows.extend_from_slice(&floor.past.to_be_bytes());
            rows.push(u8::from(floor.latest.is_some()));
            rows.extend_from_slice(&floor.latest.as_ref().map_or(0, |latest| latest.highest).to_be_bytes());
        }
        [MAGIC, &Sha256::digest(&rows)[..], rows.as_slice()].concat()
    }

    /// What was written down, of those who are still admitted; none if it is damaged.
    pub(crate) fn decode(bytes: &[u8], admitted: &BTreeSet<NodeId>) -> Option<Self> {
        let (checksum, rows) = bytes.strip_prefix(MAGIC)?.split_at_checked(CHECKSUM_BYTES)?;
        let (rows, rest) = rows.as_chunks::<ROW_BYTES>();
        if !rest.is_empty() || Sha256::digest(rows.as_flattened())[..] != *checksum {
            return None;
        }
        let of = rows.iter().map(row).collect::<Option<BTreeMap<NodeId, Floor>>>()?;
        let of = of.into_iter().filter(|(sender, _)| admitted.contains(sender)).collect();
        Some(Self { of, changed: false })
    }
}

const MAGIC: &[u8] = b"skep floors 2\n";
const CHECKSUM_BYTES: usize = 32;
const ROW_BYTES: usize = 32 + 8 + 8 + 1 + 8;

fn row(row: &[u8; ROW_BYTES]) -> Option<(NodeId, Floor)> {
    let (sender, rest) = row.split_first_chunk::<32>()?;
    let (process, rest) = rest.split_first_chunk::<8>()?;
    let (past, rest) = rest.split_first_chunk::<8>()?;
    let (seen, rest) = rest.split_first()?;
    let highest = u64::from_be_bytes(*rest.first_chunk::<8>()?);
    let latest = (*seen != 0).then(|| Latest::from(highest));
    let (process, past) = (u64::from_be_bytes(*process), u64::from_be_bytes(*past));
    Some((NodeId::from_public_key(*sender), Floor { process, past, latest }))
}

#[cfg(test)]
mod tests;
