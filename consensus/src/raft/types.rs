//! What openraft is told about our types.

use std::fmt;
use std::io;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use skep_protocol::entry::Charter;
use skep_protocol::ids::{Incarnation, NodeId, RaftId};
use skep_protocol::outcome::Reply;
use skep_protocol::text::NodeName;
use skep_protocol::time::LogInstant;

use super::saved::SnapshotData;

openraft::declare_raft_types!(
    /// One shard's Raft group.
    pub(crate) TypeConfig:
        D = EntryBytes,
        R = ApplyReply,
        NodeId = RaftId,
        Node = Member,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, RaftId>,
        AsyncRuntime = Runtime,
);

#[allow(deprecated, reason = "openraft names its own runtime; the crate that it points to is not ours to depend on")]
type Tokio = openraft::impls::TokioRuntime;

/// The runtime that openraft runs on.
#[cfg(not(test))]
pub(crate) type Runtime = Tokio;

/// In tests a seed decides what openraft draws at random.
#[cfg(test)]
pub(crate) type Runtime = openraft::rt::deterministic_rng::DeterministicRng<Tokio>;

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>;
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

/// The answer to the proposer after an entry was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ApplyReply {
    /// The entry's index.
    pub(crate) index: u64,
    /// The shard's clock after the entry.
    pub(crate) stamp: LogInstant,
    /// One reply for each request.
    pub(crate) replies: Vec<Reply>,
}

/// A member of a group: a node under one incarnation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) name: Option<NodeName>,
    /// What the shard is, until an entry says so: only of the node that made the group. So whichever voter leads first
    /// knows it.
    pub(crate) charter: Option<Box<Charter>>,
}

impl Member {
    pub(crate) fn raft_id(&self) -> RaftId {
        RaftId::derive(self.node, self.incarnation)
    }
}

/// openraft's conformance suite needs members without names.
impl Default for Member {
    fn default() -> Self {
        let (node, incarnation) = (NodeId::from_public_key([0; 32]), Incarnation([0; 16]));
        Self { node, incarnation, name: None, charter: None }
    }
}

/// The version of the form of openraft's types on disk and wire. It changes when another openraft changes the form.
const RAFT_VERSION: u8 = 1;

/// Encodes a value of openraft, for disk or wire.
pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    postcard::to_extend(value, vec![RAFT_VERSION]).map_err(io::Error::other)
}

/// Decodes these bytes, and refuses bytes behind the value.
pub(crate) fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> io::Result<T> {
    let malformed = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {why}"));
    let bytes = match bytes.split_first() {
        Some((&RAFT_VERSION, rest)) => rest,
        Some((found, _)) => return Err(malformed(format!("version {found}; this Skep reads {RAFT_VERSION}"))),
        None => return Err(malformed("it is empty".to_owned())),
    };
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(malformed(format!("{} bytes too many", rest.len()))),
        Err(e) => Err(malformed(e.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::EntryPayload;

    type Payload = EntryPayload<EntryBytes, RaftId, Member>;

    fn id(term: u64, index: u64) -> LogId {
        LogId { leader_id: term.into(), index }
    }

    /// The bytes of version 1: a change of openraft that changes one of these needs another version.
    #[test]
    fn golden_bytes_of_openrafts_types_in_version_1() {
        let vote = Vote { leader_id: leader_id_std::LeaderId { term: 3, voted_for: RaftId(7) }, committed: true };
        let normal: Payload = EntryPayload::Normal(EntryBytes(Bytes::from_static(b"ab")));
        let blank: Payload = EntryPayload::Blank;
        let membership = openraft::Membership::new_with_defaults(vec![[RaftId(7)].into()], []);
        let meta = SnapshotMeta {
            last_log_id: Some(id(3, 9)),
            last_membership: StoredMembership::new(Some(id(1, 0)), membership.clone()),
        };
        let members: Payload = EntryPayload::Membership(membership);
        assert_eq!(encode(&(vote, id(3, 9))).unwrap(), [1, 3, 1, 7, 1, 3, 9], "who forgot what");
        let encoded = [encode(&vote), encode(&normal), encode(&blank), encode(&members), encode(&meta)];
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let encoded = encoded.map(|bytes| hex(bytes.unwrap()));
        let member = "00".repeat(MEMBER_BYTES);
        let members = format!("01020101070107{member}");
        let meta = format!("010103090101000101070107{member}00");
        assert_eq!(encoded, ["0103010701", "0101026162", "0100", &members, &meta]);
        assert_eq!(decode::<Vote>("vote", &encode(&vote).unwrap()).unwrap(), vote);
    }

    /// Bytes of a member without a name or a charter: key, incarnation, nothing.
    const MEMBER_BYTES: usize = 50;

    #[test]
    fn what_is_of_another_version_is_refused() {
        let mut bytes = encode(&1u8).unwrap();
        bytes[0] = 2;
        assert!(decode::<u8>("number", &bytes).unwrap_err().to_string().contains("version 2"));
        assert!(decode::<u8>("number", &[]).is_err());
    }
}
