//! Ids of sites, certificates and connections.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use skep_protocol::ids::IdError;

/// SHA-256 of the domain and the bytes of a statement.
pub type Digest = [u8; 32];

/// Bytes that only the two ends of one connection have: exported from TLS (RFC 9266).
pub type Channel = [u8; 32];

/// The first half of the id of a site: as much as an invitation's code holds.
pub type SiteHalf = [u8; 16];

/// A site: the hash of its first root document.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SiteId(Digest);

impl SiteId {
    /// The id with these 32 bytes.
    pub const fn from_bytes(bytes: Digest) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the id.
    pub const fn as_bytes(&self) -> &Digest {
        &self.0
    }

    /// The first half. No other document can be found whose hash begins like that of the site's first one.
    pub fn half(&self) -> SiteHalf {
        let mut half = [0; 16];
        half.copy_from_slice(&self.0[..16]);
        half
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SiteId({self})")
    }
}

impl FromStr for SiteId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError {
            what: "site id",
            text: text.chars().take(80).collect(),
            why: "it is not 64 hexadecimal digits",
        };
        // Hexadecimal digits that are read like a seed; they are no secret here.
        skep_protocol::seed::from_digits(text).map(|bytes| Self(*bytes)).ok_or_else(bad)
    }
}

/// 128 random bits of one certificate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Serial([u8; 16]);

impl Serial {
    /// The serial with these 16 random bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes of the serial.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_shown_as_text_that_is_read_as_the_same_site() {
        let site = SiteId::from_bytes([0xab; 32]);
        assert_eq!(site.to_string().parse(), Ok(site));
        assert_eq!(site.half(), [0xab; 16]);
        for bad in ["", "ab", &"xy".repeat(32)] {
            assert!(bad.parse::<SiteId>().is_err(), "{bad}");
        }
    }
}
