//! Certificates: a member belongs to a site, and as what.

use std::collections::BTreeSet;

use bytes::Bytes;
use skep_protocol::codec::CodecError;
use skep_protocol::critical::{Fields, malformed, message};
use skep_protocol::field::{FieldError, InField as _, field};
use skep_protocol::limits;
use skep_protocol::text::{AgentId, Capability, NodeName};

use crate::agents::{AgentPattern, is_own};
use crate::ids::{Serial, SiteId};
use crate::keys::PublicKey;
use crate::role::{Role, Roles, SCOPE, Scope, roles, roles_to_wire, scope, scope_to_wire};
use crate::sealed::Stated;
use crate::site_time::{SiteTime, Validity};
use crate::wire::{at_most, bytes_of, encoded, exactly, key, key_or_none, v1};

pub(crate) static CERTIFICATE: Fields = Fields(&[
    (1, None),
    (2, None),
    (3, None),
    (4, None),
    (5, None),
    (6, None),
    (7, None),
    (8, None),
    (9, None),
    (10, None),
    (11, None),
    (12, None),
    (13, Some(&SCOPE)),
]);

/// What a member is in a site: an invitation promises it, and a certificate says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// The member's name, for people.
    pub name: NodeName,
    /// The member's roles: one or more.
    pub roles: Roles,
    /// The member's capabilities.
    pub capabilities: BTreeSet<Capability>,
    /// Patterns of the agents that its node may serve. Empty: the agent of its own name, and those below it.
    pub agents: BTreeSet<AgentPattern>,
    /// What it may issue; none if it is no issuer.
    pub scope: Option<Scope>,
}

impl Grants {
    /// Whether the member's node may serve an agent.
    pub fn serves(&self, agent: &AgentId) -> bool {
        if self.agents.is_empty() {
            return is_own(&self.name, agent);
        }
        self.agents.iter().any(|pattern| pattern.matches(agent))
    }

    /// Whether an issuer alone cannot make such a member.
    pub fn needs_sponsor(&self) -> bool {
        self.roles.iter().any(|role| role.needs_sponsor())
    }
}

/// The statement that a member belongs to a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Id of the site.
    pub site: SiteId,
    /// The serial, which no other certificate of the site has.
    pub serial: Serial,
    /// The key with which the member's connections authenticate.
    pub key: PublicKey,
    /// What the member is.
    pub grants: Grants,
    /// The site's epoch in which it was issued.
    pub epoch: u64,
    /// The times at which it holds.
    pub validity: Validity,
    /// Key of the issuer; none if root keys sealed it.
    pub issuer: Option<PublicKey>,
    /// Key of the invitation that the member redeemed; none if there was none.
    pub invitation: Option<PublicKey>,
}

/// The fields that invitations and certificates share.
pub(crate) struct StatedGrants {
    pub(crate) name: String,
    pub(crate) roles: Vec<i32>,
    pub(crate) capabilities: Vec<String>,
    pub(crate) agents: Vec<String>,
    pub(crate) scope: Option<v1::IssuerScope>,
}

pub(crate) fn grants(stated: StatedGrants) -> Result<Grants, FieldError> {
    let roles = roles("roles", &stated.roles)?;
    let scope = stated.scope.as_ref().map(scope).transpose()?;
    if roles.contains(&Role::Issuer) != scope.is_some() {
        return Err(field("scope", "an issuer has one, and nobody else"));
    }
    let capabilities = at_most("capabilities", stated.capabilities, limits::CAPABILITIES_MAX)?;
    let capability = |name: &String| Capability::new(name).in_field("capabilities");
    let agents = at_most("agents", stated.agents, limits::AGENT_PATTERNS_MAX)?;
    let agent = |text: &String| text.parse::<AgentPattern>().map_err(|error| field("agents", error));
    Ok(Grants {
        name: NodeName::new(&stated.name).in_field("name")?,
        roles,
        capabilities: capabilities.iter().map(capability).collect::<Result<_, FieldError>>()?,
        agents: agents.iter().map(agent).collect::<Result<_, FieldError>>()?,
        scope,
    })
}

pub(crate) fn grants_to_wire(grants: &Grants) -> StatedGrants {
    StatedGrants {
        name: grants.name.to_string(),
        roles: roles_to_wire(&grants.roles),
        capabilities: grants.capabilities.iter().map(ToString::to_string).collect(),
        agents: grants.agents.iter().map(ToString::to_string).collect(),
        scope: grants.scope.as_ref().map(scope_to_wire),
    }
}

fn certificate(stated: v1::CertificateStatement) -> Result<Certificate, FieldError> {
    let validity = Validity { from: SiteTime(stated.from), until: SiteTime(stated.until) };
    if validity.until < validity.from {
        return Err(field("until", "it ends before it begins"));
    }
    Ok(Certificate {
        site: exactly("site", &stated.site).map(SiteId::from_bytes)?,
        serial: exactly("serial", &stated.serial).map(Serial::from_bytes)?,
        key: key("key", &stated.key)?,
        epoch: stated.epoch,
        validity,
        issuer: key_or_none("issuer", &stated.issuer)?,
        invitation: key_or_none("invitation", &stated.invitation)?,
        grants: grants(StatedGrants {
            name: stated.name,
            roles: stated.roles,
            capabilities: stated.capabilities,
            agents: stated.agents,
            scope: stated.scope,
        })?,
    })
}

impl Stated for Certificate {
    const WHAT: &'static str = "certificate";
    const DOMAIN: &'static [u8] = b"skep/certificate/1\0";
    const BYTES_MAX: usize = limits::CERTIFICATE_BYTES_MAX;
    // Those of root keys, or that of one issuer.
    const SEALS_MAX: usize = limits::ROOT_KEYS_MAX;

    fn to_body(&self) -> Vec<u8> {
        let StatedGrants { name, roles, capabilities, agents, scope } = grants_to_wire(&self.grants);
        encoded(&v1::CertificateStatement {
            site: self.site.as_bytes().to_vec(),
            serial: self.serial.as_bytes().to_vec(),
            key: self.key.as_bytes().to_vec(),
            name,
            roles,
            capabilities,
            agents,
            epoch: self.epoch,
            from: self.validity.from.0,
            until: self.validity.until.0,
            issuer: bytes_of(self.issuer.as_ref().map(PublicKey::as_bytes)),
            invitation: bytes_of(self.invitation.as_ref().map(PublicKey::as_bytes)),
            scope,
        })
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &CERTIFICATE)?;
        Ok((certificate(stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}
