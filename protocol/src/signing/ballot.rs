//! Votes that are signed, and what a leader shows of them.
//!
//! A voter that votes for a candidate signs a [`Ballot`]: its node's key says that, under which incarnation, it voted
//! for this candidate in this term of this shard. A leader has a quorum of them, or was not elected. Its
//! [`LeaderProof`] is that quorum. A node that knows who votes verifies it, and needs no other node's word.
//!
//! A ballot names the voters by whose quorum the candidate is to be elected, as the candidate says: its log may be
//! ahead of the voter's. So the node that verifies the proof judges by its own [`Knowledge`] who votes.

use std::collections::BTreeSet;

use ed25519_dalek::{Signer as _, SigningKey};
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
    /// PeerId of the node.
    pub node: NodeId,
    /// The incarnation of its data directory.
    pub incarnation: Incarnation,
}

impl Voter {
    /// The voter's Raft id.
    pub fn raft_id(&self) -> RaftId {
        RaftId::derive(self.node, self.incarnation)
    }
}

/// The digest of a [`VoterSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VotersDigest([u8; 32]);

impl VotersDigest {
    /// The 32 bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The voters: one group, or two while one takes the place of the other. A leader needs a quorum of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<Voter>>", into = "Vec<Vec<Voter>>")]
pub struct VoterSet(Vec<Vec<Voter>>);

impl VoterSet {
    /// These groups, in any order within each; none if there are too many groups, or if one is empty or too large.
    pub fn of(groups: impl IntoIterator<Item = Vec<Voter>>) -> Option<Self> {
        let ordered = |mut group: Vec<Voter>| {
            group.sort_unstable();
            group.dedup();
            group
        };
        groups.into_iter().map(ordered).collect::<Vec<_>>().try_into().ok()
    }

    /// The voters of all groups. A voter that is in both groups comes twice.
    pub fn voters(&self) -> impl Iterator<Item = &Voter> {
        self.0.iter().flatten()
    }

    /// The digest that stands for them in a ballot.
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

/// What a vote is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Election {
    /// Id of the shard.
    pub shard: ShardId,
    /// The shard's genesis; none if the candidate has not applied the shard's first entry, and the node that made the
    /// shard is no member.
    pub genesis: Option<Genesis>,
    /// The Raft term.
    pub term: u64,
    /// Raft id of the candidate.
    pub candidate: RaftId,
    /// Digest of the voters whose quorum elects the candidate, as the candidate says.
    pub voters: VotersDigest,
}

impl Election {
    /// The bytes that a voter signs. Each part has a fixed length.
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
    /// Raft id of the member that voted.
    pub voter: RaftId,
    signature: Signature,
}

impl Ballot {
    /// Whether this node signed that it votes so, as this member. See [`Signature::is_of`].
    pub fn is_signed(&self, election: &Election, node: NodeId) -> bool {
        self.signature.is_of(node.public_key(), &election.signed_bytes(self.voter))
    }
}

/// A node's key, for ballots. It is never shown, and its memory is wiped when it is dropped.
pub struct BallotKey(SigningKey);

impl BallotKey {
    /// The key that follows from the seed of the node's identity.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// PeerId of the node whose key it is.
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

/// The form of a proof on the wire, where its ballots can be in any order.
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
    /// Id of the shard.
    pub shard: ShardId,
    /// The shard's lineage; none if the node does not know it.
    pub lineage: Option<Lineage>,
    /// The voters by the memberships that the node knows: the last one, and the last one that is committed. None before
    /// the first.
    pub sets: Vec<VoterSet>,
    /// Nodes that may vote beside those, by the configuration or their certificates, and by no other node's word.
    pub believed: BTreeSet<NodeId>,
}

/// Why a node does not take a proof of leadership.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// The proof is of an election in another shard.
    #[error("the proof of leadership is of the shard with genesis {found}, and not of this one")]
    AnotherShard {
        /// The genesis that the proof names.
        found: Genesis,
    },
    /// The candidate is none of the voters, and cannot be elected.
    #[error("{candidate} shows a proof of leadership, and is none of the voters in it")]
    NotVoter {
        /// Raft id of the candidate in the proof.
        candidate: RaftId,
    },
    /// The proof has a vote of a member that is no voter.
    #[error("the proof of leadership has a vote of {voter}, who is none of the voters in it")]
    Stranger {
        /// Raft id of that member.
        voter: RaftId,
    },
    /// The proof has votes of no quorum.
    #[error("the proof of leadership has {found} votes of a group of {voters}, and {needed} are a quorum")]
    TooFew {
        /// Number of votes of voters of the group.
        found: usize,
        /// Number of voters of the group.
        voters: usize,
        /// Number of votes of the group that are a quorum.
        needed: usize,
    },
    /// The node does not know the voters.
    #[error(
        "the proof of leadership is by voters that this node does not know, and has votes of {found} known nodes, where \
         {needed} are needed; set voter = true in the [[peers]] of those who vote, or move the data directory of this \
         node away, start it, and run 'skep shard add-voter' with its id"
    )]
    UnknownVoters {
        /// Number of nodes that voted and that the verifying node knows to vote, or to have voted.
        found: usize,
        /// Number of such nodes that a proof needs.
        needed: usize,
    },
    /// A signature does not hold.
    #[error("the proof of leadership has a vote of {voter} that its node did not sign")]
    NotSigned {
        /// Raft id of the member whose vote it is said to be.
        voter: RaftId,
    },
}

impl LeaderProof {
    /// The proof of an election by these voters, with the first vote of each voter.
    pub fn new(election: &Election, voters: VoterSet, ballots: impl IntoIterator<Item = Ballot>) -> Self {
        let mut ballots: Vec<Ballot> = ballots.into_iter().collect();
        ballots.sort_by_key(|ballot| ballot.voter);
        ballots.dedup_by_key(|ballot| ballot.voter);
        let Election { genesis, term, candidate, .. } = *election;
        Self(Shown { genesis, term, candidate, voters, ballots })
    }

    /// The term of the election.
    pub fn term(&self) -> u64 {
        self.0.term
    }

    /// Raft id of the elected candidate.
    pub fn candidate(&self) -> RaftId {
        self.0.candidate
    }

    /// The voters by whose quorum it was elected.
    pub fn voters(&self) -> &VoterSet {
        &self.0.voters
    }

    /// PeerIds of the voters whose votes the proof has.
    fn nodes(&self) -> BTreeSet<NodeId> {
        self.0.ballots.iter().filter_map(|ballot| self.0.voters.voter(ballot.voter)).map(|voter| voter.node).collect()
    }

    /// Checks that the candidate was elected, for a node with this knowledge. The node verifies signatures last, so
    /// that a sender has it verify no more of them than a shard has voters.
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

    /// A leader that was elected before a recovered shard's first entry may lead it on.
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

    /// Checks that those are the voters. A node that was away may have missed a change of them: then two nodes that it
    /// knows must have voted, so that no node says alone who votes. A node that knows no voters yet takes those of the
    /// first leader.
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
