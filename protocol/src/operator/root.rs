//! Where all authority in a shard comes from, for journals and clients that know nothing of it, or what it was once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::first::{KnownFirst, SignedReplacement};
use crate::ids::{Genesis, ShardId};
use crate::recovery::SignedRecovery;
use crate::signing::{OperatorKey, Place};
use crate::text::SiteName;

/// Where all authority in a shard comes from, as its leader tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The shard's genesis.
    pub genesis: Genesis,
    /// Key of the shard's first operator at its first entry; none if the shard was made without one.
    pub first: Option<OperatorKey>,
    /// The replacements of the first operator since, in order, without those that the caller knew already.
    pub replaced: Vec<Arc<SignedReplacement>>,
    /// What the shard was before it was recovered, in order: the last few recoveries.
    pub past: Vec<PastGenesis>,
}

/// What was before a recovery, for those that know nothing later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastGenesis {
    /// The replacements of the first operator under the genesis before, in order.
    pub replaced: Vec<Arc<SignedReplacement>>,
    /// The first operator's statement that another genesis follows.
    pub recovery: Arc<SignedRecovery>,
}

impl Root {
    /// The genesis and the first operator that a journal or a client knows after it heard this. If it knew nothing, it
    /// believes this; if it knew something, it believes what follows from that by the word of first operators alone.
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
                // The count of replacements starts anew.
                first = Some(KnownFirst { replaced: 0, ..known });
            }
        }
        (genesis, follow(first, &self.replaced, &place(genesis)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::FirstReplacement;
    use crate::recovery::ShardRecovery;
    use crate::signing::{OperatorSecret, Signed};

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
        // Of another shard, or one whose first operator is another key.
        assert_eq!(after(&root, Some((9, known(&one, 0)))), (genesis(9), Some(known(&one, 0))));
        assert_eq!(after(&root, Some((7, known(&three, 0)))), (genesis(7), Some(known(&three, 0))));
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
