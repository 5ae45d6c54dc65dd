//! Ids as newtypes. Equal bytes of different kinds never compare.

use std::fmt;
use std::str::FromStr;

use crate::mutant::{Mutant, is_on};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: {why}")]
pub struct IdError {
    /// The kind of id that was expected, such as `task id`.
    pub what: &'static str,
    /// The text that was given.
    pub text: String,
    /// What is wrong with it, for people.
    pub why: &'static str,
}

fn id_error(what: &'static str, text: &str, why: &'static str) -> IdError {
    IdError { what, text: text.chars().take(80).collect(), why }
}

/// The text of a public key: its 32 bytes in base58.
pub fn text_of_key(bytes: &[u8; 32]) -> String {
    bs58::encode(bytes).into_string()
}

/// The 32 bytes of a public key whose text this is. `what`: the kind of key, for the error.
///
/// # Errors
/// [`IdError`] if the text is not 32 bytes in base58.
pub fn key_of_text(what: &'static str, text: &str) -> Result<[u8; 32], IdError> {
    // Base58 takes time that grows with the square of the length.
    if text.len() > 64 {
        return Err(id_error(what, text, "it is too long"));
    }
    let bytes = bs58::decode(text).into_vec().map_err(|_| id_error(what, text, "it is not base58"))?;
    bytes.try_into().map_err(|_| id_error(what, text, "it has not 32 bytes"))
}

/// A node: its 32-byte ed25519 public key, shown as libp2p PeerId text (`12D3KooW…`).
///
/// The text is base58btc over the identity multihash of the key's protobuf form
/// (<https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md>); a golden test in `skep-mesh` holds it
/// equal to libp2p's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId([u8; 32]);

/// Identity multihash of 36 bytes; protobuf field 1 (key type ed25519), field 2 (32 bytes).
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

impl NodeId {
    /// The id of the node with this ed25519 public key.
    pub const fn from_public_key(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The bytes of the ed25519 public key.
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.0
    }

    /// The bytes of the libp2p PeerId.
    pub fn peer_id_bytes(&self) -> [u8; 38] {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        bytes
    }

    /// The node whose libp2p PeerId has these bytes; none if it is not that of an ed25519 key.
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Option<Self> {
        let key = bytes.strip_prefix(&PEER_ID_PREFIX)?;
        key.try_into().ok().map(Self)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.peer_id_bytes()).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_string();
        write!(f, "NodeId(…{})", &text[text.len().saturating_sub(8)..])
    }
}

impl FromStr for NodeId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let what = "node id";
        if text.len() > 64 {
            return Err(id_error(what, text, "it is longer than a PeerId"));
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| id_error(what, text, "it is not base58"))?;
        Self::from_peer_id_bytes(&bytes)
            .ok_or_else(|| id_error(what, text, "it is not the PeerId of an ed25519 key (12D3KooW…)"))
    }
}

/// 128 random bits made with a node's data directory. A wiped node has others, and so another [`RaftId`]: it can never
/// vote twice in a term by forgetting its first vote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub [u8; 16]);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({self})")
    }
}

impl FromStr for Incarnation {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || id_error("incarnation", text, "it is not 32 hexadecimal digits");
        if text.len() != 32 || !text.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; 16];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

/// 128 random bits made with a shard, in its first entry. Statements of operators are bound to it: a statement for one
/// shard is good for no other, whatever both are called, nor for one that is made anew in the place of the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Genesis([u8; 16]);

impl Genesis {
    /// The genesis with these 16 random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Genesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Genesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Genesis({self})")
    }
}

impl FromStr for Genesis {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || id_error("genesis", text, "it is not 32 hexadecimal digits");
        let Incarnation(bytes) = text.parse().map_err(|_| bad())?;
        Ok(Self(bytes))
    }
}

/// A member of a Raft group: the hash of a node and its incarnation. Every node chooses its own incarnation, so that it
/// could look for one that gives it the id of another member: of 128 bits it finds none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RaftId(pub u128);

impl RaftId {
    /// The Raft id of a node's incarnation: the first 16 bytes of a SHA-256, domain-separated.
    pub fn derive(node: NodeId, incarnation: Incarnation) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"skep/raft-id/2\0");
        hash.update(node.public_key());
        if !is_on(Mutant::NodeIdReused) {
            hash.update(incarnation.0);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Self(u128::from_be_bytes(first))
    }
}

impl From<u64> for RaftId {
    fn from(id: u64) -> Self {
        Self(u128::from(id))
    }
}

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A shard: one Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u32);

impl ShardId {
    /// The directory of the site.
    pub const DIRECTORY: Self = Self(0);
    /// The shard that every site starts with.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for ShardId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse().map(Self).map_err(|_| id_error("shard id", text, "it is not a number"))
    }
}

/// A fencing token: rises with every claim of a task, and every effect of a claim carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClaimEpoch(pub u64);

impl ClaimEpoch {
    /// The epoch of the next claim.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for ClaimEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One attachment of an agent: rises with every attachment in the shard, and no attachment has it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachmentId(pub u64);

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The time of one journal at an agent: rises whenever another journal takes the agent over, and with it the sequence
/// of deliveries begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HomeEpoch(pub u64);

impl HomeEpoch {
    /// The home epoch of the next journal.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for HomeEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id with these bytes of a UUID.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The bytes of the UUID.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Uuid::from_bytes(self.0).fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), Uuid::from_bytes(self.0))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::try_parse(text)
                    .map(|uuid| Self(uuid.into_bytes()))
                    .map_err(|_| id_error($what, text, "it is not a UUID"))
            }
        }
    };
}

uuid_id!(
    /// A task. Its creator makes the id, a UUIDv7.
    TaskId, "task id"
);
uuid_id!(
    /// A mutating request. The client that first sends it makes the id, a UUIDv7. Retries keep it.
    RequestId, "request id"
);
uuid_id!(
    /// A command. The client that sends it makes the id, a UUIDv7.
    CommandId, "command id"
);
uuid_id!(
    /// The journal that a node keeps for one of its agents: random, made with the journal. A node that lost its disk
    /// has another one, and knows nothing of what it did.
    JournalId, "journal id"
);
uuid_id!(
    /// One run of an agent's software. The software makes the id at its start. Another run is another session.
    SessionId, "session id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_id_text_round_trips_and_rubbish_is_refused() {
        let id = NodeId::from_public_key([7; 32]);
        assert!(id.to_string().starts_with("12D3KooW"));
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "12D3KooW", "0OIl", &"1".repeat(500), "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wiped_node_has_another_raft_id() {
        let node = NodeId::from_public_key([7; 32]);
        let first = RaftId::derive(node, Incarnation([1; 16]));
        assert_eq!(first, RaftId::derive(node, Incarnation([1; 16])));
        assert_ne!(first, RaftId::derive(node, Incarnation([2; 16])));
        assert_ne!(first, RaftId::derive(NodeId::from_public_key([8; 32]), Incarnation([1; 16])));
        assert_eq!(first.to_string().len(), 32);
        let halves = |id: RaftId| (id.0 >> 64, id.0 << 64);
        let other = RaftId::derive(node, Incarnation([2; 16]));
        assert!(halves(first).0 != halves(other).0 && halves(first).1 != halves(other).1, "each half is of the hash");
    }

    #[test]
    fn incarnation_text_round_trips() {
        let incarnation = Incarnation([0xab; 16]);
        assert_eq!(incarnation.to_string().parse(), Ok(incarnation));
        assert!("ab".parse::<Incarnation>().is_err());
        let genesis = Genesis::from_bytes([0xab; 16]);
        assert_eq!(genesis.to_string().parse(), Ok(genesis));
        assert!("ä".repeat(16).parse::<Incarnation>().is_err());
    }
}
