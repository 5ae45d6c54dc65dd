//! Proofs of leadership: golden bytes, which candidates count as elected and which do not, and rubbish. A failure
//! prints its seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use proptest::prelude::*;
use skep_protocol::ballot::{BallotKey, Election, Knowledge, LeaderProof, Unproven, Voter, VoterSet};
use skep_protocol::codec::{CodecError, Encoded as _};
use skep_protocol::ids::{Genesis, Incarnation, NodeId, RaftId, ShardId};
use skep_protocol::limits;
use skep_protocol::recovery::Lineage;

const SHARD: ShardId = ShardId::FIRST;
const TERM: u64 = 7;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key(n: u8) -> BallotKey {
    BallotKey::from_seed(&[n; 32])
}

fn voter(n: u8) -> Voter {
    Voter { node: key(n).node(), incarnation: Incarnation([n; 16]) }
}

fn id(n: u8) -> RaftId {
    voter(n).raft_id()
}

fn genesis(n: u8) -> Genesis {
    Genesis::from_bytes([n; 16])
}

fn set(groups: &[&[u8]]) -> VoterSet {
    VoterSet::of(groups.iter().map(|group| group.iter().copied().map(voter).collect())).unwrap()
}

fn election(candidate: u8, voters: &VoterSet) -> Election {
    let (shard, genesis) = (SHARD, Some(genesis(6)));
    Election { shard, genesis, term: TERM, candidate: id(candidate), voters: voters.digest() }
}

/// A proof that these members voted for a candidate, in an election by those voters.
fn proof(candidate: u8, voters: &VoterSet, voted: &[u8]) -> LeaderProof {
    let election = election(candidate, voters);
    LeaderProof::new(&election, voters.clone(), voted.iter().map(|n| key(*n).vote(&election, id(*n))))
}

fn lineage(now: u8, past: &[u8]) -> Lineage {
    Lineage { shard: SHARD, genesis: genesis(now), past: past.iter().copied().map(genesis).collect() }
}

/// The knowledge of a node that knows these memberships, and believes those nodes to vote.
fn knows(sets: &[VoterSet], believed: &[u8]) -> Knowledge {
    let believed = believed.iter().map(|n| key(*n).node()).collect();
    Knowledge { shard: SHARD, lineage: Some(lineage(6, &[])), sets: sets.to_vec(), believed }
}

const GOLDEN_DIGEST: &str = "4ce317e4fdbfe0e51c45a80d66daa8a28cb4b1227b40eba59defdd85796f075b";
/// Node 2's signature of its vote for node 1, which depends on each byte that is signed.
const GOLDEN_SIGNATURE: &str = "4ef81f338fba6bdcffd7f87bd71090eb47d4069e1a7c0b2093fc6a822d894c84\
                                db39db208b689075a5b8e5e166821f7ba3182c2661ada140ce47f3928774f007";
/// The proof of one voter, which voted for itself.
const GOLDEN_PROOF: &str = "01010606060606060606060606060606060607aeab95d6b0ebd7c2e4b0fbb3b0a28ed3a7bd010101\
                            8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c0101010101010101\
                            010101010101010101aeab95d6b0ebd7c2e4b0fbb3b0a28ed3a7bd017e3f7ae940980241ff572fba\
                            045b5b0ba33d1f2da67001c95ef4909bdd8ff62a4ea3a18aa296775590c1bdb5b403ac6dad30a33d\
                            397a9fc69a90d292993f080c";

/// A change of any of these bytes needs another domain, or another version.
#[test]
fn golden_bytes_of_version_1() {
    let three = set(&[&[1, 2, 3]]);
    assert_eq!(hex(three.digest().as_bytes()), GOLDEN_DIGEST);
    let signed = proof(1, &three, &[2]).encode().unwrap();
    assert!(hex(&signed).ends_with(GOLDEN_SIGNATURE), "{}", hex(&signed));
    assert_eq!(hex(&proof(1, &set(&[&[1]]), &[1]).encode().unwrap()), GOLDEN_PROOF);
}

#[test]
fn a_quorum_of_each_group_shows_who_leads_and_less_does_not() {
    let three = set(&[&[1, 2, 3]]);
    let known = knows(std::slice::from_ref(&three), &[]);
    assert_eq!(proof(1, &three, &[1, 2]).verify(&known), Ok(()));
    assert_eq!(proof(3, &three, &[1, 2]).verify(&known), Ok(()), "whose own vote is not needed");
    assert_eq!(proof(1, &three, &[1]).verify(&known), Err(Unproven::TooFew { found: 1, voters: 3, needed: 2 }));
    assert_eq!(proof(1, &three, &[1, 1, 1]).verify(&known), Err(Unproven::TooFew { found: 1, voters: 3, needed: 2 }));
    assert_eq!(proof(4, &three, &[1, 2]).verify(&known), Err(Unproven::NotVoter { candidate: id(4) }));
    assert_eq!(proof(1, &three, &[1, 2, 4]).verify(&known), Err(Unproven::Stranger { voter: id(4) }));

    let joint = set(&[&[1, 2, 3], &[3, 4, 5]]);
    let known = knows(std::slice::from_ref(&joint), &[]);
    assert_eq!(proof(1, &joint, &[1, 2]).verify(&known), Err(Unproven::TooFew { found: 0, voters: 3, needed: 2 }));
    assert_eq!(proof(3, &joint, &[3, 4, 5]).verify(&known), Err(Unproven::TooFew { found: 1, voters: 3, needed: 2 }));
    assert_eq!(proof(3, &joint, &[2, 3, 4]).verify(&known), Ok(()), "one who is in both counts in both");
    let alone = set(&[&[1]]);
    assert_eq!(proof(1, &alone, &[1]).verify(&knows(std::slice::from_ref(&alone), &[])), Ok(()));
}

#[test]
fn a_vote_counts_for_one_election_alone() {
    let three = set(&[&[1, 2, 3]]);
    let known = knows(std::slice::from_ref(&three), &[]);
    let meant = election(1, &three);
    let own = key(1).vote(&meant, id(1));
    let others = [
        Election { shard: ShardId(2), ..meant },
        Election { genesis: None, ..meant },
        Election { genesis: Some(genesis(7)), ..meant },
        Election { term: TERM - 1, ..meant },
        Election { candidate: id(3), ..meant },
        Election { voters: set(&[&[1, 2]]).digest(), ..meant },
    ];
    for other in others {
        let shown = LeaderProof::new(&meant, three.clone(), [own, key(2).vote(&other, id(2))]);
        assert_eq!(shown.verify(&known), Err(Unproven::NotSigned { voter: id(2) }), "{other:?}");
    }
    // A voter of another incarnation, and a vote that another node signed.
    let before = Voter { incarnation: Incarnation([9; 16]), ..voter(2) };
    let mut ballot = key(2).vote(&meant, before.raft_id());
    ballot.voter = id(2);
    for forged in [ballot, key(4).vote(&meant, id(2))] {
        let shown = LeaderProof::new(&meant, three.clone(), [own, forged]);
        assert_eq!(shown.verify(&known), Err(Unproven::NotSigned { voter: id(2) }));
    }
}

#[test]
fn a_leader_of_another_shard_leads_nobody_here() {
    let three = set(&[&[1, 2, 3]]);
    let shown = proof(1, &three, &[1, 2]);
    let with = |lineage| Knowledge { lineage, ..knows(std::slice::from_ref(&three), &[]) };
    assert_eq!(shown.verify(&with(Some(lineage(8, &[5])))), Err(Unproven::AnotherShard { found: genesis(6) }));
    assert_eq!(shown.verify(&with(Some(lineage(8, &[6])))), Ok(()), "elected before the first entry of a recovery");
    assert_eq!(shown.verify(&with(None)), Ok(()));
    // A candidate that has not applied the first entry.
    let meant = Election { genesis: None, ..election(1, &three) };
    let shown = LeaderProof::new(&meant, three.clone(), [1, 2].map(|n| key(n).vote(&meant, id(n))));
    assert_eq!(shown.verify(&with(Some(lineage(8, &[])))), Ok(()));
}

/// A stolen voter makes up the voters.
#[test]
fn nobody_says_alone_who_votes() {
    let known = knows(&[set(&[&[1, 2, 3]])], &[1, 2, 3]);
    let tries: [(&[u8], &[u8]); 3] = [(&[1], &[1]), (&[1, 8, 9], &[1, 8, 9]), (&[1, 2, 9], &[1, 9])];
    for (made_up, voted) in tries {
        let shown = proof(1, &set(&[made_up]), voted);
        assert_eq!(shown.verify(&known), Err(Unproven::UnknownVoters { found: 1, needed: 2 }), "{made_up:?}");
    }
    // Under another incarnation it is the same node.
    let again = Voter { incarnation: Incarnation([9; 16]), ..voter(1) };
    let twice = VoterSet::of([vec![voter(1), again]]).unwrap();
    let meant = election(1, &twice);
    let shown = LeaderProof::new(&meant, twice, [id(1), again.raft_id()].map(|id| key(1).vote(&meant, id)));
    assert_eq!(shown.verify(&known), Err(Unproven::UnknownVoters { found: 1, needed: 2 }));
}

#[test]
fn a_node_that_was_away_follows_who_was_elected_by_voters_that_changed_meanwhile() {
    let (three, four) = (set(&[&[1, 2, 3]]), set(&[&[1, 2, 3, 4]]));
    let away = knows(std::slice::from_ref(&three), &[]);
    assert_eq!(proof(4, &four, &[1, 2, 4]).verify(&away), Ok(()));
    // Of all the voters it knew one votes still: it goes by who is marked.
    let other = set(&[&[1, 4, 5]]);
    let shown = proof(1, &other, &[1, 4]);
    assert_eq!(shown.verify(&away), Err(Unproven::UnknownVoters { found: 1, needed: 2 }));
    assert_eq!(shown.verify(&knows(std::slice::from_ref(&three), &[4])), Ok(()));
    // A group of a change that it knows, and the other group of the change.
    let joint = set(&[&[1, 2, 3], &[1]]);
    let halfway = knows(&[three, joint.clone()], &[]);
    assert_eq!(proof(1, &set(&[&[1]]), &[1]).verify(&halfway), Ok(()));
    assert_eq!(proof(1, &joint, &[1, 2]).verify(&halfway), Ok(()));
    // A node that knew one voter, or none, cannot ask for two.
    let lonely = knows(&[set(&[&[1]])], &[]);
    assert_eq!(proof(1, &set(&[&[1, 4]]), &[1, 4]).verify(&lonely), Ok(()));
    assert_eq!(proof(4, &set(&[&[4]]), &[4]).verify(&lonely), Err(Unproven::UnknownVoters { found: 0, needed: 1 }));
    assert_eq!(proof(4, &set(&[&[4]]), &[4]).verify(&knows(&[], &[])), Ok(()), "it knows nobody yet");
}

#[test]
fn a_proof_of_as_many_voters_as_there_can_be_fits_and_of_more_there_is_none() {
    let group = |from: u8, len: usize| (from..).take(len).collect::<Vec<u8>>();
    let (old, new) = (group(1, limits::VOTERS_MAX), group(50, limits::VOTERS_MAX));
    let full = set(&[&old, &new]);
    let shown = proof(1, &full, &[old, new].concat());
    assert_eq!(LeaderProof::decode(&shown.encode().unwrap()), Ok(shown));
    let of = |groups: &[usize]| VoterSet::of(groups.iter().map(|len| group(1, *len).into_iter().map(voter).collect()));
    assert_eq!(of(&[limits::VOTERS_MAX + 1]), None);
    assert_eq!((of(&[]), of(&[0]), of(&[1, 1, 1])), (None, None, None));
    let too_long = vec![1; limits::LEADER_PROOF_BYTES_MAX + 1];
    assert!(matches!(LeaderProof::decode(&too_long), Err(CodecError::TooLarge { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whichever bit of it is flipped, it shows the same or nothing.
    #[test]
    fn what_was_altered_by_a_bit_is_refused(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let three = set(&[&[1, 2, 3]]);
        let meant = proof(1, &three, &[1, 2]);
        let mut bytes = meant.encode().unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(altered) = LeaderProof::decode(&bytes) {
            let holds = altered.verify(&knows(std::slice::from_ref(&three), &[])).is_ok();
            prop_assert!(!holds || altered == meant);
        }
    }

    #[test]
    fn rubbish_shows_nothing(bytes in prop::collection::vec(any::<u8>(), 0..600), versioned in any::<bool>()) {
        let bytes = if versioned { [&[1], &bytes[..]].concat() } else { bytes };
        if let Ok(read) = LeaderProof::decode(&bytes) {
            prop_assert!(read.verify(&knows(&[set(&[&[1, 2, 3]])], &[])).is_err());
            prop_assert!(read.verify(&knows(&[], &[])).is_err());
        }
    }

    /// Of five voters, these voted: a majority shows which one leads.
    #[test]
    fn exactly_a_majority_is_a_quorum(voted in prop::sample::subsequence(vec![1_u8, 2, 3, 4, 5], 0..=5)) {
        let five = set(&[&[1, 2, 3, 4, 5]]);
        let holds = proof(1, &five, &voted).verify(&knows(std::slice::from_ref(&five), &[])).is_ok();
        prop_assert_eq!(holds, voted.len() >= 3);
    }
}

#[test]
fn a_key_signs_as_its_node() {
    let public: NodeId = key(1).node();
    assert_eq!(hex(public.public_key()), "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c");
}
