//! Every decoder of this crate under rubbish: the fixed corpus first, then whatever bolero makes up.
//!
//! `cargo bolero test -p skep-protocol NAME` looks for longer, guided by coverage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Debug;

use bytes::Bytes;
use skep_protocol::ballot::LeaderProof;
use skep_protocol::change::ChangeSet;
use skep_protocol::codec::Encoded;
use skep_protocol::command::{Command, CommandControl};
use skep_protocol::entry::Entry;
use skep_protocol::frame::{
    HEADER_BYTES, Header, Hello, Lineages, MemberAddresses, Proposal, ProposalReply, RaftAddress, SnapshotId,
};
use skep_protocol::heartbeat::{ClaimsUpdate, Heartbeat, HeartbeatAnswer};
use skep_protocol::ids::NodeId;
use skep_protocol::journal::JournalRecord;
use skep_protocol::leader::LeaderHint;
use skep_protocol::operator::{FirstOperator, FirstReplacement, OperatorGrant};
use skep_protocol::pull::{Pull, PullAnswer};
use skep_protocol::query::{Query, QueryAnswer};
use skep_protocol::recovery::ShardRecovery;
use skep_protocol::signing::Statement;
use skep_protocol::telemetry::{Envelope, SignedEnvelope, TopicPath};
use skep_protocol::text::{AgentId, Capability, NodeName, Reason, SiteName};

/// What a decoder understood can be encoded again, and is understood the same.
fn round_trips<T: Encoded + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(value) = T::decode(bytes) {
        let again = value.encode().expect("what was within its limits is");
        assert_eq!(T::decode(&again).unwrap(), value);
    }
}

/// A statement that a decoder understood can be encoded again, and is understood the same.
fn statement<T: Statement + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok((value, _)) = T::from_body(&Bytes::copy_from_slice(bytes)) {
        assert_eq!(T::from_body(&value.to_body().into()), Ok((value, None)));
    }
}

fn header(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return };
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }
}

fn raft_address(bytes: &[u8]) {
    if let Ok((address, rest)) = RaftAddress::split(bytes) {
        let mut again = Vec::new();
        address.write(&mut again);
        again.extend_from_slice(rest);
        assert_eq!(again, bytes);
    }
    if let Ok((snapshot, rest)) = SnapshotId::split(bytes) {
        let mut again = Vec::new();
        snapshot.write(&mut again);
        again.extend_from_slice(rest);
        assert_eq!(again, bytes);
    }
}

fn texts(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = (NodeName::new(&*text), SiteName::new(&*text), Capability::new(&*text), AgentId::new(&*text));
    let said = Reason::truncated(&text);
    assert_eq!(Reason::new(said.as_str()), Ok(said), "what is made of any text can be read");
    let _ = TopicPath::new(&text);
    if let Ok(node) = text.parse::<NodeId>() {
        assert_eq!(node.to_string().parse(), Ok(node));
    }
}

fn replay(target: &str, decode: fn(&[u8])) {
    let corpus = include_str!("corpus.txt").lines().filter_map(|line| line.split_once(' '));
    let seeds: Vec<&str> = corpus.filter(|(name, _)| *name == target).map(|(_, hex)| hex).collect();
    assert!(!seeds.is_empty(), "no corpus for {target}");
    for hex in seeds {
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
        decode(&bytes);
        // Also bytes near it: cut off, and with a bit flipped.
        (0..bytes.len()).for_each(|end| decode(&bytes[..end]));
        for bit in 0..bytes.len() * 8 {
            let mut near = bytes.clone();
            near[bit / 8] ^= 1 << (bit % 8);
            decode(&near);
        }
    }
}

macro_rules! targets {
    ($($name:ident: $decode:expr,)*) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name), $decode);
            bolero::check!().for_each(|bytes: &[u8]| $decode(bytes));
        })*
    };
}

targets! {
    fuzz_entry: round_trips::<Entry>,
    fuzz_change_set: round_trips::<ChangeSet>,
    fuzz_query: round_trips::<Query>,
    fuzz_query_answer: round_trips::<QueryAnswer>,
    fuzz_hello: round_trips::<Hello>,
    fuzz_lineages: round_trips::<Lineages>,
    fuzz_member_addresses: round_trips::<MemberAddresses>,
    fuzz_proposal: round_trips::<Proposal>,
    fuzz_proposal_reply: round_trips::<ProposalReply>,
    fuzz_heartbeat: round_trips::<Heartbeat>,
    fuzz_heartbeat_answer: round_trips::<HeartbeatAnswer>,
    fuzz_claims_update: round_trips::<ClaimsUpdate>,
    fuzz_leader_hint: round_trips::<LeaderHint>,
    fuzz_leader_proof: round_trips::<LeaderProof>,
    fuzz_envelope: round_trips::<Envelope>,
    fuzz_signed_envelope: round_trips::<SignedEnvelope>,
    fuzz_command: statement::<Command>,
    fuzz_command_control: statement::<CommandControl>,
    fuzz_operator_grant: statement::<OperatorGrant>,
    fuzz_first_operator: statement::<FirstOperator>,
    fuzz_first_replacement: statement::<FirstReplacement>,
    fuzz_shard_recovery: statement::<ShardRecovery>,
    fuzz_pull: round_trips::<Pull>,
    fuzz_pull_answer: round_trips::<PullAnswer>,
    fuzz_journal_record: round_trips::<JournalRecord>,
    fuzz_header: header,
    fuzz_raft_address: raft_address,
    fuzz_texts: texts,
}
