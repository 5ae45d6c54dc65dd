//! What changes in the directory of a site.

use serde::{Deserialize, Serialize};

use super::{SiteAddresses, SiteKey};
use crate::refusal::Refusal;
use crate::text::NodeName;

/// Why open invitations ended before their time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InvitationsEnd {
    /// The directory's clock was lost: how long that was is not known.
    ClockLost,
    /// The operator who invited, or the invitation itself, was revoked.
    Revoked,
}

impl InvitationsEnd {
    /// How it is called in events.
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
        /// The first root document.
        document: Vec<u8>,
    },
    /// Somebody was invited.
    Invited {
        /// The key of the invitation.
        invitation: SiteKey,
        /// How the new member is to be called.
        name: NodeName,
        /// Who invited.
        operator: SiteKey,
        /// The invitation.
        sealed: Vec<u8>,
    },
    /// A node redeemed an invitation.
    Redeemed {
        /// The key of the invitation.
        invitation: SiteKey,
        /// The node.
        node: SiteKey,
        /// How it is called.
        name: NodeName,
        /// Its request.
        request: Vec<u8>,
    },
    /// Open invitations ended before they were used.
    InvitationsEnded {
        /// How many.
        count: u32,
        /// Why.
        why: InvitationsEnd,
    },
    /// A member got a certificate.
    Issued {
        /// Who.
        member: SiteKey,
        /// How it is called.
        name: NodeName,
        /// The issuer; none for root keys.
        issuer: Option<SiteKey>,
        /// The certificate.
        certificate: Vec<u8>,
    },
    /// A revocation waits until voters have left their office.
    RevocationWaits {
        /// The operator.
        operator: SiteKey,
        /// How many voters.
        voters: u32,
        /// The revocation.
        revocation: Vec<u8>,
    },
    /// A revocation holds.
    Revoked {
        /// The operator.
        operator: SiteKey,
        /// Members that are out by it.
        members: u32,
        /// The revocation.
        revocation: Vec<u8>,
    },
    /// A revocation that waited for voters to leave their office does not hold any more.
    RevocationDropped {
        /// The operator.
        operator: SiteKey,
        /// Why.
        why: Box<Refusal>,
    },
    /// A member is out: a revocation or a root document says so.
    Out {
        /// Who.
        member: SiteKey,
        /// How it was called.
        name: NodeName,
    },
    /// The site has another root document.
    Rooted {
        /// Its version.
        version: u64,
        /// The document.
        document: Vec<u8>,
    },
    /// A member left.
    Left {
        /// Who.
        member: SiteKey,
        /// How it was called.
        name: NodeName,
    },
    /// A member whose certificate had ended was forgotten, so that there is room for another one, or for its name.
    Forgotten {
        /// Who.
        member: SiteKey,
        /// How it was called.
        name: NodeName,
    },
    /// It became known where a member is.
    Located {
        /// Who.
        member: SiteKey,
        /// Where.
        addresses: SiteAddresses,
    },
    /// Something was refused: the first time of its kind by that peer within a minute.
    Refused {
        /// Who asked, as it says itself; none if that is not known, or there were too many.
        peer: Option<SiteKey>,
        /// Why it was refused.
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
