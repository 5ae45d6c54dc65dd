//! Leads a shard.

use std::time::Duration;

use futures::future::BoxFuture;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::async_runtime::instant::Instant as _;
use skep_protocol::entry::EntryBody;

use super::{Shard, ShardView, orchestrate, settle, versions};
use crate::raft::types::TypeConfig;

/// Keeps the shard's view up to date, and leads while this node is the leader.
///
/// A leader is ready when two things are so. It has applied its own first entry, so that it knows everything that its
/// predecessors acknowledged. And it has a log clock: a leader that knows none asks the voters, and says in the log
/// that the clock is lost if no voter knows it. The first leader of a shard says in the log by which rules entries are
/// applied.
///
/// A leader without a quorum does not count as a leader: the view does not name it, and nodes propose nothing to it.
/// The same holds for a leader that is not heard, or that says itself that it has no quorum.
pub(super) async fn follow_leadership(shard: Shard) {
    let mut metrics = shard.raft().metrics();
    let (mut led_term, mut counted_term, mut driven_term) = (None, None, None);
    let mut taking: Option<Taking> = None;
    loop {
        let now = metrics.borrow_watched().clone();
        let term = now.vote.leader_id().term;
        let elected = now.state == ServerState::Leader && now.vote.is_committed() && now.current_term == term;
        let leads = elected && shard.unfit().is_none();
        let applied_own = now.last_applied.is_some_and(|id| *id.leader_id == term);
        if leads && counted_term != Some(term) {
            counted_term = Some(term);
            begin(&shard, term);
        }
        if !leads && led_term.take().is_some() {
            tracing::info!(shard = %shard.id(), term = now.current_term, "this node has stopped leading the shard");
            shard.inner.clock.set_leads(false);
            shard.inner.condition.follows(shard.inner.clock.boot_ms());
        }
        taking = taking.filter(|taking| leads && taking.term == term);
        if leads && applied_own && led_term != Some(term) && taking.is_none() {
            taking = Some(Taking { term, end: Box::pin(take_the_lead(shard.clone(), term)) });
        }
        let with_quorum = leads && has_quorum(&shard, &now);
        let ready = leads && led_term == Some(term) && with_quorum;
        shard.inner.clock.set_without_quorum(leads && !with_quorum);
        let leader = shard.leader().filter(|_| if leads { with_quorum } else { shard.is_led() });
        let member = now.membership_config.membership().get_node(&now.id).is_some() && !shard.stands_aside();
        show(&shard, ShardView { leader, term: now.current_term, ready, member });
        if leads && led_term == Some(term) && driven_term != Some(term) {
            driven_term = Some(term);
            // This comes after the view names the leader: the tasks look at the view.
            drive(&shard, term);
        }
        // A lost quorum changes nothing in the metrics, and neither does a silent leader: this loop looks for both.
        let config = &shard.inner.parts.config;
        let wait_ms = if leads { config.silence_ms_min / 2 } else { config.silence_ms_min };
        let taken = tokio::select! {
            biased;
            taken = end_of(&mut taking) => Some(taken),
            changed = metrics.changed() => match changed {
                Ok(()) => None,
                Err(_) => return out_of_service(&shard),
            },
            () = shard.inner.condition.leader_found() => None,
            () = shard.inner.acknowledged.notified(), if leads && !with_quorum => None,
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => None,
        };
        match taken {
            Some(true) => led_term = taking.take().map(|taking| taking.term),
            Some(false) => {
                taking = None;
                // The leader has no quorum. A refusal changes the metrics too: without this wait the loop would keep
                // the thread busy.
                tokio::time::sleep(Duration::from_millis(config.heartbeat_ms)).await;
            }
            None => {}
        }
    }
}

/// Notes that this node was elected.
fn begin(shard: &Shard, term: u64) {
    let now_ms = shard.inner.clock.boot_ms();
    shard.pulse().begin(now_ms, shard.inner.flush_time.ms());
    shard.inner.condition.begins_to_lead(term, now_ms);
}

/// Shows the rest of the node which node leads.
fn show(shard: &Shard, view: ShardView) {
    shard.inner.view.send_if_modified(|known| {
        let changed = *known != view;
        *known = view;
        changed
    });
}

/// Starts the tasks of a leader for as long as its term lasts.
fn drive(shard: &Shard, term: u64) {
    let work = shard.inner.parts.threads.work();
    work.spawn(orchestrate::run(shard.clone(), term));
    work.spawn(settle::run(shard.clone(), term));
    work.spawn(versions::run(shard.clone(), term));
}

/// What an elected leader does to become ready, while that is under way. Its entries take as long as disks take to
/// write them.
struct Taking {
    term: u64,
    /// Completes with whether the leader became ready.
    end: BoxFuture<'static, bool>,
}

/// Waits until the work that makes this node ready has ended; for ever if there is none.
async fn end_of(taking: &mut Option<Taking>) -> bool {
    match taking {
        Some(taking) => taking.end.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Whether a quorum acknowledged a leader lately. A leader that hands over the lead counts as one without a quorum:
/// members still acknowledge entries to it, but no node proposes anything to it.
pub(super) fn has_quorum(shard: &Shard, metrics: &openraft::RaftMetrics<TypeConfig>) -> bool {
    if shard.inner.beats.is_handed_over(metrics.current_term) {
        return false;
    }
    if metrics.membership_config.membership().voter_ids().count() == 1 {
        return true;
    }
    let clock = &shard.inner.clock;
    let (now, awake_ms) = (clock.boot_ms(), clock.awake_ms());
    // What openraft knows is as good, since members acknowledge entries too: but what this node heard before the
    // machine slept is older than openraft's clock says.
    let age = metrics.last_quorum_acked.map(|acked| acked.into_inner().elapsed().as_millis());
    let age = age.and_then(|age| u64::try_from(age).ok()).filter(|age| *age < awake_ms);
    let acked = age.map(|age| now.saturating_sub(age)).max(shard.beats_acked_ms(metrics));
    let mut pulse = shard.pulse();
    if let Some(sent) = acked {
        pulse.acknowledged(sent, now, awake_ms);
    }
    pulse.has_quorum(now)
}

/// Takes a failed group out of service: it never serves again in this process.
fn out_of_service(shard: &Shard) {
    shard.inner.clock.set_leads(false);
    shard.inner.view.send_replace(ShardView::default());
}

/// Makes this node a leader that is ready. False if that failed this time: the next look tries again.
async fn take_the_lead(shard: Shard, term: u64) -> bool {
    let clock = &shard.inner.clock;
    if clock.now().is_none() && !shard.learn_from_voters().await {
        return false;
    }
    if !clock.lead() {
        let Some(reply) = shard.write_as(term, EntryBody::ClockLost).await else { return false };
        // Said once: the leader tries again as long as there is no room for the entry, or no quorum.
        tracing::warn!(
            shard = %shard.id(), term,
            "no voter of a quorum knows the log clock: everything with a deadline expires"
        );
        clock.begin(reply.stamp);
    }
    // Without the first entry, which says the rules, the shard would hear no request.
    if !shard.agree_first(term).await {
        return false;
    }
    clock.set_leads(true);
    tracing::info!(shard = %shard.id(), term, "this node leads the shard");
    true
}
