//! The time of the site: this node asks the leader of the directory for it, and doubts what it heard after a minute.

use std::time::Duration;

use skep_admission::SiteHandle;
use skep_api::Calls;
use skep_protocol::ids::ShardId;
use skep_protocol::query::{Answer, Query};
use skep_protocol::site::{SiteAnswer, SiteQuery};
use skep_trust::SiteTime;

use super::held::Keeper;
use crate::driver::now_ms;

/// How often a node asks for the site's time.
const ASK_EVERY: Duration = Duration::from_secs(20);
/// How soon it asks again if nobody told it.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long it waits for an answer, in milliseconds.
const PATIENCE_MS: u64 = 5_000;
/// After how many milliseconds what was heard is in doubt.
const DOUBTED_AFTER_MS: u64 = 60_000;
/// How often what was heard is written down, in milliseconds.
const KEPT_EVERY_MS: u64 = 60_000;

/// Asks for the site's time for as long as the node runs.
pub(super) async fn follow(site: SiteHandle, keeper: Keeper, calls: Calls) {
    let (mut heard_at_ms, mut kept_at_ms): (Option<u64>, Option<u64>) = (None, None);
    loop {
        // The answer took some time: what was true when the node asked is not later than what is true.
        let asked_at_ms = now_ms();
        let told = ask(&site, &calls).await;
        if let Some(time) = told {
            site.heard_clock(time);
            heard_at_ms = Some(asked_at_ms);
            let is_due = kept_at_ms.is_none_or(|at| asked_at_ms.saturating_sub(at) >= KEPT_EVERY_MS);
            if is_due && keep(time, &keeper).await {
                kept_at_ms = Some(asked_at_ms);
            }
        } else if heard_at_ms.is_none_or(|at| now_ms().saturating_sub(at) >= DOUBTED_AFTER_MS) {
            site.doubt_clock();
        }
        tokio::time::sleep(if told.is_some() { ASK_EVERY } else { ASK_AGAIN }).await;
    }
}

/// The site's time, as the leader of the directory has it; none if it does not answer.
async fn ask(site: &SiteHandle, calls: &Calls) -> Option<SiteTime> {
    let query = Query::Site(SiteQuery::Summary);
    let reply = calls.read(ShardId::DIRECTORY, query, PATIENCE_MS).await.ok()?;
    match reply.answer {
        Answer::Site(SiteAnswer::Summary(summary)) if summary.site == *site.site().as_bytes() => {
            Some(SiteTime(summary.now_ms))
        }
        _ => None,
    }
}

/// Writes down what is known of the time.
async fn keep(time: SiteTime, keeper: &Keeper) -> bool {
    let keeper = keeper.clone();
    match tokio::task::spawn_blocking(move || keeper.keep_time(time)).await {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => tracing::warn!(%error, "the time of the site could not be written down"),
        Err(error) => tracing::debug!(%error, "the node stops"),
    }
    false
}
