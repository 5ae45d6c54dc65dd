//! What nodes write to disk or send to peers: the name, the version that this Skep writes, and the largest form of
//! each.

use crate::ballot::LeaderProof;
use crate::change::ChangeSet;
use crate::codec::Encoded;
use crate::entry::Entry;
use crate::frame::{Hello, Lineages, MemberAddresses, Proposal, ProposalReply};
use crate::heartbeat::{ClaimsUpdate, Heartbeat, HeartbeatAnswer};
use crate::journal::JournalRecord;
use crate::leader::LeaderHint;
use crate::limits;
use crate::pull::{Pull, PullAnswer};
use crate::query::{Query, QueryAnswer};
use crate::telemetry::{Envelope, SignedEnvelope};

impl Encoded for Entry {
    const WHAT: &'static str = "log entry";
    const VERSION: u8 = 4;
    const BYTES_MAX: usize = limits::ENTRY_BYTES_MAX;
}

impl Encoded for ChangeSet {
    const WHAT: &'static str = "change set";
    const VERSION: u8 = 4;
    const BYTES_MAX: usize = limits::FRAME_BYTES_MAX;
}

impl Encoded for Query {
    const WHAT: &'static str = "query";
    const VERSION: u8 = 3;
    const BYTES_MAX: usize = limits::FRAME_BYTES_MAX;
}

impl Encoded for QueryAnswer {
    const WHAT: &'static str = "query answer";
    const VERSION: u8 = 5;
    const BYTES_MAX: usize = limits::FRAME_BYTES_MAX;
}

impl Encoded for Hello {
    const WHAT: &'static str = "hello";
    const VERSION: u8 = 3;
    const BYTES_MAX: usize = limits::WORD_BYTES_MAX;
}

impl Encoded for Lineages {
    const WHAT: &'static str = "shards of a node";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = limits::WORD_BYTES_MAX;
}

impl Encoded for MemberAddresses {
    const WHAT: &'static str = "addresses of members";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = limits::WORD_BYTES_MAX;
}

impl Encoded for Proposal {
    const WHAT: &'static str = "proposal";
    const VERSION: u8 = 3;
    const BYTES_MAX: usize = limits::FRAME_BYTES_MAX;
}

impl Encoded for ProposalReply {
    const WHAT: &'static str = "proposal reply";
    const VERSION: u8 = 4;
    const BYTES_MAX: usize = limits::FRAME_BYTES_MAX;
}

impl Encoded for Heartbeat {
    const WHAT: &'static str = "heartbeat";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = limits::FRAME_BYTES_MAX;
}

impl Encoded for HeartbeatAnswer {
    const WHAT: &'static str = "heartbeat answer";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = limits::FRAME_BYTES_MAX;
}

impl Encoded for ClaimsUpdate {
    const WHAT: &'static str = "claims update";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = limits::FRAME_BYTES_MAX;
}

impl Encoded for LeaderHint {
    const WHAT: &'static str = "word of a leader";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = limits::LEADER_HINT_BYTES_MAX;
}

impl Encoded for Envelope {
    const WHAT: &'static str = "envelope";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = limits::ENVELOPE_BYTES_MAX;
}

impl Encoded for SignedEnvelope {
    const WHAT: &'static str = "signed envelope";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = limits::SIGNED_ENVELOPE_BYTES_MAX;
}

impl Encoded for LeaderProof {
    const WHAT: &'static str = "proof of leadership";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = limits::LEADER_PROOF_BYTES_MAX;
}

impl Encoded for Pull {
    const WHAT: &'static str = "pull";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = limits::FRAME_BYTES_MAX;
}

impl Encoded for PullAnswer {
    const WHAT: &'static str = "pull answer";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = limits::FRAME_BYTES_MAX;
}

impl Encoded for JournalRecord {
    const WHAT: &'static str = "journal record";
    const VERSION: u8 = 1;
    const BYTES_MAX: usize = limits::ENTRY_BYTES_MAX;
}
