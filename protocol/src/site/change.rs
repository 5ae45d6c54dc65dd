//! What changes in the directory of a site.

use serde::{Deserialize, Serialize};

use super::{SiteAddresses, SiteKey};
use crate::refusal::Refusal;
use crate::text::NodeName;

/// Why open invitations ended before their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InvitationsEnd {
    /// The directory's clock was lost: for how long is not known.
    ClockLost,
    /// The operator who invited, or the invitation itself, was revoked.
    Revoked,
}

impl InvitationsEnd {
    /// Name of the reason in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClockLost => "clock-lost",
            Self::Revoked => "revoked",
        }
    }
}

/// What changed in the directory. Statements are as they were sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteChange {
    /// The site began.
    Founded {
        /// The first root document, in its protobuf form.
        document: Vec<u8>,
    },
    /// An operator invited a node.
    Invited {
        /// The key of the invitation.
        invitation: SiteKey,
        /// The name of the new member.
        name: NodeName,
        /// Key of the operator who invited.
        operator: SiteKey,
        /// The invitation, as it was sealed.
        sealed: Vec<u8>,
    },
    /// A node redeemed an invitation.
    Redeemed {
        /// The key of the invitation.
        invitation: SiteKey,
        /// The key of the node.
        node: SiteKey,
        /// The node's name.
        name: NodeName,
        /// The node's request, as it was sealed.
        request: Vec<u8>,
    },
    /// Open invitations ended before they were used.
    InvitationsEnded {
        /// Number of invitations that ended.
        count: u32,
        /// Why they ended.
        why: InvitationsEnd,
    },
    /// A member got a certificate.
    Issued {
        /// Key of the member.
        member: SiteKey,
        /// The node's name.
        name: NodeName,
        /// The issuer; none for root keys.
        issuer: Option<SiteKey>,
        /// The certificate, in its protobuf form.
        certificate: Vec<u8>,
    },
    /// A revocation waits until voters have left their office.
    RevocationWaits {
        /// Key of the operator.
        operator: SiteKey,
        /// Number of voters for which it waits.
        voters: u32,
        /// The revocation, as it was sealed.
        revocation: Vec<u8>,
    },
    /// A revocation holds.
    Revoked {
        /// Key of the operator.
        operator: SiteKey,
        /// Number of members that are out by it.
        members: u32,
        /// The revocation, as it was sealed.
        revocation: Vec<u8>,
    },
    /// A revocation that waited for voters to leave their office does not hold any more.
    RevocationDropped {
        /// Key of the operator.
        operator: SiteKey,
        /// The refusal.
        why: Box<Refusal>,
    },
    /// A member is out: a revocation or a root document says so.
    Out {
        /// Key of the member.
        member: SiteKey,
        /// The member's name.
        name: NodeName,
    },
    /// The site has another root document.
    Rooted {
        /// Version of the document.
        version: u64,
        /// The document, in its protobuf form.
        document: Vec<u8>,
    },
    /// A member left.
    Left {
        /// Key of the member.
        member: SiteKey,
        /// The member's name.
        name: NodeName,
    },
    /// The directory forgot a member whose certificate had ended, to make room for another one, or for its name.
    Forgotten {
        /// Key of the member.
        member: SiteKey,
        /// The member's name.
        name: NodeName,
    },
    /// The directory heard where a member is.
    Located {
        /// Key of the member.
        member: SiteKey,
        /// The addresses where the member is said to be.
        addresses: SiteAddresses,
    },
    /// The directory refused something: the first time of its kind by that peer within a minute.
    Refused {
        /// Key of the peer that asked, as it says itself; none if that is not known, or there were too many.
        peer: Option<SiteKey>,
        /// The refusal.
        why: Box<Refusal>,
    },
}

impl SiteChange {
    /// Bytes of the statement in it.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Founded { document: sealed }
            | Self::Invited { sealed, .. }
            | Self::Redeemed { request: sealed, .. }
            | Self::Issued { certificate: sealed, .. }
            | Self::RevocationWaits { revocation: sealed, .. }
            | Self::Revoked { revocation: sealed, .. }
            | Self::Rooted { document: sealed, .. } => sealed.len(),
            Self::RevocationDropped { .. } | Self::Refused { .. } => crate::limits::REASON_BYTES_MAX,
            Self::InvitationsEnded { .. }
            | Self::Out { .. }
            | Self::Left { .. }
            | Self::Forgotten { .. }
            | Self::Located { .. } => 0,
        }
    }
}
