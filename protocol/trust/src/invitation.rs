//! Invitations: a node may become a member, once.

use bytes::Bytes;
use skep_protocol::codec::CodecError;
use skep_protocol::critical::{Fields, malformed, message};
use skep_protocol::field::FieldError;
use skep_protocol::limits;

use crate::certificate::{Grants, StatedGrants, grants, grants_to_wire};
use crate::ids::SiteId;
use crate::keys::PublicKey;
use crate::role::SCOPE;
use crate::sealed::{Sealed, Stated};
use crate::site_time::SiteTime;
use crate::wire::{bytes_of, encoded, exactly, key, key_or_none, v1};

pub(crate) static INVITATION: Fields = Fields(&[
    (1, None),
    (2, None),
    (3, None),
    (4, None),
    (5, None),
    (6, None),
    (7, Some(&SCOPE)),
    (8, None),
    (9, None),
    (10, None),
]);

/// An invitation, as the directory keeps it: it does not hold the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Id of the site.
    pub site: SiteId,
    /// The public half of the key that the secret makes.
    pub key: PublicKey,
    /// What the new member is to be.
    pub grants: Grants,
    /// The end: no node redeems it after this.
    pub until: SiteTime,
    /// Key of the operator who invites, and seals.
    pub operator: PublicKey,
    /// Key of the only node that may redeem it; none for any node that has the code.
    pub node: Option<PublicKey>,
}

impl Invitation {
    /// Whether a node may redeem it.
    pub fn is_for(&self, node: PublicKey) -> bool {
        self.node.is_none_or(|only| only == node)
    }
}

impl Sealed<Invitation> {
    /// Whether this Skep understands it, and the operator whom it names sealed it. Whether that operator may invite is
    /// another question.
    pub fn holds(&self) -> bool {
        self.unknown_field().is_none() && self.is_sealed_by(self.operator)
    }
}

fn invitation(stated: v1::InvitationStatement) -> Result<Invitation, FieldError> {
    Ok(Invitation {
        site: exactly("site", &stated.site).map(SiteId::from_bytes)?,
        key: key("key", &stated.key)?,
        until: SiteTime(stated.until),
        operator: key("operator", &stated.operator)?,
        node: key_or_none("node", &stated.node)?,
        grants: grants(StatedGrants {
            name: stated.name,
            roles: stated.roles,
            capabilities: stated.capabilities,
            agents: stated.agents,
            scope: stated.scope,
        })?,
    })
}

impl Stated for Invitation {
    const WHAT: &'static str = "invitation";
    const DOMAIN: &'static [u8] = b"skep/invitation/1\0";
    const BYTES_MAX: usize = limits::CERTIFICATE_BYTES_MAX;
    // Of the operator whom it names. Another operator states it anew, with its own key in it.
    const SEALS_MAX: usize = 1;

    fn to_body(&self) -> Vec<u8> {
        let StatedGrants { name, roles, capabilities, agents, scope } = grants_to_wire(&self.grants);
        encoded(&v1::InvitationStatement {
            site: self.site.as_bytes().to_vec(),
            key: self.key.as_bytes().to_vec(),
            name,
            roles,
            capabilities,
            agents,
            scope,
            until: self.until.0,
            operator: self.operator.as_bytes().to_vec(),
            node: bytes_of(self.node.as_ref().map(PublicKey::as_bytes)),
        })
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &INVITATION)?;
        Ok((invitation(stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}
