//! Frames of the control plane.
//!
//! A frame is a fixed header and a body. Bodies of Raft frames are opaque here: only `skep-consensus` knows the types
//! of openraft.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::codec::CodecError;
use crate::entry::Request;
use crate::fleet::FleetVersions;
use crate::ids::{Incarnation, NodeId, RaftId, ShardId};
use crate::limits;
use crate::outcome::ProposeOutcome;
use crate::recovery::Lineage;
use crate::text::{NodeName, SiteName};
use crate::time::LogInstant;

/// The application protocol of the control plane, for TLS ALPN.
pub const ALPN: &[u8] = b"skep-control/1";
/// The application protocol of a machine that wants to join a site, for TLS ALPN.
pub const JOIN_ALPN: &[u8] = b"skep-join/1";
/// The first bytes of every frame.
pub const MAGIC: [u8; 2] = *b"Sk";
/// The frame format that this Skep speaks.
pub const FRAME_VERSION: u8 = 2;
/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 28;

/// What frames of a kind concern.
#[derive(Clone, Copy)]
enum Of {
    /// The nodes themselves.
    Nodes,
    /// The shard that they name.
    Shard,
    /// The Raft group of that shard: a node that is no voter takes no part in them.
    Voters,
}

/// The kinds of frames. One table has for each its number, what its frames concern, and how many bytes a body may have.
macro_rules! frame_kinds {
    ($($(#[$doc:meta])* $kind:ident = $number:literal, of $of:ident, at most $bytes_max:expr;)*) => {
        /// What a frame is for. The numbers are on the wire: a number is never used again.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum FrameKind {
            $($(#[$doc])* $kind = $number,)*
        }

        impl FrameKind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// Largest body, in bytes. A header that announces a larger one is no frame's.
            pub const fn body_bytes_max(self) -> usize {
                match self {
                    $(Self::$kind => $bytes_max,)*
                }
            }

            const fn of(self) -> Of {
                match self {
                    $(Self::$kind => Of::$of,)*
                }
            }

            fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($number => Some(Self::$kind),)*
                    _ => None,
                }
            }
        }
    };
}

frame_kinds! {
    /// Both sides' first frame on a connection: which nodes they are.
    Hello = 1, of Nodes, at most limits::WORD_BYTES_MAX;
    /// Raft: entries or a heartbeat.
    Append = 2, of Voters, at most 2 * limits::ENTRY_BYTES_MAX;
    /// Raft: a request for a vote.
    Vote = 3, of Voters, at most limits::WORD_BYTES_MAX;
    /// Raft: a question whether the receiver would grant its vote.
    PreVote = 4, of Voters, at most limits::WORD_BYTES_MAX;
    /// Raft: the leader tells the receiver to take over the lead.
    TransferLeader = 5, of Voters, at most limits::WORD_BYTES_MAX;
    /// Raft: the sender has a snapshot. The answer says how much of it the receiver has: the sender goes on from there.
    SnapshotHead = 6, of Voters, at most limits::QUERY_BYTES_MAX;
    /// Raft: a chunk of a snapshot. The answer says how much of it the receiver has without a gap.
    SnapshotChunk = 7, of Voters, at most limits::SNAPSHOT_CHUNK_BYTES_MAX + limits::WORD_BYTES_MAX;
    /// Requests that a node forwards to the shard's leader.
    Propose = 8, of Shard, at most limits::CALL_BYTES_MAX;
    /// A query that a node forwards to a replica.
    Query = 9, of Shard, at most limits::QUERY_BYTES_MAX;
    /// What a node's agents want, and the renewal of their leases.
    Heartbeat = 10, of Shard, at most limits::CALL_BYTES_MAX;
    /// What agents hold by now: the shard's leader tells the node that serves them.
    Claims = 11, of Shard, at most limits::FRAME_BYTES_MAX;
    /// A question to the shard's leader for its log clock, by a node that has none. The answer is eight bytes.
    Clock = 12, of Voters, at most limits::WORD_BYTES_MAX;
    /// A node's question to the shard's leader for commands of its agents.
    Pull = 13, of Shard, at most limits::CALL_BYTES_MAX;
    /// The sender leads the shard, and names the voters. The receiver knows whom to ask next, and no more.
    Leads = 14, of Shard, at most limits::WORD_BYTES_MAX;
    /// Requests that end work, forwarded to the shard's leader: they do not wait behind those that bring it.
    End = 15, of Shard, at most limits::CALL_BYTES_MAX;
    /// The leader lives. The receiver answers at once whether it follows, whatever its disk does.
    Beat = 16, of Voters, at most limits::WORD_BYTES_MAX;
    /// Raft: the receiver lacks what it acknowledged to the sender, the leader.
    Forgot = 17, of Voters, at most limits::WORD_BYTES_MAX;
    /// Raft: the leader has sent all of a snapshot. The receiver answers once it has installed it.
    SnapshotInstall = 18, of Voters, at most limits::QUERY_BYTES_MAX;
    /// Another process has come under the receiver's identity; the body is its address as text. A receiver that answers
    /// lives.
    Twin = 19, of Nodes, at most limits::WORD_BYTES_MAX;
    /// The sender's replicas. The answer has the receiver's: as in hellos, but as they are by now.
    Lineages = 20, of Nodes, at most limits::WORD_BYTES_MAX;
    /// Raft: a quorum voted for the sender in a term. The receiver takes what it sends as the leader of that term after
    /// this.
    Proof = 21, of Voters, at most limits::WORD_BYTES_MAX;
    /// At a site both sides' first frame on a connection, before their hellos: the sender's chain of certificates, and
    /// how much it knows of who is out.
    Trust = 32, of Nodes, at most limits::TRUST_HELLO_BYTES_MAX;
    /// A page of root documents and revocations that the receiver may lack.
    SiteNews = 33, of Nodes, at most limits::SITE_NEWS_BYTES_MAX;
    /// A question for the addresses of members that may vote. The answer is [`MemberAddresses`].
    Addresses = 34, of Nodes, at most limits::WORD_BYTES_MAX;
    /// A member asks an issuer for a certificate after its own, which is two thirds over. The answer is its new chain.
    Renew = 35, of Nodes, at most limits::WORD_BYTES_MAX;
    /// The first frame of a machine that wants to join: it shows that it has the code of an invitation.
    Knock = 36, of Nodes, at most limits::KNOCK_BYTES_MAX;
    /// The request of a machine that wants to join, once it knows that it speaks with a member of the site.
    Join = 37, of Nodes, at most limits::JOIN_REQUEST_BYTES_MAX;
    /// The answer to a call.
    Reply = 64, of Nodes, at most limits::FRAME_BYTES_MAX;
    /// The receiver did not do a call; the body is the reason as text.
    Refused = 65, of Nodes, at most limits::FRAME_BYTES_MAX;
}

impl FrameKind {
    /// Whether frames of this kind belong to a Raft group: a node that is no voter takes no part in them.
    pub const fn is_of_voters(self) -> bool {
        matches!(self.of(), Of::Voters)
    }

    /// Whether frames of this kind ask or say something of the shard that they name: the others are about the nodes
    /// themselves.
    pub const fn is_of_shard(self) -> bool {
        matches!(self.of(), Of::Shard | Of::Voters)
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is for.
    pub kind: FrameKind,
    /// Id of the shard that it concerns.
    pub shard: ShardId,
    /// The shard's log clock, if the sender leads the shard.
    pub clock: Option<LogInstant>,
    /// Number of the call: pairs a reply with its call, on one stream.
    pub call: u64,
    /// Length of the body in bytes.
    pub body_bytes: u32,
}

impl Header {
    /// The bytes of the header.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = FRAME_VERSION;
        bytes[3] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.shard.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.clock.unwrap_or(LogInstant::ZERO).raw().to_be_bytes());
        bytes[16..24].copy_from_slice(&self.call.to_be_bytes());
        bytes[24..].copy_from_slice(&self.body_bytes.to_be_bytes());
        bytes
    }

    /// The header that these bytes hold.
    ///
    /// # Errors
    /// [`CodecError`] if they are no header of this version, or announce a body over the limit.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, CodecError> {
        let what = "frame header";
        let malformed = |why: &str| CodecError::Malformed { what, why: why.to_owned() };
        if bytes[..2] != MAGIC {
            return Err(malformed("not a Skep frame"));
        }
        if bytes[2] != FRAME_VERSION {
            return Err(CodecError::Version { what, found: bytes[2], supported: FRAME_VERSION });
        }
        let kind = FrameKind::from_byte(bytes[3]).ok_or_else(|| malformed("unknown kind"))?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(word)
        };
        let half = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let clock = LogInstant::from_raw(word(8));
        let (body_bytes, max) = (half(24), kind.body_bytes_max());
        if body_bytes as usize > max {
            return Err(CodecError::TooLarge { what: "frame body", bytes: body_bytes as usize, max });
        }
        Ok(Self {
            kind,
            shard: ShardId(half(4)),
            clock: (clock > LogInstant::ZERO).then_some(clock),
            call: word(16),
            body_bytes,
        })
    }
}

/// The sender and the receiver of a Raft frame. A node that was wiped refuses a frame for its earlier incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftAddress {
    /// The sender; it must be the authenticated peer.
    pub from: RaftId,
    /// The receiver that is meant.
    pub to: RaftId,
}

impl RaftAddress {
    /// Length of its encoded form, in bytes.
    pub const BYTES: usize = 32;

    /// Writes the address before a Raft body.
    pub fn write(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.from.0.to_be_bytes());
        body.extend_from_slice(&self.to.0.to_be_bytes());
    }

    /// Splits the address off the front of a Raft frame's body.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] if the body is too short.
    pub fn split(body: &[u8]) -> Result<(Self, &[u8]), CodecError> {
        let short = || CodecError::Malformed { what: "raft frame", why: "too short for its addresses".to_owned() };
        let (from, rest) = body.split_first_chunk::<16>().ok_or_else(short)?;
        let (to, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
        Ok((Self { from: RaftId(u128::from_be_bytes(*from)), to: RaftId(u128::from_be_bytes(*to)) }, rest))
    }
}

/// The snapshot that a frame is of, at the front of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotId {
    /// Length of the snapshot, in bytes.
    pub bytes: u64,
    /// Digest of the whole snapshot.
    pub digest: u128,
}

impl SnapshotId {
    /// Length of its encoded form, in bytes.
    pub const BYTES: usize = 24;

    /// Writes the id at the front of a body.
    pub fn write(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.bytes.to_be_bytes());
        body.extend_from_slice(&self.digest.to_be_bytes());
    }

    /// Splits the id off the front of a body.
    ///
    /// # Errors
    /// [`CodecError`] if the body is too short, or the snapshot is longer than any may be.
    pub fn split(body: &[u8]) -> Result<(Self, &[u8]), CodecError> {
        let what = "snapshot frame";
        let short = || CodecError::Malformed { what, why: "too short for the snapshot's name".to_owned() };
        let (bytes, rest) = body.split_first_chunk::<8>().ok_or_else(short)?;
        let (digest, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
        let id = Self { bytes: u64::from_be_bytes(*bytes), digest: u128::from_be_bytes(*digest) };
        let (bytes, max) = (usize::try_from(id.bytes).unwrap_or(usize::MAX), limits::SNAPSHOT_BYTES_MAX);
        if bytes > max {
            return Err(CodecError::TooLarge { what: "snapshot", bytes, max });
        }
        Ok((id, rest))
    }
}

/// What each side says first on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest frame format that the sender speaks.
    pub frame_version_min: u8,
    /// The newest frame format that the sender speaks.
    pub frame_version_max: u8,
    /// The fleet versions that the sender can apply: a shard's version rises only once each of its voters has told
    /// this.
    pub fleet: FleetVersions,
    /// The sender's incarnation.
    pub incarnation: Incarnation,
    /// A random number that the process made at its start: tells a second connection of one process from another
    /// process, which was started after it or runs beside it.
    pub process: u64,
    /// The sender's name, for people.
    pub name: NodeName,
    /// The sender's site. A node of another site is refused.
    pub site: SiteName,
    /// The shards of which the sender has a replica, as far as it knows what they are: a node that was just started may
    /// not know yet, and one that only serves agents has none. A node does not speak with a node whose shard of the
    /// same number is another one.
    pub shards: Vec<Lineage>,
}

/// The shards of which a node has a replica, as far as it knows what they are: of the node that asks, and in the
/// answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineages {
    /// One lineage for each shard; if there are more than fit, the first ones.
    pub shards: Vec<Lineage>,
}

/// Addresses at which a node has met members of its site that may vote. Hints: what counts is the key that is met
/// there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAddresses {
    /// PeerId and address of each; if there are more than fit, the first ones.
    pub known: Vec<(NodeId, SocketAddr)>,
}

/// Requests that a node forwards to the leader of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The requests.
    pub requests: Vec<Request>,
}

impl Proposal {
    /// Whether these requests get the room that is kept for what ends work, in the proposal queue and on the wire: none
    /// of them can wait.
    pub fn is_reserved_for(requests: &[Request]) -> bool {
        !requests.iter().any(|request| request.op.can_wait())
    }
}

/// The outcomes of forwarded requests, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposalReply {
    /// One outcome for each request.
    pub outcomes: Vec<ProposeOutcome>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            kind: FrameKind::Append,
            shard: ShardId(3),
            clock: Some(LogInstant::from_raw(77)),
            call: 9,
            body_bytes: 256,
        }
    }

    #[test]
    fn golden_header_bytes_of_version_2() {
        let mut golden = b"Sk\x02\x02".to_vec();
        golden.extend([0, 0, 0, 3]);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 77]);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 9]);
        golden.extend([0, 0, 1, 0]);
        assert_eq!(header().encode().as_slice(), golden);
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn kinds_keep_their_numbers_and_whom_they_concern() {
        let numbers = |is: fn(FrameKind) -> bool| -> Vec<u8> {
            (0..=u8::MAX).filter(|byte| FrameKind::from_byte(*byte).is_some_and(is)).collect()
        };
        assert_eq!(numbers(|_| true), (1..=21).chain((32..=37).chain([64, 65])).collect::<Vec<u8>>());
        assert_eq!(numbers(FrameKind::is_of_voters), [2, 3, 4, 5, 6, 7, 12, 16, 17, 18, 21]);
        assert_eq!(numbers(|kind| !kind.is_of_shard()), [1, 19, 20, 32, 33, 34, 35, 36, 37, 64, 65]);
    }

    #[test]
    fn a_malformed_header_is_refused_with_its_reason() {
        let spoil = |at: usize, byte: u8| {
            let mut bytes = header().encode();
            bytes[at] = byte;
            Header::decode(&bytes)
        };
        assert!(matches!(spoil(0, b'X'), Err(CodecError::Malformed { .. })));
        for other in [1, 3] {
            assert!(matches!(spoil(2, other), Err(CodecError::Version { found, .. }) if found == other));
        }
        assert!(matches!(spoil(3, 200), Err(CodecError::Malformed { .. })));
        assert!(matches!(spoil(24, 0xff), Err(CodecError::TooLarge { .. })));
        // An append may have two megabytes, and a vote a page.
        let with = |kind| {
            let mut bytes = Header { body_bytes: 1 << 20, ..header() }.encode();
            bytes[3] = kind as u8;
            Header::decode(&bytes).is_ok()
        };
        assert!(with(FrameKind::Append) && with(FrameKind::Propose) && with(FrameKind::Reply));
        assert!(!with(FrameKind::Vote) && !with(FrameKind::Query) && !with(FrameKind::Hello));
    }

    #[test]
    fn raft_addresses_round_trip_and_short_bodies_are_refused() {
        let address = RaftAddress { from: RaftId(1), to: RaftId(2) };
        let mut body = Vec::new();
        address.write(&mut body);
        assert_eq!(body.len(), RaftAddress::BYTES);
        body.push(42);
        assert_eq!(RaftAddress::split(&body), Ok((address, [42].as_slice())));
        assert!(RaftAddress::split(&body[..RaftAddress::BYTES - 1]).is_err());
    }

    #[test]
    fn snapshot_names_round_trip_and_those_of_snapshots_that_are_too_long_are_refused() {
        let name = |bytes| {
            let mut body = Vec::new();
            SnapshotId { bytes, digest: 7 }.write(&mut body);
            body.push(42);
            body
        };
        let body = name(300);
        assert_eq!(body[..8], [0, 0, 0, 0, 0, 0, 1, 44]);
        assert_eq!(SnapshotId::split(&body), Ok((SnapshotId { bytes: 300, digest: 7 }, [42].as_slice())));
        assert!(SnapshotId::split(&body[..23]).is_err());
        let too_long = name(limits::SNAPSHOT_BYTES_MAX as u64 + 1);
        assert!(matches!(SnapshotId::split(&too_long), Err(CodecError::TooLarge { .. })));
    }
}
