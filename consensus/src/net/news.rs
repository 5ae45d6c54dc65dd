//! What a node at a site does once it learns who is out: it judges all links anew, and tells its peers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use skep_protocol::frame::FrameKind;
use skep_protocol::ids::ShardId;
use skep_trust::{Digest, SiteNews, SiteView};

use super::calls::Class;
use super::peers::{Peer, Peers};
use crate::threads::Threads;

/// How long a peer has to say that it was told.
const TELL_PATIENCE: Duration = Duration::from_secs(5);
/// Peers that are told at a time.
const TOLD_AT_ONCE: usize = 32;
/// Statements in one page of what was just learned: the largest of them are within the bounds of a page.
const PAGE: usize = 32;

/// What all peers that are connected have been told, now or when they connected.
struct Told {
    version: u64,
    revocations: BTreeSet<Digest>,
}

impl Told {
    fn of(view: &SiteView) -> Self {
        let revocations = view.revocations().after(None).map(|(name, _)| *name).collect();
        Self { version: view.root().document().version, revocations }
    }

    /// What is known beyond that, page by page. It counts as told from here on.
    fn catch_up(&mut self, view: &SiteView) -> Vec<SiteNews> {
        let documents: Vec<_> = view.documents_after(self.version).cloned().collect();
        let is_new = |name: &Digest| !self.revocations.contains(name);
        let new = view.revocations().after(None).filter(|(name, _)| is_new(name));
        let revocations: Vec<_> = new.map(|(_, signed)| signed.as_ref().clone()).collect();
        let of_documents = documents.chunks(PAGE).map(|documents| documents.to_vec());
        let of_documents = of_documents.map(|documents| SiteNews { documents, ..SiteNews::default() });
        let of_revocations = revocations.chunks(PAGE).map(|revocations| revocations.to_vec());
        let of_revocations = of_revocations.map(|revocations| SiteNews { revocations, ..SiteNews::default() });
        let pages = of_documents.chain(of_revocations).collect();
        *self = Self::of(view);
        pages
    }
}

/// Tells all peers that are connected. One that is told nothing is told when it connects again.
async fn tell_all(peers: Peers, pages: Vec<SiteNews>) {
    let pages: Arc<Vec<Vec<u8>>> = Arc::new(pages.iter().map(SiteNews::to_bytes).collect());
    let tell = |(node, _)| {
        let (peers, pages) = (peers.clone(), Arc::clone(&pages));
        async move {
            for page in pages.iter() {
                let call = peers.call(node, Class::Query, FrameKind::SiteNews, ShardId(0), page, TELL_PATIENCE);
                if call.await.is_err() {
                    return;
                }
            }
        }
    };
    stream::iter(peers.present()).for_each_concurrent(TOLD_AT_ONCE, tell).await;
}

impl Peers {
    /// Tells a peer that was just connected what this node has learned since it told it all.
    pub(super) async fn tell_since_hello(&self, peer: &Peer) {
        let (Some(gate), Some(pass)) = (&self.gate, &peer.pass) else { return };
        let told = pass.told();
        let mut page = if gate.site.hello().news == *told { None } else { gate.site.missing_of(told) };
        while let Some(news) = page {
            let body = news.to_bytes();
            let call = self.call(peer.node, Class::Query, FrameKind::SiteNews, ShardId(0), &body, TELL_PATIENCE);
            if call.await.is_err() {
                return;
            }
            page = gate.site.missing_after(told, &news);
        }
    }
}

/// Judges all links whenever that is due, and tells peers what this node has learned, for as long as it runs.
pub(crate) async fn keep_judging(peers: Peers, threads: Threads) {
    let Some(site) = peers.gate.as_ref().map(|gate| gate.site.clone()) else { return };
    let mut changed = site.changed();
    let mut told = Told::of(&site.view());
    loop {
        changed.borrow_and_update();
        peers.judge_all().await;
        let pages = told.catch_up(&site.view());
        if !pages.is_empty() {
            threads.work().spawn(tell_all(peers.clone(), pages));
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}
