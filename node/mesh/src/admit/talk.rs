//! What both ends say to each other before either is admitted.
//!
//! | dialler | acceptor |
//! | --- | --- |
//! | its hello; its root documents | |
//! | | verifies the dialler's chain; its hello; what the dialler lacks, if their news differ |
//! | judges the acceptor; what the acceptor lacks, if their news differ; that it listens | |
//! | | judges the dialler; that it listens |
//!
//! An empty frame says that a side listens. A side sends it once it understands what the other side may say next.

use std::sync::Arc;

use bytes::Bytes;
use futures::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use skep_admission::{LearnError, SiteHandle};
use skep_protocol::codec::CodecError;
use skep_protocol::limits;
use skep_trust::{ChainError, Member, PublicKey, SiteNews, TrustHello, TrustNews};

use super::frames;
use super::refusals::NotAdmitted;

/// The most bytes of a hello.
const HELLO_BYTES_MAX: usize = limits::CHAIN_BYTES_MAX + 128;
/// The most pages of news that one side tells. The rest is told another time.
const PAGES_MAX: usize = limits::REVOCATIONS_MAX / limits::REVOCATIONS_PER_REPLY_MAX + 2;

/// One end of the talk.
pub(crate) struct Talk<S> {
    stream: S,
    site: SiteHandle,
    /// The key with which the peer authenticated.
    peer: PublicKey,
}

/// The acceptor's end, once the dialler's chain has been verified.
pub(crate) struct Heard<S> {
    talk: Talk<S>,
    shown: Bytes,
    news: TrustNews,
}

/// A peer that was judged, and is admitted.
pub(crate) struct Judged<S> {
    talk: Talk<S>,
    member: Arc<Member>,
    rest: Rest,
}

/// What this side still has to say.
enum Rest {
    /// A dialler says that it listens; before that, it tells what the acceptor lacks, if the acceptor asked.
    OfDialler(Option<TrustNews>),
    /// An acceptor says that it listens.
    OfAcceptor,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    pub(crate) fn new(stream: S, site: SiteHandle, peer: PublicKey) -> Self {
        Self { stream, site, peer }
    }

    /// The dialler's part until it has judged the acceptor.
    pub(crate) async fn show(mut self) -> Result<Judged<S>, NotAdmitted> {
        let ours = self.site.hello();
        let documents = documents(&self.site, &ours.news);
        self.say(&ours).await?;
        frames::write(&mut self.stream, &documents.to_bytes()).await?;
        self.stream.flush().await?;
        let (shown, theirs) = self.hear_hello().await?;
        let differs = theirs != ours.news;
        if differs {
            self.hear_news().await?;
        }
        let member = self.judge(&shown)?;
        Ok(Judged { talk: self, member, rest: Rest::OfDialler(differs.then_some(theirs)) })
    }

    /// The acceptor's part until the dialler's chain has been verified. The acceptor sends nothing before.
    pub(crate) async fn hear(mut self) -> Result<Heard<S>, NotAdmitted> {
        let (shown, news) = self.hear_hello().await?;
        // The dialler's chain may hold only under a later root document.
        let documents = frames::read(&mut self.stream, limits::MESH_ROOTS_SHOWN_BYTES_MAX).await?;
        let documents = page(&documents)?;
        if !documents.is_empty() {
            learn(&self.site, SiteNews { revocations: Vec::new(), more: false, ..documents }).await?;
        }
        self.judge(&shown)?;
        Ok(Heard { talk: self, shown, news })
    }

    async fn say(&mut self, hello: &TrustHello) -> Result<(), NotAdmitted> {
        Ok(frames::write(&mut self.stream, &hello.to_bytes()).await?)
    }

    /// Reads the chain that the peer shows, and how much the peer knows.
    async fn hear_hello(&mut self) -> Result<(Bytes, TrustNews), NotAdmitted> {
        let came = frames::read(&mut self.stream, HELLO_BYTES_MAX).await?;
        let hello = TrustHello::from_bytes(&came)?;
        Ok((hello.chain.to_bytes().into(), hello.news))
    }

    fn judge(&self, shown: &Bytes) -> Result<Arc<Member>, NotAdmitted> {
        Ok(self.site.admit(shown, self.peer)?.member)
    }

    /// Tells the peer what it lacks, in one page or more.
    async fn tell_news(&mut self, theirs: &TrustNews) -> Result<(), NotAdmitted> {
        let mut page = self.site.missing_of(theirs).unwrap_or_default();
        for left in (0..PAGES_MAX).rev() {
            page.more &= left > 0;
            frames::write(&mut self.stream, &page.to_bytes()).await?;
            if !page.more {
                break;
            }
            page = self.site.missing_after(theirs, &page).unwrap_or_default();
        }
        Ok(())
    }

    /// Learns what the peer tells.
    async fn hear_news(&mut self) -> Result<(), NotAdmitted> {
        for _ in 0..PAGES_MAX {
            let page = page(&frames::read(&mut self.stream, limits::SITE_NEWS_BYTES_MAX).await?)?;
            let more = page.more;
            if !page.is_empty() {
                learn(&self.site, page).await?;
            }
            if !more {
                return Ok(());
            }
        }
        Err(NotAdmitted::Malformed("it tells more pages of news than there can be"))
    }

    async fn say_that_it_listens(&mut self) -> Result<(), NotAdmitted> {
        frames::write(&mut self.stream, &[]).await?;
        Ok(self.stream.flush().await?)
    }

    async fn hear_that_it_listens(&mut self) -> Result<(), NotAdmitted> {
        frames::read(&mut self.stream, 0).await.map(drop).map_err(NotAdmitted::from)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Heard<S> {
    /// The acceptor's part until it has judged the dialler.
    pub(crate) async fn answer(self) -> Result<Judged<S>, NotAdmitted> {
        let Self { mut talk, shown, news } = self;
        let ours = talk.site.hello();
        talk.say(&ours).await?;
        let differs = ours.news != news;
        if differs {
            talk.tell_news(&news).await?;
        }
        talk.stream.flush().await?;
        if differs {
            talk.hear_news().await?;
        }
        talk.hear_that_it_listens().await?;
        // This comes after the dialler's news, which may say that the dialler itself is out.
        let member = talk.judge(&shown)?;
        Ok(Judged { talk, member, rest: Rest::OfAcceptor })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Judged<S> {
    /// The peer as a member.
    pub(crate) fn member(&self) -> Arc<Member> {
        Arc::clone(&self.member)
    }

    /// The rest of the talk, once this side listens. After it, the peer listens too.
    pub(crate) async fn conclude(self) -> Result<(), NotAdmitted> {
        let Self { mut talk, rest, .. } = self;
        match rest {
            Rest::OfAcceptor => talk.say_that_it_listens().await,
            Rest::OfDialler(lacks) => {
                if let Some(theirs) = lacks {
                    talk.tell_news(&theirs).await?;
                }
                talk.say_that_it_listens().await?;
                talk.hear_that_it_listens().await
            }
        }
    }
}

/// The latest root documents, as many as an acceptor takes from a stranger. None if there is only the first one.
fn documents(site: &SiteHandle, ours: &TrustNews) -> SiteNews {
    if ours.root_version <= 1 {
        return SiteNews::default();
    }
    let documents = site.view().documents_after(1).cloned().collect();
    let mut shown = SiteNews { documents, ..SiteNews::default() };
    while shown.to_bytes().len() > limits::MESH_ROOTS_SHOWN_BYTES_MAX {
        shown.documents.drain(..shown.documents.len().div_ceil(2));
    }
    shown
}

fn page(came: &Bytes) -> Result<SiteNews, NotAdmitted> {
    SiteNews::from_bytes(came).map_err(|error: CodecError| ChainError::from(error).into())
}

/// Learns a page on a thread beside: learning verifies signatures, and writes to a disk that may not answer.
async fn learn(site: &SiteHandle, page: SiteNews) -> Result<(), NotAdmitted> {
    let (site, revocations) = (site.clone(), page.revocations.len());
    let learned = tokio::task::spawn_blocking(move || site.learn(&page)).await;
    match learned {
        Ok(Ok(_)) => Ok(()),
        // The rest of the page holds. A peer is judged by its chain.
        Ok(Err(error @ (LearnError::Root(_) | LearnError::Revocation(_)))) => {
            tracing::debug!(%error, revocations, "some of what a peer tells of the site does not hold");
            Ok(())
        }
        Ok(Err(error @ LearnError::NotKept(_))) => {
            tracing::error!(%error, "links are judged by it all the same");
            Ok(())
        }
        Err(error) => Err(NotAdmitted::Ended(error.to_string())),
    }
}
