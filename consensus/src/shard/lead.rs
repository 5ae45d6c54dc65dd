//! Leading a shard.

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
/// A leader is ready when its own first entry is applied, so that it knows everything its predecessors acknowledged,
/// and when it has a log clock: one that knows none asks the voters, and says in the log that it is lost if none does. The
/// first leader of a shard says in the log by which rules entries are applied.
///
/// A leader without a quorum is none for anybody: it is named to nobody, and nothing is proposed to it. Nor is one that
/// is not heard any more, or that says of itself that it has no quorum.
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
            tracing::info!(shard = %shard.id(), term = now.current_term, "this node does not lead the shard any more");
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
            // After the view says who leads: they look at it.
            drive(&shard, term);
        }
        // A lost quorum changes nothing in the metrics, nor does a leader that is not heard: they are looked for.
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
                // It has no quorum. To be refused changes the metrics too: without a breath this would keep the thread busy.
                tokio::time::sleep(Duration::from_millis(config.heartbeat_ms)).await;
            }
            None => {}
        }
    }
}

/// This node was elected.
fn begin(shard: &Shard, term: u64) {
    let now_ms = shard.inner.clock.boot_ms();
    shard.pulse().begin(now_ms, shard.inner.flush_time.ms());
    shard.inner.condition.begins_to_lead(term, now_ms);
}

/// The rest of the node sees who leads.
fn show(shard: &Shard, view: ShardView) {
    shard.inner.view.send_if_modified(|known| {
        let changed = *known != view;
        *known = view;
        changed
    });
}

/// Starts what a leader does for as long as its term lasts.
fn drive(shard: &Shard, term: u64) {
    let work = shard.inner.parts.threads.work();
    work.spawn(orchestrate::run(shard.clone(), term));
    work.spawn(settle::run(shard.clone(), term));
    work.spawn(versions::run(shard.clone(), term));
}

/// What a leader that was elected does to be ready, while it is at it. Its entries take as long as disks take to write them.
struct Taking {
    term: u64,
    /// Whether it could be done.
    end: BoxFuture<'static, bool>,
}

/// Waits until what makes this node ready has ended; for ever if nothing does.
async fn end_of(taking: &mut Option<Taking>) -> bool {
    match taking {
        Some(taking) => taking.end.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Whether a quorum acknowledged a leader lately. One that hands the lead over counts as one that has none: entries are
/// still acknowledged to it, and nothing is proposed to it any more.
pub(super) fn has_quorum(shard: &Shard, metrics: &openraft::RaftMetrics<TypeConfig>) -> bool {
    if shard.inner.beats.is_handed_over(metrics.current_term) {
        return false;
    }
    if metrics.membership_config.membership().voter_ids().count() == 1 {
        return true;
    }
    let clock = &shard.inner.clock;
    let (now, awake_ms) = (clock.boot_ms(), clock.awake_ms());
    // What openraft knows is as good, since entries are acknowledged too: but what was heard before the machine slept is
    // older than openraft's clock says.
    let age = metrics.last_quorum_acked.map(|acked| acked.into_inner().elapsed().as_millis());
    let age = age.and_then(|age| u64::try_from(age).ok()).filter(|age| *age < awake_ms);
    let acked = age.map(|age| now.saturating_sub(age)).max(shard.beats_acked_ms(metrics));
    let mut pulse = shard.pulse();
    if let Some(sent) = acked {
        pulse.acknowledged(sent, now, awake_ms);
    }
    pulse.has_quorum(now)
}

/// A group that failed never serves again in this process.
fn out_of_service(shard: &Shard) {
    shard.inner.clock.set_leads(false);
    shard.inner.view.send_replace(ShardView::default());
}

/// False if it could not be taken now: the next look tries again.
async fn take_the_lead(shard: Shard, term: u64) -> bool {
    let clock = &shard.inner.clock;
    if clock.now().is_none() && !shard.learn_from_voters().await {
        return false;
    }
    if !clock.lead() {
        let Some(reply) = shard.write_as(term, EntryBody::ClockLost).await else { return false };
        // Said once: it is tried again as long as there is no room for the entry, or no quorum.
        tracing::warn!(
            shard = %shard.id(), term,
            "no voter of a quorum knows the log clock: everything with a deadline expires"
        );
        clock.begin(reply.stamp);
    }
    // Before the first entry that says by which rules it is, no request would be heard.
    if !shard.agree_first(term).await {
        return false;
    }
    clock.set_leads(true);
    tracing::info!(shard = %shard.id(), term, "this node leads the shard");
    true
}
