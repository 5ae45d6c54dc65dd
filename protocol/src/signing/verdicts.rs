//! Signatures that a node found to hold.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::{Signed, Statement};

/// What tells one signed statement from every other: a hash of its domain, its bytes and its signature.
type Fingerprint = [u8; 32];

#[derive(Debug, Default)]
struct Known {
    prints: BTreeSet<Fingerprint>,
    /// In the order in which they came.
    order: VecDeque<Fingerprint>,
}

/// Signatures that a node found to hold, so that it need not verify the same statement again. Nothing but time depends
/// on its content: a statement that is not in it is verified.
#[derive(Debug)]
pub struct Verdicts {
    known: Mutex<Known>,
    max: usize,
}

impl Verdicts {
    /// A set with room for so many: one more makes it forget the oldest.
    pub fn of(max: usize) -> Self {
        Self { known: Mutex::default(), max }
    }

    fn has(&self, print: &Fingerprint) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).prints.contains(print)
    }

    fn add(&self, print: Fingerprint) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.prints.insert(print) {
            return;
        }
        known.order.push_back(print);
        if known.order.len() > self.max
            && let Some(oldest) = known.order.pop_front()
        {
            known.prints.remove(&oldest);
        }
    }

    /// Number of known signatures.
    pub fn len(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).order.len()
    }

    /// Whether no signature is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Statement> Signed<T> {
    fn fingerprint(&self) -> Fingerprint {
        let hash = Sha256::new().chain_update(T::DOMAIN).chain_update(self.signature.to_bytes());
        hash.chain_update(&self.body).finalize().into()
    }

    /// Checks whether the operator that it names signed it, and keeps the verdict for others: then
    /// [`is_signed`](Self::is_signed) knows it.
    pub fn look_up(&self, verdicts: &Verdicts) {
        if self.holds.get().is_some() {
            return;
        }
        let print = self.fingerprint();
        if verdicts.has(&print) {
            // A check that came first found the same.
            let _ = self.holds.set(true);
        } else if self.is_signed() {
            verdicts.add(print);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Genesis, ShardId};
    use crate::operator::FirstOperator;
    use crate::signing::{OperatorSecret, Place, Signature};

    fn stated(name: &str) -> FirstOperator {
        let place = Place { site: "hall".parse().unwrap(), shard: ShardId(1), genesis: Genesis::from_bytes([6; 16]) };
        let operator = OperatorSecret::from_seed(&[1; 32]).key();
        FirstOperator { place, operator, name: name.parse().unwrap() }
    }

    fn signed(name: &str) -> Signed<FirstOperator> {
        Signed::sign(stated(name), &OperatorSecret::from_seed(&[1; 32])).unwrap()
    }

    #[test]
    fn what_is_known_is_one_statement_under_one_signature_and_what_is_forged_never_is() {
        let verdicts = Verdicts::of(8);
        signed("a").look_up(&verdicts);
        let again = signed("a");
        assert!(verdicts.has(&again.fingerprint()));
        again.look_up(&verdicts);
        assert!(again.is_signed());
        // The same signature under another name, another signature, and looked up twice.
        let other = Signed::under(&stated("b"), *again.signature()).unwrap();
        let none = Signed::under(&stated("a"), Signature::from_bytes(&[0; 64])).unwrap();
        for forged in [other, none] {
            for _ in 0..2 {
                let forged = forged.clone();
                forged.look_up(&verdicts);
                assert!(!forged.is_signed());
            }
        }
        assert_eq!(verdicts.len(), 1);
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_is_no_room_and_verified_again() {
        let verdicts = Verdicts::of(2);
        for name in ["a", "b", "c"] {
            signed(name).look_up(&verdicts);
        }
        assert_eq!(verdicts.len(), 2);
        assert!(!verdicts.has(&signed("a").fingerprint()) && verdicts.has(&signed("c").fingerprint()));
        let again = signed("a");
        again.look_up(&verdicts);
        assert!(again.is_signed());
    }
}
