//! A shard that lost its quorum for good, and goes on from what one replica of it held.
//!
//! Statements of operators are bound to a shard's genesis. A recovered shard has another one: nothing that was signed
//! before holds in it, though the old group may be there still. Its first operator says in both of them that the one is
//! what the other was, so that a journal that knew the old genesis needs to believe no other word.

use serde::{Deserialize, Serialize};

use crate::codec::CodecError;
use crate::ids::{Genesis, ShardId};
use crate::signing::{OperatorKey, OperatorSecret, Place, Signed};

/// The statement of the first operator that a shard goes on as another group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRecovery {
    /// The site, shard and genesis before.
    pub place: Place,
    /// Key of the first operator, who signs.
    pub by: OperatorKey,
    /// The genesis of the shard from then on.
    pub genesis: Genesis,
    /// Index of the last entry that is kept of what the shard was.
    pub last_index: u64,
}

/// A recovery, signed by the shard's first operator.
pub type SignedRecovery = Signed<ShardRecovery>;

impl ShardRecovery {
    /// Signs the statement; the signer becomes its `by`.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(self, by: &OperatorSecret) -> Result<SignedRecovery, CodecError> {
        Signed::sign(self, by)
    }
}

impl Signed<ShardRecovery> {
    /// Whether this Skep understands it, and that key signed it as the first operator.
    pub fn is_by(&self, first: OperatorKey) -> bool {
        self.by == first && self.unknown_field().is_none() && self.is_signed()
    }
}

/// How a shard came about, as one replica of it knows. It tells two shards from each other that have the same number,
/// in sites of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Id of the shard.
    pub shard: ShardId,
    /// Genesis of the shard.
    pub genesis: Genesis,
    /// Its earlier geneses, in order: the last few recoveries.
    pub past: Vec<Genesis>,
}

impl Lineage {
    /// Whether two replicas can be of one shard: of the same genesis, or one of them of what the other one's shard was
    /// before. Two groups that went on separately from one shard are two shards.
    pub fn belongs_with(&self, other: &Self) -> bool {
        let has_been = |one: &Self, genesis: &Genesis| one.genesis == *genesis || one.past.contains(genesis);
        self.shard == other.shard && (has_been(self, &other.genesis) || has_been(other, &self.genesis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn genesis(n: u8) -> Genesis {
        Genesis::from_bytes([n; 16])
    }

    #[test]
    fn replicas_are_of_one_shard_if_one_of_them_has_been_what_the_other_one_is() {
        let of = |shard, now, past: &[u8]| {
            let past = past.iter().copied().map(genesis).collect();
            Lineage { shard: ShardId(shard), genesis: genesis(now), past }
        };
        let belong = |one: &Lineage, other: &Lineage| {
            assert_eq!(one.belongs_with(other), other.belongs_with(one), "{one:?} {other:?}");
            one.belongs_with(other)
        };
        let now = of(1, 8, &[6, 7]);
        for one in [of(1, 8, &[]), of(1, 6, &[]), of(1, 7, &[6]), of(1, 9, &[6, 7, 8]), now.clone()] {
            assert!(belong(&now, &one), "{one:?}");
        }
        for other in [of(1, 5, &[]), of(2, 8, &[6, 7]), of(1, 9, &[6, 7]), of(1, 9, &[])] {
            assert!(!belong(&now, &other), "{other:?}");
        }
    }
}
