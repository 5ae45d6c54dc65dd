//! A shard's first operator, and the keys that replace it one after another.

use serde::{Deserialize, Serialize};

use crate::codec::CodecError;
use crate::signing::{OperatorKey, OperatorSecret, Place, Signed};
use crate::text::OperatorName;

/// The statement by which the first operator of a new shard shows that it has its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstOperator {
    /// The site, shard and genesis where the statement holds.
    pub place: Place,
    /// The operator's key.
    pub operator: OperatorKey,
    /// The operator's name.
    pub name: OperatorName,
}

/// The first operator of a new shard, signed by itself.
pub type SignedFirst = Signed<FirstOperator>;

impl FirstOperator {
    /// Signs the statement; the signer becomes its `operator`.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(self, by: &OperatorSecret) -> Result<SignedFirst, CodecError> {
        Signed::sign(self, by)
    }
}

/// The first operator gives its place to another key. The shard revokes all that it granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstReplacement {
    /// The site, shard and genesis where the statement holds.
    pub place: Place,
    /// Key of the first operator so far, who signs.
    pub old: OperatorKey,
    /// Key of the first operator from now on.
    pub new: OperatorKey,
    /// Name of the new first operator.
    pub name: OperatorName,
    /// Number of the replacement, from 1: so that none holds twice.
    pub serial: u64,
}

/// A replacement of the first operator, signed by it.
pub type SignedReplacement = Signed<FirstReplacement>;

impl FirstReplacement {
    /// Signs the statement; the signer becomes its `old` one.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(self, by: &OperatorSecret) -> Result<SignedReplacement, CodecError> {
        Signed::sign(self, by)
    }
}

/// The first operator as a journal or a client knows it, after so many replacements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KnownFirst {
    /// The operator's key.
    pub operator: OperatorKey,
    /// Number of first operators before it.
    pub replaced: u64,
}

impl KnownFirst {
    /// The first operator after a replacement, if that is the next one, and signed by this one for this shard; none
    /// otherwise.
    #[must_use]
    pub fn after(self, replacement: &SignedReplacement, place: &Place) -> Option<Self> {
        let next = replacement.serial.checked_sub(1) == Some(self.replaced) && replacement.old == self.operator;
        let holds = next && replacement.place == *place && replacement.unknown_field().is_none();
        let replaced = replacement.serial;
        (holds && replacement.is_signed()).then_some(Self { operator: replacement.new, replaced })
    }
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
}
