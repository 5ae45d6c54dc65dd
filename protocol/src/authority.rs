//! Who may send commands: operators, what they are granted, and their signatures.
//!
//! The first operator is in a shard's first entry, or there is none. Everybody after it is granted what they may do by an
//! operator that is an admin, in a signed statement. Whoever holds the chain of statements from an operator to the first one
//! needs to trust nobody else: a bad orchestrator can lose a command and cannot forge one.
//!
//! Nobody grants more than it has: what counts is what every statement of a chain allows.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::codec::CodecError;
use crate::command::{InvalidCommand, Target};
use crate::fleet::FleetLimits;
use crate::ids::{Genesis, IdError};
use crate::limits;
use crate::mutant::{Mutant, is_on};
use crate::recovery::PastGenesis;
use crate::seed::{from_digits, to_digits};
use crate::statement::{Place, Signed};
use crate::text::{OperatorName, Verb};
use crate::time::LogInstant;

/// An operator: the public half of an ed25519 key, shown in base58.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OperatorKey([u8; 32]);

impl OperatorKey {
    /// From the bytes of an ed25519 public key.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the ed25519 public key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether this operator signed these bytes. Strict: no weak keys, no malleable signatures (RFC 8032, 5.1.7).
    pub fn verifies(&self, bytes: &[u8], signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else { return false };
        key.verify_strict(bytes, &ed25519_dalek::Signature::from_bytes(&signature.to_bytes())).is_ok()
    }
}

impl fmt::Display for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.0).into_string())
    }
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorKey({self})")
    }
}

impl FromStr for OperatorKey {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = |why| IdError { what: "operator key", text: text.chars().take(80).collect(), why };
        if text.len() > 64 {
            return Err(bad("it is too long"));
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| bad("it is not base58"))?;
        bytes.try_into().map(Self).map_err(|_| bad("it has not 32 bytes"))
    }
}

/// An ed25519 signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature([u8; 32], [u8; 32]);

impl Signature {
    /// From its 64 bytes.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let (mut left, mut right) = ([0; 32], [0; 32]);
        left.copy_from_slice(&bytes[..32]);
        right.copy_from_slice(&bytes[32..]);
        Self(left, right)
    }

    /// Its 64 bytes.
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..].copy_from_slice(&self.1);
        bytes
    }
}

/// The secret half of an operator's key. Never shown, and wiped from memory when it is let go of.
pub struct OperatorSecret(SigningKey);

impl OperatorSecret {
    /// From 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// From the text of a key's file.
    pub fn from_text(text: &str) -> Option<Self> {
        from_digits(text.trim()).map(|seed| Self::from_seed(&seed))
    }

    /// The text of the file of the key that is made of 32 random bytes.
    pub fn text_of(seed: &[u8; 32]) -> Zeroizing<String> {
        let digits = to_digits(seed);
        Zeroizing::new([digits.as_str(), "\n"].concat())
    }

    /// The public half.
    pub fn key(&self) -> OperatorKey {
        OperatorKey(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, bytes: &[u8]) -> Signature {
        Signature::from_bytes(&self.0.sign(bytes).to_bytes())
    }
}

impl fmt::Debug for OperatorSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorSecret(of {})", self.key())
    }
}

/// Some of a kind, or any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Allowed<T: Ord> {
    /// Any.
    Any,
    /// These only.
    These(BTreeSet<T>),
}

impl<T: Ord> Allowed<T> {
    /// Whether one is among them.
    pub fn allows(&self, one: &T) -> bool {
        match self {
            Self::Any => true,
            Self::These(these) => these.contains(one),
        }
    }

    /// How many it names; none for any.
    pub fn names(&self) -> usize {
        match self {
            Self::Any => 0,
            Self::These(these) => these.len(),
        }
    }
}

impl<T: Ord + Clone> Allowed<T> {
    /// What is among both.
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
    /// The shard.
    pub place: Place,
    /// Who states it: an admin, or the first operator of itself.
    pub by: OperatorKey,
    /// The operator.
    pub operator: OperatorKey,
    /// Its name.
    pub name: OperatorName,
    /// A statement with a higher one replaces it, and none with a lower one does.
    pub serial: u64,
    /// What it may ask for.
    pub verbs: Allowed<Verb>,
    /// Of whom. Never of all at once: see `broadcast`. By name: whoever may command a group may not thereby grant an agent
    /// of it.
    pub targets: Allowed<Target>,
    /// Whether it may command all agents at once.
    pub broadcast: bool,
    /// Commands in a minute, those of all whom it granted something included; none for as many as it likes.
    pub per_minute: Option<u32>,
    /// How many levels of operators it may make statements like this one about; zero for none.
    pub admin_depth: u32,
    /// Whether it may do nothing any more.
    pub revoked: bool,
    /// When it ends, on the shard's clock; none for no end. What is valid for longer is not accepted of it.
    pub until: Option<LogInstant>,
}

/// A statement of an admin, signed.
pub type SignedGrant = Signed<OperatorGrant>;

impl OperatorGrant {
    /// That of a shard's first operator: everything.
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
    /// [`InvalidCommand::GrantNames`].
    pub fn check_within(&self, limits: &FleetLimits) -> Result<(), InvalidCommand> {
        let (given, max) = (self.verbs.names().max(self.targets.names()), limits.grant_names_max);
        if given as u64 > max { Err(InvalidCommand::GrantNames { given, max }) } else { Ok(()) }
    }

    /// Whether it lets its operator ask a target for something that is valid until an instant.
    pub fn allows(&self, verb: &Verb, target: &Target, deadline: LogInstant) -> bool {
        let targets = match target {
            Target::All => self.broadcast,
            one => self.targets.allows(one),
        };
        !self.revoked && self.verbs.allows(verb) && targets && self.until.is_none_or(|until| deadline <= until)
    }

    /// What is left of it under the one that whoever states it has.
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

    /// Signs the statement; it is `by` whoever signs.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(self, by: &OperatorSecret) -> Result<SignedGrant, CodecError> {
        Signed::sign(self, by)
    }
}

/// The first operator of a new shard, as it shows that it has its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstOperator {
    /// The shard.
    pub place: Place,
    /// Its key.
    pub operator: OperatorKey,
    /// Its name.
    pub name: OperatorName,
}

/// The first operator of a new shard, signed by itself.
pub type SignedFirst = Signed<FirstOperator>;

impl FirstOperator {
    /// Signs the statement; the `operator` is whoever signs.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(self, by: &OperatorSecret) -> Result<SignedFirst, CodecError> {
        Signed::sign(self, by)
    }
}

/// The first operator gives its place to another key. What it granted goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstReplacement {
    /// The shard.
    pub place: Place,
    /// The first operator so far, who signs.
    pub old: OperatorKey,
    /// The first operator from now on.
    pub new: OperatorKey,
    /// Its name.
    pub name: OperatorName,
    /// The first replacement is number 1: so that none holds twice.
    pub serial: u64,
}

/// A replacement of the first operator, signed by it.
pub type SignedReplacement = Signed<FirstReplacement>;

impl FirstReplacement {
    /// Signs the statement; the `old` one is whoever signs.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(self, by: &OperatorSecret) -> Result<SignedReplacement, CodecError> {
        Signed::sign(self, by)
    }
}

/// Where all authority in a shard comes from, as its leader tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The shard's genesis.
    pub genesis: Genesis,
    /// Its first operator as it was made; none if it was made without one.
    pub first: Option<OperatorKey>,
    /// By whom that was replaced since, in order, but for what whoever asked knew already.
    pub replaced: Vec<Arc<SignedReplacement>>,
    /// What the shard was before it was recovered, in order: the last few times.
    pub past: Vec<PastGenesis>,
}

/// The first operator as somebody knows it, by so many replacements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KnownFirst {
    /// Its key.
    pub operator: OperatorKey,
    /// How many there were before it.
    pub replaced: u64,
}

impl KnownFirst {
    /// The one after a replacement, if that is the next one, and signed by this one for this shard.
    #[must_use]
    pub fn after(self, replacement: &SignedReplacement, place: &Place) -> Option<Self> {
        let next = replacement.serial.checked_sub(1) == Some(self.replaced) && replacement.old == self.operator;
        let holds = next && replacement.place == *place && replacement.unknown_field().is_none();
        let replaced = replacement.serial;
        (holds && replacement.is_signed()).then_some(Self { operator: replacement.new, replaced })
    }
}

/// What makes an operator one: statements from its own up to one that the first operator signed. Empty for the first.
pub type Authority = Vec<Arc<SignedGrant>>;

/// The number of the first statement about an operator, as a rule: it replaces none that anybody could still believe.
pub const FIRST_SERIAL: u64 = 1;

/// What was stated about operators in place of what had been stated before, after so many of such statements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityNews {
    /// Of each of them the statement about it, with those that make whoever stated it an admin.
    pub chains: Vec<Arc<Authority>>,
    /// How many there are up to which this is all. Fewer than whoever asked named, if there are not so many: then this is all from the
    /// first one on.
    pub up_to: u64,
}

/// What an operator is granted by a chain of statements that ends with the first operator, as far as each of them allows it;
/// none if the chain does not hold, is of another shard, or of somebody who is revoked.
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

/// What is stated of an operator by a chain of statements that ends with the first operator, and that it may do nothing any more,
/// too; none if the chain does not hold, is of another shard, or if whoever states it is revoked.
pub fn stated(chain: &[Arc<SignedGrant>], first: OperatorKey, place: &Place) -> Option<OperatorGrant> {
    let mut granted = OperatorGrant::of_first(place.clone(), first, OperatorName::new("first").ok()?);
    if chain.is_empty() || chain.len() > limits::AUTHORITY_CHAIN_MAX {
        return None;
    }
    let mut above = first;
    for signed in chain.iter().rev() {
        // Nobody is above itself, nor is the first operator below anybody.
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
    use crate::ids::ShardId;

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

    #[test]
    fn a_key_is_the_one_of_rfc_8032_and_its_text_round_trips() {
        // RFC 8032, section 7.1, test 1.
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let bytes = |text: &str| -> [u8; 32] {
            std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
        };
        let key = OperatorSecret::from_seed(&bytes(seed)).key();
        assert_eq!(key.as_bytes(), &bytes(public));
        assert_eq!(key.to_string().parse(), Ok(key));
        for bad in ["", "0", "abc", &"1".repeat(99)] {
            assert!(bad.parse::<OperatorKey>().is_err(), "{bad}");
        }
        assert!(!format!("{:?}", secret(1)).contains("01010101"));
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
        // Without its end, by somebody who is no admin, revoked, changed, of another shard, or turned around.
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
        // Nobody states anything who is revoked.
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
    fn a_key_is_read_from_its_file_as_it_was_written() {
        let text = OperatorSecret::text_of(&[0x1c; 32]);
        assert_eq!(text.as_str(), format!("{}\n", "1c".repeat(32)));
        assert_eq!(OperatorSecret::from_text(&text).map(|secret| secret.key()), Some(secret(0x1c).key()));
        assert!(OperatorSecret::from_text(&text[2..]).is_none());
    }

    #[test]
    fn a_first_operator_is_replaced_by_its_own_word_and_each_word_holds_once() {
        let (old, new) = (secret(1), secret(2));
        let known = KnownFirst { operator: old.key(), replaced: 0 };
        let to = |new: &OperatorSecret, serial| FirstReplacement {
            place: place(),
            old: old.key(),
            new: new.key(),
            name: OperatorName::new("first").unwrap(),
            serial,
        };
        let replaced = to(&new, 1).sign(&old).unwrap();
        let now = known.after(&replaced, &place()).unwrap();
        assert_eq!(now, KnownFirst { operator: new.key(), replaced: 1 });
        assert_eq!(now.after(&replaced, &place()), None, "again");
        let back = FirstReplacement { new: old.key(), ..to(&old, 2) }.sign(&new).unwrap();
        let back = now.after(&back, &place()).unwrap();
        assert_eq!(back.after(&replaced, &place()), None, "the key is the first again, and its old word is over");
        let forged = Signed::under(&to(&secret(3), 1), *replaced.signature()).unwrap();
        assert_eq!(known.after(&forged, &place()), None);
        let other = Place { genesis: Genesis::from_bytes([7; 16]), ..place() };
        assert_eq!(known.after(&replaced, &other), None);
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
