//! A shard that was beyond help, and goes on from what one replica of it held.
//!
//! What operators sign is bound to a shard's genesis. A shard that is recovered has another one: nothing that was signed before
//! holds in it, though the old group may be there still. Its first operator says in both of them that the one is what the other
//! was, so that whoever knew the old genesis needs to believe nobody else.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::authority::{KnownFirst, OperatorKey, OperatorSecret, Root, SignedReplacement};
use crate::codec::CodecError;
use crate::ids::{Genesis, ShardId};
use crate::statement::{Place, Signed};
use crate::text::SiteName;

/// The first operator has a shard go on as another group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRecovery {
    /// What the shard was.
    pub place: Place,
    /// The first operator, who signs.
    pub by: OperatorKey,
    /// The genesis that it has from then on.
    pub genesis: Genesis,
    /// The last entry that is kept of what it was.
    pub last_index: u64,
}

/// A recovery, signed by the shard's first operator.
pub type SignedRecovery = Signed<ShardRecovery>;

impl ShardRecovery {
    /// Signs the statement; it is `by` whoever signs.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(self, by: &OperatorSecret) -> Result<SignedRecovery, CodecError> {
        Signed::sign(self, by)
    }
}

impl Signed<ShardRecovery> {
    /// Whether it is understood, and the word of whoever is the first operator.
    pub fn is_by(&self, first: OperatorKey) -> bool {
        self.by == first && self.unknown_field().is_none() && self.is_signed()
    }
}

/// How a shard came about, as one replica of it knows. It tells two shards from each other that have the same number, in sites of the
/// same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Its number.
    pub shard: ShardId,
    /// Its genesis.
    pub genesis: Genesis,
    /// What its genesis was before it was recovered, in order: the last few times.
    pub past: Vec<Genesis>,
}

impl Lineage {
    /// Whether two replicas can be of one shard: of the same genesis, or one of them of what the other one's shard was before. Two
    /// that went on separately from what was one shard are two.
    pub fn belongs_with(&self, other: &Self) -> bool {
        let has_been = |one: &Self, genesis: &Genesis| one.genesis == *genesis || one.past.contains(genesis);
        self.shard == other.shard && (has_been(self, &other.genesis) || has_been(other, &self.genesis))
    }
}

/// What was before a recovery, for those who know nothing later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastGenesis {
    /// By whom the first operator was replaced under the genesis before, in order.
    pub replaced: Vec<Arc<SignedReplacement>>,
    /// The word that another one follows.
    pub recovery: Arc<SignedRecovery>,
}

impl Root {
    /// The genesis and the first operator that somebody knows who is told this. Who knew nothing believes it; who knew something
    /// believes what follows from that by the word of first operators alone.
    pub fn known_after(
        &self,
        known: Option<(Genesis, Option<KnownFirst>)>,
        (site, shard): (&SiteName, ShardId),
    ) -> (Genesis, Option<KnownFirst>) {
        let place = |genesis| Place { site: site.clone(), shard, genesis };
        let follow = |first: Option<KnownFirst>, replaced: &[Arc<SignedReplacement>], place: &Place| {
            first.map(|first| replaced.iter().fold(first, |first, next| first.after(next, place).unwrap_or(first)))
        };
        let made = || (self.genesis, self.first.map(|operator| KnownFirst { operator, replaced: 0 }));
        let (mut genesis, mut first) = known.unwrap_or_else(made);
        for past in &self.past {
            let before = place(genesis);
            if past.recovery.place != before {
                continue;
            }
            first = follow(first, &past.replaced, &before);
            if let Some(known) = first.filter(|known| past.recovery.is_by(known.operator)) {
                genesis = past.recovery.genesis;
                // Replacements are counted anew.
                first = Some(KnownFirst { replaced: 0, ..known });
            }
        }
        (genesis, follow(first, &self.replaced, &place(genesis)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::FirstReplacement;

    fn secret(n: u8) -> OperatorSecret {
        OperatorSecret::from_seed(&[n; 32])
    }

    fn genesis(n: u8) -> Genesis {
        Genesis::from_bytes([n; 16])
    }

    fn site() -> SiteName {
        SiteName::new("hall").unwrap()
    }

    fn place(n: u8) -> Place {
        Place { site: site(), shard: ShardId(1), genesis: genesis(n) }
    }

    fn recovery(from: u8, to: u8, by: &OperatorSecret) -> Arc<SignedRecovery> {
        let stated = ShardRecovery { place: place(from), by: by.key(), genesis: genesis(to), last_index: 9 };
        Arc::new(stated.sign(by).unwrap())
    }

    fn replaced(at: u8, old: &OperatorSecret, new: &OperatorSecret, serial: u64) -> Arc<SignedReplacement> {
        let name = "first".parse().unwrap();
        let stated = FirstReplacement { place: place(at), old: old.key(), new: new.key(), name, serial };
        Arc::new(stated.sign(old).unwrap())
    }

    fn after(root: &Root, known: Option<(u8, KnownFirst)>) -> (Genesis, Option<KnownFirst>) {
        let known = known.map(|(of, first)| (genesis(of), Some(first)));
        root.known_after(known, (&site(), ShardId(1)))
    }

    #[test]
    fn who_knew_the_shard_follows_it_through_recoveries_by_the_word_of_its_first_operators() {
        let (one, two, three) = (secret(1), secret(2), secret(3));
        let known = |of: &OperatorSecret, replaced| KnownFirst { operator: of.key(), replaced };
        // 6 became 7 after its first operator had been replaced, and 7 became 8, where that was replaced again.
        let first = PastGenesis { replaced: vec![replaced(6, &one, &two, 1)], recovery: recovery(6, 7, &two) };
        let second = PastGenesis { replaced: Vec::new(), recovery: recovery(7, 8, &two) };
        let root = Root {
            genesis: genesis(8),
            first: Some(two.key()),
            replaced: vec![replaced(8, &two, &three, 1)],
            past: vec![first, second],
        };
        let now = (genesis(8), Some(known(&three, 1)));
        for earlier in [
            None,
            Some((6, known(&one, 0))),
            Some((6, known(&two, 1))),
            Some((7, known(&two, 0))),
            Some((8, known(&two, 0))),
            Some((8, known(&three, 1))),
        ] {
            assert_eq!(after(&root, earlier), now, "{earlier:?}");
        }
        // Of another shard, or one whose first operator is somebody else.
        assert_eq!(after(&root, Some((9, known(&one, 0)))), (genesis(9), Some(known(&one, 0))));
        assert_eq!(after(&root, Some((7, known(&three, 0)))), (genesis(7), Some(known(&three, 0))));
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

    #[test]
    fn nobody_else_has_a_shard_go_on_as_another_one() {
        let (first, thief) = (secret(1), secret(2));
        let known = KnownFirst { operator: first.key(), replaced: 0 };
        let told = |recovery: Arc<SignedRecovery>| Root {
            genesis: genesis(7),
            first: Some(thief.key()),
            replaced: Vec::new(),
            past: vec![PastGenesis { replaced: Vec::new(), recovery }],
        };
        let good = recovery(6, 7, &first);
        assert_eq!(after(&told(Arc::clone(&good)), Some((6, known))), (genesis(7), Some(known)));
        let forged = Signed::under(recovery(6, 8, &first).statement(), *good.signature()).unwrap();
        let field: &[u8] = &[0xf8, 0x01, 1];
        let critical = SignedRecovery::sign_body([good.body().as_ref(), field].concat().into(), &first).unwrap();
        for bad in [recovery(6, 7, &thief), recovery(5, 7, &first), Arc::new(forged), Arc::new(critical)] {
            assert_eq!(after(&told(Arc::clone(&bad)), Some((6, known))), (genesis(6), Some(known)), "{bad:?}");
        }
    }
}
