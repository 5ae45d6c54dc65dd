//! The one view of a site that both planes of a node share.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use skep_trust::{
    Admitted, Chain, Member, PublicKey, Refusal, SiteClock, SiteId, SiteNews, SiteTime, SiteView, Standing, TrustHello,
    TrustNews,
};
use tokio::sync::watch;

use crate::keeper::{Keep, KeepError, KeepOwn};
use crate::known::{Known, LearnError, Learned, learn};

/// How what a node knows is written down.
struct Kept {
    keep: Option<Keep>,
    keep_own: Option<KeepOwn>,
    /// Whether the node knows something that it could not write.
    is_behind: bool,
}

struct Shared {
    site: SiteId,
    key: PublicKey,
    known: Mutex<Known>,
    /// A caller that learns holds it, so that one learns after another; it takes this lock before `known`, if both.
    kept: Mutex<Kept>,
    changed: watch::Sender<u64>,
}

/// What a node knows of its site. All parts of the node that hold connections share it.
#[derive(Clone)]
pub struct SiteHandle {
    shared: Arc<Shared>,
}

impl SiteHandle {
    /// The handle of a node with this key, which knows this view of its site, and shows this chain.
    pub fn new(view: SiteView, own: Chain, key: PublicKey, clock: SiteClock) -> Self {
        let site = view.root().site();
        let kept = Mutex::new(Kept { keep: None, keep_own: None, is_behind: false });
        let known = Mutex::new(Known::new(view, own, clock));
        Self { shared: Arc::new(Shared { site, key, known, kept, changed: watch::Sender::new(0) }) }
    }

    /// From here on this function writes down what the node learns before any link is judged by it. The function writes
    /// all of it, whole and durably, or leaves what was written before as it was.
    pub fn keep_with(&self, keep: impl Fn(&SiteView) -> Result<(), KeepError> + Send + Sync + 'static) {
        self.kept().keep = Some(Box::new(keep));
    }

    /// From here on this function writes down the chain that this node shows after it [renews](Self::renew) its own,
    /// before the node shows it.
    pub fn keep_own_with(&self, keep: impl Fn(&Chain) -> Result<(), KeepError> + Send + Sync + 'static) {
        self.kept().keep_own = Some(Box::new(keep));
    }

    /// Id of the site.
    pub fn site(&self) -> SiteId {
        self.shared.site
    }

    /// The node's own key.
    pub fn key(&self) -> PublicKey {
        self.shared.key
    }

    /// What the node knows at this moment. The copy shares its content.
    pub fn view(&self) -> SiteView {
        self.known().view.clone()
    }

    /// What the node knows of site time.
    pub fn clock(&self) -> SiteClock {
        self.known().clock()
    }

    /// What this node says first on a connection.
    pub fn hello(&self) -> TrustHello {
        let known = self.known();
        TrustHello { chain: known.own.clone(), news: known.view.news() }
    }

    /// Checks whether this node itself belongs to its site, as far as it knows.
    ///
    /// # Errors
    /// [`Refusal`] says why not: peers refuse it for the same reason.
    pub fn own(&self) -> Result<Admitted, Refusal> {
        let mut known = self.known();
        let shown = Bytes::from(known.own.to_bytes());
        known.admit(&shown, self.shared.key)
    }

    /// Checks whether to let in a peer that authenticated with this key, and shows this chain.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub fn admit(&self, shown: &Bytes, peer: PublicKey) -> Result<Admitted, Refusal> {
        self.known().admit(shown, peer)
    }

    /// Checks whether a member that was let in may stay. Under another root document it verifies the chain again, as
    /// the member showed it: its issuer may not be one any more.
    ///
    /// # Errors
    /// [`Refusal`] says why not: the node is to cut its links. If the chain was forgotten, the member is cut off under
    /// another root document too, and shows it again.
    pub fn judge(&self, member: &Member) -> Result<Standing, Refusal> {
        self.known().judge(member)
    }

    /// The first page of what a peer with these news may lack; none if it lacks nothing.
    pub fn missing_of(&self, theirs: &TrustNews) -> Option<SiteNews> {
        self.known().view.missing_of(theirs)
    }

    /// The page after another one; none if that was the last one.
    pub fn missing_after(&self, theirs: &TrustNews, told: &SiteNews) -> Option<SiteNews> {
        self.known().view.missing_after(theirs, told)
    }

    /// Learns what a peer tells, whichever peer it is: what is in it is sealed. Returns whether it was news, and wakes
    /// watchers then. It writes first: call this where a thread may wait for the disk.
    ///
    /// # Errors
    /// [`LearnError`] tells the first that was not learned, or not written. What else was in the news holds: a node
    /// judges a peer by its chain, and not by an error in what it tells.
    pub fn learn(&self, news: &SiteNews) -> Result<bool, LearnError> {
        let mut kept = self.kept();
        let known = self.known().view.clone();
        // The node verifies signatures, and writes to disk, while other callers judge by what it knew before.
        let Learned { view, fault } = learn(&known, news);
        let is_news = view.is_some();
        let behind = if is_news || kept.is_behind { kept.write(view.as_ref().unwrap_or(&known)) } else { Ok(()) };
        if let Some(view) = view {
            self.known().view = view;
            self.wake();
        }
        drop(kept);
        behind?;
        fault.map_or(Ok(is_news), Err)
    }

    /// A number that rises whenever the node is to judge links anew: another root document, a revocation, another
    /// epoch, a certificate that ended, a clock that is known or in doubt.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Shows another chain from here on. It writes first: call this where a thread may wait for the disk.
    ///
    /// # Errors
    /// [`KeepError`] if it could not write the chain. This node shows it all the same, and the one before it after a
    /// restart.
    pub fn renew(&self, own: Chain) -> Result<(), KeepError> {
        let kept = self.kept();
        let written = kept.keep_own.as_ref().map_or(Ok(()), |keep| keep(&own));
        self.known().own = own;
        drop(kept);
        written
    }

    /// Takes the site's time, as its directory told it. A time that is earlier than the known one says nothing.
    pub fn heard_clock(&self, time: SiteTime) {
        if self.known().hear_clock(time) {
            self.wake();
        }
    }

    /// From here on the clock is in doubt: the directory has not told the site's time for a minute.
    pub fn doubt_clock(&self) {
        if self.known().doubt_clock() {
            self.wake();
        }
    }

    fn wake(&self) {
        self.shared.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SiteHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteHandle").field("site", &self.shared.site).field("key", &self.shared.key).finish()
    }
}

impl Kept {
    fn write(&mut self, view: &SiteView) -> Result<(), LearnError> {
        let Some(keep) = &self.keep else { return Ok(()) };
        let kept = keep(view);
        self.is_behind = kept.is_err();
        kept.map_err(LearnError::from)
    }
}
