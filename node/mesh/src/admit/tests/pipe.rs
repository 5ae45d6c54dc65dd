//! Two ends of a stream in memory, over which bytes are long under way.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite, FutureExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

/// What is sent at once, and when it is there.
type Sent = (Instant, Vec<u8>);

/// So much is under way at a time at most: more is an error.
const PARCELS: usize = 1_024;

pub(crate) struct Pipe {
    delay: Duration,
    to_other: mpsc::Sender<Sent>,
    from_other: mpsc::Receiver<Sent>,
    /// What is under way, and when the first of it is there.
    coming: Option<(Pin<Box<Sleep>>, Vec<u8>)>,
    there: VecDeque<u8>,
    written: Arc<AtomicUsize>,
}

/// Two ends. What one sends takes so long to the other.
pub(crate) fn pipe(delay: Duration) -> (Pipe, Pipe) {
    let ((to_a, from_b), (to_b, from_a)) = (mpsc::channel(PARCELS), mpsc::channel(PARCELS));
    let end = |to_other, from_other| {
        let (coming, there, written) = (None, VecDeque::new(), Arc::default());
        Pipe { delay, to_other, from_other, coming, there, written }
    };
    (end(to_b, from_b), end(to_a, from_a))
}

impl Pipe {
    /// How many bytes were sent at this end, now and later.
    pub(crate) fn written(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.written)
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        while self.there.is_empty() {
            if let Some((at, _)) = &mut self.coming {
                if at.poll_unpin(cx).is_pending() {
                    return Poll::Pending;
                }
                let came = self.coming.take().map(|(_, bytes)| bytes).unwrap_or_default();
                self.there.extend(came);
            } else {
                match self.from_other.poll_recv(cx) {
                    Poll::Ready(Some((at, bytes))) => {
                        self.coming = Some((Box::pin(tokio::time::sleep_until(at)), bytes));
                    }
                    Poll::Ready(None) => return Poll::Ready(Ok(0)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        }
        let count = buf.len().min(self.there.len());
        buf.iter_mut().zip(self.there.drain(..count)).for_each(|(to, byte)| *to = byte);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = self.to_other.try_send((Instant::now() + self.delay, bytes.to_vec()));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.written.fetch_add(bytes.len(), Ordering::Relaxed);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
