//! What openraft is told about our types.

use std::fmt;
use std::io;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use skep_protocol::ids::{Incarnation, NodeId, RaftId};
use skep_protocol::outcome::Reply;
use skep_protocol::text::NodeName;
use skep_protocol::time::LogInstant;

openraft::declare_raft_types!(
    /// One shard's Raft group.
    pub(crate) TypeConfig:
        D = EntryBytes,
        R = ApplyReply,
        NodeId = RaftId,
        Node = Member,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, RaftId>,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, super::machine::Machine>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, Bytes>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;

/// An encoded [`skep_protocol::entry::Entry`]. It stays encoded until it is applied.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EntryBytes(pub(crate) Bytes);

impl fmt::Display for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for EntryBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for EntryBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsBytes;
        impl Visitor<'_> for AsBytes {
            type Value = EntryBytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<EntryBytes, E> {
                Ok(EntryBytes(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(AsBytes)
    }
}

/// What applying an entry answers to its proposer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ApplyReply {
    /// The entry's index.
    pub(crate) index: u64,
    /// The shard's clock after it.
    pub(crate) stamp: LogInstant,
    /// One for each request.
    pub(crate) replies: Vec<Reply>,
}

/// A member of a group: which node, under which incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) name: Option<NodeName>,
}

impl Member {
    pub(crate) fn raft_id(&self) -> RaftId {
        RaftId::derive(self.node, self.incarnation)
    }
}

/// openraft's conformance suite needs members without names.
impl Default for Member {
    fn default() -> Self {
        Self { node: NodeId::from_public_key([0; 32]), incarnation: Incarnation([0; 16]), name: None }
    }
}

/// Encodes what openraft gives us, for disk or wire.
pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(value).map_err(io::Error::other)
}

/// Decodes all of these bytes.
pub(crate) fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> io::Result<T> {
    let malformed = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {why}"));
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(malformed(format!("{} bytes too many", rest.len()))),
        Err(e) => Err(malformed(e.to_string())),
    }
}
