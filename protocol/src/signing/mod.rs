//! Keys of operators, signatures, and what was signed, as it was signed.
//!
//! A statement is a protobuf message and a signature of its bytes. It is decoded once, and the bytes are kept: they are
//! what is stored, forwarded, delivered and verified, so that a field that this Skep does not know is not lost on the
//! way.
//!
//! This module knows keys, bytes and the place where a statement holds. What operators can state is defined where it
//! belongs, beside commands, operators and recoveries.

pub mod ballot;
mod key;
mod verdicts;

use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock;

use bytes::Bytes;
use serde::de::{Error as _, Visitor};
use serde::ser::SerializeTuple as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::CodecError;
use crate::ids::{Genesis, ShardId};
use crate::text::SiteName;

pub use key::{OperatorKey, OperatorSecret, Signature};
pub use verdicts::Verdicts;

/// Where a statement holds, and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The site.
    pub site: SiteName,
    /// The shard.
    pub shard: ShardId,
    /// The random bytes with which the shard began.
    pub genesis: Genesis,
}

/// What an operator can state.
pub trait Statement: Sized {
    /// What it is, for errors.
    const WHAT: &'static str;
    /// What is signed before its bytes, so that no signature is good for anything else. Ends in a NUL.
    const DOMAIN: &'static [u8];
    /// Its largest encoded form, in bytes.
    const BYTES_MAX: usize;

    /// Where it holds.
    fn place(&self) -> &Place;

    /// Who signs it.
    fn signer(&self) -> OperatorKey;

    /// The same, of whoever signs it.
    #[must_use]
    fn signed_as(self, signer: OperatorKey) -> Self;

    /// Its protobuf form.
    fn to_body(&self) -> Vec<u8>;

    /// What these bytes say, and the first field in them that changes what they mean and is not known here.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] if they are no such statement.
    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError>;
}

/// A statement with its signature. What it says cannot be changed, only signed anew.
#[derive(Clone)]
pub struct Signed<T> {
    statement: T,
    /// A field that is not known here and may not be passed over.
    unknown: Option<u32>,
    body: Bytes,
    signature: Signature,
    /// Whether the signature holds, once somebody has looked. It follows from the rest.
    holds: OnceLock<bool>,
}

impl<T: Statement> Signed<T> {
    /// From what came. Whether the signature holds is another question: see [`is_signed`](Self::is_signed).
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are too many, or no such statement.
    pub fn from_parts(body: Bytes, signature: Signature) -> Result<Self, CodecError> {
        if body.len() > T::BYTES_MAX {
            return Err(CodecError::TooLarge { what: T::WHAT, bytes: body.len(), max: T::BYTES_MAX });
        }
        let (statement, unknown) = T::from_body(&body)?;
        Ok(Self { statement, unknown, body, signature, holds: OnceLock::new() })
    }

    /// A statement under a signature that was made elsewhere, or nowhere.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn under(statement: &T, signature: Signature) -> Result<Self, CodecError> {
        Self::from_parts(statement.to_body().into(), signature)
    }

    /// Signs a statement.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(statement: T, by: &OperatorSecret) -> Result<Self, CodecError> {
        Self::sign_body(statement.signed_as(by.key()).to_body().into(), by)
    }

    /// Signs a statement that somebody else encoded, perhaps with fields that are not known here.
    ///
    /// # Errors
    /// [`CodecError`] if the bytes are too many, or no such statement.
    pub fn sign_body(body: Bytes, by: &OperatorSecret) -> Result<Self, CodecError> {
        let signature = by.sign(&[T::DOMAIN, &body].concat());
        Self::from_parts(body, signature)
    }

    /// Whether it was signed by the operator that it names. Worked out once; a copy knows it, too.
    pub fn is_signed(&self) -> bool {
        *self.holds.get_or_init(|| {
            let signed = [T::DOMAIN, &self.body].concat();
            self.statement.signer().verifies(&signed, &self.signature)
        })
    }
}

impl<T> Signed<T> {
    /// What it says.
    pub fn statement(&self) -> &T {
        &self.statement
    }

    /// The bytes that were signed, without their domain.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The signature.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The first field in it that changes what it means and is not known here: it must be refused.
    pub fn unknown_field(&self) -> Option<u32> {
        self.unknown
    }
}

impl<T> Deref for Signed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.statement
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.body == other.body && self.signature == other.signature
    }
}

impl<T> Eq for Signed<T> {}

impl<T: fmt::Debug> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signed").field(&self.statement).finish()
    }
}

struct Body(Bytes);

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AsBytes;
        impl Visitor<'_> for AsBytes {
            type Value = Body;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a statement")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Body, E> {
                Ok(Body(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer.deserialize_bytes(AsBytes)
    }
}

impl<T> Serialize for Signed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parts = serializer.serialize_tuple(2)?;
        parts.serialize_element(&Body(self.body.clone()))?;
        parts.serialize_element(&self.signature)?;
        parts.end()
    }
}

impl<'de, T: Statement> Deserialize<'de> for Signed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (Body(body), signature) = <(Body, Signature)>::deserialize(deserializer)?;
        Self::from_parts(body, signature).map_err(D::Error::custom)
    }
}
