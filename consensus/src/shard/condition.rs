//! How current this replica is, and what is wrong with the shard as this node sees it.
//!
//! Arriving frames prove nothing: a leader may have no followers, and a replica may hear of entries that it never gets.
//! So the node counts since when the leader has had more than this replica, and since when the leader has not said that
//! it serves.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::ServerState;
use skep_protocol::fault::{FaultReport, ShardFault};
use skep_protocol::fleet::FleetVersions;
use skep_protocol::ids::{NodeId, RaftId};
use tokio::sync::Notify;

use super::Shard;
use super::lead::has_quorum;
use crate::raft::types::{Member, TypeConfig};

/// Interval at which the node's log is told what is wrong.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An index that a replica is to reach, and since when, in milliseconds of the boot clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    index: u64,
    since_ms: u64,
}

impl Due {
    /// What is due after this report: the oldest missing entry stays due until it is there.
    fn after(known: Option<Self>, committed: Option<u64>, has: Option<u64>, now_ms: u64) -> Option<Self> {
        match known {
            Some(due) if has < Some(due.index) => known,
            _ => committed.filter(|index| has < Some(*index)).map(|index| Self { index, since_ms: now_ms }),
        }
    }

    /// For how long the entry has been missing, in milliseconds.
    fn late_ms(self, has: Option<u64>, now_ms: u64) -> Option<u64> {
        (has < Some(self.index)).then(|| now_ms.saturating_sub(self.since_ms))
    }
}

#[derive(Debug)]
struct Heard {
    /// Since when this node could have heard a leader: since the start of the process, or since it led itself.
    since_ms: u64,
    /// The entry that this replica is to apply.
    due: Option<Due>,
    /// Since when the leader does not say that it serves.
    unready_since_ms: Option<u64>,
    /// The entry that each voter is to hold, while this node leads.
    voters: BTreeMap<RaftId, Due>,
    /// The term in which this node led last, and since when.
    led: Option<(u64, u64)>,
    /// The last node that showed a proof of leadership by voters of whom this replica knows too few.
    unproven: Option<Claimant>,
}

/// A node that says that it leads.
#[derive(Debug)]
struct Claimant {
    node: NodeId,
    term: u64,
    /// When it said so last.
    at_ms: u64,
}

/// What this node has heard of the leader and of the voters.
#[derive(Debug)]
pub(super) struct Condition {
    heard: Mutex<Heard>,
    /// Signals that this node heard a leader while it knew none.
    found: Notify,
}

impl Condition {
    /// The condition of a replica that is just opened.
    pub(super) fn new(now_ms: u64) -> Self {
        let (due, unready_since_ms, voters, led, unproven) = (None, None, BTreeMap::new(), None, None);
        let heard = Heard { since_ms: now_ms, due, unready_since_ms, voters, led, unproven };
        Self { heard: Mutex::new(heard), found: Notify::new() }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that this node was elected in a term.
    pub(super) fn begins_to_lead(&self, term: u64, now_ms: u64) {
        self.heard().led = Some((term, now_ms));
    }

    /// Notes that this node does not lead: from then on it hears of the next leader.
    pub(super) fn follows(&self, now_ms: u64) {
        let mut heard = self.heard();
        (heard.since_ms, heard.due, heard.unready_since_ms) = (now_ms, None, None);
    }

    /// A node has shown a proof of leadership by voters of whom this replica knows too few.
    pub(super) fn note_unproven(&self, node: NodeId, term: u64, now_ms: u64) {
        self.heard().unproven = Some(Claimant { node, term, at_ms: now_ms });
    }

    /// Waits until a leader is heard while none was known.
    pub(super) async fn leader_found(&self) {
        self.found.notified().await;
    }
}

type Metrics = openraft::RaftMetrics<TypeConfig>;

fn leads(metrics: &Metrics) -> bool {
    metrics.state == ServerState::Leader
}

fn name(member: &Member) -> String {
    member.name.as_ref().map_or_else(|| member.node.to_string(), ToString::to_string)
}

fn span(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

impl Shard {
    fn applied_index(&self) -> Option<u64> {
        self.inner.applied.borrow().checked_sub(1)
    }

    /// Notes an accepted frame of the leader: how far the group has committed, and whether the leader says that it
    /// serves.
    pub(super) fn note_leader(&self, committed: Option<u64>, serves: bool) {
        let (now, applied) = (self.inner.clock.boot_ms(), self.applied_index());
        let mut heard = self.inner.condition.heard();
        heard.due = Due::after(heard.due, committed, applied, now);
        heard.unready_since_ms = if serves { None } else { heard.unready_since_ms.or(Some(now)) };
        drop(heard);
        if serves && self.inner.view.borrow().leader.is_none() {
            self.inner.condition.found.notify_one();
        }
    }

    /// For how long this node has heard no other node that leads, in milliseconds.
    fn silence_ms(&self) -> u64 {
        let since = self.inner.clock.boot_ms().saturating_sub(self.inner.condition.heard().since_ms);
        self.inner.clock.leader_age_ms().map_or(since, |ms| ms.min(since))
    }

    /// For how long this replica has lacked an entry that its leader has committed, in milliseconds.
    fn behind_ms(&self) -> Option<u64> {
        let due = self.inner.condition.heard().due?;
        due.late_ms(self.applied_index(), self.inner.clock.boot_ms())
    }

    /// For how long the leader has not said that it serves, in milliseconds.
    fn unready_ms(&self) -> Option<u64> {
        let since = self.inner.condition.heard().unready_since_ms?;
        Some(self.inner.clock.boot_ms().saturating_sub(since))
    }

    /// Whether this node, which does not lead, hears a leader that serves.
    pub(super) fn is_led(&self) -> bool {
        let patience = self.borne_ms();
        !self.stands_aside() && self.silence_ms() <= patience && self.unready_ms().is_none_or(|ms| ms <= patience)
    }

    /// The greatest age of what this replica has, in milliseconds: since a majority last said that this node leads, or
    /// since this replica last had all that the leader had. None if this process has heard no leader.
    pub(super) fn age_ms(&self) -> Option<u64> {
        let metrics = self.metrics();
        if leads(&metrics) {
            if metrics.membership_config.membership().voter_ids().count() == 1 {
                return Some(0);
            }
            has_quorum(self, &metrics);
            return self.pulse().age_ms(self.inner.clock.boot_ms());
        }
        let heard = self.inner.clock.leader_age_ms()?;
        Some(heard.max(self.behind_ms().unwrap_or(0)).max(self.unready_ms().unwrap_or(0)))
    }

    /// How long ago a voter last answered this node, which leads, in milliseconds.
    pub(super) fn voter_age_ms(&self, voter: &RaftId) -> Option<u64> {
        let acked = self.inner.beats.acked_ms(voter)?;
        Some(self.inner.clock.boot_ms().saturating_sub(acked))
    }

    /// The longest silence that is no fault, in milliseconds: a slow link explains it.
    pub(super) fn borne_ms(&self) -> u64 {
        self.inner.parts.config.silence_ms_max.max(self.detector().borne_ms())
    }

    /// Whether this node has led for no longer than its patience: a voter that has not answered yet may be about to.
    fn has_just_begun(&self, metrics: &Metrics) -> bool {
        let led = self.inner.condition.heard().led.filter(|(term, _)| *term == metrics.current_term);
        let now = self.inner.clock.boot_ms();
        led.is_none_or(|(_, since)| now.saturating_sub(since) <= self.borne_ms())
    }

    /// All faults of the shard as this node sees it.
    pub(super) fn faults(&self) -> Vec<FaultReport> {
        let metrics = self.metrics();
        let own = |fault, detail: String| FaultReport { fault, node: None, detail };
        if let Err(error) = &metrics.running_state {
            return vec![own(ShardFault::OutOfService, error.to_string())];
        }
        if self.has_forgotten() {
            let detail = "it lacks entries that it acknowledged: its disk is an older copy".to_owned();
            return vec![own(ShardFault::RestoredFromCopy, detail)];
        }
        if let Some(unfit) = self.unfit() {
            return vec![own(ShardFault::WrongVersion, unfit.to_string())];
        }
        let membership = metrics.membership_config.membership();
        if membership.voter_ids().next().is_none() {
            return Vec::new();
        }
        if membership.get_node(&metrics.id).is_none() {
            let earlier = membership.nodes().any(|(_, member)| member.node == self.inner.parts.node);
            let what = if earlier { "an earlier incarnation of this node is" } else { "it is not" };
            return vec![own(ShardFault::NotMember, format!("{what} one, as far as {} knows", metrics.id))];
        }
        let mut faults: Vec<FaultReport> = self.fault_of_disk().into_iter().collect();
        faults.extend(self.faults_of_history());
        if leads(&metrics) {
            if !has_quorum(self, &metrics) && !self.has_just_begun(&metrics) {
                let since = self.age_ms().map_or("since it leads".to_owned(), |ms| format!("for {}", span(ms)));
                faults
                    .push(own(ShardFault::LeaderWithoutQuorum, format!("no majority has answered this node {since}")));
            }
            faults.extend(self.faults_of_full_voters(&metrics));
            faults.extend(self.faults_of_voters(&metrics));
        } else {
            faults.extend(self.faults_of_follower(&metrics));
        }
        if let [before, .., after] = membership.get_joint_config().as_slice() {
            let names = |ids: &std::collections::BTreeSet<RaftId>| {
                let names: Vec<String> = ids.iter().filter_map(|id| membership.get_node(id)).map(name).collect();
                names.join(", ")
            };
            faults.push(own(ShardFault::VotersChanging, format!("from {} to {}", names(before), names(after))));
        }
        faults
    }

    fn faults_of_history(&self) -> Vec<FaultReport> {
        let history = self.inner.parts.store.history();
        let standing = history.standing(self.inner.id);
        let own = |fault, detail: String| FaultReport { fault, node: None, detail };
        let behind = standing.error.or_else(|| {
            history.is_behind().then(|| format!("{} bytes of it wait to be written", standing.queued_bytes))
        });
        let lost = (standing.lost > 0).then(|| format!("{} entries after entry {}", standing.lost, standing.begins));
        let behind = behind.map(|detail| own(ShardFault::HistoryBehind, detail));
        behind.into_iter().chain(lost.map(|detail| own(ShardFault::HistoryLost, detail))).collect()
    }

    fn faults_of_follower(&self, metrics: &Metrics) -> Vec<FaultReport> {
        let patience = self.borne_ms();
        let own = |fault, detail: String| FaultReport { fault, node: None, detail };
        let late = |ms: Option<u64>| ms.filter(|ms| *ms > patience);
        let mut faults = Vec::new();
        let leader = metrics.current_leader.and_then(|id| metrics.membership_config.membership().get_node(&id));
        match (leader, late(Some(self.silence_ms())), late(self.unready_ms())) {
            (None, _, _) => faults.push(own(ShardFault::NoLeader, "this node knows no leader".to_owned())),
            (Some(leader), Some(ms), _) => {
                let detail = format!("{} has not been heard for {}", name(leader), span(ms));
                faults.push(own(ShardFault::NoLeader, detail));
            }
            (Some(leader), None, Some(ms)) => {
                let detail = format!("{} is heard, and has not served for {}", name(leader), span(ms));
                faults.push(own(ShardFault::LeaderWithoutQuorum, detail));
            }
            (Some(_), None, None) => {}
        }
        // One that lies beside a leader that is heard is no fault of this replica.
        if !faults.is_empty() {
            faults.extend(self.fault_of_proof());
        }
        if let Some(ms) = late(self.behind_ms()) {
            let due = self.inner.condition.heard().due.map_or(0, |due| due.index);
            let applied = self.applied_index().unwrap_or(0);
            let detail = format!("entry {applied} is applied, and entry {due} was committed {} ago", span(ms));
            faults.push(own(ShardFault::Behind, detail));
        }
        faults
    }

    /// Whether a node says again and again that voters elected it whom this replica does not know.
    fn fault_of_proof(&self) -> Option<FaultReport> {
        let (now, patience) = (self.inner.clock.boot_ms(), self.borne_ms());
        let heard = self.inner.condition.heard();
        let claimant = heard.unproven.as_ref().filter(|claimant| now.saturating_sub(claimant.at_ms) <= patience)?;
        let (node, term) = (claimant.node, claimant.term);
        let detail = format!("its proof that it leads in term {term} is by voters of whom this node knows too few");
        Some(FaultReport { fault: ShardFault::LeaderUnproven, node: Some(node), detail })
    }

    fn faults_of_voters(&self, metrics: &Metrics) -> Vec<FaultReport> {
        let membership = metrics.membership_config.membership();
        let others = membership.voter_ids().filter(|id| *id != metrics.id);
        let of = |id: RaftId| {
            let member = membership.get_node(&id)?;
            let (fault, detail) = self.fault_of_voter(metrics, id, member)?;
            Some(FaultReport { fault, node: Some(member.node), detail })
        };
        let mut faults: Vec<FaultReport> = others.filter_map(of).collect();
        let voters: Vec<NodeId> = membership.nodes().map(|(_, member)| member.node).collect();
        let budget = self.inner.parts.config.silence_ms_min / 2;
        for peer in self.inner.parts.peers.views().into_iter().filter(|peer| voters.contains(&peer.node)) {
            if let Some(ms) = peer.rtt_ms.filter(|ms| peer.up && *ms > budget) {
                let detail = format!("a round trip takes {ms} ms, and the configuration allows for {budget} ms");
                faults.push(FaultReport { fault: ShardFault::SlowLink, node: Some(peer.node), detail });
            }
        }
        faults
    }

    /// The first fault of a voter: the report does not call a silent voter late as well.
    fn fault_of_voter(&self, metrics: &Metrics, id: RaftId, member: &Member) -> Option<(ShardFault, String)> {
        let patience = self.borne_ms();
        let peers = &self.inner.parts.peers;
        let connected = peers.connected(member.node);
        if connected.as_ref().is_some_and(|peer| peer.raft_id() != id) {
            return Some((ShardFault::VoterReplaced, format!("{} is another member than {id} now", name(member))));
        }
        if self.inner.acked.is_forgetful(id) {
            let detail = format!("{} lacks entries that it acknowledged: its disk is an older copy", name(member));
            return Some((ShardFault::VoterRestoredFromCopy, detail));
        }
        let version = self.fleet_version();
        // Zero: the shard has agreed on nothing yet.
        let lacks = |speaks: &FleetVersions| version > 0 && !speaks.contains(version);
        if let Some(speaks) = self.speaks(id, member).filter(lacks) {
            let detail = format!("{} speaks fleet version {speaks}, and the shard speaks {version}", name(member));
            return Some((ShardFault::VoterWrongVersion, detail));
        }
        let age = self.voter_age_ms(&id);
        if age.map_or_else(|| !self.has_just_begun(metrics), |ms| ms > patience) {
            let since = age.map_or("has not answered yet".to_owned(), |ms| format!("last answered {} ago", span(ms)));
            let why =
                if connected.is_some() { String::new() } else { format!("; {}", peers.not_connected(member.node)) };
            return Some((ShardFault::VoterSilent, format!("{} {since}{why}", name(member))));
        }
        let (due, ms) = self.lateness(metrics, &id)?;
        let (holds, index) = (matched(metrics, &id).unwrap_or(0), due.index);
        let what = format!("{} holds entry {holds}, and entry {index} was committed {} ago", name(member), span(ms));
        Some((ShardFault::VoterBehind, what))
    }

    /// The entry that a voter has lacked for longer than a slow link explains, and for how long, in milliseconds.
    fn lateness(&self, metrics: &Metrics, id: &RaftId) -> Option<(Due, u64)> {
        let due = self.inner.condition.heard().voters.get(id).copied()?;
        let ms = due.late_ms(matched(metrics, id), self.inner.clock.boot_ms())?;
        (ms > self.borne_ms()).then_some((due, ms))
    }

    /// Whether a voter lags behind this node, which leads, by more than it could catch up with in a moment.
    pub(super) fn is_voter_behind(&self, metrics: &Metrics, id: &RaftId) -> bool {
        self.lateness(metrics, id).is_some()
    }

    /// Counts since when each voter has lacked a committed entry.
    fn note_voters(&self) {
        let metrics = self.metrics();
        let now = self.inner.clock.boot_ms();
        let mut heard = self.inner.condition.heard();
        if !leads(&metrics) {
            return heard.voters.clear();
        }
        let committed = metrics.local_committed.map(|id| id.index);
        let due = |id: RaftId| {
            let due = Due::after(heard.voters.get(&id).copied(), committed, matched(&metrics, &id), now)?;
            Some((id, due))
        };
        let voters = metrics.membership_config.membership().voter_ids();
        let voters: BTreeMap<RaftId, Due> = voters.filter(|id| *id != metrics.id).filter_map(due).collect();
        heard.voters = voters;
    }
}

/// The index of the last entry that a voter is known to hold.
pub(super) fn matched(metrics: &Metrics, id: &RaftId) -> Option<u64> {
    metrics.replication.as_ref()?.get(id).copied().flatten().map(|id| id.index)
}

/// Writes each fault to the node's log once when it begins, and once when it is over.
pub(super) async fn run(shard: Shard) {
    let mut known: BTreeMap<(ShardFault, Option<NodeId>), String> = BTreeMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        shard.note_voters();
        let faults = shard.faults().into_iter().map(|report| ((report.fault, report.node), report.detail));
        let faults: BTreeMap<_, _> = faults.collect();
        for ((fault, node), detail) in faults.iter().filter(|(key, _)| !known.contains_key(*key)) {
            let node = node.map(|node| node.to_string()).unwrap_or_default();
            tracing::warn!(shard = %shard.id(), %fault, node, detail, advice = fault.advice(), "a fault has begun");
        }
        for (fault, node) in known.keys().filter(|key| !faults.contains_key(*key)) {
            let node = node.map(|node| node.to_string()).unwrap_or_default();
            tracing::info!(shard = %shard.id(), %fault, node, "a fault is over");
        }
        known = faults;
        if shard.metrics().running_state.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_behind_since_it_first_lacked_what_it_still_lacks() {
        let due = Due::after(None, Some(7), Some(6), 100);
        assert_eq!(due, Some(Due { index: 7, since_ms: 100 }));
        let later = Due::after(due, Some(9), Some(6), 400);
        assert_eq!(later, due, "more of the same does not make it younger");
        assert_eq!(later.and_then(|due| due.late_ms(Some(6), 500)), Some(400));
        assert_eq!(later.and_then(|due| due.late_ms(Some(7), 500)), None);
        let next = Due::after(later, Some(9), Some(7), 500);
        assert_eq!(next, Some(Due { index: 9, since_ms: 500 }), "it moves, and so does what it lacks");
        assert_eq!(Due::after(next, Some(9), Some(9), 600), None);
        assert_eq!(Due::after(None, Some(0), None, 5), Some(Due { index: 0, since_ms: 5 }), "entry 0 counts");
    }
}
