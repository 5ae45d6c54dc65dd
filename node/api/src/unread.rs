//! Pages that wait to be read.
//!
//! The API makes a page as a whole, and the page waits here until its reader has taken it. A reader may take nothing
//! and still keep its connection alive. So each connection has a few places for pages. The API takes a place before it
//! makes a page, and frees it when all of the page is handed over: a query for one more page waits for a place, on that
//! connection alone. The API closes a connection that takes no part of a page for long.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use skep_protocol::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Bytes, http};
use tower::{Layer, Service};

/// How many bytes the API hands over at a time: with a whole page at once, the transport would hold what is not read.
const PART_BYTES: usize = 16 * 1024;

/// The places of one connection for pages.
#[derive(Clone, Debug)]
pub(crate) struct PagePlaces(Arc<Semaphore>);

impl Default for PagePlaces {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(limits::API_PAGES_UNREAD_MAX)))
    }
}

/// The place of the answer to one call, if that is a page. Clones are of the same answer.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    places: PagePlaces,
    /// Set to make the connection go.
    goes: Arc<AtomicBool>,
    place: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Page {
    pub(crate) fn of(places: &PagePlaces, goes: &Arc<AtomicBool>) -> Self {
        Self { places: places.clone(), goes: Arc::clone(goes), place: Arc::default() }
    }

    /// Waits for a place. Gives whether there was one in time.
    pub(crate) async fn take_place(&self, within: Duration) -> bool {
        let place = Arc::clone(&self.places.0).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(within, place).await else { return false };
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
        true
    }

    /// The answer, with its place if it has one.
    fn keep(&self, body: Body) -> Body {
        let place = self.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        match place {
            Some(place) => Body::new(Unread::new(body, place, Arc::clone(&self.goes))),
            None => body,
        }
    }
}

/// A page that the API hands over part by part.
struct Unread {
    body: Body,
    /// What the service made of the page and the API has not handed over.
    rest: Bytes,
    _place: OwnedSemaphorePermit,
    /// Told of each part that is handed over, so that the timer begins anew; dropped with the page, so that it ends.
    progress: watch::Sender<()>,
}

impl Unread {
    fn new(body: Body, place: OwnedSemaphorePermit, goes: Arc<AtomicBool>) -> Self {
        let (progress, mut parts) = watch::channel(());
        tokio::spawn(async move {
            let within = Duration::from_millis(limits::API_UNREAD_MS);
            while let Ok(part) = tokio::time::timeout(within, parts.changed()).await {
                if part.is_err() {
                    return;
                }
            }
            tracing::warn!(?within, "a client does not read a page: the API closes its connection");
            goes.store(true, Ordering::Relaxed);
        });
        Self { body, rest: Bytes::new(), _place: place, progress }
    }
}

impl http_body::Body for Unread {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let bytes = self.rest.len().min(PART_BYTES);
        let part = self.rest.split_to(bytes);
        self.progress.send_replace(());
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// A layer that lets answers keep their places until they are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepsPages;

impl<S> Layer<S> for KeepsPages {
    type Service = Keeping<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Keeping(inner)
    }
}

/// A service whose answers keep their places until they are read.
#[derive(Clone, Debug)]
pub(crate) struct Keeping<S>(S);

impl<S> Service<http::Request<Body>> for Keeping<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let page = request.extensions().get::<Page>().cloned();
        let answered = self.0.call(request);
        async move {
            let answer = answered.await?;
            Ok(match page {
                Some(page) => answer.map(|body| page.keep(body)),
                None => answer,
            })
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body::Body as _;

    use super::*;

    fn page(places: &PagePlaces) -> (Page, Arc<AtomicBool>) {
        let goes: Arc<AtomicBool> = Arc::default();
        (Page::of(places, &goes), goes)
    }

    async fn next(body: &mut Body) -> Option<Bytes> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(frame.unwrap().into_data().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_has_its_place_until_all_of_it_is_handed_over_in_parts() {
        let places = PagePlaces::default();
        let text = "0123456789".repeat(PART_BYTES / 4);
        let mut unread = Vec::new();
        for _ in 0..limits::API_PAGES_UNREAD_MAX {
            let (page, _) = page(&places);
            assert!(page.take_place(Duration::from_secs(1)).await);
            unread.push(page.keep(Body::new(text.clone())));
        }
        let (one_more, _) = page(&places);
        assert!(!one_more.take_place(Duration::from_secs(1)).await, "all places are taken");
        let mut read = unread.pop().unwrap();
        let mut taken = Vec::new();
        while let Some(part) = next(&mut read).await {
            assert!(part.len() <= PART_BYTES);
            taken.extend_from_slice(&part);
            assert!(!one_more.take_place(Duration::from_secs(1)).await, "it is not all read");
        }
        assert_eq!(taken, text.as_bytes());
        drop(read);
        assert!(one_more.take_place(Duration::from_secs(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_leaves_a_page_unread_goes_and_one_that_reads_it_stays() {
        let places = PagePlaces::default();
        let ((left, left_goes), (read, read_goes)) = (page(&places), page(&places));
        assert!(left.take_place(Duration::ZERO).await && read.take_place(Duration::ZERO).await);
        let _left = left.keep(Body::new("rows".to_owned()));
        drop(read.keep(Body::new("rows".to_owned())));
        tokio::time::sleep(Duration::from_millis(limits::API_UNREAD_MS + 1)).await;
        assert!(left_goes.load(Ordering::Relaxed));
        assert!(!read_goes.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_reads_slowly_and_goes_on_reading_stays_until_it_stops() {
        let (page, goes) = page(&PagePlaces::default());
        assert!(page.take_place(Duration::ZERO).await);
        let mut slow = page.keep(Body::new("0123456789".repeat(PART_BYTES)));
        for _ in 0..5 {
            assert!(next(&mut slow).await.is_some());
            tokio::time::sleep(Duration::from_millis(limits::API_UNREAD_MS - 1)).await;
            assert!(!goes.load(Ordering::Relaxed), "it takes a part each time");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(goes.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_page_has_no_place() {
        let places = PagePlaces::default();
        let (answer, _) = page(&places);
        let _answers: Vec<Body> =
            (0..=limits::API_PAGES_UNREAD_MAX).map(|_| answer.keep(Body::new("done".to_owned()))).collect();
        assert!(answer.take_place(Duration::ZERO).await);
    }
}
