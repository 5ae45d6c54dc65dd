//! Who may send commands: operators, what they are granted, and their signatures.
//!
//! The first operator is made known when a shard is made. Everybody after it is granted what they may do by an operator
//! that is an admin, in a signed statement. Whoever holds the chain of statements from an operator to the first one needs
//! to trust nobody else: a bad orchestrator can lose a command and cannot forge one.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::codec::{CodecError, Encoded};
use crate::command::{InvalidCommand, Target};
use crate::fleet::FleetLimits;
use crate::ids::{IdError, ShardId};
use crate::limits;
use crate::text::{OperatorName, SiteName, Verb};

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

/// What an operator may do in a shard, as an admin states it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorGrant {
    /// The site.
    pub site: SiteName,
    /// The shard.
    pub shard: ShardId,
    /// The operator.
    pub operator: OperatorKey,
    /// Its name.
    pub name: OperatorName,
    /// A statement with a higher one replaces it, and none with a lower one does.
    pub serial: u64,
    /// What it may ask for.
    pub verbs: Allowed<Verb>,
    /// Of whom. Never of all at once: see `broadcast`.
    pub targets: Allowed<Target>,
    /// Whether it may command all agents at once.
    pub broadcast: bool,
    /// Commands in a minute; none for as many as it likes.
    pub per_minute: Option<u32>,
    /// Whether it may make statements like this one.
    pub admin: bool,
    /// Whether it may do nothing any more.
    pub revoked: bool,
}

impl OperatorGrant {
    /// That of a shard's first operator: everything.
    pub fn of_first(site: SiteName, shard: ShardId, operator: OperatorKey, name: OperatorName) -> Self {
        let (verbs, targets) = (Allowed::Any, Allowed::Any);
        let (serial, broadcast, per_minute, admin, revoked) = (0, true, None, true, false);
        Self { site, shard, operator, name, serial, verbs, targets, broadcast, per_minute, admin, revoked }
    }

    /// Checks the limits of a shard that the fields' own types do not.
    ///
    /// # Errors
    /// [`InvalidCommand::GrantNames`].
    pub fn check_within(&self, limits: &FleetLimits) -> Result<(), InvalidCommand> {
        let (given, max) = (self.verbs.names().max(self.targets.names()), limits.grant_names_max);
        if given as u64 > max { Err(InvalidCommand::GrantNames { given, max }) } else { Ok(()) }
    }

    /// Whether it lets its operator ask a target for something.
    pub fn allows(&self, verb: &Verb, target: &Target) -> bool {
        let targets = match target {
            Target::All => self.broadcast,
            one => self.targets.allows(one),
        };
        !self.revoked && self.verbs.allows(verb) && targets
    }

    /// Signs the statement.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(self, by: &OperatorSecret) -> Result<SignedGrant, CodecError> {
        let signature = by.sign(&signed_bytes(GRANT, &self)?);
        Ok(SignedGrant { grant: self, by: by.key(), signature })
    }
}

/// A statement with the signature of the admin who makes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedGrant {
    /// What it says.
    pub grant: OperatorGrant,
    /// Who says it.
    pub by: OperatorKey,
    /// The signature.
    pub signature: Signature,
}

const GRANT: &[u8] = b"skep/operator-grant/1\0";

/// What is signed: a name of what it is, so that no signature is good for anything else, and the value as it is encoded.
pub(crate) fn signed_bytes(domain: &[u8], value: &impl Encoded) -> Result<Vec<u8>, CodecError> {
    Ok([domain, &value.encode()?].concat())
}

impl SignedGrant {
    /// Whether it was signed by whom it names.
    pub fn is_signed(&self) -> bool {
        signed_bytes(GRANT, &self.grant).is_ok_and(|bytes| self.by.verifies(&bytes, &self.signature))
    }
}

/// What makes an operator one: statements from its own up to one that the first operator signed. Empty for the first.
pub type Authority = Vec<Arc<SignedGrant>>;

/// What an operator is granted by a chain of statements that ends with the first operator; none if the chain does not
/// hold, is of another shard, or of somebody who is revoked.
///
/// Whoever makes a statement must have been an admin by the statement above it.
pub fn granted(
    chain: &[Arc<SignedGrant>],
    operator: OperatorKey,
    first: OperatorKey,
    (site, shard): (&SiteName, ShardId),
) -> Option<OperatorGrant> {
    if operator == first {
        let name = OperatorName::new("first").ok()?;
        return Some(OperatorGrant::of_first(site.clone(), shard, first, name));
    }
    if chain.is_empty() || chain.len() > limits::AUTHORITY_CHAIN_MAX {
        return None;
    }
    let mut wanted = operator;
    for (depth, signed) in chain.iter().enumerate() {
        let grant = &signed.grant;
        let right = grant.operator == wanted && &grant.site == site && grant.shard == shard && !grant.revoked;
        if !right || (depth > 0 && !grant.admin) || !signed.is_signed() {
            return None;
        }
        wanted = signed.by;
    }
    (wanted == first).then(|| chain[0].grant.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(n: u8) -> OperatorSecret {
        OperatorSecret::from_seed(&[n; 32])
    }

    fn site() -> SiteName {
        SiteName::new("hall").unwrap()
    }

    fn grant(of: &OperatorSecret, admin: bool) -> OperatorGrant {
        let name = OperatorName::new("someone").unwrap();
        OperatorGrant { admin, serial: 1, ..OperatorGrant::of_first(site(), ShardId(1), of.key(), name) }
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

    #[test]
    fn a_chain_holds_only_if_every_link_was_made_by_an_admin() {
        let (first, admin, clerk) = (secret(1), secret(2), secret(3));
        let at = |chain: &[SignedGrant]| {
            let chain: Vec<_> = chain.iter().cloned().map(Arc::new).collect();
            granted(&chain, clerk.key(), first.key(), (&site(), ShardId(1)))
        };
        let of_admin = grant(&admin, true).sign(&first).unwrap();
        let of_clerk = grant(&clerk, false).sign(&admin).unwrap();
        assert_eq!(at(&[of_clerk.clone(), of_admin.clone()]), Some(of_clerk.grant.clone()));
        assert_eq!(at(&[grant(&clerk, false).sign(&first).unwrap()]).map(|grant| grant.admin), Some(false));
        // Without its end, by somebody who is no admin, revoked, changed, of another shard, or turned around.
        let not_admin = grant(&admin, false).sign(&first).unwrap();
        let revoked = OperatorGrant { revoked: true, ..grant(&admin, true) }.sign(&first).unwrap();
        let mut changed = of_clerk.clone();
        changed.grant.admin = true;
        let elsewhere = OperatorGrant { shard: ShardId(2), ..grant(&clerk, false) }.sign(&first).unwrap();
        for chain in [
            vec![],
            vec![of_clerk.clone()],
            vec![of_clerk.clone(), not_admin],
            vec![of_clerk.clone(), revoked],
            vec![changed, of_admin.clone()],
            vec![elsewhere],
            vec![of_admin, of_clerk],
        ] {
            assert_eq!(at(&chain), None, "{chain:?}");
        }
    }

    #[test]
    fn to_command_all_at_once_is_a_grant_of_its_own() {
        let verb = Verb::new("goto").unwrap();
        let mut all_but = grant(&secret(1), false);
        all_but.broadcast = false;
        assert!(!all_but.allows(&verb, &Target::All));
        assert!(all_but.allows(&verb, &Target::Group("aisle".parse().unwrap())));
        all_but.verbs = Allowed::These(BTreeSet::new());
        assert!(!all_but.allows(&verb, &Target::Group("aisle".parse().unwrap())));
    }
}
