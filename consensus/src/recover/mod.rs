//! Recovers a shard that has lost its voters: it goes on from what one replica of it holds.
//!
//! Most of the shard's voters are lost for good, or no node can go on from its log or its term. Raft has no remedy for
//! that: a replica that goes on all the same may leave out what other voters acknowledged. So an operator does it by
//! hand, on one node that does not run, with the signature of the shard's first operator.
//!
//! The recovery keeps everything in the log, committed or not: acknowledged entries may be in it. The recovery makes a
//! new data directory beside the old one, and moves it to its place in one step, so that a crash leaves one or the
//! other. It keeps the old one. No process may write in either of them then: it would find the other one under the name
//! that it knows. In the new directory the node has another incarnation. What members of the old group send goes to a
//! member that does not exist, and the node refuses it unread. The new log begins with a snapshot, under a term above
//! all that the shard has seen, except for terms that cannot have come about. The entry behind the snapshot says what
//! was done.

mod anew;
mod replay;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skep_config::StoreConfig;
use skep_protocol::fleet::Build;
use skep_protocol::ids::{Genesis, Incarnation, NodeId, RaftId, ShardId};
use skep_protocol::limits;
use skep_protocol::query::Counts;
use skep_protocol::recovery::{ShardRecovery, SignedRecovery};
use skep_protocol::signing::{OperatorKey, Place};
use skep_protocol::text::NodeName;
use skep_store::beside::Lock;
use skep_store::{History, Leftovers, Store, StoreError, StoreOptions, beside};

use crate::raft::agree::bring_to_agree;
use crate::raft::types::{Vote, decode};
use crate::settings::store_options;
use anew::Untold;
use replay::{Replayed, replay};

/// The part of the new directory's name behind the name of the data directory; a unique part follows.
const MADE: &str = "recovering-";
/// The same part of the name of the earlier directory.
const BEFORE: &str = "before-";

/// Bytes that must be free beside what is written.
const ROOM_BYTES: u64 = 16 * 1024 * 1024;
/// Segments of a new log: the one that is written to, and those made ahead of need.
const SEGMENTS: u64 = 3;

/// Why a shard was not recovered. Nothing was changed, unless the text says so.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The store cannot read or write the directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory holds nothing of the shard.
    #[error("{data} holds nothing of shard {shard}")]
    NoReplica {
        /// The data directory.
        data: PathBuf,
        /// The number of the shard.
        shard: ShardId,
    },
    /// The shard has no operators: no signature is possible.
    #[error(
        "the shard was made without an operator, so that no operator can sign that it goes on; make another one with \
         'skep shard init', in directories that hold nothing of this one"
    )]
    NoOperator,
    /// The first operator has not signed the statement, or it is about another recovery.
    #[error("the recovery is not signed by the shard's first operator, {first}")]
    NotSigned {
        /// The key of the first operator.
        first: OperatorKey,
    },
    /// This build cannot apply an entry.
    #[error(
        "entry {index} of {end} cannot be applied: {why}. Install the Skep that wrote it, or give up this entry and all \
         after it with --give-up-from {index}"
    )]
    Unread {
        /// The index of the first such entry.
        index: u64,
        /// The index of the last entry in the log.
        end: u64,
        /// The reason, as text.
        why: String,
    },
    /// This build can apply all entries that were to be given up.
    #[error("entry {given} can be applied, or is not the first that cannot: nothing was given up")]
    NothingToGiveUp {
        /// The index of the entry that the operator named.
        given: u64,
    },
    /// Another shard has no voter but this node, under the incarnation that it has in this shard.
    #[error(
        "shard {shard} has no voter but this node, which would stop being one: make another node a voter of it first, \
         with 'skep shard add-voter'"
    )]
    OnlyVoterOf {
        /// The number of the other shard.
        shard: ShardId,
    },
    /// There is no room for another directory.
    #[error("{needed} bytes are needed beside the data directory, and {free} are free")]
    NoRoom {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The content of the directory makes no sense.
    #[error("{0}")]
    Malformed(String),
}

/// A member of the lost group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostVoter {
    /// The node that the member was.
    pub node: NodeId,
    /// The node's name.
    pub name: Option<NodeName>,
}

/// What is left of a shard, for the operator who decides whether it goes on from that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemainsView {
    /// The genesis of the shard.
    pub genesis: Genesis,
    /// The key of the shard's first operator.
    pub first: OperatorKey,
    /// The index of the last entry that is kept.
    pub last_index: u64,
    /// The index of the last entry that this node knows to be committed.
    pub committed: Option<u64>,
    /// The index of the last entry in the log; entries after `last_index` are given up.
    pub end: u64,
    /// The term of the last vote.
    pub term: u64,
    /// The other voters, by the last membership in the log.
    pub others: Vec<LostVoter>,
    /// Numbers of objects in the state.
    pub counts: Counts,
    /// Whether this node is known to lack what it acknowledged.
    pub forgot: bool,
    /// Other shards in the directory in which this node stops being a voter: they have to take it in again.
    pub other_shards: Vec<ShardId>,
}

/// The result of a recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredView {
    /// The genesis of the shard after the recovery.
    pub genesis: Genesis,
    /// The incarnation of the new directory.
    pub incarnation: Incarnation,
    /// The index of the last entry of the old log that is kept.
    pub last_index: u64,
    /// The term from which the shard goes on.
    pub term: u64,
    /// The path of the earlier directory.
    pub before: PathBuf,
    /// Why the history lacks something, if it does.
    pub history: Option<String>,
    /// What earlier recoveries that were cut off had left.
    pub leftovers: Leftovers,
}

/// What is left of a shard in the data directory of a node that does not run. No other process opens the directory
/// meanwhile.
pub struct Remains {
    data: PathBuf,
    node: NodeId,
    shard: ShardId,
    build: Build,
    options: StoreOptions,
    store: Store,
    /// All shards of which the store holds anything.
    shards: Vec<ShardId>,
    replayed: Replayed,
    /// The index of the first entry whose changes the history lacks.
    told_from: u64,
    place: Place,
    first: OperatorKey,
}

impl Remains {
    /// Reads what is left of a shard. `give_up_from`: the index of the first entry that this build cannot apply, if
    /// that entry and those after it are to be given up.
    ///
    /// # Errors
    /// [`RecoverError`], also if a node runs in the directory.
    pub fn open(
        data: &Path,
        (node, shard): (NodeId, ShardId),
        build: Build,
        config: &StoreConfig,
        give_up_from: Option<u64>,
    ) -> Result<Self, RecoverError> {
        let nothing = || RecoverError::NoReplica { data: data.to_owned(), shard };
        if !beside::has_store(data) {
            return Err(nothing());
        }
        // A failed write is an error of the caller that waits for it: no node serves anything meanwhile.
        let options = StoreOptions { on_fatal: Arc::new(|_: &std::io::Error| {}), ..store_options(config) };
        let store = Store::open_alone(data, rand::random(), options.clone())?;
        let shards = store.shards();
        if !shards.contains(&shard) {
            return Err(nothing());
        }
        bring_to_agree(&store, shard)?;
        let told_from = History::within(data, options.history).map_or(0, |history| history.standing(shard).next);
        let replayed = replay(&store, shard, &build, told_from)?;
        let place = replayed.state.place().cloned().ok_or_else(nothing)?;
        match (&replayed.unread, give_up_from) {
            (Some((index, why)), given) if given != Some(*index) => {
                return Err(RecoverError::Unread { index: *index, end: replayed.end, why: why.clone() });
            }
            (None, Some(given)) => return Err(RecoverError::NothingToGiveUp { given }),
            _ => {}
        }
        let first = replayed.state.first_operator().ok_or(RecoverError::NoOperator)?.operator;
        Ok(Self {
            data: data.to_owned(),
            node,
            shard,
            build,
            options,
            store,
            shards,
            replayed,
            told_from,
            place,
            first,
        })
    }

    /// What is left, for the operator.
    pub fn view(&self) -> RemainsView {
        let state = &self.replayed.state;
        let others = self.replayed.voters.values().filter(|member| member.node != self.node);
        RemainsView {
            genesis: self.place.genesis,
            first: self.first,
            last_index: self.replayed.last,
            committed: self.store.committed(self.shard).map(|point| point.index),
            end: self.replayed.end,
            term: self.voted_term(),
            others: others.map(|member| LostVoter { node: member.node, name: member.name.clone() }).collect(),
            counts: state.counts(),
            forgot: self.store.marks().has_forgotten(self.shard),
            other_shards: self.other_shards().collect(),
        }
    }

    /// The statement that the shard's first operator signs, so that the shard goes on from here under another genesis.
    pub fn statement(&self, genesis: Genesis) -> ShardRecovery {
        ShardRecovery { place: self.place.clone(), by: self.first, genesis, last_index: self.replayed.last }
    }

    /// Makes a group of what is left, with this node as its only voter. `random` is 128 fresh random bits.
    ///
    /// # Errors
    /// [`RecoverError`]. The earlier directory is still in its place then, unless the disk failed at the end.
    pub fn recover(self, signed: SignedRecovery, random: [u8; 16]) -> Result<RecoveredView, RecoverError> {
        if *signed.statement() != self.statement(signed.genesis) || !signed.is_by(self.first) {
            return Err(RecoverError::NotSigned { first: self.first });
        }
        let leftovers = beside::clear(&self.data, MADE);
        self.check_room()?;
        let genesis = signed.genesis.to_string();
        let name = |word: &str| beside::named(&self.data, &format!("{word}{}", genesis.get(..8).unwrap_or(&genesis)));
        let (made, before) = (name(MADE), name(BEFORE));
        let incarnation = self.next_incarnation(random)?;
        let (term, last_index) = (self.next_term(), self.replayed.last);
        beside::begin(&made)?;
        let fresh = self.make(&made, incarnation, &signed, term);
        let Self { data, shard, options, store, replayed, told_from, .. } = self;
        let _old = store.close();
        let exchanged = fresh.and_then(|fresh| {
            beside::exchange(&made, &data)?;
            Ok(fresh)
        });
        let _fresh = match exchanged {
            Ok(fresh) => fresh,
            Err(error) => {
                // All that is in it is elsewhere too.
                let _ = beside::discard(&made);
                return Err(error);
            }
        };
        beside::sync_name(&data)?;
        // From here on the shard is what it is to be: the rest moves things to their places.
        let untold = Untold::of(shard, replayed, told_from);
        let history = untold.take_history(&made, &data, options.history).err().map(|error| error.to_string());
        let before = match beside::rename(&made, &before) {
            Ok(()) => before,
            Err(_) => made,
        };
        let (genesis, incarnation) = (signed.genesis, Incarnation(incarnation));
        Ok(RecoveredView { genesis, incarnation, last_index, term, before, history, leftovers })
    }

    /// Makes the directory in which the shard goes on, and returns the lock that keeps other processes out of it. The
    /// directory is then whole.
    fn make(
        &self,
        dir: &Path,
        incarnation: [u8; 16],
        signed: &SignedRecovery,
        term: u64,
    ) -> Result<Lock, RecoverError> {
        let fresh = Store::make_alone(dir, incarnation, self.options.clone())?;
        self.write(&fresh, signed, term)?;
        let lock = fresh.close();
        beside::finish(dir)?;
        Ok(lock)
    }

    /// Chooses another incarnation than the one under which the node is a member of the old group. The node keeps its
    /// incarnation if it was never a member under it and votes under it in another shard: that shard was recovered
    /// before, and may have no other voter.
    fn next_incarnation(&self, random: [u8; 16]) -> Result<[u8; 16], RecoverError> {
        let own = RaftId::derive(self.node, self.store.incarnation());
        let was_member = self.replayed.members.contains_key(&own);
        let mut votes_elsewhere = false;
        for other in self.other_shards() {
            bring_to_agree(&self.store, other)?;
            // The effects of its entries are not wanted here.
            let voters = replay(&self.store, other, &self.build, u64::MAX)?.voters;
            let votes = voters.contains_key(&own);
            if was_member && votes && voters.len() == 1 {
                return Err(RecoverError::OnlyVoterOf { shard: other });
            }
            votes_elsewhere |= votes;
        }
        let keeps = votes_elsewhere && !was_member;
        Ok(if keeps { self.store.incarnation().0 } else { random })
    }

    fn other_shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.shards.iter().copied().filter(|shard| *shard != self.shard)
    }

    fn check_room(&self) -> Result<(), RecoverError> {
        let free = beside::free_bytes(beside::above(&self.data))?;
        let other_logs = if self.shards.len() > 1 { self.store.log_bytes() } else { 0 };
        let segments = self.options.segment_bytes.saturating_mul(SEGMENTS).saturating_add(other_logs);
        let needed = self.replayed.state.bytes().saturating_mul(2).saturating_add(segments).saturating_add(ROOM_BYTES);
        if free < needed { Err(RecoverError::NoRoom { needed, free }) } else { Ok(()) }
    }

    fn voted_term(&self) -> u64 {
        let vote = self.store.vote(self.shard).and_then(|bytes| decode::<Vote>("vote", &bytes).ok());
        vote.map_or(0, |vote| vote.leader_id.term)
    }

    /// The term from which the shard goes on. Nodes believe no leader of an earlier term than they have heard of, and
    /// other members of the old group may have seen later terms than this node.
    fn next_term(&self) -> u64 {
        let (purged, _) = self.store.ends(self.shard);
        let seen: BTreeSet<u64> = self.replayed.terms.iter().copied().chain(purged.map(|point| point.term)).collect();
        next_term(seen.into_iter().chain([self.voted_term()]))
    }
}

/// Removes what earlier recoveries that were cut off had half made beside a data directory, and names what else they
/// left. The caller has the directory open.
pub(crate) fn clear_leftovers(data: &Path) {
    let Leftovers { removed, kept } = beside::clear(data, MADE);
    for path in removed {
        let path = path.display();
        tracing::warn!(%path, "a recovery of a shard that was cut off had half made this directory; it was removed");
    }
    for path in kept {
        let path = path.display();
        tracing::warn!(
            %path,
            "a recovery of a shard that was cut off left this directory: the data directory from before it, with its \
             history, or a whole one that never took its place. It is left alone"
        );
    }
}

/// The term from which a shard goes on that has seen these terms. Terms that cannot have come about do not count, or
/// there would be no term left.
fn next_term(seen: impl Iterator<Item = u64>) -> u64 {
    let last = seen.filter(|term| *term <= limits::TERM_MAX / 2).max().unwrap_or(0);
    last.saturating_add(limits::RECOVERY_TERMS_AHEAD)
}
