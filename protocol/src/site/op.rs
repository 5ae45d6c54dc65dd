//! What nodes and operators ask of the directory of a site.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::SiteKey;
use crate::limits;

/// What a node or an operator can ask of the directory. A statement in it is the protobuf form of what was sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteOp {
    /// A node may become a member.
    Invite {
        /// The invitation, sealed by an operator.
        invitation: Vec<u8>,
    },
    /// A node redeems an invitation. The first node gets it; the same node again gets the same answer.
    Redeem {
        /// The key of the invitation.
        invitation: SiteKey,
        /// The key of the node.
        node: SiteKey,
        /// The node's request, sealed by both keys.
        request: Vec<u8>,
    },
    /// A member gets a certificate: its first one, or one that follows that.
    Issue {
        /// The certificate, sealed by its issuer or by root keys.
        certificate: Vec<u8>,
    },
    /// Certificates do not hold any more.
    Revoke {
        /// The revocation, sealed by an operator, with its chain.
        revocation: Vec<u8>,
    },
    /// The site has another root document.
    Root {
        /// The document, sealed by the root keys of the version before and by its own.
        document: Vec<u8>,
    },
    /// A member leaves. The node that proposed it saw that the member says so itself.
    Leave {
        /// Key of the member.
        member: SiteKey,
    },
    /// A member says where it is. The node that proposed it saw that the member says so itself.
    Locate {
        /// Key of the member.
        member: SiteKey,
        /// The addresses where the member is said to be.
        addresses: SiteAddresses,
    },
}

impl SiteOp {
    /// Key of the member that must say it itself; none for what is sealed.
    pub fn said_by(&self) -> Option<SiteKey> {
        match self {
            Self::Leave { member } | Self::Locate { member, .. } => Some(*member),
            Self::Invite { .. }
            | Self::Redeem { .. }
            | Self::Issue { .. }
            | Self::Revoke { .. }
            | Self::Root { .. } => None,
        }
    }

    /// Whether it brings a member that is not in. A node whose disk runs low refuses these.
    pub(crate) fn brings_work(&self) -> bool {
        match self {
            Self::Invite { .. } | Self::Redeem { .. } => true,
            Self::Issue { .. } | Self::Revoke { .. } | Self::Root { .. } | Self::Leave { .. } | Self::Locate { .. } => {
                false
            }
        }
    }

    /// Whether a statement in it is of a size that one may have.
    pub fn is_within_bounds(&self) -> bool {
        self.payload_bytes() <= limits::SITE_STATEMENT_BYTES_MAX
    }

    /// Bytes of the statement in it.
    pub(crate) fn payload_bytes(&self) -> usize {
        match self {
            Self::Invite { invitation: sealed }
            | Self::Redeem { request: sealed, .. }
            | Self::Issue { certificate: sealed }
            | Self::Revoke { revocation: sealed }
            | Self::Root { document: sealed } => sealed.len(),
            Self::Leave { .. } | Self::Locate { .. } => 0,
        }
    }
}

/// The addresses where a member is said to be. Hints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteAddresses {
    /// Address of its control plane.
    pub control: Option<SocketAddr>,
    /// Address of its mesh.
    pub mesh: Option<SocketAddr>,
}

/// What the directory did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteReceipt {
    /// An invitation is open.
    Invited {
        /// The key of the invitation.
        invitation: SiteKey,
    },
    /// An invitation belongs to a node, by this request or by an earlier one.
    Redeemed {
        /// The key of the invitation.
        invitation: SiteKey,
        /// The key of the node.
        node: SiteKey,
    },
    /// A certificate is in the log.
    Issued {
        /// Key of the member whose certificate it is.
        member: SiteKey,
        /// The certificate's serial.
        serial: [u8; 16],
    },
    /// A revocation is in the log.
    Revoked {
        /// Number of members that are out by it.
        members: u32,
        /// Number of voters that must leave their office first. If it is not zero, no member is out by it yet.
        waits_for: u32,
    },
    /// The site has that version of its root document.
    Rooted {
        /// Version of the document.
        version: u64,
    },
    /// A member left.
    Left {
        /// Key of the member.
        member: SiteKey,
    },
    /// The directory knows where a member is.
    Located {
        /// Key of the member.
        member: SiteKey,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_of_more_bytes_than_any_has_is_out_of_bounds() {
        let of = |bytes: usize| SiteOp::Issue { certificate: vec![0; bytes] };
        assert!(of(limits::SITE_STATEMENT_BYTES_MAX).is_within_bounds());
        assert!(!of(limits::SITE_STATEMENT_BYTES_MAX + 1).is_within_bounds());
    }
}
