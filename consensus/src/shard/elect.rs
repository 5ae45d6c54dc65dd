//! Keeps a leader heard, notices a silent leader, and helps to elect the next one.

use std::time::Duration;

use openraft::ServerState;
use openraft::raft::{TransferLeaderRequest, VoteRequest, VoteResponse};
use skep_protocol::ballot::Ballot;
use skep_protocol::ids::NodeId;

use super::{Shard, lead};
use crate::raft::elections::Candidacy;
use crate::raft::types::TypeConfig;

/// Sends heartbeats while this node leads; stands for election when it hears no leader.
pub(super) async fn run(shard: Shard) {
    let mut without_clock = 0;
    let mut view = shard.view();
    loop {
        let metrics = shard.metrics();
        if metrics.running_state.is_err() {
            return;
        }
        let now = shard.inner.clock.boot_ms();
        // A leader that takes no further part is not heard, so that the voters elect another.
        let leads = metrics.state == ServerState::Leader && shard.unfit().is_none();
        let next = if leads { beat(&shard, &metrics).await } else { stand(&shard, &metrics, &mut without_clock).await };
        let Some(next) = next else { return };
        // The detector may be armed anew, for an earlier time: this bounds the wait.
        let look = shard.inner.parts.config.silence_ms_min / 4;
        let wait = Duration::from_millis(next.saturating_sub(now).clamp(1, look.max(1)));
        tokio::select! {
            biased;
            // A leader that was just elected is heard at once.
            changed = view.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// A leader's part. Returns when to look again, in milliseconds of the boot clock; none if the group has ended.
async fn beat(shard: &Shard, metrics: &openraft::RaftMetrics<TypeConfig>) -> Option<u64> {
    lead::has_quorum(shard, metrics);
    let now = shard.inner.clock.boot_ms();
    shard.detector().leads(now, shard.inner.parts.chance.next());
    let (due, next) = {
        let mut pulse = shard.pulse();
        (pulse.poll(now), pulse.poll_timeout())
    };
    if due {
        shard.beat(metrics, now).await?;
    }
    Some(next)
}

/// The part of a node that does not lead.
async fn stand(shard: &Shard, metrics: &openraft::RaftMetrics<TypeConfig>, without_clock: &mut u32) -> Option<u64> {
    let now = shard.inner.clock.boot_ms();
    let round_ms = round_ms(shard, metrics);
    let (due, next) = {
        let mut detector = shard.detector();
        detector.measured_round(round_ms);
        (detector.poll(now, shard.inner.parts.chance.next()), detector.poll_timeout())
    };
    let votes = metrics.membership_config.membership().voter_ids().any(|id| id == metrics.id);
    if due && votes && !shard.stands_aside() {
        // A voter that has a clock keeps its continuity: it goes first.
        *without_clock = if shard.inner.clock.now().is_some() { 0 } else { *without_clock + 1 };
        if *without_clock != 1 {
            tracing::info!(shard = %shard.id(), term = metrics.current_term, "the leader is silent: asking for votes");
            forget_lease(shard, metrics).await?;
            shard.raft().trigger().elect(true).await.ok()?;
        }
    }
    Some(next)
}

/// The time that an election needs for a round trip, in milliseconds. Candidate and voter both write the vote down
/// first, and followers hear the new leader after they have written that down, too: on a slow disk that takes as long
/// as the way.
fn round_ms(shard: &Shard, metrics: &openraft::RaftMetrics<TypeConfig>) -> u64 {
    let membership = metrics.membership_config.membership();
    let others = membership.voter_ids().filter(|id| *id != metrics.id);
    let others: Vec<NodeId> = others.filter_map(|id| membership.get_node(&id)).map(|member| member.node).collect();
    let round = shard.inner.parts.peers.round_trip(&others, others.len().div_ceil(2));
    u64::try_from(round.as_millis()).unwrap_or(u64::MAX).saturating_add(shard.inner.flush_time.ms() / 2)
}

/// Makes openraft forget the lease of the last leader, within which it refuses to stand. Our lease, which is over, is
/// the one that counts. So openraft gets the message of a leader that hands over the lead, and then believes in that
/// lease no longer.
async fn forget_lease(shard: &Shard, metrics: &openraft::RaftMetrics<TypeConfig>) -> Option<()> {
    let vote = shard.raft().with_raft_state(|state| *state.vote_ref()).await.ok()?;
    // A candidate has no lease, and this node need not forget its own. The last leader may be no voter by this time,
    // and this node the only one.
    let led_by = vote.leader_id.voted_for;
    if vote.committed && led_by != metrics.id {
        let let_go = TransferLeaderRequest::new(vote, led_by, None);
        shard.raft().handle_transfer_leader(let_go).await.ok()?.ok()?;
    }
    Some(())
}

impl Shard {
    /// Whether this node may help to elect another leader: it has not heard the known one for longer than a slow link
    /// explains, or leads without a quorum itself.
    fn bears_no_leader(&self) -> bool {
        let metrics = self.metrics();
        if metrics.state == ServerState::Leader {
            return !lead::has_quorum(self, &metrics);
        }
        self.detector().is_silent(self.inner.clock.boot_ms())
    }

    /// Answers whether this node would vote for a candidate. The answer changes nothing.
    pub(super) async fn would_vote(
        &self,
        request: VoteRequest<TypeConfig>,
    ) -> Result<VoteResponse<TypeConfig>, String> {
        let (bears, asks) = (self.bears_no_leader(), request.last_log_id);
        let judge = move |state: &openraft::RaftState<TypeConfig>| {
            let last = state.log_ids.last().copied();
            let granted = bears && request.last_log_id >= last && request.vote >= *state.vote_ref();
            VoteResponse::new(state.vote_ref(), last, granted)
        };
        let response = self.raft().with_raft_state(judge).await.map_err(|e| e.to_string())?;
        if bears && response.last_log_id > asks {
            self.pulse().asked_in_vain(self.inner.clock.boot_ms());
        }
        Ok(response)
    }

    /// Votes for a candidate and signs the vote, or refuses.
    pub(super) async fn vote(
        &self,
        mut request: VoteRequest<TypeConfig>,
        candidacy: Candidacy,
    ) -> Result<(VoteResponse<TypeConfig>, Option<Ballot>), String> {
        if !request.leadership_transfer && !self.bears_no_leader() {
            let refuse = |state: &openraft::RaftState<TypeConfig>| {
                VoteResponse::new(state.vote_ref(), state.log_ids.last().copied(), false)
            };
            let refused = self.raft().with_raft_state(refuse).await.map_err(|e| e.to_string())?;
            return Ok((refused, None));
        }
        // Our lease is over: openraft's own does not count.
        request.leadership_transfer = true;
        let asked = request.vote;
        let response = self.raft().vote(request).await.map_err(|e| e.to_string())?;
        if response.vote_granted {
            self.detector().voted(self.inner.clock.boot_ms(), self.inner.parts.chance.next());
        }
        // The vote is written down by now.
        let is_granted = response.vote_granted && response.vote == asked;
        let ballot = is_granted.then(|| self.inner.elections.grant(&asked, candidacy));
        Ok((response, ballot))
    }
}
