//! Peers of another shard that has the same number.
//!
//! Sites are told apart by their names, and their shards by numbers, and both are soon the same somewhere: a test hall and the hall
//! itself, or a shard that was made twice. What a shard is without doubt is its genesis. So nodes say in their hellos of which
//! shards they have replicas, and two that are of different ones do not speak with each other. Both say so, since one of them has to
//! be looked after.
//!
//! A node that has no replica says nothing, though the journals of its agents know a genesis: what is signed for another shard is
//! refused there, and the node does no harm. One that was just started may not know yet what its replica is. So whoever comes to know
//! what it is itself looks at the hellos of its peers once more, and asks them. All refusals are for now: who is refused dials again.

use std::collections::BTreeMap;

use skep_protocol::ids::NodeId;
use skep_protocol::recovery::Lineage;
use tokio::time::Instant;

/// What this node says of its replicas, and whom it did not speak with for what they said.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) own: Vec<Lineage>,
    /// Peers of other shards, what was seen, and when last.
    pub(super) strays: BTreeMap<NodeId, (String, Instant)>,
}

/// Two shards of one number at two nodes that have no shard in common.
pub(super) fn conflict<'a>(own: &'a [Lineage], theirs: &'a [Lineage]) -> Option<(&'a Lineage, &'a Lineage)> {
    let mut found = None;
    for one in own {
        for other in theirs.iter().filter(|other| other.shard == one.shard) {
            if one.belongs_with(other) {
                return None;
            }
            found = found.or(Some((one, other)));
        }
    }
    found
}

/// The same words, whichever of the two nodes says them.
pub(crate) fn in_words((one, of_one): (NodeId, &Lineage), (other, of_other): (NodeId, &Lineage)) -> String {
    let (shard, genesis, another) = (of_one.shard, of_one.genesis, of_other.genesis);
    format!(
        "shard {shard} of {one} has genesis {genesis} and that of {other} has genesis {another}: neither of them is what the other \
         one was before it was recovered"
    )
}

#[cfg(test)]
mod tests {
    use skep_protocol::ids::{Genesis, ShardId};

    use super::*;

    fn lineage(shard: u32, genesis: u8) -> Lineage {
        Lineage { shard: ShardId(shard), genesis: Genesis::from_bytes([genesis; 16]), past: Vec::new() }
    }

    #[test]
    fn two_nodes_part_if_they_have_different_shards_of_one_number_and_none_in_common() {
        let (one, other, second) = (lineage(1, 6), lineage(1, 7), lineage(2, 6));
        assert_eq!(conflict(std::slice::from_ref(&one), std::slice::from_ref(&other)), Some((&one, &other)));
        let parts = |own: &[&Lineage], theirs: &[&Lineage]| {
            let [own, theirs] = [own, theirs].map(|of| of.iter().copied().cloned().collect::<Vec<Lineage>>());
            conflict(&own, &theirs).is_some()
        };
        assert!(parts(&[&second, &one], &[&other]));
        // Who knows nothing, or has another number, is in nobody's way; nor is who shares a shard.
        assert!(!parts(&[], &[&one]) && !parts(&[&one], &[]) && !parts(&[&one], &[&second]));
        assert!(!parts(&[&one, &second], &[&other, &second]));
    }

    #[test]
    fn both_nodes_say_the_same() {
        let node = |n| NodeId::from_public_key([n; 32]);
        let said = in_words((node(1), &lineage(1, 6)), (node(2), &lineage(1, 7)));
        assert!(said.contains("genesis 06060606") && said.contains("genesis 07070707"), "{said}");
        assert!(said.contains(&node(1).to_string()) && said.contains(&node(2).to_string()), "{said}");
        assert!(said.len() < 512, "it is the reason why a connection ends");
    }
}
