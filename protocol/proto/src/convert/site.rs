//! The directory of a site at the border.
//!
//! Statements pass as they were sealed: the directory verifies them.

use std::net::SocketAddr;

use skep_protocol::field::{FieldError, InField as _, field};
use skep_protocol::ids::ShardId;
use skep_protocol::limits;
use skep_protocol::query::AsOf;
use skep_protocol::site::{SiteInvitation, SiteKey, SiteMember, SiteOp, SiteReceipt, SiteSummary};

use super::{Meta, as_of_to_proto, meta};
use crate::v1;

/// What a request proposes to the directory.
///
/// # Errors
/// [`FieldError`].
pub fn propose(request: v1::ProposeRequest) -> Result<(Meta, SiteOp), FieldError> {
    use v1::propose_request::Statement;
    if request.meta.as_ref().is_some_and(|meta| meta.shard != ShardId::DIRECTORY.0) {
        return Err(field("meta.shard", "leave it out: the directory is the only shard of this service"));
    }
    let meta = Meta { shard: ShardId::DIRECTORY, ..meta(request.meta)? };
    let op = match request.statement.ok_or_else(|| field("statement", "it is missing"))? {
        Statement::Invitation(invitation) => SiteOp::Invite { invitation: statement("invitation", invitation)? },
        Statement::Revocation(revocation) => SiteOp::Revoke { revocation: statement("revocation", revocation)? },
        Statement::Document(document) => SiteOp::Root { document: statement("document", document)? },
    };
    Ok((meta, op))
}

fn statement(name: &'static str, sealed: Vec<u8>) -> Result<Vec<u8>, FieldError> {
    let max = limits::SITE_STATEMENT_BYTES_MAX;
    if sealed.len() > max {
        return Err(field(name, format!("it has {} bytes; at most {max} are allowed", sealed.len())));
    }
    Ok(sealed)
}

/// The key after which a page begins; none for the first page.
///
/// # Errors
/// [`FieldError`] if the text is neither empty nor a key.
pub fn optional_site_key(name: &'static str, text: &str) -> Result<Option<SiteKey>, FieldError> {
    if text.is_empty() { Ok(None) } else { text.parse::<SiteKey>().map(Some).in_field(name) }
}

/// The protobuf form of what the directory did.
pub fn site_receipt_to_proto(request_id: Vec<u8>, receipt: &SiteReceipt, index: u64) -> v1::SiteReceipt {
    use v1::site_receipt::Done;
    let done = match receipt {
        SiteReceipt::Invited { invitation } => Some(Done::Invitation(invitation.to_string())),
        SiteReceipt::Revoked { members, waits_for } => {
            Some(Done::Revoked(v1::SiteRevoked { members: *members, waits_for: *waits_for }))
        }
        SiteReceipt::Rooted { version } => Some(Done::RootVersion(*version)),
        // No client asks for these.
        SiteReceipt::Redeemed { .. }
        | SiteReceipt::Issued { .. }
        | SiteReceipt::Left { .. }
        | SiteReceipt::Located { .. } => None,
    };
    v1::SiteReceipt { request_id, index, done }
}

/// The protobuf form of how a site stands.
pub fn site_summary_to_proto(as_of: &AsOf, summary: SiteSummary) -> v1::SiteSummaryReply {
    let pending = summary.pending.into_iter().map(|pending| v1::PendingRevocation {
        revocation: pending.revocation,
        voters: pending.voters.iter().map(ToString::to_string).collect(),
    });
    v1::SiteSummaryReply {
        as_of: Some(as_of_to_proto(as_of)),
        site: summary.site.to_vec(),
        root_version: summary.root_version,
        epoch_min: summary.epoch_min,
        now_ms: summary.now_ms,
        members: summary.members,
        invitations: summary.invitations,
        revocations: summary.revocations,
        pending: pending.collect(),
    }
}

/// The protobuf form of a member.
pub fn site_member_to_proto(member: SiteMember) -> v1::SiteMember {
    let text = |address: Option<SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    v1::SiteMember {
        key: member.key.to_string(),
        chain: member.chain,
        since_ms: member.since_ms,
        until_ms: member.until_ms,
        control: text(member.addresses.control),
        mesh: text(member.addresses.mesh),
    }
}

/// The protobuf form of an open invitation.
pub fn site_invitation_to_proto(invitation: SiteInvitation) -> v1::SiteInvitation {
    let SiteInvitation { key, sealed, since_ms } = invitation;
    v1::SiteInvitation { key: key.to_string(), sealed, since_ms }
}

/// The request to join of a machine without a network, as it was sealed.
///
/// # Errors
/// [`FieldError`] if it is too large.
pub fn admit(request: v1::AdmitRequest) -> Result<Vec<u8>, FieldError> {
    statement("request", request.request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(statement: Option<v1::propose_request::Statement>, shard: u32) -> Result<(Meta, SiteOp), FieldError> {
        propose(v1::ProposeRequest { meta: Some(v1::RequestMeta { shard, ..Default::default() }), statement })
    }

    #[test]
    fn a_statement_goes_to_the_directory_as_it_was_sealed_and_to_no_other_shard() {
        use v1::propose_request::Statement;
        let (meta, op) = of(Some(Statement::Invitation(vec![7; 9])), 0).unwrap();
        assert_eq!((meta.shard, op), (ShardId::DIRECTORY, SiteOp::Invite { invitation: vec![7; 9] }));
        let refused = |statement, shard| of(statement, shard).unwrap_err().field;
        assert_eq!(refused(Some(Statement::Invitation(vec![7])), 1), "meta.shard");
        assert_eq!(refused(None, 0), "statement");
        let large = vec![0; limits::SITE_STATEMENT_BYTES_MAX + 1];
        assert_eq!(refused(Some(Statement::Document(large.clone())), 0), "document");
        assert!(admit(v1::AdmitRequest { request: large }).is_err());
        assert!(propose(v1::ProposeRequest::default()).is_err());
    }

    #[test]
    fn a_key_is_read_from_the_text_that_shows_it_and_from_no_other() {
        let key = SiteKey::from_bytes([9; 32]);
        assert_eq!(optional_site_key("after", &key.to_string()), Ok(Some(key)));
        assert_eq!(optional_site_key("after", ""), Ok(None));
        for bad in ["0", "abc", &"1".repeat(33), &"1".repeat(99)] {
            assert!(optional_site_key("after", bad).is_err(), "{bad}");
        }
    }
}
