//! Roles of members, and what issuers may make of members.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use skep_protocol::critical::Fields;
use skep_protocol::field::{FieldError, InField as _, field};
use skep_protocol::text::NodeName;

use crate::wire::v1;

pub(crate) static SCOPE: Fields = Fields(&[(1, None), (2, None), (3, None), (4, None)]);

/// The role of a member of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// The member's node serves a robot's software.
    Robot,
    /// The member's node serves programs.
    Agent,
    /// The member reads, and changes nothing.
    Observer,
    /// The member may vote in shards, and hold their data.
    Voter,
    /// The member may vote, and holds votes and terms only.
    Witness,
    /// The member speaks for other sites, or for clients beyond the site.
    Gateway,
    /// The member is a person or a program that invites, revokes and commands.
    Operator,
    /// The member issues certificates, within its scope.
    Issuer,
}

/// The roles of one member.
pub type Roles = BTreeSet<Role>;

impl Role {
    /// All roles.
    pub const ALL: [Self; 8] = [
        Self::Robot,
        Self::Agent,
        Self::Observer,
        Self::Voter,
        Self::Witness,
        Self::Gateway,
        Self::Operator,
        Self::Issuer,
    ];

    /// Name of the role in commands and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Robot => "robot",
            Self::Agent => "agent",
            Self::Observer => "observer",
            Self::Voter => "voter",
            Self::Witness => "witness",
            Self::Gateway => "gateway",
            Self::Operator => "operator",
            Self::Issuer => "issuer",
        }
    }

    /// Whether an issuer alone cannot give it: an operator whom the root document names must have invited the member.
    pub const fn needs_sponsor(self) -> bool {
        match self {
            Self::Robot | Self::Agent | Self::Observer => false,
            Self::Voter | Self::Witness | Self::Gateway | Self::Operator | Self::Issuer => true,
        }
    }

    fn to_wire(self) -> i32 {
        let role = match self {
            Self::Robot => v1::MemberRole::Robot,
            Self::Agent => v1::MemberRole::Agent,
            Self::Observer => v1::MemberRole::Observer,
            Self::Voter => v1::MemberRole::Voter,
            Self::Witness => v1::MemberRole::Witness,
            Self::Gateway => v1::MemberRole::Gateway,
            Self::Operator => v1::MemberRole::Operator,
            Self::Issuer => v1::MemberRole::Issuer,
        };
        role.into()
    }

    fn from_wire(name: &'static str, given: i32) -> Result<Self, FieldError> {
        let unknown = || field(name, format!("role {given} is not known; upgrade this node"));
        match v1::MemberRole::try_from(given).map_err(|_| unknown())? {
            v1::MemberRole::Unspecified => Err(unknown()),
            v1::MemberRole::Robot => Ok(Self::Robot),
            v1::MemberRole::Agent => Ok(Self::Agent),
            v1::MemberRole::Observer => Ok(Self::Observer),
            v1::MemberRole::Voter => Ok(Self::Voter),
            v1::MemberRole::Witness => Ok(Self::Witness),
            v1::MemberRole::Gateway => Ok(Self::Gateway),
            v1::MemberRole::Operator => Ok(Self::Operator),
            v1::MemberRole::Issuer => Ok(Self::Issuer),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = FieldError;
    fn from_str(text: &str) -> Result<Self, FieldError> {
        let found = Self::ALL.into_iter().find(|role| role.name() == text);
        let names = || Self::ALL.map(Self::name).join(", ");
        found.ok_or_else(|| field("role", format!("it is none of {}", names())))
    }
}

/// The roles of a message: one or more.
pub(crate) fn roles(name: &'static str, given: &[i32]) -> Result<Roles, FieldError> {
    if given.is_empty() {
        return Err(field(name, "give one or more roles"));
    }
    given.iter().map(|role| Role::from_wire(name, *role)).collect()
}

pub(crate) fn roles_to_wire(roles: &Roles) -> Vec<i32> {
    roles.iter().map(|role| role.to_wire()).collect()
}

/// How a certificate or a scope is beyond what an issuer may issue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// The issuer may not give this role.
    #[error("it may not give the role {role}")]
    Role {
        /// The role.
        role: Role,
    },
    /// The issuer may not name members like this.
    #[error("it may give names that begin with {prefix:?} only")]
    Name {
        /// The beginning of the names that it may give.
        prefix: String,
    },
    /// The issuer may not issue anything for so long.
    #[error("it may issue for {max} ms at most, and this is for {life_ms} ms")]
    Life {
        /// The life of the certificate, in milliseconds.
        life_ms: u64,
        /// The longest life that it may issue, in milliseconds.
        max: u64,
    },
    /// The issuer may not let another issuer issue so often.
    #[error("it may issue {max} certificates in a day")]
    Rate {
        /// Number of certificates that it may issue itself in a day.
        max: u32,
    },
}

/// What an issuer may issue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Roles that it may give.
    pub roles: Roles,
    /// The beginning of the names that it may give; none for any name.
    pub name_prefix: Option<NodeName>,
    /// The longest life of a certificate, in milliseconds.
    pub life_ms_max: u64,
    /// Certificates in a day of site time, which the directory counts; none for no limit.
    pub per_day: Option<u32>,
}

impl Scope {
    /// Checks whether a certificate with these roles, this name and this life is within the scope.
    ///
    /// # Errors
    /// [`ScopeError`] says how it is not.
    pub fn allows(&self, roles: &Roles, name: &NodeName, life_ms: u64) -> Result<(), ScopeError> {
        self.allows_roles(roles)?;
        let begins = self.name_prefix.as_ref().filter(|prefix| !name.as_str().starts_with(prefix.as_str()));
        if let Some(prefix) = begins {
            return Err(ScopeError::Name { prefix: prefix.to_string() });
        }
        if life_ms > self.life_ms_max {
            return Err(ScopeError::Life { life_ms, max: self.life_ms_max });
        }
        Ok(())
    }

    /// Checks whether another issuer may have that scope from this one.
    ///
    /// # Errors
    /// [`ScopeError`] says how it is wider.
    pub fn covers(&self, other: &Self) -> Result<(), ScopeError> {
        self.allows_roles(&other.roles)?;
        if let Some(prefix) = &self.name_prefix {
            let begins = other.name_prefix.as_ref().is_some_and(|of| of.as_str().starts_with(prefix.as_str()));
            if !begins {
                return Err(ScopeError::Name { prefix: prefix.to_string() });
            }
        }
        if other.life_ms_max > self.life_ms_max {
            return Err(ScopeError::Life { life_ms: other.life_ms_max, max: self.life_ms_max });
        }
        match self.per_day {
            Some(max) if other.per_day.is_none_or(|of| of > max) => Err(ScopeError::Rate { max }),
            Some(_) | None => Ok(()),
        }
    }

    fn allows_roles(&self, roles: &Roles) -> Result<(), ScopeError> {
        let beyond = roles.iter().find(|role| !self.roles.contains(role));
        beyond.map_or(Ok(()), |role| Err(ScopeError::Role { role: *role }))
    }
}

pub(crate) fn scope(stated: &v1::IssuerScope) -> Result<Scope, FieldError> {
    let prefix = Some(&stated.name_prefix).filter(|prefix| !prefix.is_empty());
    Ok(Scope {
        roles: roles("scope.roles", &stated.roles)?,
        name_prefix: prefix.map(NodeName::new).transpose().in_field("scope.name_prefix")?,
        life_ms_max: Some(stated.life_ms_max)
            .filter(|life| *life > 0)
            .ok_or_else(|| field("scope.life_ms_max", "give 1 or more"))?,
        per_day: Some(stated.per_day).filter(|per_day| *per_day > 0),
    })
}

pub(crate) fn scope_to_wire(scope: &Scope) -> v1::IssuerScope {
    v1::IssuerScope {
        roles: roles_to_wire(&scope.roles),
        name_prefix: scope.name_prefix.as_ref().map(ToString::to_string).unwrap_or_default(),
        life_ms_max: scope.life_ms_max,
        per_day: scope.per_day.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    fn robots() -> Scope {
        Scope {
            roles: [Role::Robot, Role::Agent].into(),
            name_prefix: Some(name("hall-2/")),
            life_ms_max: 1_000,
            per_day: Some(10),
        }
    }

    #[test]
    fn each_role_has_a_name_and_a_number() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
            assert_eq!(Role::from_wire("roles", role.to_wire()), Ok(role));
        }
        assert!("king".parse::<Role>().is_err());
        assert!(Role::from_wire("roles", 0).is_err() && Role::from_wire("roles", 99).is_err());
        assert!(roles("roles", &[]).is_err());
    }

    #[test]
    fn an_issuer_issues_within_its_scope() {
        let allows = |role: Role, named: &str, life_ms| robots().allows(&[role].into(), &name(named), life_ms);
        assert_eq!(allows(Role::Robot, "hall-2/robot-7", 1_000), Ok(()));
        assert_eq!(allows(Role::Voter, "hall-2/robot-7", 1_000), Err(ScopeError::Role { role: Role::Voter }));
        assert!(matches!(allows(Role::Robot, "hall-3/robot-7", 1_000), Err(ScopeError::Name { .. })));
        assert!(matches!(allows(Role::Robot, "hall-2/robot-7", 1_001), Err(ScopeError::Life { .. })));
    }

    #[test]
    fn an_issuer_has_no_wider_scope_from_another_one_than_that_one_has() {
        let narrower = Scope { name_prefix: Some(name("hall-2/a")), per_day: Some(9), ..robots() };
        assert_eq!(robots().covers(&robots()), Ok(()));
        assert_eq!(robots().covers(&narrower), Ok(()));
        for wider in [
            Scope { roles: [Role::Issuer].into(), ..robots() },
            Scope { name_prefix: None, ..robots() },
            Scope { name_prefix: Some(name("hall-")), ..robots() },
            Scope { life_ms_max: 1_001, ..robots() },
            Scope { per_day: None, ..robots() },
            Scope { per_day: Some(11), ..robots() },
        ] {
            assert!(robots().covers(&wider).is_err(), "{wider:?}");
        }
    }
}
