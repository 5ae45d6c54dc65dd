//! Having a shard go on that is beyond help, from what one replica of it holds.
//!
//! Most of its voters are lost for good, or nobody can go on from its log or its term. Raft has no word for that: whoever goes on
//! all the same may leave out what others acknowledged. So it is done by hand, on one node that does not run, and on the word of
//! the shard's first operator.
//!
//! Everything that the log holds is kept, committed or not: what was acknowledged may be in it. A new data directory is made
//! beside the old one and takes its place in one step, so that a crash leaves one or the other, and the old one is kept. Nobody
//! writes in either of them then: whoever did would find the other one under the name that it knows. In the new one the node has another incarnation: whatever members of the old group say is for a member that there is no more, and is
//! refused before anybody looks at it. Its log begins with a snapshot, under a term that is above all that the shard saw, but for
//! terms that cannot have come about; the entry behind that says what was done.

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

/// What the name of the directory that is made begins with, behind that of the data directory.
const MADE: &str = "recovering-";
/// The same of the directory from before.
const BEFORE: &str = "before-";

/// Bytes that are to be free beside what is written.
const ROOM_BYTES: u64 = 16 * 1024 * 1024;
/// Segments of a log that is made anew: the one that is written to, and those ahead of their need.
const SEGMENTS: u64 = 3;

/// Why a shard was not recovered. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The directory cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nothing to recover.
    #[error("{data} holds nothing of shard {shard}")]
    NoReplica {
        /// The directory.
        data: PathBuf,
        /// The shard.
        shard: ShardId,
    },
    /// The shard has no operators: nobody can sign.
    #[error(
        "the shard was made without an operator, so that nobody can sign that it goes on; make another one with \
         'skep shard init', in directories that hold nothing of this one"
    )]
    NoOperator,
    /// The statement is not the first operator's, or not about this.
    #[error("the recovery is not signed by the shard's first operator, {first}")]
    NotSigned {
        /// Who it is.
        first: OperatorKey,
    },
    /// An entry cannot be applied.
    #[error(
        "entry {index} of {end} cannot be applied: {why}. Install the Skep that wrote it, or give up this entry and all \
         after it with --give-up-from {index}"
    )]
    Unread {
        /// The first such entry.
        index: u64,
        /// The last entry.
        end: u64,
        /// Why.
        why: String,
    },
    /// All entries can be applied that were to be given up.
    #[error("entry {given} can be applied, or is not the first that cannot: nothing was given up")]
    NothingToGiveUp {
        /// The entry that was named.
        given: u64,
    },
    /// Another shard has no voter but this node, as it is a member of this one.
    #[error(
        "shard {shard} has no voter but this node, which would be one no more: make another node a voter of it first, with \
         'skep shard add-voter'"
    )]
    OnlyVoterOf {
        /// Which.
        shard: ShardId,
    },
    /// There is no room for another directory.
    #[error("{needed} bytes are needed beside the data directory, and {free} are free")]
    NoRoom {
        /// How many are needed.
        needed: u64,
        /// How many are free.
        free: u64,
    },
    /// What there is makes no sense.
    #[error("{0}")]
    Malformed(String),
}

/// A member of the group that is beyond help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostVoter {
    /// Its node.
    pub node: NodeId,
    /// The node's name.
    pub name: Option<NodeName>,
}

/// What is left of a shard, for whoever decides whether it goes on from that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemainsView {
    /// The genesis that it has.
    pub genesis: Genesis,
    /// Its first operator.
    pub first: OperatorKey,
    /// The last entry that is kept.
    pub last_index: u64,
    /// The last entry that this node knows to be committed.
    pub committed: Option<u64>,
    /// The last entry in the log; those after `last_index` are given up.
    pub end: u64,
    /// The term of the last vote.
    pub term: u64,
    /// Who else votes, as the log says.
    pub others: Vec<LostVoter>,
    /// How many objects there are.
    pub counts: Counts,
    /// Whether this node is known to lack what it acknowledged.
    pub forgot: bool,
    /// Other shards in the directory, of which this node is a voter no more afterwards: it has to be taken in again.
    pub other_shards: Vec<ShardId>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredView {
    /// The genesis that the shard has now.
    pub genesis: Genesis,
    /// The incarnation of the directory.
    pub incarnation: Incarnation,
    /// The last entry of what it was that is kept.
    pub last_index: u64,
    /// The term from which it goes on.
    pub term: u64,
    /// Where the directory is that was there before.
    pub before: PathBuf,
    /// Why the history lacks something, if it does.
    pub history: Option<String>,
    /// What recoveries before this one had left, that were cut off.
    pub leftovers: Leftovers,
}

/// What is left of a shard in the data directory of a node that does not run. Nobody else opens the directory meanwhile.
pub struct Remains {
    data: PathBuf,
    node: NodeId,
    shard: ShardId,
    build: Build,
    options: StoreOptions,
    store: Store,
    /// All shards that the store holds anything of.
    shards: Vec<ShardId>,
    replayed: Replayed,
    /// The first entry whose changes the history lacks.
    told_from: u64,
    place: Place,
    first: OperatorKey,
}

impl Remains {
    /// Reads what is left of a shard. `give_up_from`: the first entry that cannot be applied, if it and those after it are given up.
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
        // What cannot be written is an error of whoever waits for it: nothing is served meanwhile.
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

    /// What there is.
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

    /// What the shard's first operator signs, so that it goes on from here under another genesis.
    pub fn statement(&self, genesis: Genesis) -> ShardRecovery {
        ShardRecovery { place: self.place.clone(), by: self.first, genesis, last_index: self.replayed.last }
    }

    /// Makes of what is left a group with this node as its only voter. `random` is 128 fresh random bits.
    ///
    /// # Errors
    /// [`RecoverError`]; the directory that was there is still in its place then, or the disk has failed it in the end.
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
                // Nothing is in it that is not elsewhere.
                let _ = beside::discard(&made);
                return Err(error);
            }
        };
        beside::sync_name(&data)?;
        // From here on the shard is what it is to be: the rest puts things in their places.
        let untold = Untold::of(shard, replayed, told_from);
        let history = untold.take_history(&made, &data, options.history).err().map(|error| error.to_string());
        let before = match beside::rename(&made, &before) {
            Ok(()) => before,
            Err(_) => made,
        };
        let (genesis, incarnation) = (signed.genesis, Incarnation(incarnation));
        Ok(RecoveredView { genesis, incarnation, last_index, term, before, history, leftovers })
    }

    /// Makes the directory in which the shard goes on; what keeps others from it. It is whole then, and nobody writes in it.
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

    /// Another incarnation than it has, under which it is a member of the old group. It keeps the one that it has if it was never a
    /// member under it, and votes under it in a shard beside this one: that was recovered before, and may have no other voter.
    fn next_incarnation(&self, random: [u8; 16]) -> Result<[u8; 16], RecoverError> {
        let own = RaftId::derive(self.node, self.store.incarnation());
        let was_member = self.replayed.members.contains_key(&own);
        let mut votes_elsewhere = false;
        for other in self.other_shards() {
            bring_to_agree(&self.store, other)?;
            // Nothing of what it did is wanted.
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

    /// The term from which the shard goes on. Nodes believe no leader of an earlier term than they have heard of, and others of the
    /// old group may have seen later ones than this node.
    fn next_term(&self) -> u64 {
        let (purged, _) = self.store.ends(self.shard);
        let seen: BTreeSet<u64> = self.replayed.terms.iter().copied().chain(purged.map(|point| point.term)).collect();
        next_term(seen.into_iter().chain([self.voted_term()]))
    }
}

/// Removes what recoveries that were cut off had half made beside a data directory, and names what else they left. To be called by
/// whoever has the directory open.
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

/// The term from which a shard goes on that has seen these. What cannot have come about does not count, or there would be no term
/// left.
fn next_term(seen: impl Iterator<Item = u64>) -> u64 {
    let last = seen.filter(|term| *term <= limits::TERM_MAX / 2).max().unwrap_or(0);
    last.saturating_add(limits::RECOVERY_TERMS_AHEAD)
}
