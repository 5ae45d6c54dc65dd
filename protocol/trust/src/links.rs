//! What a member shows: its certificate, that of its issuer if that has one, and the invitations of both.

use bytes::Bytes;
use skep_protocol::codec::CodecError;
use skep_protocol::critical::{Fields, malformed, message};
use skep_protocol::limits;

use crate::certificate::Certificate;
use crate::invitation::Invitation;
use crate::join::JoinRequest;
use crate::keys::PublicKey;
use crate::role::{Role, ScopeError};
use crate::sealed::{SEALED, Sealed};
use crate::wire::{encoded, v1};

const WHAT: &str = "chain of certificates";

static LINK: Fields = Fields(&[(1, Some(&SEALED)), (2, Some(&SEALED)), (3, Some(&SEALED))]);
pub(crate) static CHAIN: Fields = Fields(&[(1, Some(&LINK))]);

/// Why a chain of certificates does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The bytes are no chain.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The chain has no certificate.
    #[error("there is no certificate in the chain")]
    Empty,
    /// The chain is too long.
    #[error("the chain has {certificates} certificates; at most {max} are allowed")]
    TooDeep {
        /// Number of certificates in the chain.
        certificates: usize,
        /// The most that are allowed.
        max: usize,
    },
    /// A field that this Skep does not know changes what a certificate means.
    #[error("field {field} of a certificate is not known; upgrade this node")]
    UnknownField {
        /// The number of the field.
        field: u32,
    },
    /// A certificate is of another site.
    #[error("a certificate is of another site")]
    OtherSite,
    /// The key of a certificate made the certificate itself.
    #[error("a certificate is made by its own key, which the root document does not name as an issuer")]
    SelfMade,
    /// The site does not know the issuer.
    #[error("the root document does not name {issuer} as an issuer")]
    UnknownIssuer {
        /// Key of the issuer.
        issuer: PublicKey,
    },
    /// The certificate that follows is not that of the issuer.
    #[error("a certificate does not name {issuer} as its issuer, whose certificate follows")]
    NotBy {
        /// Key of the certificate that follows.
        issuer: PublicKey,
    },
    /// The key named as the issuer is that of a member that is none.
    #[error("{issuer} is a member, and no issuer")]
    NotAnIssuer {
        /// The key named as the issuer.
        issuer: PublicKey,
    },
    /// The certificate was changed, or is not the issuer's.
    #[error("the issuer that a certificate names did not seal it as it is")]
    NotSealed,
    /// The issuer may not issue that certificate.
    #[error("a certificate is beyond the scope of its issuer: {0}")]
    OutOfScope(#[from] ScopeError),
    /// No operator invited the member that has the role.
    #[error("a certificate with the role {role} needs the invitation of an operator whom the root document names")]
    NotSponsored {
        /// The role.
        role: Role,
    },
    /// The invitation beside a certificate is not the one that it needs.
    #[error("the invitation of a certificate with the role {role} does not hold: {why}")]
    Sponsor {
        /// The role.
        role: Role,
        /// What is wrong with it, for people.
        why: &'static str,
    },
}

impl ChainError {
    /// Name of the kind, for audits.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Codec(_) => "malformed",
            Self::Empty => "no-certificate",
            Self::TooDeep { .. } => "too-deep",
            Self::UnknownField { .. } => "unknown-field",
            Self::OtherSite => "other-site",
            Self::SelfMade => "self-made",
            Self::UnknownIssuer { .. } => "unknown-issuer",
            Self::NotBy { .. } | Self::NotAnIssuer { .. } => "not-an-issuer",
            Self::NotSealed => "not-sealed",
            Self::OutOfScope(_) => "out-of-scope",
            Self::NotSponsored { .. } | Self::Sponsor { .. } => "not-sponsored",
        }
    }
}

/// The invitation of a member, and its node's request that redeemed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sponsor {
    /// The invitation.
    pub invitation: Sealed<Invitation>,
    /// The request that redeemed it.
    pub request: Sealed<JoinRequest>,
}

/// One certificate of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainLink {
    /// The certificate.
    pub certificate: Sealed<Certificate>,
    /// The invitation of the certificate's member, redeemed. Roles that an issuer alone cannot give need it.
    pub sponsor: Option<Sponsor>,
}

/// A chain as a member shows it. Whether it holds is another question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The member's certificate first. Never empty.
    links: Vec<ChainLink>,
}

impl Chain {
    /// The chain of these certificates, the member's first.
    ///
    /// # Errors
    /// [`ChainError`] if there is none, or if there are too many.
    pub fn new(links: Vec<ChainLink>) -> Result<Self, ChainError> {
        check_depth(links.len())?;
        Ok(Self { links })
    }

    /// The chain in a protobuf form.
    ///
    /// # Errors
    /// [`ChainError`] if it is none.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, ChainError> {
        let max = limits::CHAIN_BYTES_MAX;
        if bytes.len() > max {
            return Err(CodecError::TooLarge { what: WHAT, bytes: bytes.len(), max }.into());
        }
        let (came, unknown): (v1::CertificateChain, _) = message(WHAT, bytes, &CHAIN)?;
        unknown.map_or_else(|| Self::from_wire(came), |field| Err(ChainError::UnknownField { field }))
    }

    pub(crate) fn from_wire(came: v1::CertificateChain) -> Result<Self, ChainError> {
        // Checked before anything in it is read.
        check_depth(came.links.len())?;
        let links: Result<Vec<ChainLink>, CodecError> = came.links.into_iter().map(link).collect();
        Ok(Self { links: links? })
    }

    pub(crate) fn to_wire(&self) -> v1::CertificateChain {
        let link = |link: &ChainLink| v1::ChainLink {
            certificate: Some(link.certificate.to_wire()),
            invitation: link.sponsor.as_ref().map(|sponsor| sponsor.invitation.to_wire()),
            request: link.sponsor.as_ref().map(|sponsor| sponsor.request.to_wire()),
        };
        v1::CertificateChain { links: self.links.iter().map(link).collect() }
    }

    /// The protobuf form of the chain.
    pub fn to_bytes(&self) -> Vec<u8> {
        encoded(&self.to_wire())
    }

    /// Its certificates, the member's first.
    pub fn links(&self) -> &[ChainLink] {
        &self.links
    }

    /// The member's certificate.
    pub fn certificate(&self) -> Option<&Sealed<Certificate>> {
        self.links.first().map(|link| &link.certificate)
    }
}

fn check_depth(certificates: usize) -> Result<(), ChainError> {
    let max = limits::CHAIN_CERTIFICATES_MAX;
    match certificates {
        0 => Err(ChainError::Empty),
        certificates if certificates > max => Err(ChainError::TooDeep { certificates, max }),
        _ => Ok(()),
    }
}

fn link(came: v1::ChainLink) -> Result<ChainLink, CodecError> {
    let certificate = came.certificate.ok_or_else(|| malformed(WHAT, "a link of it has no certificate"))?;
    let sponsor = match (came.invitation, came.request) {
        (None, None) => None,
        (Some(invitation), Some(request)) => {
            Some(Sponsor { invitation: Sealed::from_wire(invitation)?, request: Sealed::from_wire(request)? })
        }
        (None, Some(_)) | (Some(_), None) => {
            return Err(malformed(WHAT, "an invitation and the request that redeemed it come together"));
        }
    };
    Ok(ChainLink { certificate: Sealed::from_wire(certificate)?, sponsor })
}
