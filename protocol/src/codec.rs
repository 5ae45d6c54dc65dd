//! Versioned encodings of what goes to disk and to peers.
//!
//! A value is one version byte and then [postcard](https://postcard.jamesmunns.com/wire-format.html) bytes. Enum
//! variants are only ever appended; any other change of a type takes a new version, and the old golden bytes stay
//! in the tests for as long as that version is read.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes were not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not even a version.
    #[error("{what}: empty")]
    Empty {
        /// What was expected.
        what: &'static str,
    },
    /// Written by a newer Skep.
    #[error("{what}: version {found} is not understood; this Skep reads up to {supported}. Upgrade it")]
    Version {
        /// What was expected.
        what: &'static str,
        /// The version found.
        found: u8,
        /// The newest version that is understood.
        supported: u8,
    },
    /// Over its limit.
    #[error("{what}: {bytes} bytes; at most {max} are allowed")]
    TooLarge {
        /// What was expected.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// Its limit.
        max: usize,
    },
    /// Cut off, or rubbish.
    #[error("{what}: malformed ({why})")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What the decoder met.
        why: String,
    },
}

/// Something that is written to disk or sent to peers.
pub trait Encoded: Serialize + DeserializeOwned {
    /// What it is, for errors.
    const WHAT: &'static str;
    /// The version that is written.
    const VERSION: u8;
    /// Its largest encoded form.
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
