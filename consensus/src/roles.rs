//! The voters of the shards that this node has heard of, which decide about the connections that it keeps.
//!
//! A node without a replica learns from other nodes who votes, and remembers it over restarts: of all peers that are
//! marked as voters it dials those first. When the power of a site comes back, all nodes begin at once, and no node
//! could tell another one anything yet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::limits;
use skep_store::KnownVoters;
use tokio::time::Instant;

use crate::net::{Roles, sought_in};
use crate::shards::Shards;
use crate::threads::Errand;

/// Interval between two looks at the node's own replicas, while it has heard of voters, and while it knows only marks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOK_EVERY_AT_FIRST: Duration = Duration::from_millis(50);
/// How long a node keeps connections to some peers that may know of a leader, before others have their turn.
const TURN: Duration = Duration::from_secs(5);
/// How long a node that has heard of no voters waits for one that it remembers, before it asks other peers as well.
/// This is longer than connecting takes on a link of some seconds.
const REMEMBERED_PATIENCE: Duration = Duration::from_secs(10);
/// The shortest time between two writes of who votes. More frequent changes, and writes that find no room, wait.
const REMEMBER_PAUSE: Duration = Duration::from_secs(10);

/// What a node goes by until it has heard who votes.
pub(crate) struct Memory {
    /// The peers that the configuration marks as voters. At a site: the members that this node has met and whose
    /// certificates say that they may vote, and those that voted. The node believes no other peer until one of these
    /// names it.
    marked: BTreeSet<NodeId>,
    /// The marked peers that voted when the node last ran.
    voted: BTreeSet<NodeId>,
    /// When one of those was last connected; when the node started, if none was since.
    met_at: Instant,
    /// The turn among the peers that are marked and do not vote.
    turn: usize,
}

impl Memory {
    /// The memory that the previous process left.
    pub(crate) fn of(shards: &Shards, kept: &KnownVoters) -> Self {
        let local = shards.parts.node;
        let mut marked = shards.marked();
        if shards.parts.peers.is_of_site() {
            // No peer has shown a certificate yet.
            marked.extend(kept.values().flat_map(|voters| voters.iter().copied()));
        }
        marked.remove(&local);
        Self::with(local, marked, kept)
    }

    fn with(local: NodeId, marked: BTreeSet<NodeId>, kept: &KnownVoters) -> Self {
        let voters = kept.values().flat_map(|voters| voters.iter().copied());
        let voted = voters.filter(|id| marked.contains(id)).collect();
        // Nodes that look at the same time then do not all ask the same peers.
        let [one, other, ..] = *local.public_key();
        let turn = usize::from(u16::from_le_bytes([one, other]));
        Self { marked, voted, met_at: Instant::now(), turn }
    }

    /// The peers that the node speaks with: the voters that it has heard of, else those that it remembers, else those
    /// that are marked. While the node looks for a leader in vain, or meets no voter that it remembers, it also speaks
    /// with some of the other marked peers, since one of them may know better.
    fn decide(&self, heard: BTreeSet<NodeId>, lost: bool, alone: Duration) -> Roles {
        let meets_nobody = heard.is_empty() && alone >= REMEMBERED_PATIENCE;
        let thought = if heard.is_empty() { self.voted.clone() } else { heard };
        let known = !thought.is_empty();
        let voters = if known { thought } else { self.marked.clone() };
        let is_stranger = |id: &NodeId| (lost || meets_nobody) && !voters.contains(id);
        let strangers: Vec<NodeId> = self.marked.iter().copied().filter(is_stranger).collect();
        let sought = sought_in(self.turn, &strangers);
        Roles { voters, known, sought }
    }
}

/// The voters of shards of which this node has no replica, as others say.
fn learned(shards: &Shards) -> KnownVoters {
    let mut voters = KnownVoters::new();
    for (id, learned) in shards.learned() {
        if !is_member(shards, id) && !learned.hint.voters.is_empty() {
            voters.insert(id, learned.hint.voters);
        }
    }
    voters
}

/// Whether this node's own replica tells who votes: then what the node heard before is old.
fn is_member(shards: &Shards, id: ShardId) -> bool {
    shards.shard(id).is_some_and(|shard| shard.view().borrow().member)
}

/// The voters, from the node's own replicas and from what others say.
fn voters(shards: &Shards) -> BTreeSet<NodeId> {
    let mut voters = BTreeSet::new();
    for shard in shards.all() {
        voters.extend(shard.hint().voters.iter().copied());
    }
    for (id, learned) in shards.learned() {
        if !is_member(shards, id) {
            // A node that answers as a leader is a voter, whatever others say of who votes.
            voters.extend(learned.hint.leader);
            voters.extend(learned.hint.voters.iter().copied());
        }
    }
    voters
}

/// Looks once; returns whether the node knows of any voters beside the marked peers.
pub(crate) fn look(shards: &Shards, memory: &mut Memory) -> bool {
    let peers = &shards.parts.peers;
    if peers.is_of_site() {
        memory.marked = peers.members_that_vote();
        memory.marked.extend(memory.voted.iter().copied());
    }
    if memory.voted.iter().any(|id| peers.connected(*id).is_some()) {
        memory.met_at = Instant::now();
    }
    // Voters that were all replaced meanwhile name no other node: the node asks other marked peers, too.
    let lost = shards.learned().iter().any(|(_, learned)| learned.lost);
    let roles = memory.decide(voters(shards), lost, memory.met_at.elapsed());
    let known = roles.known;
    peers.assume(roles);
    known
}

/// Keeps the control plane informed, for as long as the node runs.
pub(crate) async fn follow(shards: Arc<Shards>, mut memory: Memory) {
    let mut taught = shards.taught.subscribe();
    let mut turned = Instant::now();
    let patience = Duration::from_millis(shards.parts.config.rpc_timeout_ms);
    loop {
        // Peers that knew nothing when they connected may have learned something since.
        if shards.parts.peers.have(shards.lineages()) {
            let peers = shards.parts.peers.clone();
            shards.parts.threads.work().spawn(async move { peers.ask_all(patience).await });
        }
        if turned.elapsed() >= TURN {
            (memory.turn, turned) = (memory.turn.wrapping_add(1), Instant::now());
        }
        let wait = if look(&shards, &mut memory) { LOOK_EVERY } else { LOOK_EVERY_AT_FIRST };
        tokio::select! {
            biased;
            Ok(()) = taught.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// The voters to remember, if they differ from what is remembered. If the node hears of more shards than it may
/// remember, it keeps those of which it hears.
fn renewed(kept: &KnownVoters, learned: KnownVoters) -> Option<KnownVoters> {
    if learned.iter().all(|(id, voters)| kept.get(id) == Some(voters)) {
        return None;
    }
    let room = limits::SHARDS_PER_NODE_MAX.saturating_sub(learned.len());
    let others = kept.iter().filter(|(id, _)| !learned.contains_key(id)).take(room);
    let mut next: KnownVoters = others.map(|(id, voters)| (*id, voters.clone())).collect();
    next.extend(learned);
    Some(next)
}

/// Saves who votes for the next process, whenever that has changed, for as long as the node runs. A write that fails is
/// tried again after a pause; the earlier file stays until then.
pub(crate) async fn remember(shards: Arc<Shards>, mut kept: KnownVoters) {
    let mut taught = shards.taught.subscribe();
    let mut told = false;
    loop {
        let Some(next) = renewed(&kept, learned(&shards)) else {
            if taught.changed().await.is_err() {
                return;
            }
            continue;
        };
        let (list, writing) = (shards.parts.store.voter_list().clone(), next.clone());
        let saved = shards.parts.threads.offload(Errand::Files, move || list.save(&writing)).await;
        match saved.flatten() {
            Ok(()) => (kept, told) = (next, false),
            Err(error) if !told => {
                tracing::warn!(%error, "the voters could not be saved for the next start; this node tries again");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(REMEMBER_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use skep_protocol::leader::Voters;

    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;

    /// A peer; a configuration may list this many.
    fn node(n: u16) -> NodeId {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&n.to_be_bytes());
        NodeId::from_public_key(key)
    }

    fn nodes(of: impl IntoIterator<Item = u16>) -> BTreeSet<NodeId> {
        of.into_iter().map(node).collect()
    }

    fn voters(of: impl IntoIterator<Item = u16>) -> Voters {
        Voters::of(of.into_iter().map(node))
    }

    /// The memory of the last of a thousand nodes that are all marked, after a restart.
    fn memory(kept: &KnownVoters) -> Memory {
        Memory::with(node(1_000), nodes(0..1_000), kept)
    }

    fn kept() -> KnownVoters {
        // The node does not dial a peer that is not marked.
        KnownVoters::from([(ShardId(1), voters([1, 2, 3])), (ShardId(2), voters([3, 4, 2_000]))])
    }

    #[test]
    fn a_node_that_starts_again_dials_those_who_voted_and_nobody_else_while_one_of_them_answers() {
        let memory = memory(&kept());
        let voted = Roles { voters: nodes([1, 2, 3, 4]), known: true, sought: BTreeSet::new() };
        assert_eq!(memory.decide(BTreeSet::new(), false, AT_ONCE), voted);
        let almost = REMEMBERED_PATIENCE - Duration::from_millis(1);
        assert_eq!(memory.decide(BTreeSet::new(), false, almost), voted);
    }

    #[test]
    fn if_nobody_whom_it_remembers_answers_it_asks_some_of_the_others_at_a_time_and_all_of_them_in_time() {
        let mut memory = memory(&kept());
        let mut asked = BTreeSet::new();
        for _ in 0..1_000_usize.div_ceil(limits::SOUGHT_PEERS_MAX) {
            let roles = memory.decide(BTreeSet::new(), false, REMEMBERED_PATIENCE);
            assert_eq!((roles.voters, roles.sought.len()), (nodes([1, 2, 3, 4]), limits::SOUGHT_PEERS_MAX));
            asked.extend(roles.sought);
            memory.turn += 1;
        }
        assert_eq!(asked.len(), 1_000 - 4);
        // Another node begins with other peers.
        let first = |local: u16| {
            let memory = Memory::with(node(local), nodes(0..1_000), &kept());
            memory.decide(BTreeSet::new(), false, REMEMBERED_PATIENCE).sought
        };
        assert!(first(1_001).is_disjoint(&first(1_002)));
    }

    #[test]
    fn what_a_node_hears_counts_for_more_than_what_it_remembers() {
        let memory = memory(&kept());
        let heard = Roles { voters: nodes([7, 8, 9]), known: true, sought: BTreeSet::new() };
        assert_eq!(memory.decide(nodes([7, 8, 9]), false, AT_ONCE), heard);
        assert_eq!(memory.decide(nodes([7, 8, 9]), false, REMEMBERED_PATIENCE), heard, "no other one is needed");
        let lost = memory.decide(nodes([7, 8, 9]), true, AT_ONCE);
        assert_eq!((lost.voters, lost.sought.len()), (nodes([7, 8, 9]), limits::SOUGHT_PEERS_MAX));
    }

    #[test]
    fn a_node_that_remembers_nobody_dials_all_that_are_marked_and_everybody_if_nobody_is() {
        let roles = memory(&KnownVoters::new()).decide(BTreeSet::new(), false, AT_ONCE);
        assert_eq!(roles, Roles { voters: nodes(0..1_000), known: false, sought: BTreeSet::new() });
        let unmarked = Memory::with(node(1_000), BTreeSet::new(), &kept());
        assert_eq!(unmarked.decide(BTreeSet::new(), true, REMEMBERED_PATIENCE), Roles::default());
    }

    #[test]
    fn whoever_is_not_marked_is_dialled_only_once_somebody_names_it() {
        let memory = Memory::with(node(1_000), nodes([3, 4, 5]), &kept());
        let asked = memory.decide(BTreeSet::new(), true, REMEMBERED_PATIENCE);
        assert_eq!(asked, Roles { voters: nodes([3, 4]), known: true, sought: nodes([5]) });
        assert_eq!(memory.decide(nodes([7]), true, AT_ONCE).sought, nodes([3, 4, 5]));
    }

    #[test]
    fn who_votes_is_written_when_it_has_changed_and_of_no_more_shards_than_there_may_be() {
        let learned = |of: &[u16]| KnownVoters::from([(ShardId(1), voters(of.iter().copied()))]);
        assert_eq!(renewed(&kept(), KnownVoters::new()), None, "what is not heard of is remembered");
        assert_eq!(renewed(&kept(), learned(&[1, 2, 3])), None);
        let changed = renewed(&kept(), learned(&[1, 2, 5])).unwrap();
        assert_eq!(changed[&ShardId(1)], voters([1, 2, 5]));
        assert_eq!(changed[&ShardId(2)], kept()[&ShardId(2)]);
        let many = |from: u32| -> KnownVoters {
            (from..from + limits::SHARDS_PER_NODE_MAX as u32).map(|n| (ShardId(n), voters([1]))).collect()
        };
        let next = renewed(&many(100), learned(&[6])).unwrap();
        assert_eq!((next.len(), &next[&ShardId(1)]), (limits::SHARDS_PER_NODE_MAX, &voters([6])));
        assert_eq!(renewed(&many(100), many(500)), Some(many(500)));
    }
}
