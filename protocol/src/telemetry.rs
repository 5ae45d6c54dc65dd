//! What travels on the data plane: publications, in signed envelopes.
//!
//! No reader may rely on anything here: messages are lost, late and repeated as the radio pleases. The latest of a kind
//! wins.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ids::NodeId;
use crate::limits;
use crate::text::{AgentId, ContentType, SiteName};

/// A topic of the data plane: `site/group/kind`.
///
/// Only what belongs together shares a topic: a node that subscribes pays for every message of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPath(Arc<str>);

/// Why a text is not a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a topic: {why}; give site/group/kind, each of letters, digits and . _ - :")]
pub struct TopicError {
    text: String,
    why: &'static str,
}

impl TopicPath {
    /// Checks and wraps a topic.
    ///
    /// # Errors
    /// [`TopicError`] says what is wrong with it.
    pub fn new(text: impl AsRef<str>) -> Result<Self, TopicError> {
        let text = text.as_ref();
        let bad = |why| TopicError { text: text.chars().take(80).collect(), why };
        let parts: Vec<&str> = text.split('/').collect();
        if parts.len() != 3 {
            return Err(bad("it has not three parts"));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
        for part in parts {
            if part.is_empty() || part.len() > limits::NAME_BYTES_MAX {
                return Err(bad("a part is empty or too long"));
            }
            if !part.chars().all(allowed) {
                return Err(bad("a part holds a character that is not allowed"));
            }
        }
        Ok(Self(Arc::from(text)))
    }

    /// The topic of a site.
    ///
    /// # Errors
    /// [`TopicError`] if a part is no name, or the site's name holds a slash.
    pub fn of(site: &SiteName, group: &str, kind: &str) -> Result<Self, TopicError> {
        Self::new(format!("{site}/{group}/{kind}"))
    }

    /// The text of the topic.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the topic belongs to a site.
    pub fn is_of(&self, site: &SiteName) -> bool {
        self.0.split('/').next() == Some(site.as_str())
    }
}

impl fmt::Display for TopicPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for TopicPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicPath({:?})", self.as_str())
    }
}

impl FromStr for TopicPath {
    type Err = TopicError;
    fn from_str(text: &str) -> Result<Self, TopicError> {
        Self::new(text)
    }
}

impl Serialize for TopicPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for TopicPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// What an agent's software publishes on a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publication {
    /// The topic.
    pub topic: TopicPath,
    /// Id of the agent that it is about: a later publication of the same source on the same topic, sent by the same
    /// node, replaces an earlier one.
    pub source: AgentId,
    /// The media type of the payload; empty if the sender says none.
    pub content_type: ContentType,
    /// The payload; its bytes are opaque to Skep.
    pub payload: Vec<u8>,
}

/// Why a node does not send a publication.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPublication {
    /// The payload is too large.
    #[error("the payload has {bytes} bytes; at most {} are allowed", limits::PUBLICATION_BYTES_MAX)]
    Payload {
        /// Its size, in bytes.
        bytes: usize,
    },
}

impl Publication {
    /// Checks the limits that the fields' own types do not.
    ///
    /// # Errors
    /// [`InvalidPublication`] names the field.
    pub fn check(&self) -> Result<(), InvalidPublication> {
        if self.payload.len() > limits::PUBLICATION_BYTES_MAX {
            return Err(InvalidPublication::Payload { bytes: self.payload.len() });
        }
        Ok(())
    }
}

/// A publication with its sender, and its number among the sender's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// PeerId of the node that sent it, and signed it.
    pub sender: NodeId,
    /// Number that rises with each start of the sender: how many starts there were, in the upper 32 bits, and random
    /// bits below.
    pub process: u64,
    /// Number that rises with every envelope of the process.
    pub sequence: u64,
    /// The publication that it carries.
    pub publication: Publication,
}

/// An envelope as it travels: its encoding, and the sender's ed25519 signature of [`SIGNED_DOMAIN`] and the encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedEnvelope {
    /// The encoded [`Envelope`].
    pub envelope: Vec<u8>,
    /// The signature, 64 bytes.
    pub signature: Vec<u8>,
}

/// The beginning of what is signed, so that a signature serves nothing else. It ends in NUL, which no other domain
/// holds: none is the beginning of another.
pub const SIGNED_DOMAIN: &[u8] = b"skep/envelope/1\0";

impl SignedEnvelope {
    /// The bytes that the sender signs.
    pub fn signed_bytes(envelope: &[u8]) -> Vec<u8> {
        [SIGNED_DOMAIN, envelope].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Encoded as _;

    #[test]
    fn a_topic_is_a_site_a_group_and_a_kind() {
        let topic = TopicPath::new("site-A/robots/pose").unwrap();
        assert!(topic.is_of(&SiteName::new("site-A").unwrap()));
        assert!(!topic.is_of(&SiteName::new("site").unwrap()));
        let long = format!("a/{}/c", "b".repeat(65));
        for bad in ["", "a/b", "a/b/c/d", "a//c", "a/b c/d", "a/ü/c", &long] {
            assert!(TopicPath::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_signed_of_an_envelope_begins_with_a_domain_that_ends_in_nul() {
        let signed = SignedEnvelope::signed_bytes(b"0");
        assert_eq!(
            signed, b"skep/envelope/1\x000",
            "not those of a domain that goes on with the envelope's first byte"
        );
        assert_eq!(SIGNED_DOMAIN.iter().filter(|byte| **byte == 0).count(), 1);
    }

    #[test]
    fn a_publication_has_limits() {
        let topic = TopicPath::new("s/g/k").unwrap();
        let source = AgentId::new("r1").unwrap();
        let fits = Publication { topic, source, content_type: ContentType::default(), payload: vec![0; 4_096] };
        assert_eq!(fits.check(), Ok(()));
        let large = Publication { payload: vec![0; 4_097], ..fits };
        assert_eq!(large.check(), Err(InvalidPublication::Payload { bytes: 4_097 }));
    }

    /// Another program, which checked nothing, made the envelope.
    #[test]
    fn an_envelope_with_a_media_type_that_no_command_may_have_is_refused() {
        let sender = NodeId::from_public_key([1; 32]);
        let read = |content_type: &str| {
            let sent = (sender, 1_u64, 2_u64, "s/g/k", "r1", content_type, vec![0_u8; 8]);
            Envelope::decode(&[vec![Envelope::VERSION], postcard::to_stdvec(&sent).unwrap()].concat())
        };
        let most = "x".repeat(limits::CONTENT_TYPE_BYTES_MAX);
        assert_eq!(read(&most).unwrap().publication.content_type.as_str(), most);
        for bad in [format!("{most}x").as_str(), "text/\u{1b}[2J"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
