//! What goes wrong in a run.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_protocol::ids::NodeId;
use tokio::time::Instant;

use super::site::Nodes;

/// Shortest and longest time between two faults, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 150..1_800;
/// How long a node stays down, a link bad, or a disk slow, in milliseconds.
const LASTS_MS: std::ops::Range<u64> = 50..4_000;

/// A change of members that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add(NodeId),
    Remove(NodeId),
}

#[derive(Debug, Default)]
struct Members {
    /// The voters, as far as changes were acknowledged.
    voters: Vec<NodeId>,
    under_way: bool,
    /// A change with an unknown outcome: the operator asks for it again until it is done.
    doubtful: Option<Change>,
}

/// The faults of a run.
pub(super) struct Faults {
    rng: SmallRng,
    next: Instant,
    /// When something ends by itself: a node starts, the network heals, a disk is as fast as before.
    starts: Vec<(Instant, usize)>,
    heals_at: Option<Instant>,
    members: Arc<Mutex<Members>>,
    /// The voter that lost its disk and was not taken in again: only one at a time, or Skep could promise nothing.
    lost: Option<usize>,
    count: usize,
}

impl Faults {
    pub(super) fn new(seed: u64, voters: Vec<NodeId>) -> Self {
        let members = Members { voters, ..Members::default() };
        Self {
            rng: SmallRng::seed_from_u64(seed),
            next: Instant::now() + Duration::from_secs(2),
            starts: Vec::new(),
            heals_at: None,
            members: Arc::new(Mutex::new(members)),
            lost: None,
            count: 0,
        }
    }

    /// The voters.
    pub(super) fn voters(&self) -> Vec<NodeId> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).voters.clone()
    }

    fn lasts(&mut self) -> Instant {
        Instant::now() + Duration::from_millis(self.rng.random_range(LASTS_MS))
    }

    fn starts_later(&mut self, at: usize) {
        let when = self.lasts();
        self.starts.push((when, at));
    }

    /// Does what is due at this instant.
    pub(super) async fn step(&mut self, nodes: &mut Nodes) {
        self.mend_due(nodes).await;
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + Duration::from_millis(self.rng.random_range(PAUSE_MS));
        self.count = nodes.all.len();
        let at = self.rng.random_range(0..self.count);
        match self.rng.random_range(0..16) {
            0..2 => {
                nodes.kill(at);
                self.starts_later(at);
            }
            2..4 => {
                nodes.cut_power(at);
                self.starts_later(at);
            }
            4 => self.black_out(nodes),
            5..7 => self.cut(nodes),
            7..9 => {
                let (lost, longest) = (self.rng.random_range(0..150), self.rng.random_range(2..300));
                // The time is often the same for all messages, which no average of random times can outrun.
                let shortest = if self.rng.random_bool(0.5) { longest } else { 0 };
                nodes.fabric.set_quality(lost, (shortest, longest));
                nodes.watch.count(|coverage| coverage.bad_links += 1);
                self.heals_at = Some(self.lasts());
            }
            9 => nodes.slow_down(at, self.rng.random_range(0..60)),
            10 => {
                nodes.fail_sync(at);
                self.starts_later(at);
            }
            11 => self.lose(nodes, at),
            12..14 => self.change_members(nodes),
            _ => self.transfer(nodes, at),
        }
    }

    /// Cuts the power of all machines at once.
    fn black_out(&mut self, nodes: &mut Nodes) {
        for at in 0..self.count {
            nodes.cut_power(at);
            self.starts_later(at);
        }
        nodes.watch.count(|coverage| coverage.blackouts += 1);
    }

    fn cut(&mut self, nodes: &mut Nodes) {
        let ids: Vec<NodeId> = nodes.all.iter().map(|node| node.id).collect();
        let side: Vec<bool> = ids.iter().map(|_| self.rng.random_bool(0.4)).collect();
        let one_way = self.rng.random_bool(0.3);
        let mut pairs = Vec::new();
        for (a, from) in ids.iter().enumerate() {
            for (b, to) in ids.iter().enumerate() {
                if side[a] && !side[b] {
                    pairs.push((*from, *to));
                    pairs.extend((!one_way).then_some((*to, *from)));
                }
            }
        }
        nodes.watch.tell(&format!("the network is cut: {side:?}, one way: {one_way}"));
        nodes.fabric.cut(pairs);
        nodes.watch.count(|coverage| coverage.cuts += 1);
        self.heals_at = Some(self.lasts());
    }

    /// Makes a node lose its disk, or a bit of it.
    fn lose(&mut self, nodes: &mut Nodes, at: usize) {
        // No disk is lost while it is unknown which nodes vote: it could be one more than the group can lose.
        let unsure = {
            let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
            members.under_way || members.doubtful.is_some()
        };
        if unsure || self.lost.is_some() || nodes.all.iter().any(|node| node.refuses) {
            return;
        }
        self.lost = Some(at);
        if self.rng.random_bool(0.5) {
            nodes.wipe(at);
        } else {
            nodes.flip_a_bit(at);
        }
        self.starts_later(at);
    }

    fn transfer(&mut self, nodes: &Nodes, to: usize) {
        let ready = nodes.ready();
        let Some((_, shard)) = ready.first().cloned() else { return };
        let to = nodes.all[to].id;
        let watch = nodes.watch.clone();
        tokio::spawn(async move {
            if shard.transfer_leader(Some(to)).await.is_ok() {
                watch.count(|coverage| coverage.transfers += 1);
            }
        });
    }

    /// Takes a voter in or out: there are never fewer than three, and the changes come one at a time.
    fn change_members(&mut self, nodes: &Nodes) {
        let ready = nodes.ready();
        let Some((_, shard)) = ready.first().cloned() else { return };
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if members.under_way {
            return;
        }
        let lost = self.lost.map(|at| nodes.all[at].id);
        let others: Vec<NodeId> = nodes.all.iter().map(|n| n.id).filter(|id| !members.voters.contains(id)).collect();
        let change = match (members.doubtful, lost) {
            (Some(change), _) => change,
            // A node that lost its disk is taken in again, under its new incarnation.
            (None, Some(id)) if members.voters.contains(&id) => Change::Add(id),
            (None, _) if members.voters.len() > 3 => {
                Change::Remove(members.voters[self.rng.random_range(0..members.voters.len())])
            }
            (None, _) if !others.is_empty() => Change::Add(others[self.rng.random_range(0..others.len())]),
            (None, _) => return,
        };
        members.under_way = true;
        drop(members);
        tokio::spawn(carry_out(shard, change, Arc::clone(&self.members), nodes.watch.clone()));
    }

    async fn mend_due(&mut self, nodes: &mut Nodes) {
        let now = Instant::now();
        if self.heals_at.is_some_and(|at| at <= now) {
            self.heals_at = None;
            nodes.watch.tell("the network is whole");
            nodes.fabric.heal();
        }
        let due: Vec<usize> = self.starts.iter().filter(|(at, _)| *at <= now).map(|(_, node)| *node).collect();
        self.starts.retain(|(at, _)| *at > now);
        for at in due {
            self.start(nodes, at).await;
        }
        self.note_regained(nodes);
    }

    /// Starts a node. One that refuses is wiped first, as its error says.
    async fn start(&mut self, nodes: &mut Nodes, at: usize) {
        nodes.start(at).await;
        if nodes.all[at].refuses {
            self.lost = Some(at);
            nodes.wipe(at);
            nodes.start(at).await;
        }
    }

    /// Notes whether the voter that lost its disk votes again, or need not.
    fn note_regained(&mut self, nodes: &Nodes) {
        let Some(at) = self.lost else { return };
        let Some(process) = &nodes.all[at].process else { return };
        let votes = self.voters().contains(&nodes.all[at].id);
        let known = process.shard().is_some_and(|shard| shard.voters().contains_key(&process.raft_id()));
        if known || !votes {
            self.lost = None;
        }
    }

    /// Makes every node run and reach every other.
    pub(super) async fn heal(&mut self, nodes: &mut Nodes) {
        nodes.fabric.heal();
        self.starts.clear();
        self.heals_at = None;
        for at in 0..nodes.all.len() {
            nodes.slow_down(at, 0);
            self.start(nodes, at).await;
        }
    }

    /// Does what an operator does: starts each node that is down, and takes each one that lost its disk in again.
    pub(super) async fn mend(&mut self, nodes: &mut Nodes) {
        for at in 0..nodes.all.len() {
            if nodes.all[at].process.is_none() {
                self.start(nodes, at).await;
            }
        }
        self.note_regained(nodes);
        let doubtful = self.members.lock().unwrap_or_else(PoisonError::into_inner).doubtful.is_some();
        if self.lost.is_some() || doubtful {
            self.change_members(nodes);
        }
    }

    /// Whether every voter is a voter under its present incarnation. Checks S11: the leader counts those voters and no
    /// others.
    pub(super) fn is_well(&self, nodes: &Nodes) -> bool {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lost.is_some() || members.under_way || members.doubtful.is_some() {
            return false;
        }
        let Some((_, shard)) = nodes.ready().into_iter().next() else { return false };
        let mut known: Vec<NodeId> = shard.voters().into_values().map(|member| member.node).collect();
        let mut asked = members.voters.clone();
        known.sort();
        asked.sort();
        if known != asked {
            nodes
                .watch
                .violate("S11", &format!("{} voters are counted, and {} were asked for", known.len(), asked.len()));
        }
        true
    }
}

async fn carry_out(
    shard: crate::shard::Shard,
    change: Change,
    members: Arc<Mutex<Members>>,
    watch: super::watch::Watch,
) {
    let done = match change {
        Change::Add(node) => shard.add_voter(node).await,
        Change::Remove(node) => shard.remove_voter(node).await,
    };
    watch.tell(&format!("{change:?}: {done:?}"));
    let mut members = members.lock().unwrap_or_else(PoisonError::into_inner);
    members.under_way = false;
    match (done, change) {
        (Ok(()), Change::Add(node)) => {
            members.doubtful = None;
            members.voters.retain(|known| *known != node);
            members.voters.push(node);
            watch.count(|coverage| coverage.voters_added += 1);
        }
        (Ok(()) | Err(crate::MembershipError::NotVoter { .. }), Change::Remove(node)) => {
            members.doubtful = None;
            members.voters.retain(|known| *known != node);
            watch.count(|coverage| coverage.voters_removed += 1);
        }
        (Err(crate::MembershipError::HandedOver { .. }), _) => {}
        // The change may have been made: the operator asks for it until it is.
        (Err(_), _) => members.doubtful = Some(change),
    }
}
