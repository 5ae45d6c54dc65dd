//! What it says: for each kind of frame something that no honest peer would say.

use rand::RngExt as _;
use rand::rngs::SmallRng;
use skep_protocol::agent::AgentOp;
use skep_protocol::codec::Encoded as _;
use skep_protocol::entry::{Op, Request};
use skep_protocol::frame::{FrameKind, Proposal, SnapshotId};
use skep_protocol::heartbeat::{AgentClaims, AgentHeartbeat, ClaimsUpdate, Heartbeat};
use skep_protocol::ids::{AttachmentId, NodeId, RequestId};
use skep_protocol::leader::{LeaderHint, Voters};
use skep_protocol::limits;
use skep_protocol::query::Query;
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

use super::Line;

/// Those that are a group's own.
pub const OF_VOTERS: [FrameKind; 11] = [
    FrameKind::Append,
    FrameKind::Vote,
    FrameKind::PreVote,
    FrameKind::TransferLeader,
    FrameKind::SnapshotHead,
    FrameKind::SnapshotChunk,
    FrameKind::SnapshotInstall,
    FrameKind::Clock,
    FrameKind::Beat,
    FrameKind::Forgot,
    FrameKind::Proof,
];

/// What is behind the vote of whoever asks for votes: it has no entries, and is not to be refused for a lease.
const ASKED: [u8; 2] = [0, 1];
/// Behind that, of which shard and by which voters it is to be elected: of none, and by some.
const CANDIDACY: [u8; 33] = [0; 33];

/// Attachments that it guesses: a young shard has given few.
const GUESSED: u64 = 64;
/// The greatest number of anything.
const LOTS: u64 = u64::MAX;

/// This many random bytes.
pub(super) fn rubbish(rng: &mut SmallRng, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| rng.random_range(0..=u8::MAX)).collect()
}

/// Writes a number as openraft's types have it on the wire.
fn number(body: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        body.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    body.push(number as u8);
}

/// Claims that another node's agent is given up, whatever its attachment is.
fn detach(agent: &AgentId) -> Vec<u8> {
    let request = |n: u64| Request {
        id: RequestId::from_bytes([[0xBA; 8], n.to_be_bytes()].concat().try_into().unwrap_or([0; 16])),
        first_sent: LogInstant::from_raw(1),
        deadline: LogInstant::from_raw(1).plus_ms(3_600_000),
        op: Op::Agent(AgentOp::Detach { agent: agent.clone(), attachment: AttachmentId(n) }),
    };
    Proposal { requests: (0..GUESSED).map(request).collect() }.encode().unwrap_or_default()
}

/// Claims that another node's agent is its own, lives, and may be given all tasks.
fn heartbeat(agent: &AgentId) -> Vec<u8> {
    let said = |n: u64| AgentHeartbeat {
        agent: agent.clone(),
        attachment: AttachmentId(n),
        credit_limit: LOTS,
        place: None,
        renew: true,
    };
    Heartbeat { agents: (0..GUESSED).map(said).collect() }.encode().unwrap_or_default()
}

/// Claims that another node's agent holds nothing.
fn claims(agent: &AgentId) -> Vec<u8> {
    let of = |n: u64| AgentClaims {
        agent: agent.clone(),
        attachment: AttachmentId(n),
        assigned: LOTS,
        held: Vec::new(),
        tasks: Vec::new(),
    };
    ClaimsUpdate { as_of: LOTS, agents: (0..GUESSED).map(of).collect() }.encode().unwrap_or_default()
}

impl Line {
    /// A frame of Raft in its own name: it leads, or asks for votes, in a term.
    #[must_use]
    pub fn raft(&self, kind: FrameKind, term: u64) -> Vec<u8> {
        let mut body = Vec::new();
        self.address.write(&mut body);
        // The form of openraft's types, their version first: the vote, then what is behind it.
        body.push(1);
        number(&mut body, u128::from(term));
        body.push(1);
        number(&mut body, self.address.from.0);
        body.push(1);
        body.extend_from_slice(match kind {
            FrameKind::Append => &[0, 0, 0],
            FrameKind::Vote | FrameKind::PreVote => &ASKED,
            _ => &[],
        });
        if kind == FrameKind::Vote {
            body.extend_from_slice(&CANDIDACY);
        }
        body
    }

    /// A piece of a snapshot that no node made.
    fn snapshot(&self) -> Vec<u8> {
        let mut body = Vec::new();
        self.address.write(&mut body);
        SnapshotId { bytes: limits::SNAPSHOT_BYTES_MAX as u64, digest: 7 }.write(&mut body);
        body
    }

    /// A lie of this kind: about itself, about the node to which it speaks, and about an agent of another node.
    #[must_use]
    pub fn lie(&self, kind: FrameKind, own: NodeId, agent: &AgentId) -> Vec<u8> {
        match kind {
            FrameKind::Append
            | FrameKind::Vote
            | FrameKind::PreVote
            | FrameKind::TransferLeader
            | FrameKind::Clock
            | FrameKind::Beat
            | FrameKind::Forgot
            | FrameKind::Proof => self.raft(kind, LOTS),
            FrameKind::SnapshotHead | FrameKind::SnapshotChunk | FrameKind::SnapshotInstall => self.snapshot(),
            FrameKind::Propose | FrameKind::End => detach(agent),
            FrameKind::Query => Query::Changes { from: 0, skip: 0 }.encode().unwrap_or_default(),
            FrameKind::Heartbeat => heartbeat(agent),
            FrameKind::Claims => claims(agent),
            FrameKind::Leads => {
                let hint = LeaderHint { leader: Some(own), term: 1 << 30, voters: Voters::of([own]) };
                hint.encode().unwrap_or_default()
            }
            // An address of no machine: one of those that are kept for documents (RFC 5737).
            FrameKind::Twin => b"203.0.113.7:7341".to_vec(),
            FrameKind::Hello
            | FrameKind::Pull
            | FrameKind::Lineages
            | FrameKind::Trust
            | FrameKind::SiteNews
            | FrameKind::Addresses
            | FrameKind::Renew
            | FrameKind::Knock
            | FrameKind::Join
            | FrameKind::Reply
            | FrameKind::Refused => vec![7; 64],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_protocol::frame::{HEADER_BYTES, Header};
    use skep_protocol::ids::ShardId;

    #[test]
    fn no_kind_of_frame_is_forgotten_and_none_that_is_a_groups_own() {
        let header = Header { kind: FrameKind::Beat, shard: ShardId::FIRST, clock: None, call: 0, body_bytes: 0 };
        let known = |byte: u8| {
            let mut bytes: [u8; HEADER_BYTES] = header.encode();
            bytes[3] = byte;
            Header::decode(&bytes).is_ok()
        };
        let said: Vec<u8> = (0..=u8::MAX).filter(|byte| known(*byte)).collect();
        let all: Vec<u8> = FrameKind::ALL.iter().map(|kind| *kind as u8).collect();
        assert_eq!(all, said);
        let mut of_voters = OF_VOTERS.map(|kind| kind as u8);
        of_voters.sort_unstable();
        let meant = FrameKind::ALL.iter().filter(|kind| kind.is_of_voters()).map(|kind| *kind as u8);
        assert_eq!(of_voters.to_vec(), meant.collect::<Vec<_>>());
    }
}
