//! What is asked of the directory of a site.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::SiteKey;

/// What can be asked of the directory. A statement in it is the protobuf form of what was sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteOp {
    /// Somebody may become a member.
    Invite {
        /// The invitation, sealed by an operator.
        invitation: Vec<u8>,
    },
    /// A node redeems an invitation. The first node has it; the same node again gets the same answer.
    Redeem {
        /// The key of the invitation.
        invitation: SiteKey,
        /// The node.
        node: SiteKey,
        /// Its request, sealed by both keys.
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
    /// A member leaves. That it says so itself was seen by the node that proposed it.
    Leave {
        /// Who.
        member: SiteKey,
    },
    /// A member is to be found there. That it says so itself was seen by the node that proposed it.
    Locate {
        /// Who.
        member: SiteKey,
        /// Where.
        addresses: SiteAddresses,
    },
}

impl SiteOp {
    /// The member that has to say it itself; none for what is sealed.
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

    /// Whether it brings somebody who is not in. A disk that runs low refuses these.
    pub(crate) fn brings_work(&self) -> bool {
        match self {
            Self::Invite { .. } | Self::Redeem { .. } => true,
            Self::Issue { .. } | Self::Revoke { .. } | Self::Root { .. } | Self::Leave { .. } | Self::Locate { .. } => {
                false
            }
        }
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

/// Where a member is said to be. A hint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteAddresses {
    /// Its control plane.
    pub control: Option<SocketAddr>,
    /// Its mesh.
    pub mesh: Option<SocketAddr>,
}

/// What the directory did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteReceipt {
    /// An invitation is open.
    Invited {
        /// Its key.
        invitation: SiteKey,
    },
    /// An invitation belongs to a node, by this request or by an earlier one.
    Redeemed {
        /// Its key.
        invitation: SiteKey,
        /// The node.
        node: SiteKey,
    },
    /// A certificate is in the log.
    Issued {
        /// Whose.
        member: SiteKey,
        /// Its serial.
        serial: [u8; 16],
    },
    /// A revocation is in the log.
    Revoked {
        /// Members that are out by it.
        members: u32,
        /// Voters that have to leave their office first. If there is one, no member is out by it yet.
        waits_for: u32,
    },
    /// The site has that version of its root document.
    Rooted {
        /// The version.
        version: u64,
    },
    /// A member left.
    Left {
        /// Who.
        member: SiteKey,
    },
    /// It is known where a member is.
    Located {
        /// Who.
        member: SiteKey,
    },
}
