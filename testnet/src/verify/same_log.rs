//! S8: one leader in a term, and equal replicas.

use std::collections::BTreeMap;

use super::Evidence;

/// All voters have applied the same, with the same digest, and tell the same history; and so did every node at every
/// moment at which it looked at itself.
pub(super) fn check(evidence: &Evidence) -> Vec<String> {
    let mut found = in_the_end(evidence);
    found.extend(meanwhile(evidence));
    found
}

fn in_the_end(evidence: &Evidence) -> Vec<String> {
    let Some(first) = evidence.voters.first() else { return vec!["there is no voter".to_owned()] };
    let (known, voters) = (evidence.voters.len(), evidence.voters_begun());
    if known != voters {
        return vec![format!("what {known} voters hold is known, and {voters} vote")];
    }
    let differs = evidence.voters.iter().filter(|voter| {
        let same = (voter.head.index, &voter.head.digest) == (first.head.index, &first.head.digest);
        !same || voter.tasks != first.tasks || voter.changes != first.changes
    });
    differs.map(|voter| format!("{} and {} differ", first.head.node, voter.head.node)).collect()
}

fn meanwhile(evidence: &Evidence) -> Vec<String> {
    let mut found = Vec::new();
    let mut leaders: BTreeMap<u64, (&str, &str)> = BTreeMap::new();
    let mut digests: BTreeMap<u64, (&str, &str)> = BTreeMap::new();
    for (node, history) in &evidence.nodes {
        let mut last: BTreeMap<(&str, u32), (u64, Option<u64>)> = BTreeMap::new();
        for record in history.iter().filter(|record| record.kind == "shard") {
            let of = (record.incarnation.as_str(), record.pid);
            let known = last.insert(of, (record.term, record.index));
            if known.is_some_and(|(term, index)| term > record.term || index > record.index) {
                found.push(format!("{node} went back to entry {:?} of term {}", record.index, record.term));
            }
            if record.leads {
                let led = *leaders.entry(record.term).or_insert((node, &record.incarnation));
                if led != (node.as_str(), record.incarnation.as_str()) {
                    found.push(format!("{node} and {} both led term {}", led.0, record.term));
                }
            }
            let Some(index) = record.index else { continue };
            let known = *digests.entry(index).or_insert((&record.digest, node));
            if known.0 != record.digest {
                found.push(format!("{node} and {} differ at entry {index}", known.1));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::NodeRecord;

    fn seen(pid: u32, leads: bool, term: u64, index: impl Into<Option<u64>>, digest: &str) -> NodeRecord {
        let (incarnation, kind, digest) = (format!("i{pid}"), "shard".to_owned(), digest.to_owned());
        NodeRecord { incarnation, pid, kind, mono_ns: 0, leads, term, index: index.into(), digest }
    }

    fn judge(nodes: &[(&str, Vec<NodeRecord>)]) -> usize {
        let nodes = nodes.iter().map(|(name, history)| ((*name).to_owned(), history.clone())).collect();
        meanwhile(&Evidence { nodes, ..Evidence::default() }).len()
    }

    #[test]
    fn two_leaders_of_a_term_and_replicas_that_differ_are_found() {
        let good = vec![seen(1, true, 1, 5, "a"), seen(1, false, 2, 9, "b"), seen(2, false, 2, 5, "a")];
        assert_eq!(judge(&[("n0", good.clone()), ("n1", vec![seen(3, true, 2, 9, "b")])]), 0);
        assert_eq!(judge(&[("n0", good.clone()), ("n1", vec![seen(3, true, 1, 5, "a")])]), 1, "two leaders");
        assert_eq!(judge(&[("n0", good), ("n1", vec![seen(3, false, 1, 5, "x")])]), 1, "another digest");
        let fresh = vec![seen(1, false, 1, None, "-"), seen(1, false, 1, 0, "a")];
        assert_eq!(
            judge(&[("n0", fresh), ("n1", vec![seen(2, false, 1, 0, "a")])]),
            0,
            "nothing is not the first entry"
        );
        assert_eq!(
            judge(&[("n0", vec![seen(1, false, 2, 5, "a"), seen(1, false, 1, 5, "a")])]),
            1,
            "a term that falls"
        );
    }
}
