//! What a leader does about full disks: its own, and those of the other voters.
//!
//! A leader whose disk is nearly full refuses work, though other voters may have room. Every voter says how full its
//! disk is when it answers a heartbeat, so that such a leader hands the lead to a voter that has more room. The leader
//! waits before it does so, since a compacted log makes room by itself, and does it seldom, so that two voters whose
//! disks fill in turns do not pass the lead to and fro. The leader keeps the lead if no voter has more room, if the
//! voters that still write entries down would be no majority under the next leader, or if the voter with room is
//! behind: until that one has caught up no node would lead. The shard's status says why such a leader keeps the lead.
//!
//! Where no majority writes entries down, no leader can commit anything. Then the leader refuses work and names a voter
//! that has no room, instead of leaving the outcome unknown.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::RaftMetrics;
use skep_protocol::fault::{FaultReport, ShardFault};
use skep_protocol::ids::{NodeId, RaftId};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::pressure::DiskPressure;

use super::Shard;
use super::condition::matched;
use crate::raft::types::TypeConfig;

/// Interval between two looks at the room of the voters.
const LOOK_EVERY: Duration = Duration::from_millis(LOOK_EVERY_MS);
const LOOK_EVERY_MS: u64 = 1_000;

/// What the last look found, while this node leads.
#[derive(Debug, Default)]
pub(super) struct Relief(Mutex<Seen>);

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The voter without whose room nothing can be committed.
    blocked_by: Option<NodeId>,
    /// Why this node leads on though its disk is full.
    keeps: Option<Keeps>,
}

/// Why a leader whose disk is full keeps the lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    /// No voter that answers has more room.
    NobodyHasRoom,
    /// This voter has more room, and lacks too much of the log.
    Behind(NodeId),
    /// Too few voters would write entries down under the next leader.
    TooFewWrite,
}

impl fmt::Display for Keeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NobodyHasRoom => f.write_str("no other voter that answers has more room"),
            Self::Behind(node) => write!(f, "{node} has more room, and has yet to catch up with the log"),
            Self::TooFewWrite => f.write_str("with another leader too few voters would write entries down"),
        }
    }
}

impl Relief {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The voter whose full disk the leader names when the disks of too many voters are full for anything to be
    /// committed.
    pub(super) fn blocked_by(&self) -> Option<NodeId> {
        self.seen().blocked_by
    }

    fn set(&self, seen: Seen) {
        *self.seen() = seen;
    }
}

/// Another voter, as this node, which leads, knows it.
#[derive(Clone, Copy, Debug)]
struct Voter {
    id: RaftId,
    node: NodeId,
    /// How full the voter's disk is, if it has said so.
    pressure: Option<DiskPressure>,
    /// The voter answers, as the member that it is.
    is_there: bool,
    /// The index of the last entry that the voter is known to hold.
    holds: Option<u64>,
    /// The voter has lacked something for longer than a slow link explains.
    is_behind: bool,
}

/// The voters: this node, which leads, with how full its disk is; the others; and the sets of voters that must agree.
#[derive(Debug)]
struct Electorate {
    local: RaftId,
    own: DiskPressure,
    others: Vec<Voter>,
    groups: Vec<Vec<RaftId>>,
}

impl Electorate {
    /// Whether entries are committed if the voters for which `writes` holds write them down.
    fn is_majority(&self, writes: impl Fn(DiskPressure, bool) -> bool) -> bool {
        let of = |id: &RaftId| match self.others.iter().find(|voter| voter.id == *id) {
            Some(voter) => writes(voter.pressure.unwrap_or_default(), voter.is_there && voter.pressure.is_some()),
            None => *id == self.local && writes(self.own, true),
        };
        self.groups.iter().all(|group| group.iter().filter(|id| of(id)).count() > group.len() / 2)
    }

    /// The voter that gets the lead. Of the voters that have more room than this node and are not behind, those with
    /// the most room come first, and of these the one that holds most of the log.
    fn heir(&self) -> Result<NodeId, Keeps> {
        let has_more_room = |voter: &&Voter| voter.is_there && voter.pressure.is_some_and(|other| other < self.own);
        let roomier: Vec<&Voter> = self.others.iter().filter(has_more_room).collect();
        let current = roomier.iter().filter(|voter| !voter.is_behind);
        let heir = current.min_by_key(|voter| (voter.pressure, std::cmp::Reverse(voter.holds)));
        let nobody = || roomier.first().map_or(Keeps::NobodyHasRoom, |voter| Keeps::Behind(voter.node));
        let heir = heir.ok_or_else(nobody)?;
        let goes_on = self.is_majority(|pressure, is_known| is_known && pressure < DiskPressure::Exhausted);
        if goes_on { Ok(heir.node) } else { Err(Keeps::TooFewWrite) }
    }

    /// One of the other voters without whose room nothing can be committed. A voter whose room is unknown does not
    /// count.
    fn blocked_by(&self) -> Option<NodeId> {
        if self.is_majority(|pressure, _| pressure < DiskPressure::Exhausted) {
            return None;
        }
        let full = self.others.iter().find(|voter| voter.pressure == Some(DiskPressure::Exhausted));
        full.map(|voter| voter.node)
    }
}

impl Shard {
    fn electorate(&self, metrics: &RaftMetrics<TypeConfig>) -> Electorate {
        let membership = metrics.membership_config.membership();
        let (peers, patience) = (&self.inner.parts.peers, self.borne_ms());
        let voter = |id: RaftId| {
            let node = membership.get_node(&id)?.node;
            let answers = self.voter_age_ms(&id).is_some_and(|ms| ms <= patience);
            let is_it = peers.connected(node).is_some_and(|peer| peer.raft_id() == id);
            let takes_part = !self.inner.acked.is_forgetful(id) && self.check_speaks(node).is_ok();
            let is_there = answers && is_it && takes_part;
            let (holds, is_behind) = (matched(metrics, &id), self.is_voter_behind(metrics, &id));
            Some(Voter { id, node, pressure: self.inner.beats.pressure(&id), is_there, holds, is_behind })
        };
        let others = membership.voter_ids().filter(|id| *id != metrics.id).filter_map(voter).collect();
        let groups = membership.get_joint_config().iter().map(|group| group.iter().copied().collect()).collect();
        Electorate { local: metrics.id, own: self.inner.parts.store.pressure(), others, groups }
    }

    /// The fault that the disk of this node is nearly full, if it is.
    pub(super) fn fault_of_disk(&self) -> Option<FaultReport> {
        let store = &self.inner.parts.store;
        let keeps = self.inner.relief.seen().keeps.map(|keeps| format!("; this node keeps the lead: {keeps}"));
        let keeps = keeps.unwrap_or_default();
        let detail = || format!("{}; {}{keeps}", consequence(store.pressure()), store.describe_room());
        let is_low = store.is_low();
        is_low.then(|| FaultReport { fault: ShardFault::DiskNearlyFull, node: None, detail: detail() })
    }

    /// The voters whose disks are nearly full, as they themselves tell this node, which leads.
    pub(super) fn faults_of_full_voters(&self, metrics: &RaftMetrics<TypeConfig>) -> Vec<FaultReport> {
        let full = |voter: Voter| {
            let pressure = voter.pressure.filter(|pressure| voter.is_there && *pressure > DiskPressure::None)?;
            let detail = format!("its disk is nearly full: {}", consequence(pressure));
            Some(FaultReport { fault: ShardFault::VoterDiskNearlyFull, node: Some(voter.node), detail })
        };
        self.electorate(metrics).others.into_iter().filter_map(full).collect()
    }
}

fn consequence(pressure: DiskPressure) -> &'static str {
    match pressure {
        DiskPressure::None => "there is room",
        DiskPressure::Low => "what brings work is refused where it leads",
        DiskPressure::Exhausted => "no entries are written to it",
    }
}

/// Looks at the room of the voters, and hands on the lead, while the group runs.
pub(super) async fn run(shard: Shard) {
    // Since when this node leads on a full disk, and when it may next hand on the lead.
    let (mut since_ms, mut not_before_ms) = (None, 0);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let metrics = shard.metrics();
        if metrics.running_state.is_err() {
            return;
        }
        let now = shard.inner.clock.boot_ms();
        if !shard.inner.view.borrow().ready {
            since_ms = None;
            shard.inner.relief.set(Seen::default());
            continue;
        }
        let electorate = shard.electorate(&metrics);
        let heir = electorate.heir();
        let keeps = heir.err().filter(|_| electorate.own > DiskPressure::None);
        shard.inner.relief.set(Seen { blocked_by: electorate.blocked_by(), keeps });
        since_ms = since_ms.filter(|_| electorate.own > DiskPressure::None);
        if electorate.own == DiskPressure::None || is_on(Mutant::FullLeaderStays) {
            continue;
        }
        let since = *since_ms.get_or_insert(now);
        // Which voter is behind is not known earlier either.
        let known_ms = shard.borne_ms().saturating_add(LOOK_EVERY_MS);
        let kept_ms = limits::LEAD_KEPT_ON_FULL_DISK_MS.max(known_ms);
        if now < not_before_ms || now.saturating_sub(since) <= kept_ms {
            continue;
        }
        // A change of voters hands over the lead by itself, if it has to.
        let Ok(_one_at_a_time) = shard.inner.changing_members.try_lock() else { continue };
        let Ok(heir) = heir else { continue };
        not_before_ms = now.saturating_add(limits::LEAD_HANDED_ON_EVERY_MS);
        tracing::warn!(shard = %shard.id(), node = %heir, "the disk of this node is nearly full: it hands the lead on");
        if let Err(error) = shard.transfer_leader(Some(heir)).await {
            tracing::warn!(shard = %shard.id(), node = %heir, %error, "the lead could not be handed on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{id, node};
    use super::*;
    use DiskPressure::{Exhausted, Low, None as Room};

    fn voter(n: u8, pressure: DiskPressure, holds: u64) -> Voter {
        Voter {
            id: id(n),
            node: node(n),
            pressure: Some(pressure),
            is_there: true,
            holds: Some(holds),
            is_behind: false,
        }
    }

    /// The first node leads the others.
    fn electorate(own: DiskPressure, others: Vec<Voter>) -> Electorate {
        let group = std::iter::once(id(1)).chain(others.iter().map(|voter| voter.id)).collect();
        Electorate { local: id(1), own, others, groups: vec![group] }
    }

    #[test]
    fn the_lead_goes_to_whoever_has_most_room_and_of_those_to_the_most_advanced() {
        let heir = |own, others: Vec<Voter>| electorate(own, others).heir();
        assert_eq!(heir(Low, vec![voter(2, Room, 5), voter(3, Room, 9)]), Ok(node(3)));
        assert_eq!(heir(Low, vec![voter(2, Room, 5), voter(3, Low, 9)]), Ok(node(2)));
        assert_eq!(heir(Exhausted, vec![voter(2, Low, 5), voter(3, Low, 4)]), Ok(node(2)));
        assert_eq!(heir(Room, vec![voter(2, Room, 5), voter(3, Room, 9)]), Err(Keeps::NobodyHasRoom));
    }

    #[test]
    fn a_voter_that_is_behind_is_not_handed_the_lead_and_is_named_if_nobody_else_has_room() {
        let heir = |own, others: Vec<Voter>| electorate(own, others).heir();
        let behind = |n, pressure, holds| Voter { is_behind: true, ..voter(n, pressure, holds) };
        assert_eq!(heir(Low, vec![behind(2, Room, 5), voter(3, Room, 4)]), Ok(node(3)));
        assert_eq!(heir(Exhausted, vec![behind(2, Room, 5), voter(3, Low, 9)]), Ok(node(3)), "some room is enough");
        assert_eq!(heir(Low, vec![behind(2, Room, 5), voter(3, Low, 9)]), Err(Keeps::Behind(node(2))));
        assert_eq!(heir(Low, vec![behind(2, Low, 5), voter(3, Low, 9)]), Err(Keeps::NobodyHasRoom));
    }

    #[test]
    fn nobody_hands_the_lead_on_if_all_are_full_or_too_few_would_write_under_the_next_one() {
        let heir = |own, others: Vec<Voter>| electorate(own, others).heir();
        for pressure in [Low, Exhausted] {
            let others = vec![voter(2, pressure, 5), voter(3, pressure, 5)];
            assert_eq!(heir(pressure, others), Err(Keeps::NobodyHasRoom));
        }
        assert_eq!(
            heir(Exhausted, vec![voter(2, Room, 5), voter(3, Exhausted, 5)]),
            Err(Keeps::TooFewWrite),
            "two of three write nothing"
        );
        assert_eq!(heir(Low, vec![voter(2, Room, 5), voter(3, Exhausted, 5)]), Ok(node(2)), "this node still writes");
        let silent = Voter { is_there: false, ..voter(2, Room, 9) };
        assert_eq!(heir(Low, vec![silent, voter(3, Low, 5)]), Err(Keeps::NobodyHasRoom));
        let unsaid = Voter { pressure: None, ..voter(2, Room, 9) };
        assert_eq!(heir(Low, vec![unsaid, voter(3, Low, 5)]), Err(Keeps::NobodyHasRoom));
        let mut joint = electorate(Exhausted, vec![voter(2, Room, 5), voter(3, Room, 5), voter(4, Exhausted, 5)]);
        joint.groups = vec![vec![id(1), id(2), id(3)], vec![id(1), id(2), id(4)]];
        assert_eq!(joint.heir(), Err(Keeps::TooFewWrite), "each of two sets must agree");
    }

    #[test]
    fn work_is_refused_by_the_name_of_a_voter_without_room_only_if_no_majority_writes() {
        let blocked_by = |own, others: Vec<Voter>| electorate(own, others).blocked_by();
        assert_eq!(blocked_by(Room, vec![voter(2, Exhausted, 5), voter(3, Exhausted, 5)]), Some(node(2)));
        assert_eq!(blocked_by(Room, vec![voter(2, Exhausted, 5), voter(3, Low, 5)]), None);
        let unsaid = Voter { pressure: None, is_there: false, ..voter(2, Room, 9) };
        assert_eq!(blocked_by(Room, vec![unsaid, voter(3, Exhausted, 5)]), None, "what is not known is no reason");
    }
}
