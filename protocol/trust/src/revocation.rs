//! Revocations: an operator says that certificates do not hold any more.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use skep_protocol::codec::CodecError;
use skep_protocol::critical::{Fields, malformed, message};
use skep_protocol::field::{FieldError, InField as _, field};
use skep_protocol::limits;
use skep_protocol::text::Reason;

use crate::ids::{Serial, SiteId};
use crate::keys::PublicKey;
use crate::links::{CHAIN, Chain, ChainError};
use crate::role::Role;
use crate::root::SiteRoot;
use crate::sealed::{SEALED, Sealed, Stated};
use crate::site_time::SiteTime;
use crate::wire::{encoded, exactly, key, v1};

static ISSUED: Fields = Fields(&[(1, None), (2, None)]);
pub(crate) static REVOCATION: Fields =
    Fields(&[(1, None), (2, None), (3, None), (4, Some(&ISSUED)), (5, None), (6, None), (7, None), (8, None)]);
pub(crate) static SEALED_REVOCATION: Fields = Fields(&[(1, Some(&SEALED)), (2, Some(&CHAIN))]);

/// The certificates that do not hold any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Revoked {
    /// All certificates of the member with this key.
    Key(PublicKey),
    /// The certificate of this serial.
    Serial(Serial),
    /// What an issuer issued from some instant on.
    Issued {
        /// Key of the issuer.
        issuer: PublicKey,
        /// The instant, in site time.
        since: SiteTime,
    },
    /// All certificates of an epoch below this one.
    BelowEpoch(u64),
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "the key {key}"),
            Self::Serial(serial) => write!(f, "the certificate {serial}"),
            Self::Issued { issuer, since } => write!(f, "what {issuer} issued since {since}"),
            Self::BelowEpoch(epoch) => write!(f, "all certificates before epoch {epoch}"),
        }
    }
}

/// The statement by which an operator revokes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Id of the site.
    pub site: SiteId,
    /// The certificates that do not hold any more.
    pub what: Revoked,
    /// The site's epoch when it was stated: it is about no certificate of a later epoch.
    pub epoch: u64,
    /// The reason, for people.
    pub reason: Reason,
    /// Key of the operator who revokes, and seals.
    pub operator: PublicKey,
}

impl Revocation {
    /// Whether the revocation says something of certificates that would hold without it, where those of an epoch below
    /// `epoch_min` do not hold.
    pub fn is_needed(&self, epoch_min: u64) -> bool {
        match self.what {
            Revoked::BelowEpoch(below) => below >= epoch_min,
            Revoked::Key(_) | Revoked::Serial(_) | Revoked::Issued { .. } => self.epoch >= epoch_min,
        }
    }
}

/// Why a node does not believe a revocation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// The bytes are no revocation.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A field that this Skep does not know changes what it means.
    #[error("field {field} of a revocation is not known; upgrade this node")]
    UnknownField {
        /// The number of the field.
        field: u32,
    },
    /// The revocation is of another site.
    #[error("a revocation is of another site")]
    OtherSite,
    /// The operator whom it names did not seal it as it is.
    #[error("a revocation is not sealed by the operator whom it names")]
    NotSealed,
    /// The operator who sealed it may not revoke that.
    #[error("{operator} may not revoke {what}")]
    NotAllowed {
        /// Key of the operator who sealed it.
        operator: PublicKey,
        /// The certificates that it revokes.
        what: Revoked,
    },
    /// The chain of the operator does not hold.
    #[error("the operator of a revocation does not belong to the site: {0}")]
    Chain(#[from] ChainError),
    /// The revocation is of an epoch to which the site cannot have come.
    #[error("a revocation is of epoch {found}; this node knows epoch {known}")]
    Ahead {
        /// Epoch of the revocation.
        found: u64,
        /// The epoch that the node knows.
        known: u64,
    },
    /// There are as many revocations as there can be.
    #[error(
        "a site has at most {max} revocations; revoke all certificates of earlier epochs, once members have new ones"
    )]
    Full {
        /// The most that there can be.
        max: usize,
    },
}

/// A revocation, and what shows that its operator is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRevocation {
    /// The revocation, as its operator sealed it.
    pub revocation: Sealed<Revocation>,
    /// The operator's chain; none if the root document names the operator.
    pub chain: Option<Chain>,
}

impl SignedRevocation {
    /// Checks that an operator who may revoke that stated it, where certificates of an epoch below this one do not
    /// hold. It does not matter that the operator's certificate has ended since: a member that is out stays out.
    ///
    /// # Errors
    /// [`RevocationError`] says what does not hold.
    pub fn check(&self, root: &SiteRoot, epoch_min: u64) -> Result<(), RevocationError> {
        let stated = self.revocation.statement();
        if let Some(field) = self.revocation.unknown_field() {
            return Err(RevocationError::UnknownField { field });
        }
        if stated.site != root.site() {
            return Err(RevocationError::OtherSite);
        }
        let last = epoch_min.saturating_add(limits::CERTIFICATE_EPOCHS_AHEAD_MAX);
        let below = match stated.what {
            Revoked::BelowEpoch(epoch) => epoch,
            Revoked::Key(_) | Revoked::Serial(_) | Revoked::Issued { .. } => 0,
        };
        let latest = stated.epoch.max(below);
        if latest > last {
            return Err(RevocationError::Ahead { found: latest, known: epoch_min });
        }
        if !self.is_allowed(root, epoch_min)? {
            return Err(RevocationError::NotAllowed { operator: stated.operator, what: stated.what });
        }
        if self.revocation.is_sealed_by(stated.operator) { Ok(()) } else { Err(RevocationError::NotSealed) }
    }

    fn is_allowed(&self, root: &SiteRoot, epoch_min: u64) -> Result<bool, ChainError> {
        let stated = self.revocation.statement();
        if root.document().operators.contains_key(&stated.operator) {
            return Ok(true);
        }
        let Some(chain) = &self.chain else { return Ok(false) };
        let member = chain.verify(root)?;
        let is_operator = member.key == stated.operator && member.is(Role::Operator) && member.epoch >= epoch_min;
        Ok(is_operator && !matches!(stated.what, Revoked::BelowEpoch(_)))
    }

    pub(crate) fn from_wire(came: v1::SealedRevocation) -> Result<Self, RevocationError> {
        let revocation = came.revocation.ok_or_else(|| malformed(Revocation::WHAT, "it is missing"))?;
        Ok(Self { revocation: Sealed::from_wire(revocation)?, chain: came.chain.map(Chain::from_wire).transpose()? })
    }

    pub(crate) fn to_wire(&self) -> v1::SealedRevocation {
        v1::SealedRevocation {
            revocation: Some(self.revocation.to_wire()),
            chain: self.chain.as_ref().map(Chain::to_wire),
        }
    }

    /// The revocation in a protobuf form.
    ///
    /// # Errors
    /// [`RevocationError`] if it is none. Whether it holds is another question.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, RevocationError> {
        let max = limits::CHAIN_BYTES_MAX + 2 * Revocation::BYTES_MAX;
        if bytes.len() > max {
            return Err(CodecError::TooLarge { what: Revocation::WHAT, bytes: bytes.len(), max }.into());
        }
        let (came, unknown) = message(Revocation::WHAT, bytes, &SEALED_REVOCATION)?;
        unknown.map_or_else(|| Self::from_wire(came), |field| Err(RevocationError::UnknownField { field }))
    }

    /// The protobuf form of the revocation.
    pub fn to_bytes(&self) -> Vec<u8> {
        encoded(&self.to_wire())
    }
}

fn revocation(stated: v1::RevocationStatement) -> Result<Revocation, FieldError> {
    use v1::revocation_statement::What;
    let what = match stated.what {
        Some(What::Key(given)) => Revoked::Key(key("key", &given)?),
        Some(What::Serial(given)) => Revoked::Serial(exactly("serial", &given).map(Serial::from_bytes)?),
        Some(What::Issued(v1::IssuedSince { issuer, since })) => {
            Revoked::Issued { issuer: key("issued.issuer", &issuer)?, since: SiteTime(since) }
        }
        Some(What::BelowEpoch(epoch)) => Revoked::BelowEpoch(epoch),
        None => return Err(field("what", "it is missing")),
    };
    Ok(Revocation {
        site: exactly("site", &stated.site).map(SiteId::from_bytes)?,
        what,
        epoch: stated.epoch,
        reason: Reason::new(&stated.reason).in_field("reason")?,
        operator: key("operator", &stated.operator)?,
    })
}

impl Stated for Revocation {
    const WHAT: &'static str = "revocation";
    const DOMAIN: &'static [u8] = b"skep/revocation/1\0";
    const BYTES_MAX: usize = 1_024;
    const SEALS_MAX: usize = 1;

    fn to_body(&self) -> Vec<u8> {
        use v1::revocation_statement::What;
        let what = match self.what {
            Revoked::Key(key) => What::Key(key.as_bytes().to_vec()),
            Revoked::Serial(serial) => What::Serial(serial.as_bytes().to_vec()),
            Revoked::Issued { issuer, since } => {
                What::Issued(v1::IssuedSince { issuer: issuer.as_bytes().to_vec(), since: since.0 })
            }
            Revoked::BelowEpoch(epoch) => What::BelowEpoch(epoch),
        };
        encoded(&v1::RevocationStatement {
            site: self.site.as_bytes().to_vec(),
            what: Some(what),
            epoch: self.epoch,
            reason: self.reason.to_string(),
            operator: self.operator.as_bytes().to_vec(),
        })
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &REVOCATION)?;
        Ok((revocation(stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}
