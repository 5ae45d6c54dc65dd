//! The heartbeats of a leader.
//!
//! openraft sends one heartbeat at a time to each follower, and a follower answers it after its disk has written what
//! came before it. Where a disk or a round trip takes a second, followers would hear their leader too seldom, and the
//! leader its followers. So a leader sends heartbeats in frames of its own, several under way at a time. A follower
//! answers them from memory: that it follows, and has promised its vote to no other node. That also confirms the lead
//! for reads (see `confirm`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use openraft::RaftMetrics;
use skep_protocol::frame::{Header, RaftAddress};
use skep_protocol::ids::{NodeId, RaftId};
use skep_protocol::pressure::DiskPressure;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::Shard;
use crate::net::Who;
use crate::raft::acked::FORGOT;
use crate::raft::types::{TypeConfig, Vote, decode};

/// The most heartbeats under way to one member. At this number the leader sends no more.
const UNDER_WAY_MAX: u32 = 8;
/// Heartbeats in a round trip, where that is longer than their interval: a slow link is not filled with them.
const PER_ROUND_TRIP: u32 = 4;
/// Interval between openraft's own heartbeats to followers, in milliseconds: several within its lease.
const OPENRAFT_EVERY_MS: u64 = 1_000;

/// The answer to a heartbeat is one byte that says whether the member follows, and behind it how full its disk is.
const FOLLOWS: u8 = 1;

/// The answer of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    follows: bool,
    pressure: DiskPressure,
}

impl Answer {
    fn to_byte(self) -> u8 {
        u8::from(self.follows) | (self.pressure.to_bits() << 1)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let byte = bytes.first()?;
        Some(Self { follows: byte & FOLLOWS != 0, pressure: DiskPressure::from_bits(byte >> 1) })
    }
}

/// What the leader knows of one member.
#[derive(Clone, Copy, Debug, Default)]
struct MemberBeat {
    /// When the leader sent the last heartbeat, and the last one that the member acknowledged, in milliseconds of the
    /// boot clock.
    sent_ms: Option<u64>,
    acked_ms: Option<u64>,
    under_way: u32,
    /// The member was reached and does not follow.
    strays: bool,
    /// How full the member's disk is, as it said last.
    pressure: Option<DiskPressure>,
}

#[derive(Debug, Default)]
struct State {
    term: u64,
    members: BTreeMap<RaftId, MemberBeat>,
    openraft_ms: u64,
    /// The term in which this node is handing over the lead.
    handed_over: Option<u64>,
}

/// The heartbeats of a shard's leader, and the answers to them.
#[derive(Debug, Default)]
pub(super) struct Beats {
    state: Mutex<State>,
    /// Signals that a member acknowledged a heartbeat.
    acknowledged: Notify,
}

impl Beats {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes at the next acknowledgement. A caller that begins this before it looks at what was acknowledged misses
    /// none.
    pub(super) fn next_acknowledgement(&self) -> Notified<'_> {
        self.acknowledged.notified()
    }

    /// The members that are due for a heartbeat.
    fn due(&self, term: u64, members: &[(RaftId, NodeId, u64)], now_ms: u64) -> Vec<(RaftId, NodeId)> {
        let mut state = self.state();
        if state.term != term {
            *state = State { term, ..State::default() };
        }
        state.members.retain(|id, _| members.iter().any(|(member, ..)| member == id));
        let mut due = Vec::new();
        for (id, node, apart_ms) in members {
            let member = state.members.entry(*id).or_default();
            let waits = member.sent_ms.is_some_and(|sent| now_ms < sent + apart_ms);
            if !waits && member.under_way < UNDER_WAY_MAX {
                (member.sent_ms, member.under_way) = (Some(now_ms), member.under_way + 1);
                due.push((*id, *node));
            }
        }
        due
    }

    /// Notes the end of a heartbeat: whether its member follows, if it answered.
    fn ended(&self, term: u64, id: RaftId, sent_ms: u64, follows: Option<bool>) {
        let mut state = self.state();
        if state.term != term {
            return;
        }
        let Some(member) = state.members.get_mut(&id) else { return };
        member.under_way = member.under_way.saturating_sub(1);
        match follows {
            Some(true) => {
                (member.acked_ms, member.strays) = (member.acked_ms.max(Some(sent_ms)), false);
                drop(state);
                self.acknowledged.notify_waiters();
            }
            Some(false) => member.strays = true,
            None => {}
        }
    }

    /// Notes how full a member says its disk is.
    fn note_pressure(&self, term: u64, id: RaftId, pressure: DiskPressure) {
        let mut state = self.state();
        if state.term == term
            && let Some(member) = state.members.get_mut(&id)
        {
            member.pressure = Some(pressure);
        }
    }

    /// How full a member's disk is, as it said last; none if it has not said so in this term.
    pub(super) fn pressure(&self, id: &RaftId) -> Option<DiskPressure> {
        self.state().members.get(id)?.pressure
    }

    /// Notes that this node hands over the lead of a term, and sends no more heartbeats in it. From then on openraft
    /// proposes nothing in that term, whether another node takes the lead or not: followers that heard this node would
    /// elect no other.
    pub(super) fn hand_over(&self, term: u64) {
        self.state().handed_over = Some(term);
    }

    /// Whether this node is handing over the lead of this term.
    pub(super) fn is_handed_over(&self, term: u64) -> bool {
        self.state().handed_over == Some(term)
    }

    /// When the last heartbeat was sent that a member acknowledged, in milliseconds of the boot clock.
    pub(super) fn acked_ms(&self, id: &RaftId) -> Option<u64> {
        self.state().members.get(id)?.acked_ms
    }

    /// Whether openraft is to send a heartbeat of its own: from time to time, and to a member that does not follow yet.
    fn is_openrafts_turn(&self, now_ms: u64) -> bool {
        let mut state = self.state();
        let strays = state.members.values().any(|member| member.strays);
        if !strays && now_ms < state.openraft_ms.saturating_add(OPENRAFT_EVERY_MS) {
            return false;
        }
        state.openraft_ms = now_ms;
        true
    }

    /// The instant up to which a quorum of each of these groups has acknowledged heartbeats. The leader is in every
    /// quorum.
    fn quorum_acked_ms(&self, term: u64, local: RaftId, groups: &[Vec<RaftId>]) -> Option<u64> {
        let state = self.state();
        if state.term != term {
            return None;
        }
        let acked = |group: &Vec<RaftId>| {
            let of = |id: &RaftId| match *id == local {
                true => Some(u64::MAX),
                false => state.members.get(id).and_then(|member| member.acked_ms),
            };
            let mut acked: Vec<Option<u64>> = group.iter().map(of).collect();
            acked.sort_unstable_by(|a, b| b.cmp(a));
            acked.get(group.len() / 2).copied().flatten()
        };
        let all: Option<Vec<u64>> = groups.iter().map(acked).collect();
        all?.into_iter().min().filter(|at| *at != u64::MAX)
    }
}

impl Shard {
    /// Sends heartbeats to all members that are due.
    pub(super) async fn beat(&self, metrics: &RaftMetrics<TypeConfig>, now_ms: u64) -> Option<()> {
        let (parts, term) = (&self.inner.parts, metrics.current_term);
        if self.inner.beats.is_handed_over(term) {
            return Some(());
        }
        let membership = metrics.membership_config.membership();
        let apart = |node: NodeId| {
            let trip = parts.peers.round_trip(&[node], 1) / PER_ROUND_TRIP;
            parts.config.heartbeat_ms.saturating_sub(1).max(u64::try_from(trip.as_millis()).unwrap_or(u64::MAX))
        };
        let others = membership.nodes().filter(|(id, _)| **id != metrics.id);
        let others: Vec<_> = others.map(|(id, member)| (*id, member.node, apart(member.node))).collect();
        for (id, node) in self.inner.beats.due(term, &others, now_ms) {
            let (shard, vote) = (self.clone(), metrics.vote);
            tokio::spawn(async move {
                let answer = shard.inner.parts.tell_beat((node, id), shard.id(), &vote).await;
                let answer = answer.and_then(|answer| Answer::from_bytes(&answer));
                if let Some(Answer { pressure, .. }) = answer {
                    shard.inner.beats.note_pressure(term, id, pressure);
                }
                let follows = answer.map(|answer| answer.follows);
                shard.inner.beats.ended(term, id, now_ms, follows);
                // A leader that was just elected is ready as soon as a quorum follows.
                if follows == Some(true) && !shard.inner.view.borrow().ready {
                    shard.inner.acknowledged.notify_one();
                }
            });
        }
        if self.inner.beats.is_openrafts_turn(now_ms) {
            self.raft().trigger().heartbeat().await.ok()?;
        }
        Some(())
    }

    /// When the last heartbeats were sent that a quorum acknowledged in this term; none if no quorum did.
    pub(super) fn beats_acked_ms(&self, metrics: &RaftMetrics<TypeConfig>) -> Option<u64> {
        let groups = metrics.membership_config.membership().get_joint_config();
        let groups: Vec<Vec<RaftId>> = groups.iter().map(|group| group.iter().copied().collect()).collect();
        self.inner.beats.quorum_acked_ms(metrics.current_term, metrics.id, &groups)
    }

    /// The latest vote of this node that another node may know. openraft tells of a vote only after writing it; it gave
    /// the vote to the store before.
    pub(super) fn promised(&self) -> Option<Vote> {
        let vote = self.inner.parts.store.vote(self.id())?;
        decode("vote", &vote).ok()
    }

    /// Answers whether this node follows the leader that sent the heartbeat, and how full its disk is.
    pub(crate) fn answer_beat(&self, who: Who, header: Header, body: &[u8]) -> Result<Vec<u8>, String> {
        if self.has_forgotten() {
            return Err(FORGOT.to_owned());
        }
        self.check_fit()?;
        let (address, vote) = RaftAddress::split(body).map_err(|e| e.to_string())?;
        if address.from != who.raft_id || address.to != self.inner.parts.raft_id() {
            return Err("the heartbeat is not from its sender to this incarnation".to_owned());
        }
        let vote: Vote = decode("heartbeat", vote).map_err(|e| e.to_string())?;
        self.check_vote(who, &vote)?;
        let follows = vote.committed && self.metrics().vote == vote && self.promised() == Some(vote);
        if follows {
            self.hear(who, header);
        }
        Ok(vec![Answer { follows, pressure: self.inner.parts.store.pressure() }.to_byte()])
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{id, node};
    use super::*;

    fn ids(of: &[u8]) -> Vec<RaftId> {
        of.iter().map(|n| id(*n)).collect()
    }

    #[test]
    fn heartbeats_are_as_far_apart_as_a_member_needs_and_no_more_than_a_few_are_under_way() {
        let (beats, members) = (Beats::default(), [(id(2), node(2), 49), (id(3), node(3), 300)]);
        let mut sent = BTreeMap::new();
        for now in (0..10_000).step_by(50) {
            for (to, _) in beats.due(1, &members, now) {
                *sent.entry(to).or_insert(0) += 1;
                if to == id(3) {
                    beats.ended(1, to, now, Some(true));
                }
            }
        }
        assert_eq!(sent[&id(2)], UNDER_WAY_MAX, "it answers nothing");
        assert_eq!(sent[&id(3)], 34);
    }

    #[test]
    fn an_answer_says_whether_its_sender_follows_and_how_full_its_disk_is() {
        for follows in [false, true] {
            for pressure in [DiskPressure::None, DiskPressure::Low, DiskPressure::Exhausted] {
                let answer = Answer { follows, pressure };
                assert_eq!(Answer::from_bytes(&[answer.to_byte()]), Some(answer));
            }
        }
        assert_eq!(Answer { follows: true, pressure: DiskPressure::None }.to_byte(), 1);
        assert_eq!(Answer::from_bytes(&[]), None);
    }

    #[test]
    fn a_quorum_is_of_every_group_and_of_this_term() {
        let (beats, members) = (Beats::default(), [(id(2), node(2), 0), (id(3), node(3), 0), (id(4), node(4), 0)]);
        beats.due(1, &members, 100);
        beats.ended(1, id(2), 100, Some(true));
        assert_eq!(beats.quorum_acked_ms(1, id(1), &[ids(&[1, 2, 3])]), Some(100));
        let joint = [ids(&[1, 2, 3]), ids(&[1, 3, 4])];
        assert_eq!(beats.quorum_acked_ms(1, id(1), &joint), None);
        beats.ended(1, id(4), 150, Some(true));
        assert_eq!(beats.quorum_acked_ms(1, id(1), &joint), Some(100));
        assert_eq!(beats.quorum_acked_ms(1, id(1), &[ids(&[1, 2, 3, 4, 5])]), Some(100));
        beats.ended(1, id(3), 200, Some(false));
        assert!(beats.is_openrafts_turn(0), "one that does not follow hears of the term");
        beats.due(2, &members, 300);
        assert_eq!(beats.quorum_acked_ms(2, id(1), &joint), None);
        beats.ended(1, id(3), 250, Some(true));
        assert_eq!(beats.quorum_acked_ms(2, id(1), &joint), None, "an answer of an earlier term says nothing");
    }
}
