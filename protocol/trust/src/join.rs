//! How a node redeems an invitation.

use bytes::Bytes;
use skep_protocol::codec::CodecError;
use skep_protocol::critical::{Fields, malformed, message};
use skep_protocol::field::{FieldError, InField as _};
use skep_protocol::ids::Incarnation;
use skep_protocol::text::NodeName;

use crate::certificate::Certificate;
use crate::ids::{Channel, Digest, Serial, SiteId};
use crate::invitation::Invitation;
use crate::keys::PublicKey;
use crate::sealed::{Sealed, Stated};
use crate::site_time::{SiteTime, Validity};
use crate::wire::{bytes_of, encoded, exactly, exactly_or_none, key, v1};

pub(crate) static KNOCK: Fields = Fields(&[(1, None), (2, None)]);
pub(crate) static REQUEST: Fields = Fields(&[(1, None), (2, None), (3, None), (4, None), (5, None), (6, None)]);

/// The first word on a connection of a machine that wants to join: it has the code, and is at the other end of this
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knock {
    /// The key of the invitation.
    pub invitation: PublicKey,
    /// The channel of the connection.
    pub channel: Channel,
}

impl Sealed<Knock> {
    /// Whether it comes from the other end of this connection, and from a machine that has the invitation's code.
    pub fn holds(&self, channel: &Channel) -> bool {
        self.channel == *channel && self.unknown_field().is_none() && self.is_sealed_by(self.invitation)
    }
}

fn knock(stated: &v1::KnockStatement) -> Result<Knock, FieldError> {
    Ok(Knock { invitation: key("invitation", &stated.invitation)?, channel: exactly("channel", &stated.channel)? })
}

impl Stated for Knock {
    const WHAT: &'static str = "knock";
    const DOMAIN: &'static [u8] = b"skep/knock/1\0";
    const BYTES_MAX: usize = 256;
    const SEALS_MAX: usize = 1;

    fn to_body(&self) -> Vec<u8> {
        encoded(&v1::KnockStatement { invitation: self.invitation.as_bytes().to_vec(), channel: self.channel.to_vec() })
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &KNOCK)?;
        Ok((knock(&stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}

/// The request of a node that redeems an invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// Id of the site.
    pub site: SiteId,
    /// The key of the invitation.
    pub invitation: PublicKey,
    /// The key of the node.
    pub node: PublicKey,
    /// The name that the node thinks it has; none for that of the invitation.
    pub name: Option<NodeName>,
    /// The incarnation of its data directory.
    pub incarnation: Incarnation,
    /// The channel of the connection; none if the request goes by file.
    pub channel: Option<Channel>,
}

impl Sealed<JoinRequest> {
    /// Whether this Skep understands it, and the invitation's key and the node's key sealed it.
    pub fn holds(&self) -> bool {
        self.unknown_field().is_none() && self.is_sealed_by(self.invitation) && self.is_sealed_by(self.node)
    }
}

fn request(stated: &v1::JoinRequestStatement) -> Result<JoinRequest, FieldError> {
    let name = Some(&stated.name).filter(|name| !name.is_empty());
    Ok(JoinRequest {
        site: exactly("site", &stated.site).map(SiteId::from_bytes)?,
        invitation: key("invitation", &stated.invitation)?,
        node: key("node", &stated.node)?,
        name: name.map(NodeName::new).transpose().in_field("name")?,
        incarnation: exactly("incarnation", &stated.incarnation).map(Incarnation)?,
        channel: exactly_or_none("channel", &stated.channel)?,
    })
}

impl Stated for JoinRequest {
    const WHAT: &'static str = "request to join";
    const DOMAIN: &'static [u8] = b"skep/join/1\0";
    const BYTES_MAX: usize = 512;
    // Those of the invitation's key and of the node's key.
    const SEALS_MAX: usize = 2;

    fn to_body(&self) -> Vec<u8> {
        encoded(&v1::JoinRequestStatement {
            site: self.site.as_bytes().to_vec(),
            invitation: self.invitation.as_bytes().to_vec(),
            node: self.node.as_bytes().to_vec(),
            name: self.name.as_ref().map(ToString::to_string).unwrap_or_default(),
            incarnation: self.incarnation.0.to_vec(),
            channel: bytes_of(self.channel.as_ref()),
        })
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &REQUEST)?;
        Ok((request(&stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}

/// Why a node may not redeem an invitation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefusal {
    /// The request is for another site, or the invitation is.
    #[error("the invitation is for another site")]
    OtherSite,
    /// The request is for another invitation.
    #[error("the request is for another invitation")]
    OtherInvitation,
    /// The request, or the invitation, is not understood, or not sealed by those who should have sealed it.
    #[error("{what} is not signed as it should be; ask for another invitation")]
    NotSealed {
        /// What it is: the request, or the invitation.
        what: &'static str,
    },
    /// The invitation is for another node.
    #[error("the invitation is for the node {node}")]
    OtherNode {
        /// The key of that node.
        node: PublicKey,
    },
    /// The request came on another connection than the one that it is for.
    #[error("the request is for another connection")]
    OtherChannel,
    /// The node has another name than the invitation says.
    #[error("the invitation is for {invited}, and the node calls itself {given}")]
    OtherName {
        /// The name in the invitation.
        invited: NodeName,
        /// The name that the node gave.
        given: NodeName,
    },
    /// The invitation has ended.
    #[error("the invitation has ended; ask for another one")]
    Late {
        /// When it ended, in site time.
        until: SiteTime,
    },
    /// Another node has redeemed it.
    #[error("the invitation was used by {node}; revoke that one if it is not yours, and ask for another invitation")]
    Used {
        /// The key of the node that used it.
        node: PublicKey,
    },
}

impl JoinRefusal {
    /// Name of the kind, for audits.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::OtherSite => "join-other-site",
            Self::OtherInvitation => "join-other-invitation",
            Self::NotSealed { .. } => "join-not-sealed",
            Self::OtherNode { .. } => "join-other-node",
            Self::OtherChannel => "join-other-connection",
            Self::OtherName { .. } => "join-other-name",
            Self::Late { .. } => "join-late",
            Self::Used { .. } => "join-used",
        }
    }
}

/// Which node has redeemed an invitation, as the directory knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The key of the node.
    pub node: PublicKey,
    /// The hash of the node's request.
    pub request: Digest,
}

/// Checks whether a node may redeem an invitation by a request. The node that has redeemed it may again, also later:
/// its reply was lost. The caller checks that the operator may invite, and that the request came on the connection that
/// it names.
///
/// # Errors
/// [`JoinRefusal`] says why not.
pub fn redeem(
    invitation: &Sealed<Invitation>,
    request: &Sealed<JoinRequest>,
    used: Option<Used>,
    now: SiteTime,
) -> Result<Used, JoinRefusal> {
    if request.invitation != invitation.key {
        return Err(JoinRefusal::OtherInvitation);
    }
    if request.site != invitation.site {
        return Err(JoinRefusal::OtherSite);
    }
    if !request.holds() {
        return Err(JoinRefusal::NotSealed { what: "the request" });
    }
    if !invitation.holds() {
        return Err(JoinRefusal::NotSealed { what: "the invitation" });
    }
    if let Some(node) = invitation.node.filter(|node| *node != request.node) {
        return Err(JoinRefusal::OtherNode { node });
    }
    let invited = &invitation.grants.name;
    if let Some(given) = request.name.as_ref().filter(|given| *given != invited) {
        return Err(JoinRefusal::OtherName { invited: invited.clone(), given: given.clone() });
    }
    match used {
        Some(used) if used.node == request.node => Ok(used),
        Some(used) => Err(JoinRefusal::Used { node: used.node }),
        None if now > invitation.until => Err(JoinRefusal::Late { until: invitation.until }),
        None => Ok(Used { node: request.node, request: request.digest() }),
    }
}

impl JoinRequest {
    /// Checks that it came on the connection that it is for: a request for none goes by file.
    ///
    /// # Errors
    /// [`JoinRefusal::OtherChannel`] if it did not.
    pub fn check_channel(&self, channel: Option<&Channel>) -> Result<(), JoinRefusal> {
        if self.channel.as_ref() == channel { Ok(()) } else { Err(JoinRefusal::OtherChannel) }
    }

    /// The certificate that an invitation and this request make: the issuer chooses a serial and a time, and nothing
    /// else.
    pub fn certificate(
        &self,
        invitation: &Invitation,
        serial: Serial,
        (epoch, validity): (u64, Validity),
        issuer: PublicKey,
    ) -> Certificate {
        Certificate {
            site: invitation.site,
            serial,
            key: self.node,
            grants: invitation.grants.clone(),
            epoch,
            validity,
            issuer: Some(issuer),
            invitation: Some(invitation.key),
        }
    }
}
