//! Sealed statements, as they were sealed.
//!
//! A statement is a protobuf message and signatures of its bytes. A node decodes it once, and keeps the bytes: it
//! stores, forwards and verifies these, so that a field that this Skep does not know is not lost on the way.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use skep_protocol::codec::CodecError;
use skep_protocol::critical::{Fields, malformed, message};
use skep_protocol::field::FieldError;
use skep_protocol::signing::Signature;

use crate::ids::Digest;
use crate::keys::{PublicKey, SecretKey};
use crate::wire::{encoded, exactly, key, v1};

pub(crate) static SEAL: Fields = Fields(&[(1, None), (2, None)]);
pub(crate) static SEALED: Fields = Fields(&[(1, None), (2, Some(&SEAL))]);

/// Bytes that seals, lengths and tags take at most beside the body of a statement, for each seal and for the statement.
const SEAL_BYTES_MAX: usize = 128;

/// What can be sealed.
pub trait Stated: Sized {
    /// What it is, as errors call it.
    const WHAT: &'static str;
    /// What is signed before its bytes, so that no signature is good for anything else. Ends in a NUL.
    const DOMAIN: &'static [u8];
    /// Its largest encoded form, in bytes.
    const BYTES_MAX: usize;
    /// The most seals that it can have. A decoder refuses one with more.
    const SEALS_MAX: usize;

    /// Its protobuf form.
    fn to_body(&self) -> Vec<u8>;

    /// What these bytes say, and the first field in them that changes what they mean and that this Skep does not know.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] if they are no such statement.
    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError>;
}

/// One signature of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The key that is said to have sealed it.
    pub key: PublicKey,
    /// The signature of the statement's domain and bytes.
    pub signature: Signature,
}

/// A statement with its seals. What it says cannot be changed, only sealed anew.
#[derive(Clone)]
pub struct Sealed<T> {
    statement: T,
    /// Number of a field that this Skep does not know and may not pass over.
    unknown: Option<u32>,
    body: Bytes,
    seals: Vec<Seal>,
}

impl<T: Stated> Sealed<T> {
    /// A statement as it came. Whether its seals hold is another question: see [`is_sealed_by`](Self::is_sealed_by).
    ///
    /// # Errors
    /// [`CodecError`] if the bytes or the seals are too many, or the bytes are no such statement.
    pub fn from_parts(body: Bytes, seals: Vec<Seal>) -> Result<Self, CodecError> {
        if body.len() > T::BYTES_MAX {
            return Err(CodecError::TooLarge { what: T::WHAT, bytes: body.len(), max: T::BYTES_MAX });
        }
        if seals.len() > T::SEALS_MAX {
            return Err(malformed(T::WHAT, format!("it has more than {} seals", T::SEALS_MAX)));
        }
        let keys: BTreeSet<PublicKey> = seals.iter().map(|seal| seal.key).collect();
        if keys.len() < seals.len() {
            return Err(malformed(T::WHAT, "it has two seals of one key"));
        }
        let (statement, unknown) = T::from_body(&body)?;
        Ok(Self { statement, unknown, body, seals })
    }

    /// Seals a statement with these keys.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn seal(statement: &T, by: &[&SecretKey]) -> Result<Self, CodecError> {
        Self::seal_body(statement.to_body().into(), by)
    }

    /// Seals a statement that other software encoded, perhaps with fields that this Skep does not know.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are too many, or no such statement.
    pub fn seal_body(body: Bytes, by: &[&SecretKey]) -> Result<Self, CodecError> {
        let signed = [T::DOMAIN, &body].concat();
        let seals = by.iter().map(|key| Seal { key: key.public(), signature: key.sign(&signed) }).collect();
        Self::from_parts(body, seals)
    }

    /// The same statement with one more seal: keys that seal one statement need not be on one machine.
    ///
    /// # Errors
    /// [`CodecError`] if it has as many as it can have, or one of this key.
    pub fn with_seal_of(self, by: &SecretKey) -> Result<Self, CodecError> {
        let signature = by.sign(&self.signed());
        let mut seals = self.seals;
        seals.push(Seal { key: by.public(), signature });
        Self::from_parts(self.body, seals)
    }

    /// The statement in a protobuf form.
    ///
    /// # Errors
    /// [`CodecError`] as [`from_parts`](Self::from_parts).
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, CodecError> {
        let max = T::BYTES_MAX + (T::SEALS_MAX + 1) * SEAL_BYTES_MAX;
        if bytes.len() > max {
            return Err(CodecError::TooLarge { what: T::WHAT, bytes: bytes.len(), max });
        }
        let (came, unknown): (v1::SealedStatement, _) = message(T::WHAT, bytes, &SEALED)?;
        if let Some(number) = unknown {
            return Err(malformed(T::WHAT, format!("field {number} of its seals is not known; upgrade this node")));
        }
        Self::from_wire(came)
    }

    pub(crate) fn from_wire(came: v1::SealedStatement) -> Result<Self, CodecError> {
        // Checked before anything is copied.
        if came.seals.len() > T::SEALS_MAX {
            return Err(malformed(T::WHAT, format!("it has more than {} seals", T::SEALS_MAX)));
        }
        let seals: Result<Vec<Seal>, FieldError> = came.seals.iter().map(seal).collect();
        Self::from_parts(came.body, seals.map_err(|error| malformed(T::WHAT, error))?)
    }

    fn signed(&self) -> Vec<u8> {
        [T::DOMAIN, &self.body].concat()
    }

    /// Whether this key sealed it.
    pub fn is_sealed_by(&self, key: PublicKey) -> bool {
        let seal = self.seals.iter().find(|seal| seal.key == key);
        seal.is_some_and(|seal| key.verifies(&self.signed(), &seal.signature))
    }

    /// Whether so many of these keys sealed it.
    pub fn is_sealed_by_some(&self, keys: &BTreeSet<PublicKey>, threshold: usize) -> bool {
        let signed = self.signed();
        let of_these = self.seals.iter().filter(|seal| keys.contains(&seal.key));
        let needed = threshold.max(1);
        // No more signatures are verified than are needed.
        of_these.filter(|seal| seal.key.verifies(&signed, &seal.signature)).take(needed).count() == needed
    }

    /// What names the statement: the hash of its domain and its bytes. Other seals make no other statement of it.
    pub fn digest(&self) -> Digest {
        Sha256::new().chain_update(T::DOMAIN).chain_update(&self.body).finalize().into()
    }
}

fn seal(came: &v1::Seal) -> Result<Seal, FieldError> {
    let signature: [u8; 64] = exactly("signature", &came.signature)?;
    Ok(Seal { key: key("key", &came.key)?, signature: Signature::from_bytes(&signature) })
}

impl<T> Sealed<T> {
    /// What the statement says.
    pub fn statement(&self) -> &T {
        &self.statement
    }

    /// The bytes that were sealed, without their domain.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Its seals, as they came.
    pub fn seals(&self) -> &[Seal] {
        &self.seals
    }

    /// Number of the first field in it that changes what it means and that this Skep does not know: a node must refuse
    /// it.
    pub fn unknown_field(&self) -> Option<u32> {
        self.unknown
    }

    pub(crate) fn to_wire(&self) -> v1::SealedStatement {
        let seal =
            |seal: &Seal| v1::Seal { key: seal.key.as_bytes().to_vec(), signature: seal.signature.to_bytes().to_vec() };
        v1::SealedStatement { body: self.body.clone(), seals: self.seals.iter().map(seal).collect() }
    }

    /// The protobuf form of the statement with its seals.
    pub fn to_bytes(&self) -> Vec<u8> {
        encoded(&self.to_wire())
    }
}

impl<T> Deref for Sealed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.statement
    }
}

impl<T> PartialEq for Sealed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.body == other.body && self.seals == other.seals
    }
}

impl<T> Eq for Sealed<T> {}

impl<T: fmt::Debug> fmt::Debug for Sealed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<PublicKey> = self.seals.iter().map(|seal| seal.key).collect();
        f.debug_struct("Sealed").field("statement", &self.statement).field("by", &keys).finish()
    }
}

impl<T> Serialize for Sealed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.to_bytes())
    }
}

impl<'de, T: Stated> Deserialize<'de> for Sealed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsBytes;
        impl Visitor<'_> for AsBytes {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a sealed statement")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes::copy_from_slice(bytes))
            }
        }
        Self::from_bytes(&deserializer.deserialize_bytes(AsBytes)?).map_err(D::Error::custom)
    }
}
