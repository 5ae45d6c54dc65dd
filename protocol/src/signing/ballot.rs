//! Votes that are signed, and what a leader shows of them.
//!
//! A voter that votes for a candidate signs a [`Ballot`]: its node's key says that, under which incarnation, it voted
//! for this candidate in this term of this shard. A leader has a quorum of them, or was not elected. Its
//! [`LeaderProof`] is that quorum. A node that knows who votes verifies it, and needs no other node's word.
//!
//! A ballot names the voters by whose quorum the candidate is to be elected, as the candidate says: its log may be
//! ahead of the voter's. So the node that verifies the proof judges by its own [`Knowledge`] who votes.

use std::collections::BTreeSet;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::{Genesis, Incarnation, NodeId, RaftId, ShardId};
use crate::limits;
use crate::recovery::Lineage;
use crate::signing::Signature;

/// What is signed before a ballot's bytes.
const BALLOT_DOMAIN: &[u8] = b"skep/ballot/1\0";
/// What is hashed before the voters.
const VOTERS_DOMAIN: &[u8] = b"skep/voters/1\0";

/// A member that votes: a node in one of its incarnations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Voter {
    /// The node.
    pub node: NodeId,
    /// The incarnation of its data directory.
    pub incarnation: Incarnation,
}

impl Voter {
    /// Its Raft id.
    pub fn raft_id(&self) -> RaftId {
        RaftId::derive(self.node, self.incarnation)
    }
}

/// The digest of a [`VoterSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VotersDigest([u8; 32]);

impl VotersDigest {
    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Who votes: one group, or two while one takes the place of the other. A leader needs a quorum of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<Voter>>", into = "Vec<Vec<Voter>>")]
pub struct VoterSet(Vec<Vec<Voter>>);

impl VoterSet {
    /// These groups, in any order within each; none if there are too many of them, or a group is empty or too large.
    pub fn of(groups: impl IntoIterator<Item = Vec<Voter>>) -> Option<Self> {
        let ordered = |mut group: Vec<Voter>| {
            group.sort_unstable();
            group.dedup();
            group
        };
        groups.into_iter().map(ordered).collect::<Vec<_>>().try_into().ok()
    }

    /// All of them. One that is in both groups comes twice.
    pub fn voters(&self) -> impl Iterator<Item = &Voter> {
        self.0.iter().flatten()
    }

    /// What stands for them in a ballot.
    pub fn digest(&self) -> VotersDigest {
        let mut hash = Sha256::new();
        hash.update(VOTERS_DOMAIN);
        for group in &self.0 {
            // There are few: see the limit.
            hash.update([u8::try_from(group.len()).unwrap_or(u8::MAX)]);
            for voter in group {
                hash.update(voter.node.public_key());
                hash.update(voter.incarnation.0);
            }
        }
        VotersDigest(hash.finalize().into())
    }

    fn voter(&self, id: RaftId) -> Option<&Voter> {
        self.voters().find(|voter| voter.raft_id() == id)
    }
}

impl TryFrom<Vec<Vec<Voter>>> for VoterSet {
    type Error = &'static str;

    fn try_from(groups: Vec<Vec<Voter>>) -> Result<Self, Self::Error> {
        if groups.is_empty() || groups.len() > limits::VOTER_GROUPS_MAX {
            return Err("as many groups of voters as no shard has");
        }
        if groups.iter().any(|group| group.is_empty() || group.len() > limits::VOTERS_MAX) {
            return Err("a group of as many voters as no shard has");
        }
        let ordered = groups.iter().all(|group| group.windows(2).all(|pair| pair[0] < pair[1]));
        if ordered { Ok(Self(groups)) } else { Err("voters out of order") }
    }
}

impl From<VoterSet> for Vec<Vec<Voter>> {
    fn from(set: VoterSet) -> Self {
        set.0
    }
}

/// For what a vote is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Election {
    /// The shard.
    pub shard: ShardId,
    /// Its genesis; none if the candidate has not applied the shard's first entry, and the node that made the shard is
    /// no member.
    pub genesis: Option<Genesis>,
    /// The term.
    pub term: u64,
    /// Who is to lead in it.
    pub candidate: RaftId,
    /// By whose quorum, as the candidate says.
    pub voters: VotersDigest,
}

impl Election {
    /// What a voter signs. All of it has a fixed length.
    fn signed_bytes(&self, voter: RaftId) -> Vec<u8> {
        let genesis = self.genesis.as_ref().map_or([0; 16], |genesis| *genesis.as_bytes());
        [
            BALLOT_DOMAIN,
            &self.shard.0.to_be_bytes(),
            &[u8::from(self.genesis.is_some())],
            &genesis,
            &self.term.to_be_bytes(),
            &self.candidate.0.to_be_bytes(),
            self.voters.as_bytes(),
            &voter.0.to_be_bytes(),
        ]
        .concat()
    }
}

/// A vote that was granted, signed by the voter's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// Who voted.
    pub voter: RaftId,
    signature: Signature,
}

impl Ballot {
    /// Whether this node signed that it votes so, as this member. Strict: no weak keys, no malleable signatures.
    pub fn is_signed(&self, election: &Election, node: NodeId) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(node.public_key()) else { return false };
        let signature = ed25519_dalek::Signature::from_bytes(&self.signature.to_bytes());
        key.verify_strict(&election.signed_bytes(self.voter), &signature).is_ok()
    }
}

/// A node's key, for ballots. Never shown, and wiped from memory when it is let go of.
pub struct BallotKey(SigningKey);

impl BallotKey {
    /// From the seed of the node's identity.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Whose it is.
    pub fn node(&self) -> NodeId {
        NodeId::from_public_key(self.0.verifying_key().to_bytes())
    }

    /// Votes in an election, as this member.
    pub fn vote(&self, election: &Election, voter: RaftId) -> Ballot {
        let signature = self.0.sign(&election.signed_bytes(voter)).to_bytes();
        Ballot { voter, signature: Signature::from_bytes(&signature) }
    }
}

/// What a leader shows: that a quorum voted for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Shown", into = "Shown")]
pub struct LeaderProof(Shown);

/// The same on the wire, where its ballots can be in any order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shown {
    genesis: Option<Genesis>,
    term: u64,
    candidate: RaftId,
    voters: VoterSet,
    ballots: Vec<Ballot>,
}

impl TryFrom<Shown> for LeaderProof {
    type Error = &'static str;

    fn try_from(shown: Shown) -> Result<Self, Self::Error> {
        if shown.ballots.len() > limits::VOTER_GROUPS_MAX * limits::VOTERS_MAX {
            return Err("more ballots than a shard has voters");
        }
        let ordered = shown.ballots.windows(2).all(|pair| pair[0].voter < pair[1].voter);
        if ordered { Ok(Self(shown)) } else { Err("ballots out of order") }
    }
}

impl From<LeaderProof> for Shown {
    fn from(proof: LeaderProof) -> Self {
        proof.0
    }
}

/// What the node that verifies a proof knows of the shard.
#[derive(Clone, Debug)]
pub struct Knowledge {
    /// The shard.
    pub shard: ShardId,
    /// How it came about, if that is known.
    pub lineage: Option<Lineage>,
    /// Who votes by the memberships that are known: the last one, and the last one that is committed. None before the
    /// first.
    pub sets: Vec<VoterSet>,
    /// Nodes that are believed to vote beside those.
    pub believed: BTreeSet<NodeId>,
}

/// Why a proof of leadership is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// Its election was another shard's.
    #[error("the proof of leadership is of the shard with genesis {found}, and not of this one")]
    AnotherShard {
        /// The genesis that it names.
        found: Genesis,
    },
    /// Its candidate cannot be elected.
    #[error("{candidate} shows a proof of leadership, and is none of the voters in it")]
    NotVoter {
        /// Who it says was elected.
        candidate: RaftId,
    },
    /// A vote of a member that has none.
    #[error("the proof of leadership has a vote of {voter}, who is none of the voters in it")]
    Stranger {
        /// Who that is.
        voter: RaftId,
    },
    /// No quorum.
    #[error("the proof of leadership has {found} votes of a group of {voters}, and {needed} are a quorum")]
    TooFew {
        /// Votes of voters of the group.
        found: usize,
        /// Voters of the group.
        voters: usize,
        /// How many have to vote.
        needed: usize,
    },
    /// The node does not know the voters.
    #[error(
        "the proof of leadership is by voters that this node does not know, and has votes of {found} known nodes, where \
         {needed} are needed; set voter = true in the [[peers]] of those who vote, or move the data directory of this \
         node away, start it, and run 'skep shard add-voter' with its id"
    )]
    UnknownVoters {
        /// Nodes that voted and are known to vote, or to have voted.
        found: usize,
        /// How many it takes.
        needed: usize,
    },
    /// A signature does not hold.
    #[error("the proof of leadership has a vote of {voter} that its node did not sign")]
    NotSigned {
        /// Whose vote that is said to be.
        voter: RaftId,
    },
}

impl LeaderProof {
    /// Of an election by these voters, and the votes in it: of each voter the first.
    pub fn new(election: &Election, voters: VoterSet, ballots: impl IntoIterator<Item = Ballot>) -> Self {
        let mut ballots: Vec<Ballot> = ballots.into_iter().collect();
        ballots.sort_by_key(|ballot| ballot.voter);
        ballots.dedup_by_key(|ballot| ballot.voter);
        let Election { genesis, term, candidate, .. } = *election;
        Self(Shown { genesis, term, candidate, voters, ballots })
    }

    /// The term that was elected for.
    pub fn term(&self) -> u64 {
        self.0.term
    }

    /// Who was elected.
    pub fn candidate(&self) -> RaftId {
        self.0.candidate
    }

    /// By whose quorum.
    pub fn voters(&self) -> &VoterSet {
        &self.0.voters
    }

    /// The nodes whose votes it has, of those who can vote in it.
    fn nodes(&self) -> BTreeSet<NodeId> {
        self.0.ballots.iter().filter_map(|ballot| self.0.voters.voter(ballot.voter)).map(|voter| voter.node).collect()
    }

    /// Whether it shows that its candidate was elected, for a node with this knowledge. Signatures are verified last,
    /// so that a sender has no more of them verified than a shard has voters.
    ///
    /// # Errors
    /// [`Unproven`].
    pub fn verify(&self, known: &Knowledge) -> Result<(), Unproven> {
        self.check_genesis(known.lineage.as_ref())?;
        self.check_quorum()?;
        self.check_voters(known)?;
        let Shown { genesis, term, candidate, ref voters, ref ballots } = self.0;
        let election = Election { shard: known.shard, genesis, term, candidate, voters: voters.digest() };
        let is_signed =
            |ballot: &&Ballot| voters.voter(ballot.voter).is_some_and(|voter| ballot.is_signed(&election, voter.node));
        match ballots.iter().find(|ballot| !is_signed(ballot)) {
            Some(forged) => Err(Unproven::NotSigned { voter: forged.voter }),
            None => Ok(()),
        }
    }

    /// A shard that was recovered may be led by somebody who was elected before its first entry after that.
    fn check_genesis(&self, lineage: Option<&Lineage>) -> Result<(), Unproven> {
        let (Some(lineage), Some(found)) = (lineage, self.0.genesis) else { return Ok(()) };
        if lineage.genesis == found || lineage.past.contains(&found) {
            return Ok(());
        }
        Err(Unproven::AnotherShard { found })
    }

    fn check_quorum(&self) -> Result<(), Unproven> {
        let Shown { candidate, ref voters, ref ballots, .. } = self.0;
        if voters.voter(candidate).is_none() {
            return Err(Unproven::NotVoter { candidate });
        }
        if let Some(stranger) = ballots.iter().find(|ballot| voters.voter(ballot.voter).is_none()) {
            return Err(Unproven::Stranger { voter: stranger.voter });
        }
        let voted: BTreeSet<RaftId> = ballots.iter().map(|ballot| ballot.voter).collect();
        for group in &voters.0 {
            let found = group.iter().filter(|voter| voted.contains(&voter.raft_id())).count();
            let needed = group.len() / 2 + 1;
            if found < needed {
                return Err(Unproven::TooFew { found, voters: group.len(), needed });
            }
        }
        Ok(())
    }

    /// Whether those are the voters. A node that was away may have missed a change of them: then two nodes that it
    /// knows have to have voted, so that none of them says alone who votes. A node that knows no voters yet takes those
    /// of the first leader.
    fn check_voters(&self, known: &Knowledge) -> Result<(), Unproven> {
        let is_known = |group: &Vec<Voter>| known.sets.iter().any(|set| set.0.contains(group));
        if known.sets.is_empty() || self.0.voters.0.iter().all(is_known) {
            return Ok(());
        }
        let of_sets: BTreeSet<NodeId> = known.sets.iter().flat_map(VoterSet::voters).map(|voter| voter.node).collect();
        let needed = of_sets.len().min(limits::KNOWN_BALLOTS_MIN);
        let found = self.nodes().iter().filter(|node| of_sets.contains(node) || known.believed.contains(node)).count();
        if found < needed { Err(Unproven::UnknownVoters { found, needed }) } else { Ok(()) }
    }
}
