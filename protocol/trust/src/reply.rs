//! All that a new member needs, in one piece, and what it checks before it believes it.

use std::net::SocketAddr;

use bytes::Bytes;
use skep_protocol::codec::CodecError;
use skep_protocol::critical::{Fields, malformed, message};
use skep_protocol::field::{FieldError, field};
use skep_protocol::limits;
use skep_protocol::text::NodeName;

use crate::admission::{Refusal, judge};
use crate::chain::Member;
use crate::ids::{Digest, SiteHalf};
use crate::join::JoinRequest;
use crate::keys::PublicKey;
use crate::links::{CHAIN, Chain, ChainError};
use crate::revocation::{RevocationError, SEALED_REVOCATION, SignedRevocation};
use crate::root::{RootDocument, RootError};
use crate::sealed::{SEALED, Sealed, Stated};
use crate::site_time::{SiteClock, SiteTime};
use crate::view::SiteView;
use crate::wire::{at_most, encoded, exactly, key, v1};

static ADDRESS: Fields = Fields(&[(1, None), (2, None), (3, None)]);
pub(crate) static REPLY: Fields = Fields(&[
    (1, None),
    (2, Some(&SEALED)),
    (3, Some(&CHAIN)),
    (4, Some(&SEALED_REVOCATION)),
    (5, None),
    (6, Some(&ADDRESS)),
]);

/// The addresses where a member is said to be. Hints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAddress {
    /// Key of the member.
    pub node: PublicKey,
    /// Address of its control plane; none if it is not known.
    pub control: Option<SocketAddr>,
    /// Address of its mesh; none if it is not known.
    pub mesh: Option<SocketAddr>,
}

/// The answer to a request to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinReply {
    /// The hash of the request.
    pub request: Digest,
    /// All root documents, the first one first.
    pub roots: Vec<Sealed<RootDocument>>,
    /// The new member's chain.
    pub chain: Chain,
    /// Revocations, or some of them.
    pub revocations: Vec<SignedRevocation>,
    /// Site time when the issuer sealed it.
    pub now: SiteTime,
    /// Addresses of nodes to which the new member connects first.
    pub voters: Vec<MemberAddress>,
}

/// Why a new member does not believe a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The reply is of another site than the invitation.
    #[error("the reply is of another site than the invitation")]
    OtherSite,
    /// The reply answers another request.
    #[error("the reply answers another request")]
    OtherRequest,
    /// The issuer of the certificate in the reply did not seal it, or it is not understood.
    #[error("the reply is not sealed by the issuer of the certificate in it")]
    NotSealed,
    /// The root documents do not hold.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The chain does not hold.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A revocation does not hold.
    #[error(transparent)]
    Revocation(#[from] RevocationError),
    /// The certificate is for another key.
    #[error("the certificate in the reply is for another node")]
    OtherKey,
    /// The certificate has another name than the request.
    #[error("the certificate in the reply is for {0}")]
    OtherName(NodeName),
    /// The certificate does not hold at this moment.
    #[error("the certificate in the reply does not hold: {0}")]
    Refused(#[from] Refusal),
}

/// What a new member knows once it believes a reply.
#[derive(Clone, Debug)]
pub struct Joined {
    /// What the node knows of the site.
    pub view: SiteView,
    /// The member that the node is from then on.
    pub member: Member,
}

impl Sealed<JoinReply> {
    /// Believes the reply, if it is the answer to this request, of the site whose id begins so.
    ///
    /// # Errors
    /// [`JoinError`] says what does not hold.
    pub fn accept(&self, site: &SiteHalf, request: &Sealed<JoinRequest>) -> Result<Joined, JoinError> {
        if self.request != request.digest() {
            return Err(JoinError::OtherRequest);
        }
        let mut view = SiteView::new(self.roots.clone())?;
        if view.root().site().half() != *site || view.root().site() != request.site {
            return Err(JoinError::OtherSite);
        }
        let member = self.chain.verify(view.root())?;
        if member.key != request.node {
            return Err(JoinError::OtherKey);
        }
        if request.name.as_ref().is_some_and(|name| *name != member.grants.name) {
            return Err(JoinError::OtherName(member.grants.name));
        }
        let issuer = self.chain.certificate().and_then(|certificate| certificate.issuer);
        let is_sealed = issuer.map_or_else(|| view.root().has_sealed(self), |issuer| self.is_sealed_by(issuer));
        if !is_sealed || self.unknown_field().is_some() {
            return Err(JoinError::NotSealed);
        }
        for revocation in &self.revocations {
            view.learn_revocation(revocation.clone())?;
        }
        judge(&view, &member, SiteClock::Known(self.now))?;
        Ok(Joined { view, member })
    }
}

fn address(name: &'static str, text: &str) -> Result<Option<SocketAddr>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| field(name, "give an IP address and a port, such as 10.0.0.7:7341"))
}

fn voter(stated: &v1::MemberAddress) -> Result<MemberAddress, FieldError> {
    Ok(MemberAddress {
        node: key("voters.node", &stated.node)?,
        control: address("voters.control", &stated.control)?,
        mesh: address("voters.mesh", &stated.mesh)?,
    })
}

fn reply(stated: v1::JoinReplyStatement) -> Result<JoinReply, CodecError> {
    let what = JoinReply::WHAT;
    let wrong = |error: FieldError| malformed(what, error);
    let roots = at_most("roots", stated.roots, limits::ROOT_VERSIONS_MAX).map_err(wrong)?;
    let revocations = at_most("revocations", stated.revocations, limits::REVOCATIONS_PER_REPLY_MAX).map_err(wrong)?;
    let voters = at_most("voters", stated.voters, limits::VOTERS_MAX).map_err(wrong)?;
    let chain = stated.chain.ok_or_else(|| malformed(what, "it has no chain"))?;
    let revocation = |came| SignedRevocation::from_wire(came).map_err(|error| malformed(what, error));
    Ok(JoinReply {
        request: exactly("request", &stated.request).map_err(wrong)?,
        roots: roots.into_iter().map(Sealed::from_wire).collect::<Result<_, CodecError>>()?,
        chain: Chain::from_wire(chain).map_err(|error| malformed(what, error))?,
        revocations: revocations.into_iter().map(revocation).collect::<Result<_, CodecError>>()?,
        now: SiteTime(stated.now),
        voters: voters.iter().map(voter).collect::<Result<_, FieldError>>().map_err(wrong)?,
    })
}

impl Stated for JoinReply {
    const WHAT: &'static str = "reply to a request to join";
    const DOMAIN: &'static [u8] = b"skep/join-reply/1\0";
    const BYTES_MAX: usize = limits::FRAME_BYTES_MAX;
    // That of an issuer, or those of root keys.
    const SEALS_MAX: usize = limits::ROOT_KEYS_MAX;

    fn to_body(&self) -> Vec<u8> {
        let text = |address: Option<SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
        let voter = |voter: &MemberAddress| v1::MemberAddress {
            node: voter.node.as_bytes().to_vec(),
            control: text(voter.control),
            mesh: text(voter.mesh),
        };
        encoded(&v1::JoinReplyStatement {
            request: self.request.to_vec(),
            roots: self.roots.iter().map(Sealed::to_wire).collect(),
            chain: Some(self.chain.to_wire()),
            revocations: self.revocations.iter().map(SignedRevocation::to_wire).collect(),
            now: self.now.0,
            voters: self.voters.iter().map(voter).collect(),
        })
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &REPLY)?;
        Ok((reply(stated)?, unknown))
    }
}
