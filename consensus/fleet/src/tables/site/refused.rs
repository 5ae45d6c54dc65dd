//! What the rules of trust refuse, as refusals of the shard.

use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::site::{SiteRefusal, SiteStatement};
use skep_protocol::text::Reason;
use skep_trust::{ChainError, JoinRefusal, PublicKey, RevocationError, RootError, Sealed, Stated};

/// The reason, as far as there is room for it.
pub(super) fn reason(why: &impl std::fmt::Display) -> Reason {
    Reason::truncated(&why.to_string())
}

/// The statement in these bytes, if this build understands it.
pub(super) fn read<T: Stated>(what: SiteStatement, bytes: &[u8]) -> Result<Sealed<T>, SiteRefusal> {
    let malformed = |why: Reason| SiteRefusal::Malformed { what, why };
    let sealed: Sealed<T> = Sealed::from_bytes(&bytes.to_vec().into()).map_err(|error| malformed(reason(&error)))?;
    match sealed.unknown_field() {
        Some(field) => Err(malformed(reason(&format!("field {field} of it is not known; upgrade the voters")))),
        None => Ok(sealed),
    }
}

/// The refusal for an invitation that a node may not redeem.
pub(super) fn of_join(error: JoinRefusal) -> SiteRefusal {
    let request = SiteStatement::JoinRequest;
    match error {
        JoinRefusal::OtherSite => SiteRefusal::OtherSite { what: request },
        JoinRefusal::OtherInvitation | JoinRefusal::OtherChannel => {
            SiteRefusal::Malformed { what: request, why: reason(&error) }
        }
        JoinRefusal::NotSealed { .. } => SiteRefusal::NotSealed { what: request },
        JoinRefusal::OtherNode { node } => SiteRefusal::OtherNode { node: node.into() },
        JoinRefusal::OtherName { invited, given } => SiteRefusal::OtherName { invited, given },
        JoinRefusal::Late { until } => SiteRefusal::InvitationEnded { why: reason(&format!("it ended at {until}")) },
        JoinRefusal::Used { node } => SiteRefusal::InvitationUsed { node: node.into() },
    }
}

/// The refusal for a chain that does not hold. `issuer`: the key that it names as its issuer.
pub(super) fn of_chain(error: &ChainError, member: PublicKey, issuer: Option<PublicKey>) -> SiteRefusal {
    let what = SiteStatement::Certificate;
    let why = reason(error);
    match error {
        ChainError::Codec(_) | ChainError::Empty | ChainError::TooDeep { .. } | ChainError::UnknownField { .. } => {
            SiteRefusal::Malformed { what, why }
        }
        ChainError::OtherSite => SiteRefusal::OtherSite { what },
        ChainError::SelfMade
        | ChainError::UnknownIssuer { .. }
        | ChainError::NotBy { .. }
        | ChainError::NotAnIssuer { .. } => SiteRefusal::NotIssuer { issuer: issuer.unwrap_or(member).into(), why },
        ChainError::NotSealed => SiteRefusal::NotSealed { what },
        ChainError::OutOfScope(_) => SiteRefusal::OutOfScope { why },
        ChainError::NotSponsored { .. } | ChainError::Sponsor { .. } => {
            SiteRefusal::NotRedeemed { member: member.into(), why }
        }
    }
}

/// The refusal for a revocation that does not hold. `known`: the earliest epoch that holds, and the latest one that the
/// directory takes.
pub(super) fn of_revocation(error: RevocationError, known: (u64, u64)) -> Refusal {
    let what = SiteStatement::Revocation;
    let why = reason(&error);
    let refusal = match error {
        RevocationError::Codec(_) | RevocationError::UnknownField { .. } => SiteRefusal::Malformed { what, why },
        RevocationError::OtherSite => SiteRefusal::OtherSite { what },
        RevocationError::NotSealed => SiteRefusal::NotSealed { what },
        RevocationError::NotAllowed { operator, .. } => SiteRefusal::NotOperator { operator: operator.into(), why },
        // The chain is that of the operator, who says itself whose it is.
        RevocationError::Chain(_) => SiteRefusal::Malformed { what, why },
        RevocationError::Ahead { found, .. } => {
            SiteRefusal::WrongEpoch { what, given: found, min: known.0, max: known.1 }
        }
        RevocationError::Full { max } => {
            return Refusal::Full { what: ShardFullOf::SiteRevocations, count: max as u64 };
        }
    };
    refusal.into()
}

/// The refusal for a root document that does not hold.
pub(super) fn of_root(error: &RootError) -> SiteRefusal {
    let what = SiteStatement::RootDocument;
    let why = reason(error);
    match error {
        RootError::UnknownField { .. } => SiteRefusal::Malformed { what, why },
        RootError::OtherSite => SiteRefusal::OtherSite { what },
        RootError::NotSealed { .. } => SiteRefusal::NotSealed { what },
        RootError::Missing | RootError::NotNext { .. } | RootError::Changed { .. } | RootError::TooMany { .. } => {
            SiteRefusal::RootNotNext { why }
        }
    }
}
