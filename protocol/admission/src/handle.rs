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

/// What is written down of what is known.
struct Kept {
    keep: Option<Keep>,
    keep_own: Option<KeepOwn>,
    /// Whether something is known that could not be written.
    is_behind: bool,
}

struct Shared {
    site: SiteId,
    key: PublicKey,
    known: Mutex<Known>,
    /// Held by whoever learns, so that one after another does; before `known`, if both are.
    kept: Mutex<Kept>,
    changed: watch::Sender<u64>,
}

/// What a node knows of its site, shared by all who hold connections of it.
#[derive(Clone)]
pub struct SiteHandle {
    shared: Arc<Shared>,
}

impl SiteHandle {
    /// Of a node with this key, that knows this of its site, and shows this chain.
    pub fn new(view: SiteView, own: Chain, key: PublicKey, clock: SiteClock) -> Self {
        let site = view.root().site();
        let kept = Mutex::new(Kept { keep: None, keep_own: None, is_behind: false });
        let known = Mutex::new(Known::new(view, own, clock));
        Self { shared: Arc::new(Shared { site, key, known, kept, changed: watch::Sender::new(0) }) }
    }

    /// Has what is learned from here on written down by this function before anybody judges by it. The function writes
    /// all of it, whole and durably, or leaves what was written before as it was.
    pub fn keep_with(&self, keep: impl Fn(&SiteView) -> Result<(), KeepError> + Send + Sync + 'static) {
        self.kept().keep = Some(Box::new(keep));
    }

    /// Has the chain that this node shows after it [renews](Self::renew) its own written down by this function, before
    /// it shows it.
    pub fn keep_own_with(&self, keep: impl Fn(&Chain) -> Result<(), KeepError> + Send + Sync + 'static) {
        self.kept().keep_own = Some(Box::new(keep));
    }

    /// The site.
    pub fn site(&self) -> SiteId {
        self.shared.site
    }

    /// The node's own key.
    pub fn key(&self) -> PublicKey {
        self.shared.key
    }

    /// What is known at this moment. The copy shares what is in it.
    pub fn view(&self) -> SiteView {
        self.known().view.clone()
    }

    /// What is known of site time.
    pub fn clock(&self) -> SiteClock {
        self.known().clock()
    }

    /// What this node says first on a connection.
    pub fn hello(&self) -> TrustHello {
        let known = self.known();
        TrustHello { chain: known.own.clone(), news: known.view.news() }
    }

    /// Whether this node belongs to its site itself, as far as it knows.
    ///
    /// # Errors
    /// [`Refusal`] says why not: peers refuse it for the same reason.
    pub fn own(&self) -> Result<Admitted, Refusal> {
        let mut known = self.known();
        let shown = Bytes::from(known.own.to_bytes());
        known.admit(&shown, self.shared.key)
    }

    /// Whether a peer is let in that authenticated by this key, and shows this chain.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub fn admit(&self, shown: &Bytes, peer: PublicKey) -> Result<Admitted, Refusal> {
        self.known().admit(shown, peer)
    }

    /// Whether a member that was let in is in still. Under another root document its chain is verified again, as it
    /// was shown: its issuer may be none any more.
    ///
    /// # Errors
    /// [`Refusal`] says why not: its links are to be cut. A member whose chain was forgotten is cut under another root
    /// document too, and shows it again.
    pub fn judge(&self, member: &Member) -> Result<Standing, Refusal> {
        self.known().judge(member)
    }

    /// The first page of what a peer may lack that knows so much; none if it lacks nothing.
    pub fn missing_of(&self, theirs: &TrustNews) -> Option<SiteNews> {
        self.known().view.missing_of(theirs)
    }

    /// The page after another one; none if that was the last one.
    pub fn missing_after(&self, theirs: &TrustNews, told: &SiteNews) -> Option<SiteNews> {
        self.known().view.missing_after(theirs, told)
    }

    /// Takes note of what a peer tells, whoever that is: what is in it is sealed. Whether it was news; watchers are
    /// woken then. It is written down first: call this where the disk may be waited for.
    ///
    /// # Errors
    /// [`LearnError`] tells the first that was not learned, or not written. What else was in the news holds: a peer is
    /// judged by its chain, and not by an error in what it tells.
    pub fn learn(&self, news: &SiteNews) -> Result<bool, LearnError> {
        let mut kept = self.kept();
        let known = self.known().view.clone();
        // Signatures are verified, and the disk is written, while others judge by what was known before.
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

    /// A number that rises whenever links are to be judged anew: another root document, a revocation, another epoch, a
    /// certificate that ended, a clock that is known or in doubt.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Shows another chain from here on. It is written down first: call this where the disk may be waited for.
    ///
    /// # Errors
    /// [`KeepError`] if it could not be written. This node shows it all the same, and the one before it after a
    /// restart.
    pub fn renew(&self, own: Chain) -> Result<(), KeepError> {
        let kept = self.kept();
        let written = kept.keep_own.as_ref().map_or(Ok(()), |keep| keep(&own));
        self.known().own = own;
        drop(kept);
        written
    }

    /// Takes note of the site's time, as its directory told it. An earlier time than is known says nothing.
    pub fn heard_clock(&self, time: SiteTime) {
        if self.known().hear_clock(time) {
            self.wake();
        }
    }

    /// Takes note that the directory has not told the site's time for a minute.
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
