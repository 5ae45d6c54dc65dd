//! Keys of members, issuers, operators, invitations and roots: ed25519, all of them.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer as _, SigningKey};
use serde::{Deserialize, Serialize};
use skep_protocol::ids::{IdError, NodeId, key_of_text, text_of_key};
use skep_protocol::signing::{OperatorKey, Signature};
use skep_protocol::site::SiteKey;

/// The public half of an ed25519 key, shown in base58.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key with these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether the owner of this key signed these bytes. See [`Signature::is_of`].
    pub fn verifies(&self, bytes: &[u8], signature: &Signature) -> bool {
        signature.is_of(&self.0, bytes)
    }

    /// The node with this key.
    pub const fn node(&self) -> NodeId {
        NodeId::from_public_key(self.0)
    }
}

impl From<NodeId> for PublicKey {
    fn from(node: NodeId) -> Self {
        Self(*node.public_key())
    }
}

impl From<OperatorKey> for PublicKey {
    fn from(operator: OperatorKey) -> Self {
        Self(*operator.as_bytes())
    }
}

impl From<SiteKey> for PublicKey {
    fn from(key: SiteKey) -> Self {
        Self(*key.as_bytes())
    }
}

impl From<PublicKey> for SiteKey {
    fn from(key: PublicKey) -> Self {
        Self::from_bytes(key.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text_of_key(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        key_of_text("public key", text).map(Self)
    }
}

/// The secret half of a key. It is never shown, and its memory is wiped when it is dropped.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// The key that follows from 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, bytes: &[u8]) -> Signature {
        Signature::from_bytes(&self.0.sign(bytes).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_as_text_that_is_read_as_the_same_key_and_its_secret_never_is() {
        let secret = SecretKey::from_seed(&[1; 32]);
        let key = secret.public();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(PublicKey::from(key.node()), key);
        assert!(!format!("{secret:?}").contains("0101"));
        for bad in ["", "0", "abc", &"1".repeat(99)] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_weak_key_signs_nothing() {
        // The neutral element: under it a signature of zeros would hold for any bytes.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!PublicKey::from_bytes(neutral).verifies(b"anything", &Signature::from_bytes(&signature)));
    }
}
