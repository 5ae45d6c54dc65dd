//! Keys by which a site names members, issuers, operators and invitations.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{IdError, NodeId, key_of_text, text_of_key};

/// The public half of an ed25519 key that a site knows: of a member, an issuer, an operator or an invitation. Shown in
/// base58.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SiteKey([u8; 32]);

impl SiteKey {
    /// The key with these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<NodeId> for SiteKey {
    fn from(node: NodeId) -> Self {
        Self(*node.public_key())
    }
}

impl fmt::Display for SiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text_of_key(&self.0))
    }
}

impl fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SiteKey({self})")
    }
}

impl FromStr for SiteKey {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        key_of_text("key", text).map(Self)
    }
}
