//! Why the directory of a site does not do what a node or an operator asks.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::SiteKey;
use crate::code::Code;
use crate::text::{NodeName, Reason};

/// The kinds of statements that are sealed in a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteStatement {
    /// The root document: what the site rests on.
    RootDocument,
    /// An invitation: a node may become a member.
    Invitation,
    /// A join request: a node redeems an invitation.
    JoinRequest,
    /// A certificate: a node is a member.
    Certificate,
    /// A revocation: certificates do not hold any more.
    Revocation,
}

impl fmt::Display for SiteStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RootDocument => "root document",
            Self::Invitation => "invitation",
            Self::JoinRequest => "request to join",
            Self::Certificate => "certificate",
            Self::Revocation => "revocation",
        })
    }
}

/// Why the directory did not do what was asked. The state is unchanged, but for the counts of refusals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SiteRefusal {
    /// The shard is not the directory of a site.
    #[error("this shard is not the directory of a site")]
    NotDirectory,
    /// The directory holds no tasks, agents or commands.
    #[error("the directory of a site takes no tasks, agents or commands")]
    DirectoryOnly,
    /// The directory cannot understand the statement.
    #[error("the {what} cannot be understood: {why}")]
    Malformed {
        /// The kind of the statement.
        what: SiteStatement,
        /// What is wrong with it, for people.
        why: Reason,
    },
    /// The statement lacks the seal of a key that should have sealed it.
    #[error("the {what} is not sealed by those who should have sealed it")]
    NotSealed {
        /// The kind of the statement.
        what: SiteStatement,
    },
    /// The statement is of another site.
    #[error("the {what} is of another site")]
    OtherSite {
        /// The kind of the statement.
        what: SiteStatement,
    },
    /// The key that sealed it is of no operator of the site who may do that.
    #[error("{operator} is not an operator who may do that: {why}")]
    NotOperator {
        /// The key that sealed it.
        operator: SiteKey,
        /// The reason, for people.
        why: Reason,
    },
    /// The directory does not know the invitation.
    #[error("the directory does not know the invitation {invitation}")]
    NoSuchInvitation {
        /// The key of the invitation.
        invitation: SiteKey,
    },
    /// There was another invitation of the same key.
    #[error("there was another invitation of the key {invitation}")]
    InvitationExists {
        /// Key of the invitation.
        invitation: SiteKey,
    },
    /// Another node has redeemed the invitation.
    #[error("the node {node} used the invitation")]
    InvitationUsed {
        /// The key of the node that used it.
        node: SiteKey,
    },
    /// The invitation has ended.
    #[error("the invitation has ended: {why}")]
    InvitationEnded {
        /// How it ended, for people.
        why: Reason,
    },
    /// The invitation would be open for too long.
    #[error("the invitation would be open for {given_ms} ms; at most {max_ms} ms are allowed")]
    InvitationTooLong {
        /// For how long it would be open, in milliseconds.
        given_ms: u64,
        /// The longest that it may be open, in milliseconds.
        max_ms: u64,
    },
    /// The invitation is for another node.
    #[error("the invitation is for the node {node}")]
    OtherNode {
        /// The key of the node that it is for.
        node: SiteKey,
    },
    /// The node has another name than the invitation says.
    #[error("the invitation is for {invited}, and the node calls itself {given}")]
    OtherName {
        /// The name in the invitation.
        invited: NodeName,
        /// The name that the node gave.
        given: NodeName,
    },
    /// Another member has the name.
    #[error("the member {member} has the name {name}")]
    NameTaken {
        /// The name that both have.
        name: NodeName,
        /// Key of the member that has the name.
        member: SiteKey,
    },
    /// The key that sealed a certificate is of no issuer.
    #[error("{issuer} may not issue certificates of this site: {why}")]
    NotIssuer {
        /// The key that sealed it.
        issuer: SiteKey,
        /// The reason, for people.
        why: Reason,
    },
    /// The certificate is beyond the scope of its issuer.
    #[error("the certificate is beyond what its issuer may issue: {why}")]
    OutOfScope {
        /// What is beyond the scope, for people.
        why: Reason,
    },
    /// The issuer has issued as much in a day as it may.
    #[error("{issuer} may issue {per_day} certificates in a day; try again in {retry_after_ms} ms")]
    IssuerDayFull {
        /// The issuer.
        issuer: SiteKey,
        /// Number of certificates that it may issue in a day of site time.
        per_day: u32,
        /// After how long the next day begins, in milliseconds.
        retry_after_ms: u64,
    },
    /// The certificate says what no redeemed invitation says.
    #[error("the certificate of {member} does not follow an invitation that it redeemed: {why}")]
    NotRedeemed {
        /// Key of the member whose certificate it is.
        member: SiteKey,
        /// What is wrong with it, for people.
        why: Reason,
    },
    /// Another certificate has the serial.
    #[error("another certificate has this serial")]
    SerialUsed,
    /// The certificate does not hold at this moment.
    #[error("the certificate does not hold at this time: {why}")]
    OutOfTime {
        /// The reason, for people.
        why: Reason,
    },
    /// The statement is of an epoch that the site is not in.
    #[error("the {what} is of epoch {given}; the site takes epochs {min} to {max}")]
    WrongEpoch {
        /// The kind of the statement.
        what: SiteStatement,
        /// Epoch of the statement.
        given: u64,
        /// The first epoch that the site takes.
        min: u64,
        /// The last epoch that the site takes.
        max: u64,
    },
    /// The member that it is about, or its issuer, is out.
    #[error("{key} is out: {why}")]
    Revoked {
        /// The key of that member or issuer.
        key: SiteKey,
        /// What puts it out, as text.
        why: Reason,
    },
    /// The root document does not follow the one that holds.
    #[error("the root document does not follow the one that holds: {why}")]
    RootNotNext {
        /// The reason, for people.
        why: Reason,
    },
    /// There is no such member.
    #[error("the site has no member {member}")]
    NoSuchMember {
        /// Key of the member.
        member: SiteKey,
    },
}

impl SiteRefusal {
    /// The code by which clients know it.
    pub fn code(&self) -> Code {
        match self {
            Self::NotDirectory => Code::NotDirectory,
            Self::DirectoryOnly => Code::DirectoryOnly,
            Self::Malformed { .. } => Code::InvalidStatement,
            Self::NotSealed { .. } => Code::NotSealed,
            Self::OtherSite { .. } => Code::OtherSite,
            Self::NotOperator { .. } => Code::NotSiteOperator,
            Self::NoSuchInvitation { .. } => Code::NoSuchInvitation,
            Self::InvitationExists { .. } => Code::InvitationExists,
            Self::InvitationUsed { .. } => Code::InvitationUsed,
            Self::InvitationEnded { .. } => Code::InvitationEnded,
            Self::InvitationTooLong { .. } => Code::InvitationTooLong,
            Self::OtherNode { .. } => Code::InvitedAnother,
            Self::OtherName { .. } => Code::InvitedAnotherName,
            Self::NameTaken { .. } => Code::NameTaken,
            Self::NotIssuer { .. } => Code::NotIssuer,
            Self::OutOfScope { .. } => Code::OutOfScope,
            Self::IssuerDayFull { .. } => Code::IssuerDayFull,
            Self::NotRedeemed { .. } => Code::NotRedeemed,
            Self::SerialUsed => Code::SerialUsed,
            Self::OutOfTime { .. } => Code::CertificateOutOfTime,
            Self::WrongEpoch { .. } => Code::WrongEpoch,
            Self::Revoked { .. } => Code::MemberRevoked,
            Self::RootNotNext { .. } => Code::RootNotNext,
            Self::NoSuchMember { .. } => Code::NoSuchMember,
        }
    }

    /// After how many milliseconds the directory may answer the same request otherwise; none if it will not.
    pub(crate) fn retry_after_ms(&self) -> Option<u64> {
        if let Self::IssuerDayFull { retry_after_ms, .. } = self {
            return Some(*retry_after_ms);
        }
        self.code().again().after_ms()
    }
}
