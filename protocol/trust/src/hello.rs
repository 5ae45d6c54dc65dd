//! What two members say to each other before anything else: which members they are, and what they know of who is out.

use bytes::Bytes;
use skep_protocol::codec::CodecError;
use skep_protocol::critical::{Fields, malformed, message};
use skep_protocol::limits;

use crate::ids::Digest;
use crate::links::{CHAIN, Chain, ChainError};
use crate::wire::{encoded, exactly, v1};

const WHAT: &str = "hello of a member";
/// Bytes beside the chain, at most.
const NEWS_BYTES_MAX: usize = 128;

pub(crate) static HELLO: Fields = Fields(&[(1, Some(&CHAIN)), (2, None), (3, None), (4, None), (5, None)]);

/// How much a member knows of a site. It does not say what: that is signed, and asked for. Two members whose news
/// differ tell each other what they have before either judges the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustNews {
    /// The latest version of the root document.
    pub root_version: u64,
    /// The lowest epoch of which certificates hold.
    pub epoch_min: u64,
    /// Number of revocations.
    pub revocations: u32,
    /// The digest of the set of revocations: tells it from another one.
    pub digest: Digest,
}

/// What a node says first on a connection between members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustHello {
    /// The node's chain of certificates.
    pub chain: Chain,
    /// What the node knows.
    pub news: TrustNews,
}

impl TrustHello {
    /// The hello in its protobuf form.
    ///
    /// # Errors
    /// [`ChainError`] if it is none.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, ChainError> {
        let max = limits::CHAIN_BYTES_MAX + NEWS_BYTES_MAX;
        if bytes.len() > max {
            return Err(CodecError::TooLarge { what: WHAT, bytes: bytes.len(), max }.into());
        }
        let (came, unknown): (v1::TrustHello, _) = message(WHAT, bytes, &HELLO)?;
        if let Some(field) = unknown {
            return Err(ChainError::UnknownField { field });
        }
        let news = TrustNews {
            root_version: came.root_version,
            epoch_min: came.epoch_min,
            revocations: came.revocations,
            digest: exactly("digest", &came.digest).map_err(|error| malformed(WHAT, error))?,
        };
        Ok(Self { chain: Chain::from_wire(came.chain.ok_or(ChainError::Empty)?)?, news })
    }

    /// The protobuf form of the hello.
    pub fn to_bytes(&self) -> Vec<u8> {
        encoded(&v1::TrustHello {
            chain: Some(self.chain.to_wire()),
            root_version: self.news.root_version,
            epoch_min: self.news.epoch_min,
            revocations: self.news.revocations,
            digest: self.news.digest.to_vec(),
        })
    }
}
