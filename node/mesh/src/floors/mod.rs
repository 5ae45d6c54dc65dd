//! Which envelopes are old.
//!
//! A good signature says which node said something, and not when: any node that has heard an envelope can send it
//! again. So each sender numbers its envelopes and its starts, and each receiver remembers how far each sender has
//! come. No node compares clocks.
//!
//! - Each envelope of a remembered process counts once. A late envelope counts if it is not far behind.
//! - No envelope of an earlier process counts: the number of a process rises with each start of its node.
//! - A connected sender says which process it is, on a connection that only it can make. That counts even if the number
//!   is lower: then the sender's directory was restored from a copy, and the sender counts from there.
//! - Of a process that the receiver does not remember, the first envelope counts, and none before it.
//!
//! The memory outlives this process, too. The node writes it down now and then: an envelope of the last minute before a
//! crash can count once more, until its sender says something newer.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use skep_protocol::ids::NodeId;
use skep_protocol::limits;

use crate::speakers::Speakers;

/// The number of words of 64 bits, one of them only partly used. They hold how many envelopes of a process may overtake
/// one of it: as many as one node may say in a second.
const WORDS: usize = 16;
const WORD: u64 = 64;

/// Which of the latest envelopes of a process this node has seen, as bits in a ring (RFC 6479).
#[derive(Clone, Debug)]
struct Latest {
    highest: u64,
    words: [u64; WORDS],
}

impl Latest {
    /// Starts with the first envelope that counts: those before it count as seen.
    fn from(first: u64) -> Self {
        let mut latest = Self { highest: first, words: [u64::MAX; WORDS] };
        if let Some(word) = latest.words.get_mut(place(first)) {
            *word = u64::MAX >> (WORD - 1 - first % WORD);
        }
        latest
    }

    /// Whether this node has seen an envelope, or may have.
    fn has(&self, sequence: u64) -> bool {
        if sequence > self.highest {
            return false;
        }
        let is_behind = self.highest / WORD - sequence / WORD >= WORDS as u64;
        is_behind || self.words.get(place(sequence)).is_none_or(|word| word & bit(sequence) != 0)
    }

    /// Marks an envelope as seen that was not.
    fn see(&mut self, sequence: u64) {
        let (before, now) = (self.highest / WORD, sequence / WORD);
        // This clears all words if the envelope is far ahead.
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
    /// The highest number that a process of the sender ever had: lower numbers are of earlier processes, except for
    /// that of the present one.
    past: u64,
    /// None before the first envelope of the process.
    latest: Option<Latest>,
}

/// How far all senders have come: only admitted ones, and no more than [`limits::MESH_SENDERS_MAX`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Floors {
    of: BTreeMap<NodeId, Floor>,
    changed: bool,
}

impl Floors {
    /// Whether an envelope is old. This changes nothing, so the envelope need not be verified yet.
    pub(crate) fn is_old(&self, sender: NodeId, process: u64, sequence: u64) -> bool {
        let Some(floor) = self.of.get(&sender) else { return false };
        let was_seen = || floor.latest.as_ref().is_some_and(|latest| latest.has(sequence));
        if process == floor.process { was_seen() } else { process <= floor.past }
    }

    /// Takes an envelope whose signature was verified; returns whether it is new.
    pub(crate) fn take(&mut self, sender: NodeId, process: u64, sequence: u64) -> bool {
        if self.is_old(sender, process, sequence) || !self.has_room(&sender) {
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

    /// Notes the process of a sender that is connected.
    pub(crate) fn lives(&mut self, sender: NodeId, process: u64) {
        let known = self.of.get(&sender);
        if !self.has_room(&sender) {
            return;
        }
        if known.is_none_or(|floor| floor.process != process) {
            let past = known.map_or(process, |floor| floor.past.max(process));
            self.of.insert(sender, Floor { process, past, latest: None });
            self.changed = true;
        }
    }

    fn has_room(&self, sender: &NodeId) -> bool {
        self.of.len() < limits::MESH_SENDERS_MAX || self.of.contains_key(sender)
    }

    /// Forgets senders that are out for good.
    pub(crate) fn keep(&mut self, is_kept: impl Fn(&NodeId) -> bool) {
        let before = self.of.len();
        self.of.retain(|sender, _| is_kept(sender));
        self.changed |= self.of.len() != before;
    }

    /// What is to be written down, if anything is new since the last call.
    pub(crate) fn take_news(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.changed).then(|| self.encode())
    }

    /// Notes that the last write failed: the same is to be written again.
    pub(crate) fn not_written(&mut self) {
        self.changed = true;
    }

    /// A magic text, a checksum, and for each sender: its key, its process, the highest process number, whether an
    /// envelope of the process was seen, and the highest number of one.
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

    /// Reads what was written down, of senders whose envelopes may still count; none if the bytes are damaged.
    pub(crate) fn decode(bytes: &[u8], speakers: &Speakers) -> Option<Self> {
        let (checksum, rows) = bytes.strip_prefix(MAGIC)?.split_at_checked(CHECKSUM_BYTES)?;
        let (rows, rest) = rows.as_chunks::<ROW_BYTES>();
        if !rest.is_empty() || Sha256::digest(rows.as_flattened())[..] != *checksum {
            return None;
        }
        let of = rows.iter().map(row).collect::<Option<BTreeMap<NodeId, Floor>>>()?;
        let of = of.into_iter().filter(|(sender, _)| speakers.is_kept(sender)).collect();
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
