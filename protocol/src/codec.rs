//! Versioned encodings of what goes to disk and to peers.
//!
//! A value is one version byte and then [postcard](https://postcard.jamesmunns.com/wire-format.html) bytes. Enum
//! variants are only ever appended; any other change of a type takes a new version, and the old golden bytes stay
//! in the tests for as long as that version is read.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a decoder or encoder did not take bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There is not even a version.
    #[error("{what}: empty")]
    Empty {
        /// What the decoder expected, such as `frame`.
        what: &'static str,
    },
    /// A newer Skep wrote it.
    #[error("{what}: version {found} is not understood; this Skep reads up to {supported}. Upgrade it")]
    Version {
        /// What the decoder expected, such as `frame`.
        what: &'static str,
        /// The version that the decoder found.
        found: u8,
        /// The newest version that this Skep understands.
        supported: u8,
    },
    /// The bytes are over the limit.
    #[error("{what}: {bytes} bytes; at most {max} are allowed")]
    TooLarge {
        /// What the decoder expected, such as `frame`.
        what: &'static str,
        /// Its size, in bytes.
        bytes: usize,
        /// Its limit, in bytes.
        max: usize,
    },
    /// The bytes are cut off, or rubbish.
    #[error("{what}: malformed ({why})")]
    Malformed {
        /// What the decoder expected, such as `frame`.
        what: &'static str,
        /// What the decoder found, for people.
        why: String,
    },
}

/// Something that a node writes to disk or sends to peers.
pub trait Encoded: Serialize + DeserializeOwned {
    /// What it is, as errors call it.
    const WHAT: &'static str;
    /// The version that this Skep writes.
    const VERSION: u8;
    /// Its largest encoded form, in bytes.
    const BYTES_MAX: usize;

    /// The version byte and the value.
    ///
    /// # Errors
    /// [`CodecError`] if the value is over its limit.
    fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let bytes = postcard::to_extend(self, vec![Self::VERSION])
            .map_err(|e| CodecError::Malformed { what: Self::WHAT, why: e.to_string() })?;
        if bytes.len() > Self::BYTES_MAX {
            return Err(CodecError::TooLarge { what: Self::WHAT, bytes: bytes.len(), max: Self::BYTES_MAX });
        }
        Ok(bytes)
    }

    /// The value that these bytes hold, all of them.
    ///
    /// # Errors
    /// [`CodecError`] if they are too many, of a newer version, cut off, followed by rubbish, or rubbish.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(CodecError::TooLarge { what: Self::WHAT, bytes: bytes.len(), max: Self::BYTES_MAX });
        }
        let Some((version, body)) = bytes.split_first() else {
            return Err(CodecError::Empty { what: Self::WHAT });
        };
        if *version != Self::VERSION {
            return Err(CodecError::Version { what: Self::WHAT, found: *version, supported: Self::VERSION });
        }
        match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => {
                Err(CodecError::Malformed { what: Self::WHAT, why: format!("{} bytes too many", rest.len()) })
            }
            Err(e) => Err(CodecError::Malformed { what: Self::WHAT, why: e.to_string() }),
        }
    }
}
