//! What a node knows of its site at one moment, and how it learns more.

use bytes::Bytes;
use skep_protocol::limits;
use skep_trust::{
    Admission, Admitted, Chain, ChainError, Member, PublicKey, Refusal, RevocationError, RootError, SiteClock,
    SiteNews, SiteTime, SiteView, Standing, judge,
};

use crate::keeper::KeepError;
use crate::shown::Shown;

/// Why a node did not learn some of what a member told. It learned everything else of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LearnError {
    /// A root document does not hold, or does not follow the ones that are known.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A revocation does not hold, or there is no room for it.
    #[error(transparent)]
    Revocation(#[from] RevocationError),
    /// It holds, and the node judges links by it, but could not write it down.
    #[error("this node could not write down what it learned of its site: {0}")]
    NotKept(#[from] KeepError),
}

/// What a node learned of some news.
pub(crate) struct Learned {
    /// What the node knows with it; none if nothing was news.
    pub(crate) view: Option<SiteView>,
    /// The first error of what did not hold.
    pub(crate) fault: Option<LearnError>,
}

/// What a node knows with some news. It passes over what does not hold, up to a limit: the two ends may follow
/// different versions of the root document.
pub(crate) fn learn(known: &SiteView, news: &SiteNews) -> Learned {
    let mut view = known.clone();
    let (mut is_news, mut fault) = (false, None);
    for document in &news.documents {
        match view.learn_root(document.clone()) {
            Ok(new) => is_news |= new,
            // Those after it cannot follow.
            Err(error) => {
                fault = Some(LearnError::Root(error));
                break;
            }
        }
    }
    let mut faults = 0;
    for signed in &news.revocations {
        match view.learn_revocation(signed.clone()) {
            Ok(new) => is_news |= new,
            Err(error) => {
                faults += 1;
                fault.get_or_insert(LearnError::Revocation(error));
                if faults == limits::SITE_NEWS_FAULTS_MAX {
                    break;
                }
            }
        }
    }
    Learned { view: is_news.then_some(view), fault }
}

/// What a node knows, and what it shows.
pub(crate) struct Known {
    pub(crate) view: SiteView,
    pub(crate) own: Chain,
    clock: SiteClock,
    admission: Admission,
    shown: Shown,
    /// When the first certificate ends of those by which the node let members in.
    first_end: Option<SiteTime>,
}

impl Known {
    pub(crate) fn new(view: SiteView, own: Chain, clock: SiteClock) -> Self {
        Self { view, own, clock, admission: Admission::default(), shown: Shown::default(), first_end: None }
    }

    pub(crate) fn clock(&self) -> SiteClock {
        self.clock
    }

    pub(crate) fn admit(&mut self, shown: &Bytes, peer: PublicKey) -> Result<Admitted, Refusal> {
        let admitted = self.admission.admit(&self.view, shown, peer, self.clock)?;
        self.shown.note(&admitted.member, shown);
        self.note_end(&admitted.member);
        Ok(admitted)
    }

    pub(crate) fn judge(&mut self, member: &Member) -> Result<Standing, Refusal> {
        if !member.holds_under(self.view.root()) {
            let shown = self.shown.of(member).ok_or(ChainError::Empty)?;
            return self.admit(&shown, member.key).map(|admitted| admitted.standing);
        }
        let standing = judge(&self.view, member, self.clock)?;
        self.note_end(member);
        Ok(standing)
    }

    fn note_end(&mut self, member: &Member) {
        let end = member.validity.until;
        self.first_end = Some(self.first_end.map_or(end, |first| first.min(end)));
    }

    /// Takes the site's time. Returns whether the node is to judge links anew.
    pub(crate) fn hear_clock(&mut self, time: SiteTime) -> bool {
        let (SiteClock::Known(before) | SiteClock::AtLeast(before)) = self.clock;
        let was_known = matches!(self.clock, SiteClock::Known(_));
        let now = time.max(before);
        self.clock = SiteClock::Known(now);
        self.has_ended(now) || !was_known
    }

    /// From here on the clock is in doubt. Returns whether the node is to judge links anew.
    pub(crate) fn doubt_clock(&mut self) -> bool {
        match self.clock {
            SiteClock::Known(time) => {
                self.clock = SiteClock::AtLeast(time);
                true
            }
            SiteClock::AtLeast(_) => false,
        }
    }

    /// Whether a certificate has ended by which the node let a member in. The node notes a member again that it lets in
    /// again.
    fn has_ended(&mut self, now: SiteTime) -> bool {
        let ended = self.first_end.take_if(|end| now > *end);
        ended.is_some()
    }
}
