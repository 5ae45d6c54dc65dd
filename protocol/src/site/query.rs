//! What is asked of the directory of a site, and changes nothing.

use serde::{Deserialize, Serialize};

use super::{SiteAddresses, SiteKey};

/// What can be asked about a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteQuery {
    /// How things stand.
    Summary,
    /// Members in order of their keys.
    Members {
        /// Only those after this one.
        after: Option<SiteKey>,
        /// At most so many, and never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// One member.
    Member(SiteKey),
    /// Open invitations in order of their keys.
    Invitations {
        /// Only those after this one.
        after: Option<SiteKey>,
        /// At most so many, and never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// Revocations in the order in which they came.
    Revocations {
        /// Only those after so many. Those that were needless meanwhile are left out, and counted all the same.
        after: u64,
        /// At most so many, and never more than [`crate::limits::PAGE_ITEMS_MAX`].
        limit: u32,
    },
    /// Root documents, the first one first.
    Roots {
        /// Only those after this version.
        after: u64,
    },
    /// What became of an invitation: what is needed to answer the node that redeems it.
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
    /// Certificates of an epoch below this one do not hold.
    pub epoch_min: u64,
    /// Site time, in milliseconds.
    pub now_ms: u64,
    /// How many members there are, those whose certificates have ended included.
    pub members: u64,
    /// How many invitations are open.
    pub invitations: u64,
    /// How many revocations ever came.
    pub revocations: u64,
    /// Revocations that wait for voters to leave their office.
    pub pending: Vec<PendingRevocation>,
}

/// A revocation that does not hold yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRevocation {
    /// The revocation, as it was sealed.
    pub revocation: Vec<u8>,
    /// The voters that have to leave their office first.
    pub voters: Vec<SiteKey>,
}

/// A member of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteMember {
    /// Its key.
    pub key: SiteKey,
    /// The protobuf form of its chain of certificates.
    pub chain: Vec<u8>,
    /// Since when it is a member, in milliseconds of site time.
    pub since_ms: u64,
    /// Until when its certificates hold, in milliseconds of site time.
    pub until_ms: u64,
    /// Where it is said to be.
    pub addresses: SiteAddresses,
}

/// An invitation that may be redeemed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteInvitation {
    /// Its key.
    pub key: SiteKey,
    /// The invitation, as it was sealed.
    pub sealed: Vec<u8>,
    /// Since when it is open, in milliseconds of site time.
    pub since_ms: u64,
}

/// What became of an invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InvitationState {
    /// It may be redeemed.
    Open,
    /// A node has it.
    Redeemed {
        /// Its request, as it was sealed.
        request: Vec<u8>,
        /// The member that it became, once a certificate was issued.
        member: Option<Box<SiteMember>>,
    },
    /// It ended.
    Ended,
}

/// What is needed to answer a node that redeems an invitation. Root documents and revocations are asked for beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteJoin {
    /// The invitation, as it was sealed.
    pub invitation: Vec<u8>,
    /// What became of it.
    pub state: InvitationState,
    /// The epoch that the certificate is to be of.
    pub epoch: u64,
    /// Site time, in milliseconds.
    pub now_ms: u64,
}

/// What the directory knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteAnswer {
    /// The shard is the directory of no site.
    NoSite,
    /// How things stand.
    Summary(Box<SiteSummary>),
    /// A page of members.
    Members {
        /// The members.
        members: Vec<SiteMember>,
        /// Where the next page begins; none on the last page.
        next: Option<SiteKey>,
    },
    /// The member, if there is one.
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
        /// Which they are, and each as it was sealed with the chain of its operator.
        revocations: Vec<(u64, Vec<u8>)>,
        /// Where the next page begins; none on the last page.
        next: Option<u64>,
    },
    /// Root documents.
    Roots {
        /// The documents, as they were sealed.
        documents: Vec<Vec<u8>>,
        /// After which version the next page begins; none on the last page.
        next: Option<u64>,
    },
    /// What became of an invitation; none if the directory does not know it.
    Join(Option<Box<SiteJoin>>),
}
