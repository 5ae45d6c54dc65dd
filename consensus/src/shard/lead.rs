//! Leading a shard, and noticing that nobody does.

use std::sync::PoisonError;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::async_runtime::instant::Instant as _;
use skep_protocol::entry::EntryBody;

use super::{Shard, ShardView, orchestrate};
use crate::raft::types::TypeConfig;

/// How often a node that does not lead looks again when nothing happens.
const QUIET: Duration = Duration::from_secs(3_600);

/// Keeps the shard's view up to date, and leads while this node is the leader.
///
/// A leader is ready when its own first entry is applied, so that it knows everything its predecessors acknowledged,
/// and when it has a log clock: one that knows none asks the voters, and says in the log that it is lost if none does.
///
/// A leader without a quorum is none for anybody: it is named to nobody, and nothing is proposed to it.
pub(super) async fn follow_leadership(shard: Shard) {
    let mut metrics = shard.raft().metrics();
    let mut led_term = None;
    loop {
        let now = metrics.borrow_watched().clone();
        let term = now.vote.leader_id().term;
        let leads = now.state == ServerState::Leader && now.vote.is_committed() && now.current_term == term;
        let applied_own = now.last_applied.is_some_and(|id| *id.leader_id == term);
        if !leads && led_term.take().is_some() {
            tracing::info!(shard = %shard.id(), term = now.current_term, "this node does not lead the shard any more");
            shard.inner.clock.set_leads(false);
        }
        let takes_over = leads && applied_own && led_term != Some(term);
        let refused = takes_over && !take_the_lead(&shard, term).await;
        if takes_over && !refused {
            led_term = Some(term);
        }
        let with_quorum = has_quorum(&shard, &now);
        let ready = leads && led_term == Some(term) && with_quorum;
        let leader = shard.leader().filter(|_| !leads || with_quorum);
        let member = now.membership_config.membership().get_node(&now.id).is_some();
        let view = ShardView { leader, term: now.current_term, ready, member };
        shard.inner.view.send_if_modified(|known| {
            let changed = *known != view;
            *known = view;
            changed
        });
        if refused {
            // It has no quorum. To be refused changes the metrics too: without a breath this would keep the thread busy.
            tokio::time::sleep(Duration::from_millis(shard.inner.site.config.heartbeat_ms)).await;
            continue;
        }
        // A lost quorum changes nothing in the metrics: a leader looks again by itself.
        let wait = if leads { Duration::from_millis(shard.inner.site.config.lease_ms_max) } else { QUIET };
        match tokio::time::timeout(wait, metrics.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => return out_of_service(&shard),
        }
    }
}

/// Whether a leader heard from a quorum lately: within the silence after which followers elect another one. What was heard
/// before the machine slept is older than the clock of Raft says.
pub(super) fn has_quorum(shard: &Shard, metrics: &openraft::RaftMetrics<TypeConfig>) -> bool {
    let alone = metrics.membership_config.membership().voter_ids().count() == 1;
    let patience = Duration::from_millis(shard.inner.site.config.silence_ms_min.min(shard.inner.clock.awake_ms()));
    alone || metrics.last_quorum_acked.is_some_and(|at| at.into_inner().elapsed() < patience)
}

/// A group that failed never serves again in this process.
fn out_of_service(shard: &Shard) {
    shard.inner.clock.set_leads(false);
    shard.inner.view.send_replace(ShardView::default());
}

/// False if it could not be taken now: the next look tries again.
async fn take_the_lead(shard: &Shard, term: u64) -> bool {
    let clock = &shard.inner.clock;
    if clock.now().is_none() && !shard.learn_from_voters().await {
        return false;
    }
    if !clock.lead() {
        tracing::warn!(
            shard = %shard.id(), term,
            "no voter of a quorum knows the log clock: everything with a deadline expires"
        );
        let Some(reply) = shard.write_as(term, EntryBody::ClockLost).await else { return false };
        clock.begin(reply.stamp);
    }
    clock.set_leads(true);
    tracing::info!(shard = %shard.id(), term, "this node leads the shard");
    tokio::spawn(orchestrate::run(shard.clone(), term));
    true
}

/// Calls elections when the leader is silent for too long.
pub(super) async fn watch_leader(shard: Shard) {
    let mut without_clock = 0;
    // The detector may be armed anew, nearer than it was: so often it is looked at anyhow.
    let look = shard.inner.site.config.silence_ms_min / 4;
    loop {
        let now = shard.inner.clock.boot_ms();
        let metrics = shard.metrics();
        if metrics.running_state.is_err() {
            return;
        }
        let (due, next) = {
            let mut detector = shard.inner.detector.lock().unwrap_or_else(PoisonError::into_inner);
            if metrics.state == ServerState::Leader {
                detector.leads(now, shard.inner.site.chance.next());
            }
            (detector.poll(now, shard.inner.site.chance.next()), detector.poll_timeout())
        };
        let votes = metrics.membership_config.membership().voter_ids().any(|id| id == metrics.id);
        if due && votes && metrics.state != ServerState::Leader {
            // A voter that has a clock keeps its continuity: it goes first.
            without_clock += 1;
            if shard.inner.clock.now().is_some() || without_clock > 1 {
                tracing::info!(shard = %shard.id(), term = metrics.current_term, "the leader is silent: asking for votes");
                if shard.raft().trigger().elect(true).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(next.saturating_sub(now).clamp(1, look.max(1)))).await;
    }
}
