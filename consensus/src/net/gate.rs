//! By what a node at a site lets peers in, and what a link keeps of that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use skep_admission::{LearnError, SiteHandle};
use skep_protocol::ids::NodeId;
use skep_protocol::text::AgentId;
use skep_trust::{Admitted, Member, PublicKey, Refusal, SiteNews, Standing, TrustHello, TrustNews};

use super::may::{Action, may};
use super::noise::Noise;
use super::refusals::Refusals;
use crate::threads::{Errand, Threads};

/// The code with which a connection is closed whose other side is not let in, or is out again. A stranger is told
/// nothing more.
pub(super) const TURNED_AWAY: u32 = 3;
/// The same of a machine that wants to join and may come again: nothing was said of its invitation.
pub(super) const COME_AGAIN: u32 = 4;

/// Why a peer is turned away.
#[derive(Debug, thiserror::Error)]
pub(super) enum Turned {
    /// Its certificate does not hold.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What it said is not what a member says.
    #[error("{0}")]
    Malformed(String),
    /// It was not heard in time.
    #[error("it did not say who it is within {0:?}")]
    Late(Duration),
    /// It wants to join, and the directory does not know the key of its invitation, or the invitation has ended.
    #[error("it wants to join, and the directory knows no such invitation, or that one has ended")]
    Uninvited,
    /// It wants to join, and too many did within a minute.
    #[error("it wants to join, and too many did within a minute, here or from its address")]
    TooOften,
    /// It wants to join, and this node cannot ask the directory.
    #[error("{0}")]
    Unable(String),
    /// The connection ended, or this node is stopping.
    #[error("{0}")]
    Lost(String),
}

impl Turned {
    /// What kind it is, for counters and audits; none if nobody was turned away.
    pub(super) fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => Some(refusal.kind()),
            Self::Malformed(_) => Some("malformed"),
            Self::Late(_) => Some("late"),
            Self::Uninvited => Some("not-invited"),
            Self::TooOften => Some("joins-too-often"),
            Self::Unable(_) | Self::Lost(_) => None,
        }
    }

    /// The code with which the connection is closed.
    pub(super) fn close_code(&self) -> u32 {
        match self {
            Self::TooOften | Self::Unable(_) => COME_AGAIN,
            Self::Refused(_) | Self::Malformed(_) | Self::Late(_) | Self::Uninvited | Self::Lost(_) => TURNED_AWAY,
        }
    }
}

/// By what a peer was let in.
#[derive(Debug)]
pub(crate) struct Pass {
    member: Arc<Member>,
    /// What this node knew of its site, all of which it told, when it let the peer in.
    told: TrustNews,
    /// Whether nobody here knows whether its certificate is over.
    is_stale: AtomicBool,
    is_out: AtomicBool,
}

impl Pass {
    pub(super) fn new(admitted: Admitted, told: TrustNews) -> Self {
        let is_stale = AtomicBool::new(admitted.standing == Standing::Stale);
        Self { member: admitted.member, told, is_stale, is_out: AtomicBool::new(false) }
    }

    pub(super) fn told(&self) -> &TrustNews {
        &self.told
    }

    pub(super) fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Takes note of how sure it is that it holds.
    pub(super) fn stands(&self, standing: Standing) {
        self.is_stale.store(standing == Standing::Stale, Ordering::Relaxed);
    }

    /// It holds no more.
    pub(super) fn ends(&self) {
        self.is_out.store(true, Ordering::Relaxed);
    }

    /// Whether whoever has it may do something, for an agent if it is about one. Asked on any thread: nothing is
    /// verified.
    pub(super) fn may(&self, action: Action, agent: Option<&AgentId>) -> bool {
        let standing = if self.is_stale.load(Ordering::Relaxed) { Standing::Stale } else { Standing::Fresh };
        !self.is_out.load(Ordering::Relaxed) && may(&self.member, standing, action, agent)
    }
}

/// By what a node at a site lets peers in. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(super) site: SiteHandle,
    threads: Threads,
    refusals: Arc<Refusals>,
    /// What could not be written down, as it is told in the log.
    not_kept: Arc<Noise>,
}

impl Gate {
    pub(crate) fn new(site: SiteHandle, threads: Threads) -> Self {
        Self { site, threads, refusals: Arc::default(), not_kept: Arc::default() }
    }

    /// Whether a peer is let in that has shown this. Signatures are verified by a helper.
    pub(super) async fn admit(&self, shown: &TrustHello, peer: NodeId) -> Result<Admitted, Turned> {
        let (site, chain) = (self.site.clone(), Bytes::from(shown.chain.to_bytes()));
        let admit = move || site.admit(&chain, PublicKey::from(peer));
        let admitted = self.threads.offload(Errand::Signatures, admit).await;
        Ok(admitted.map_err(|error| Turned::Lost(error.to_string()))??)
    }

    /// Takes note of what a peer tells. What does not hold in it is passed over: a peer is judged by its chain.
    pub(super) async fn learn(&self, news: SiteNews) {
        if news.is_empty() {
            return;
        }
        let site = self.site.clone();
        match self.threads.offload(Errand::Files, move || site.learn(&news)).await {
            Ok(Ok(_)) => {}
            Ok(Err(LearnError::NotKept(error))) => {
                if let Some(more) = self.not_kept.happened() {
                    let what =
                        "who is out of the site could not be written down; it is tried again with what comes next";
                    tracing::error!(%error, more, "{what}");
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "a peer tells what does not hold"),
            Err(error) => tracing::debug!(%error, "what a peer tells is not heard, since the node stops"),
        }
    }

    /// Judges those who were let in once more; who is out, and why. Under another root document signatures are
    /// verified, by a helper.
    pub(super) async fn judge(&self, passes: Vec<(NodeId, Arc<Pass>)>) -> Vec<(NodeId, Arc<Pass>, Refusal)> {
        let site = self.site.clone();
        let judge = move || {
            let judged = passes.into_iter().filter_map(|(node, pass)| match site.judge(pass.member()) {
                Ok(standing) => {
                    pass.stands(standing);
                    None
                }
                Err(refusal) => Some((node, pass, refusal)),
            });
            judged.collect()
        };
        self.threads.offload(Errand::Signatures, judge).await.unwrap_or_default()
    }

    /// A peer was turned away.
    pub(super) fn turned(&self, peer: NodeId, why: &Turned) {
        if let Some(kind) = why.kind() {
            self.refusals.tell(kind, peer, why);
        }
    }

    /// How many were refused, by kind.
    pub(super) fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.refusals.counts()
    }
}
