//! Keys of operators, and what they sign with them.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ids::{IdError, key_of_text, text_of_key};
use crate::seed::{from_digits, to_digits};

/// An operator: the public half of an ed25519 key, shown in base58.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperatorKey([u8; 32]);

impl OperatorKey {
    /// The key with these bytes of an ed25519 public key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the ed25519 public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether this operator signed these bytes. See [`Signature::is_of`].
    pub fn verifies(&self, bytes: &[u8], signature: &Signature) -> bool {
        signature.is_of(&self.0, bytes)
    }
}

impl fmt::Display for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text_of_key(&self.0))
    }
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorKey({self})")
    }
}

impl FromStr for OperatorKey {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        key_of_text("operator key", text).map(Self)
    }
}

/// An ed25519 signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature([u8; 32], [u8; 32]);

impl Signature {
    /// The signature with these 64 bytes.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let (mut left, mut right) = ([0; 32], [0; 32]);
        left.copy_from_slice(&bytes[..32]);
        right.copy_from_slice(&bytes[32..]);
        Self(left, right)
    }

    /// Whether the owner of this public key signed these bytes. Strict: no weak keys, no malleable signatures
    /// (RFC 8032, 5.1.7).
    pub fn is_of(&self, key: &[u8; 32], bytes: &[u8]) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(key) else { return false };
        key.verify_strict(bytes, &ed25519_dalek::Signature::from_bytes(&self.to_bytes())).is_ok()
    }

    /// The 64 bytes of the signature.
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..].copy_from_slice(&self.1);
        bytes
    }
}

/// The secret half of an operator's key. It is never shown, and its memory is wiped when it is dropped.
pub struct OperatorSecret(SigningKey);

impl OperatorSecret {
    /// The key that follows from 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The key in the text of a key's file; none if the text holds none.
    pub fn from_text(text: &str) -> Option<Self> {
        from_digits(text.trim()).map(|seed| Self::from_seed(&seed))
    }

    /// The text of the file of the key that is made of 32 random bytes.
    pub fn text_of(seed: &[u8; 32]) -> Zeroizing<String> {
        let digits = to_digits(seed);
        Zeroizing::new([digits.as_str(), "\n"].concat())
    }

    /// The public half.
    pub fn key(&self) -> OperatorKey {
        OperatorKey(self.0.verifying_key().to_bytes())
    }

    pub(super) fn sign(&self, bytes: &[u8]) -> Signature {
        Signature::from_bytes(&self.0.sign(bytes).to_bytes())
    }
}

impl fmt::Debug for OperatorSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorSecret(of {})", self.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(n: u8) -> OperatorSecret {
        OperatorSecret::from_seed(&[n; 32])
    }

    #[test]
    fn a_key_is_the_one_of_rfc_8032_and_its_text_round_trips() {
        // RFC 8032, section 7.1, test 1.
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let bytes = |text: &str| -> [u8; 32] {
            std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        };
        let key = OperatorSecret::from_seed(&bytes(seed)).key();
        assert_eq!(key.as_bytes(), &bytes(public));
        assert_eq!(key.to_string().parse(), Ok(key));
        for bad in ["", "0", "abc", &"1".repeat(99)] {
            assert!(bad.parse::<OperatorKey>().is_err(), "{bad}");
        }
        assert!(!format!("{:?}", secret(1)).contains("01010101"));
    }

    #[test]
    fn a_key_is_read_from_its_file_as_it_was_written() {
        let text = OperatorSecret::text_of(&[0x1c; 32]);
        assert_eq!(text.as_str(), format!("{}\n", "1c".repeat(32)));
        assert_eq!(OperatorSecret::from_text(&text).map(|secret| secret.key()), Some(secret(0x1c).key()));
        assert!(OperatorSecret::from_text(&text[2..]).is_none());
    }
}
