//! The check of a chain of certificates, from the root document down to the member.
//!
//! This check depends on the chain and the root document alone, so that a node does it once for each chain. The rule of
//! admission decides whether the member is let in at this moment.

use skep_protocol::text::AgentId;

use crate::certificate::{Certificate, Grants};
use crate::ids::{Digest, Serial};
use crate::keys::PublicKey;
use crate::links::{Chain, ChainError, ChainLink, Sponsor};
use crate::role::{Role, Scope};
use crate::root::SiteRoot;
use crate::site_time::{SiteTime, Validity};

/// What a revocation may name of one certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) key: PublicKey,
    pub(crate) serial: Serial,
    pub(crate) issuer: Option<PublicKey>,
    pub(crate) from: SiteTime,
    pub(crate) epoch: u64,
}

/// A member whose chain of certificates holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The member's key.
    pub key: PublicKey,
    /// What the member is.
    pub grants: Grants,
    /// The times at which all certificates of its chain hold.
    pub validity: Validity,
    /// The earliest epoch of them.
    pub epoch: u64,
    made: Vec<Made>,
    /// The hash of the root document under which its chain was verified.
    root: Digest,
}

impl Member {
    /// Whether the member has a role.
    pub fn is(&self, role: Role) -> bool {
        self.grants.roles.contains(&role)
    }

    /// Whether the member speaks for an agent.
    pub fn serves(&self, agent: &AgentId) -> bool {
        self.grants.serves(agent)
    }

    /// The serial of its own certificate.
    pub fn serial(&self) -> Option<Serial> {
        self.made.first().map(|own| own.serial)
    }

    /// Whether its chain was verified under this root document. Under another one the chain is verified again.
    pub fn holds_under(&self, root: &SiteRoot) -> bool {
        self.root == root.digest()
    }

    pub(crate) fn made(&self) -> &[Made] {
        &self.made
    }
}

impl Chain {
    /// Checks that each certificate of the chain was made by a key that may; returns the member whose chain it is.
    ///
    /// # Errors
    /// [`ChainError`] says what does not hold.
    pub fn verify(&self, root: &SiteRoot) -> Result<Member, ChainError> {
        let mut above: Option<&Certificate> = None;
        for link in self.links().iter().rev() {
            let certificate = link.certificate.statement();
            if let Some(field) = link.certificate.unknown_field() {
                return Err(ChainError::UnknownField { field });
            }
            if certificate.site != root.site() {
                return Err(ChainError::OtherSite);
            }
            match above {
                None => check_below_root(root, link)?,
                Some(issuer) => check_below(issuer, link)?,
            }
            check_sponsor(root, link)?;
            above = Some(certificate);
        }
        let member = above.ok_or(ChainError::Empty)?;
        let all = || self.links().iter().map(|link| link.certificate.statement());
        Ok(Member {
            key: member.key,
            grants: member.grants.clone(),
            validity: all().fold(member.validity, |validity, of| validity.and(of.validity)),
            epoch: all().fold(member.epoch, |epoch, of| epoch.min(of.epoch)),
            made: all().map(made).collect(),
            root: root.digest(),
        })
    }
}

pub(crate) fn made(certificate: &Certificate) -> Made {
    Made {
        key: certificate.key,
        serial: certificate.serial,
        issuer: certificate.issuer,
        from: certificate.validity.from,
        epoch: certificate.epoch,
    }
}

/// The uppermost certificate: root keys, or an issuer that the root document names, must have sealed it.
fn check_below_root(root: &SiteRoot, link: &ChainLink) -> Result<(), ChainError> {
    let certificate = &link.certificate;
    let Some(issuer) = certificate.issuer else {
        return if root.has_sealed(certificate) { Ok(()) } else { Err(ChainError::NotSealed) };
    };
    match root.document().issuers.get(&issuer) {
        Some(scope) => check_issued(issuer, scope, link),
        None if issuer == certificate.key => Err(ChainError::SelfMade),
        None => Err(ChainError::UnknownIssuer { issuer }),
    }
}

/// A certificate below another one, which must be an issuer's.
fn check_below(issuer: &Certificate, link: &ChainLink) -> Result<(), ChainError> {
    if link.certificate.issuer != Some(issuer.key) {
        return Err(ChainError::NotBy { issuer: issuer.key });
    }
    match &issuer.grants.scope {
        Some(scope) => check_issued(issuer.key, scope, link),
        None => Err(ChainError::NotAnIssuer { issuer: issuer.key }),
    }
}

/// The signature is verified first: then what is refused for another reason was really issued.
fn check_issued(issuer: PublicKey, scope: &Scope, link: &ChainLink) -> Result<(), ChainError> {
    if !link.certificate.is_sealed_by(issuer) {
        return Err(ChainError::NotSealed);
    }
    let Grants { name, roles, scope: inner, .. } = &link.certificate.grants;
    scope.allows(roles, name, link.certificate.validity.life_ms())?;
    if let Some(inner) = inner {
        scope.covers(inner)?;
    }
    Ok(())
}

/// Checks that an operator whom the root document names invited a member with a role that an issuer alone cannot give.
fn check_sponsor(root: &SiteRoot, link: &ChainLink) -> Result<(), ChainError> {
    let certificate = link.certificate.statement();
    let privileged = certificate.grants.roles.iter().find(|role| role.needs_sponsor());
    let Some(role) = privileged.copied().filter(|_| certificate.issuer.is_some()) else { return Ok(()) };
    let sponsor = link.sponsor.as_ref().ok_or(ChainError::NotSponsored { role })?;
    match wrong_with(root, certificate, sponsor) {
        None => Ok(()),
        Some(why) => Err(ChainError::Sponsor { role, why }),
    }
}

fn wrong_with(root: &SiteRoot, certificate: &Certificate, sponsor: &Sponsor) -> Option<&'static str> {
    let Sponsor { invitation, request } = sponsor;
    let is_named = root.document().operators.contains_key(&invitation.operator);
    // Checks that cost nothing come first.
    let wrong = [
        (certificate.invitation != Some(invitation.key), "the certificate names another invitation"),
        (invitation.site != certificate.site || request.site != certificate.site, "it is for another site"),
        (invitation.grants != certificate.grants, "the certificate says what it does not"),
        (request.invitation != invitation.key, "it was not redeemed by that request"),
        (request.node != certificate.key, "another node redeemed it"),
        (!invitation.is_for(certificate.key), "it is for another node"),
        (!is_named, "the root document does not name its operator"),
    ];
    let wrong = wrong.into_iter().find(|(is_wrong, _)| *is_wrong).map(|(_, why)| why);
    wrong.or_else(|| (!invitation.holds()).then_some("its operator did not seal it as it is")).or_else(|| {
        (!request.holds()).then_some("the request that redeemed it is not sealed by its key and by the node's")
    })
}
