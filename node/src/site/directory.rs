//! This node's replica of the directory, if it has one: what the replica has applied, both planes judge by at once.
//!
//! A node without a replica hears the same from members, on its links.

use std::time::Duration;

use skep_admission::{LearnError, SiteHandle};
use skep_consensus::ConsensusHandle;
use skep_protocol::ids::ShardId;
use skep_protocol::limits;
use skep_protocol::query::{Answer, Query};
use skep_protocol::site::{SiteAnswer, SiteQuery};
use skep_trust::{Sealed, SignedRevocation, SiteNews};

/// How often the node looks at its replica though nothing tells it to: a disk that is slow delays the history, by which
/// the node is told, and not what is applied.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Tells the view of the site what this node's replica of the directory applies, for as long as the node runs.
pub(super) async fn follow(site: SiteHandle, consensus: ConsensusHandle) {
    let mut opened = consensus.shards_opened();
    while consensus.view(ShardId::DIRECTORY).is_none() {
        if opened.changed().await.is_err() {
            return;
        }
    }
    let mut progress = consensus.history_progress(ShardId::DIRECTORY);
    // How many revocations of the directory are known here.
    let mut told = 0;
    loop {
        progress.borrow_and_update();
        if let Some(up_to) = catch_up(&site, &consensus, told).await {
            told = up_to;
        }
        if let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, progress.changed()).await {
            return;
        }
    }
}

/// What this node's replica of the directory says; none if it does not answer.
pub(super) async fn read(consensus: &ConsensusHandle, query: SiteQuery) -> Option<SiteAnswer> {
    match consensus.read(ShardId::DIRECTORY, Query::Site(query)).await.ok()?.answer {
        Answer::Site(answer) => Some(answer),
        _ => None,
    }
}

/// Learns the root documents and the revocations that are not known yet. Up to which revocation that is; none if it is
/// to be tried again.
async fn catch_up(site: &SiteHandle, consensus: &ConsensusHandle, told: u64) -> Option<u64> {
    let SiteAnswer::Summary(summary) = read(consensus, SiteQuery::Summary).await? else { return None };
    let known = site.view().root().document().version;
    if summary.root_version > known {
        learn_roots(site, consensus, known).await?;
    }
    if summary.revocations > told {
        learn_revocations(site, consensus, told).await?;
    }
    Some(summary.revocations.max(told))
}

async fn learn_roots(site: &SiteHandle, consensus: &ConsensusHandle, known: u64) -> Option<()> {
    let mut after = Some(known);
    while let Some(version) = after {
        let answer = read(consensus, SiteQuery::Roots { after: version }).await?;
        let SiteAnswer::Roots { documents, next } = answer else { return None };
        let documents = documents.into_iter().filter_map(|document| Sealed::from_bytes(&document.into()).ok());
        learn(site, SiteNews { documents: documents.collect(), ..SiteNews::default() }).await;
        after = next;
    }
    Some(())
}

async fn learn_revocations(site: &SiteHandle, consensus: &ConsensusHandle, told: u64) -> Option<()> {
    let limit = u32::try_from(limits::PAGE_ITEMS_MAX).unwrap_or(u32::MAX);
    let mut after = Some(told);
    while let Some(number) = after {
        let answer = read(consensus, SiteQuery::Revocations { after: number, limit }).await?;
        let SiteAnswer::Revocations { revocations, next } = answer else { return None };
        let signed =
            revocations.into_iter().filter_map(|(_, signed)| SignedRevocation::from_bytes(&signed.into()).ok());
        learn(site, SiteNews { revocations: signed.collect(), ..SiteNews::default() }).await;
        after = next;
    }
    Some(())
}

/// Takes note of it, and writes it down.
async fn learn(site: &SiteHandle, news: SiteNews) {
    if news.is_empty() {
        return;
    }
    let site = site.clone();
    match tokio::task::spawn_blocking(move || site.learn(&news)).await {
        Ok(Ok(_)) => {}
        Ok(Err(LearnError::NotKept(error))) => {
            tracing::error!(%error, "what the directory says could not be written down; it is tried again with what comes next");
        }
        // The node may have heard of a later root document, by which the operator of then is none.
        Ok(Err(error)) => tracing::warn!(%error, "the directory holds what the node does not believe"),
        Err(error) => tracing::debug!(%error, "the node stops"),
    }
}
