//! Operators, who may send commands, and what they are granted.
//!
//! The first operator is in a shard's first entry, or there is none. An operator that is an admin grants every other
//! one what it may do, in a signed statement. A node that holds the chain of statements from an operator to the first
//! one needs to trust no other node: a bad orchestrator can lose a command and cannot forge one.
//!
//! No operator grants more than it has: what counts is what every statement of a chain allows.

mod change;
mod first;
mod op;
mod refusal;
mod root;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codec::CodecError;
use crate::command::Target;
use crate::fleet::FleetLimits;
use crate::limits;
use crate::mutant::{Mutant, is_on};
use crate::signing::{OperatorKey, OperatorSecret, Place, Signed};
use crate::text::{OperatorName, Verb};
use crate::time::LogInstant;

pub use change::OperatorChange;
pub use first::{FirstOperator, FirstReplacement, KnownFirst, SignedFirst, SignedReplacement};
pub use op::OperatorOp;
pub use refusal::OperatorRefusal;
pub use root::{PastGenesis, Root};

/// Some values of a kind, or any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Allowed<T: Ord> {
    /// Any value.
    Any,
    /// These values only.
    These(BTreeSet<T>),
}

impl<T: Ord> Allowed<T> {
    /// Whether a value is allowed.
    pub fn allows(&self, one: &T) -> bool {
        match self {
            Self::Any => true,
            Self::These(these) => these.contains(one),
        }
    }

    /// Number of values that it names; none for any.
    pub fn names(&self) -> usize {
        match self {
            Self::Any => 0,
            Self::These(these) => these.len(),
        }
    }
}

impl<T: Ord + Clone> Allowed<T> {
    /// The values that both allow.
    fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Any, one) | (one, Self::Any) => one.clone(),
            (Self::These(these), Self::These(others)) => Self::These(these & others),
        }
    }
}

/// What an operator may do in a shard, as an admin states it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorGrant {
    /// The site, shard and genesis where the statement holds.
    pub place: Place,
    /// The operator who states it: an admin, or the first operator of itself.
    pub by: OperatorKey,
    /// Key of the operator.
    pub operator: OperatorKey,
    /// The operator's name.
    pub name: OperatorName,
    /// The serial: a statement with a higher one replaces this one, and none with a lower one does.
    pub serial: u64,
    /// The verbs that it may ask for.
    pub verbs: Allowed<Verb>,
    /// The targets that it may command. Not all agents at once: see `broadcast`. By name: an operator who may command a
    /// group may not thereby grant an agent of it.
    pub targets: Allowed<Target>,
    /// Whether it may command all agents at once.
    pub broadcast: bool,
    /// Commands in a minute, those of all operators below it included; none for no limit.
    pub per_minute: Option<u32>,
    /// How many levels of operators it may make statements like this one about; zero for none.
    pub admin_depth: u32,
    /// Whether it may do nothing any more.
    pub revoked: bool,
    /// When it ends, on the shard's clock; none for no end. The shard accepts of it no command that is valid for
    /// longer.
    pub until: Option<LogInstant>,
}

/// Why a grant is refused by its form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum InvalidGrant {
    /// Too many verbs or targets.
    #[error("a grant names {given} verbs or targets; at most {max} are allowed, or any")]
    Names {
        /// The number that was given.
        given: usize,
        /// The most that are allowed.
        max: u64,
    },
    /// A serial that leaves none for later statements.
    #[error("serial {given} is far above {last}, the last one; give {last} plus one")]
    Serial {
        /// The serial that was given.
        given: u64,
        /// The serial of the last statement.
        last: u64,
    },
}

/// A statement of an admin, signed.
pub type SignedGrant = Signed<OperatorGrant>;

impl OperatorGrant {
    /// The grant of a shard's first operator: everything.
    pub fn of_first(place: Place, operator: OperatorKey, name: OperatorName) -> Self {
        Self {
            place,
            by: operator,
            operator,
            name,
            serial: 0,
            verbs: Allowed::Any,
            targets: Allowed::Any,
            broadcast: true,
            per_minute: None,
            admin_depth: limits::AUTHORITY_CHAIN_MAX as u32,
            revoked: false,
            until: None,
        }
    }

    /// Checks the limits of a shard that the fields' own types do not.
    ///
    /// # Errors
    /// [`InvalidGrant::Names`].
    pub fn check_within(&self, limits: &FleetLimits) -> Result<(), InvalidGrant> {
        let (given, max) = (self.verbs.names().max(self.targets.names()), limits.grant_names_max);
        if given as u64 > max { Err(InvalidGrant::Names { given, max }) } else { Ok(()) }
    }

    /// Whether it lets its operator ask a target for something that is valid until an instant.
    pub fn allows(&self, verb: &Verb, target: &Target, deadline: LogInstant) -> bool {
        let targets = match target {
            Target::All => self.broadcast,
            one @ (Target::Agent(_) | Target::Group(_)) => self.targets.allows(one),
        };
        !self.revoked && self.verbs.allows(verb) && targets && self.until.is_none_or(|until| deadline <= until)
    }

    /// What is left of it under the grant of the operator who states it.
    #[must_use]
    pub fn within(&self, above: &Self) -> Self {
        if is_on(Mutant::GrantNotIntersected) {
            return self.clone();
        }
        Self {
            verbs: self.verbs.and(&above.verbs),
            targets: self.targets.and(&above.targets),
            broadcast: self.broadcast && above.broadcast,
            admin_depth: self.admin_depth.min(above.admin_depth.saturating_sub(1)),
            revoked: self.revoked || above.revoked,
            until: [self.until, above.until].into_iter().flatten().min(),
            ..self.clone()
        }
    }

    /// Signs the statement; the signer becomes its `by`.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(self, by: &OperatorSecret) -> Result<SignedGrant, CodecError> {
        Signed::sign(self, by)
    }
}

/// What gives an operator its rights: statements from its own up to one that the first operator signed. Empty for the
/// first.
pub type Authority = Vec<Arc<SignedGrant>>;

/// The serial of the first statement about an operator, as a rule: it replaces none that a node could still believe.
pub const FIRST_SERIAL: u64 = 1;

/// Statements about operators that replaced earlier ones, after so many of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityNews {
    /// For each of them the statement, with those that make its author an admin.
    pub chains: Vec<Arc<Authority>>,
    /// Number of replacing statements up to which this is all. If it is below the number that the caller named, there
    /// are not so many: then this is all from the first one on.
    pub up_to: u64,
}

/// What an operator is granted by a chain of statements that ends with the first operator, as far as each of them
/// allows it; none if the chain does not hold, is of another shard, or of an operator that is revoked.
pub fn granted(
    chain: &[Arc<SignedGrant>],
    operator: OperatorKey,
    first: OperatorKey,
    place: &Place,
) -> Option<OperatorGrant> {
    if operator == first {
        return Some(OperatorGrant::of_first(place.clone(), first, OperatorName::new("first").ok()?));
    }
    stated(chain, first, place).filter(|grant| grant.operator == operator && !grant.revoked)
}

/// What a chain of statements that ends with the first operator says of an operator, also that it may do nothing any
/// more; none if the chain does not hold, is of another shard, or if the author of its last statement is revoked.
pub fn stated(chain: &[Arc<SignedGrant>], first: OperatorKey, place: &Place) -> Option<OperatorGrant> {
    let mut granted = OperatorGrant::of_first(place.clone(), first, OperatorName::new("first").ok()?);
    if chain.is_empty() || chain.len() > limits::AUTHORITY_CHAIN_MAX {
        return None;
    }
    let mut above = first;
    for signed in chain.iter().rev() {
        // No operator is above itself, nor is the first operator below any.
        let right = signed.by == above && signed.operator != above && signed.operator != first;
        let known = signed.unknown_field().is_none() && signed.place == *place;
        if granted.admin_depth == 0 || granted.revoked || !right || !known || !signed.is_signed() {
            return None;
        }
        granted = signed.within(&granted);
        above = signed.operator;
    }
    Some(granted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Genesis, ShardId};

    fn secret(n: u8) -> OperatorSecret {
        OperatorSecret::from_seed(&[n; 32])
    }

    fn place() -> Place {
        Place { site: "hall".parse().unwrap(), shard: ShardId(1), genesis: Genesis::from_bytes([6; 16]) }
    }

    fn grant(of: &OperatorSecret, admin_depth: u32) -> OperatorGrant {
        let name = OperatorName::new("someone").unwrap();
        OperatorGrant { admin_depth, serial: 1, ..OperatorGrant::of_first(place(), of.key(), name) }
    }

    fn chain(links: &[SignedGrant]) -> Authority {
        links.iter().cloned().map(Arc::new).collect()
    }

    #[test]
    fn a_chain_holds_only_if_every_link_was_made_by_an_admin() {
        let (first, admin, clerk) = (secret(1), secret(2), secret(3));
        let at = |links: &[SignedGrant]| granted(&chain(links), clerk.key(), first.key(), &place());
        let of_admin = grant(&admin, 1).sign(&first).unwrap();
        let of_clerk = grant(&clerk, 0).sign(&admin).unwrap();
        assert_eq!(at(&[of_clerk.clone(), of_admin.clone()]).map(|of| of.operator), Some(clerk.key()));
        assert_eq!(at(&[grant(&clerk, 0).sign(&first).unwrap()]).map(|grant| grant.admin_depth), Some(0));
        // Without its end, by an operator that is no admin, revoked, changed, of another shard, or turned around.
        let not_admin = grant(&admin, 0).sign(&first).unwrap();
        let revoked = OperatorGrant { revoked: true, ..grant(&admin, 1) }.sign(&first).unwrap();
        let wider = OperatorGrant { admin_depth: 9, ..of_clerk.statement().clone() };
        let changed = Signed::under(&wider, *of_clerk.signature()).unwrap();
        let other = Place { shard: ShardId(2), ..place() };
        let elsewhere = OperatorGrant { place: other, ..grant(&clerk, 0) }.sign(&first).unwrap();
        let other = Place { genesis: Genesis::from_bytes([7; 16]), ..place() };
        let anew = OperatorGrant { place: other, ..grant(&clerk, 0) }.sign(&first).unwrap();
        for links in [
            vec![],
            vec![of_clerk.clone()],
            vec![of_clerk.clone(), not_admin],
            vec![of_clerk.clone(), revoked],
            vec![changed, of_admin.clone()],
            vec![elsewhere],
            vec![anew],
            vec![of_admin, of_clerk],
        ] {
            assert_eq!(at(&links), None, "{links:?}");
        }
    }

    #[test]
    fn a_revocation_is_stated_by_a_chain_that_grants_nothing() {
        let (first, admin, clerk) = (secret(1), secret(2), secret(3));
        let revoked = |of: &OperatorSecret| OperatorGrant { revoked: true, ..grant(of, 0) };
        let of_admin = grant(&admin, 1).sign(&first).unwrap();
        let links = chain(&[revoked(&clerk).sign(&admin).unwrap(), of_admin]);
        assert_eq!(
            stated(&links, first.key(), &place()).map(|of| (of.operator, of.revoked)),
            Some((clerk.key(), true))
        );
        assert_eq!(granted(&links, clerk.key(), first.key(), &place()), None);
        // A revoked operator states nothing.
        let links = chain(&[revoked(&clerk).sign(&admin).unwrap(), revoked(&admin).sign(&first).unwrap()]);
        assert_eq!(stated(&links, first.key(), &place()), None);
    }

    #[test]
    fn nobody_grants_more_than_it_has() {
        let (first, admin, clerk) = (secret(1), secret(2), secret(3));
        let verbs = |names: &[&str]| Allowed::These(names.iter().map(|name| Verb::new(name).unwrap()).collect());
        let group = |name: &str| Target::Group(name.parse().unwrap());
        let ends = LogInstant::from_raw(500);
        let limited = OperatorGrant {
            verbs: verbs(&["inspect", "goto"]),
            targets: Allowed::These([group("aisle-5")].into()),
            broadcast: false,
            until: Some(ends),
            ..grant(&admin, 1)
        };
        let wide = OperatorGrant { verbs: verbs(&["goto", "lift"]), ..grant(&clerk, 9) };
        let links = chain(&[wide.sign(&admin).unwrap(), limited.sign(&first).unwrap()]);
        let has = granted(&links, clerk.key(), first.key(), &place()).unwrap();
        let may =
            |verb: &str, target: &Target, ms| has.allows(&verb.parse().unwrap(), target, LogInstant::from_raw(ms));
        assert!(may("goto", &group("aisle-5"), 500));
        assert!(!may("goto", &group("aisle-5"), 501), "it would outlive what the admin has");
        assert!(!may("lift", &group("aisle-5"), 500) && !may("inspect", &group("aisle-5"), 500));
        assert!(!may("goto", &group("aisle-6"), 500) && !may("goto", &Target::All, 500));
        assert_eq!(has.admin_depth, 0, "the admin may make operators, and no admins");
        let below = secret(4);
        let links =
            chain(&[grant(&below, 0).sign(&clerk).unwrap(), links[0].as_ref().clone(), links[1].as_ref().clone()]);
        assert_eq!(granted(&links, below.key(), first.key(), &place()), None);
    }

    #[test]
    fn to_command_all_at_once_is_a_grant_of_its_own() {
        let (verb, at) = (Verb::new("goto").unwrap(), LogInstant::from_raw(1));
        let mut all_but = grant(&secret(1), 0);
        all_but.broadcast = false;
        assert!(!all_but.allows(&verb, &Target::All, at));
        assert!(all_but.allows(&verb, &Target::Group("aisle".parse().unwrap()), at));
        all_but.verbs = Allowed::These(BTreeSet::new());
        assert!(!all_but.allows(&verb, &Target::Group("aisle".parse().unwrap()), at));
    }
}
