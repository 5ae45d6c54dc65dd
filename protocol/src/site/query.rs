//! What nodes and operators ask of the directory of a site without a change.

use serde::{Deserialize, Serialize};

use super::{SiteAddresses, SiteKey};

/// What a node or an operator can ask about a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteQuery {
    /// How the site stands.
    Summary,
    /// Members in order of their keys.
    Members {
        /// Keys after this one only; from the first one on if none.
        after: Option<SiteKey>,
        /// Most items in the answer; never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// One member.
    Member(SiteKey),
    /// Open invitations in order of their keys.
    Invitations {
        /// Keys after this one only; from the first one on if none.
        after: Option<SiteKey>,
        /// Most items in the answer; never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// Revocations in the order in which they came.
    Revocations {
        /// Revocations after this number only. Those that became needless are left out, and count all the same.
        after: u64,
        /// Most items in the answer; never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// Root documents, the first one first.
    Roots {
        /// Versions above this one only.
        after: u64,
    },
    /// What is needed to answer a node that redeems an invitation.
    Join {
        /// The key of the invitation.
        invitation: SiteKey,
    },
}

/// How a site stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteSummary {
    /// The site's id.
    pub site: [u8; 32],
    /// The version of its root document.
    pub root_version: u64,
    /// The lowest epoch of which certificates hold.
    pub epoch_min: u64,
    /// Site time, in milliseconds.
    pub now_ms: u64,
    /// Number of members, those whose certificates have ended included.
    pub members: u64,
    /// Number of open invitations.
    pub invitations: u64,
    /// Number of all revocations that ever came.
    pub revocations: u64,
    /// Revocations that wait for voters to leave their office.
    pub pending: Vec<PendingRevocation>,
}

/// A revocation that does not hold yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRevocation {
    /// The revocation, as it was sealed.
    pub revocation: Vec<u8>,
    /// Keys of the voters that must leave their office first.
    pub voters: Vec<SiteKey>,
}

/// A member of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteMember {
    /// Key of the member.
    pub key: SiteKey,
    /// The protobuf form of its chain of certificates.
    pub chain: Vec<u8>,
    /// When it became a member, in milliseconds of site time.
    pub since_ms: u64,
    /// When its certificates end, in milliseconds of site time.
    pub until_ms: u64,
    /// The addresses where the member is said to be.
    pub addresses: SiteAddresses,
}

/// An invitation that may be redeemed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteInvitation {
    /// Key of the invitation.
    pub key: SiteKey,
    /// The invitation, as it was sealed.
    pub sealed: Vec<u8>,
    /// When it was opened, in milliseconds of site time.
    pub since_ms: u64,
}

/// What came of an invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InvitationState {
    /// A node may redeem it.
    Open,
    /// A node has redeemed it.
    Redeemed {
        /// The node's request, as it was sealed.
        request: Vec<u8>,
        /// The member that the node became; none before a certificate was issued.
        member: Option<Box<SiteMember>>,
    },
    /// It has ended.
    Ended,
}

/// What is needed to answer a node that redeems an invitation. The caller asks for root documents and revocations
/// beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteJoin {
    /// The invitation, as it was sealed.
    pub invitation: Vec<u8>,
    /// Whether it is open, redeemed or ended.
    pub state: InvitationState,
    /// The epoch of the certificate that is to be issued.
    pub epoch: u64,
    /// Site time, in milliseconds.
    pub now_ms: u64,
}

/// What the directory knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteAnswer {
    /// The shard is the directory of no site.
    NoSite,
    /// How the site stands.
    Summary(Box<SiteSummary>),
    /// A page of members.
    Members {
        /// The members.
        members: Vec<SiteMember>,
        /// Where the next page begins; none on the last page.
        next: Option<SiteKey>,
    },
    /// The member; none if the site has no such member.
    Member(Option<Box<SiteMember>>),
    /// A page of open invitations.
    Invitations {
        /// The invitations.
        invitations: Vec<SiteInvitation>,
        /// Where the next page begins; none on the last page.
        next: Option<SiteKey>,
    },
    /// A page of revocations.
    Revocations {
        /// Number of each revocation, and the revocation as it was sealed with the chain of its operator.
        revocations: Vec<(u64, Vec<u8>)>,
        /// Where the next page begins; none on the last page.
        next: Option<u64>,
    },
    /// A page of root documents.
    Roots {
        /// The documents, as they were sealed.
        documents: Vec<Vec<u8>>,
        /// The version after which the next page begins; none on the last page.
        next: Option<u64>,
    },
    /// What came of an invitation; none if the directory does not know it.
    Join(Option<Box<SiteJoin>>),
}
