//! Which thread does what.
//!
//! Raft has a thread of its own, for the core of each group, its entries, votes and heartbeats, and for the connections
//! that carry them. A node sends everything else to its peers from threads beside it, so that no storm of agents,
//! queries or handshakes delays an election. Helpers do work that takes long or waits for a disk, with some helpers for
//! each kind of errand: four shards that make their snapshots at a time hold up no page, and no page holds up a
//! signature.

use std::io;
use std::sync::Arc;

use skep_protocol::limits;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Work that takes long. No kind waits for a helper of another kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Verifying signatures.
    Signatures,
    /// Verifying that a leader was elected.
    Proofs,
    /// Pages of the state, and reading the history.
    Pages,
    /// Making, checking and loading snapshots.
    Snapshots,
    /// Reading entries that are not in memory.
    Entries,
    /// Writing the files beside the log: clock marks, chunks of snapshots, and history that other nodes sent.
    Files,
}

/// The helpers for one kind of errand.
#[derive(Debug)]
struct Share {
    helpers: Arc<Semaphore>,
    /// Places for errands under way and for those that wait; none if the number of callers is bounded.
    places: Option<Arc<Semaphore>>,
}

/// A helper, and the place among the errands that want one.
type Taken = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

impl Share {
    fn of(helpers: usize) -> Self {
        Self { helpers: Arc::new(Semaphore::new(helpers)), places: None }
    }

    fn with_places(helpers: usize, places: usize) -> Self {
        Self { places: Some(Arc::new(Semaphore::new(places))), ..Self::of(helpers) }
    }

    async fn take(&self) -> io::Result<Taken> {
        let place = self.places.as_ref().map(|places| Arc::clone(places).try_acquire_owned()).transpose();
        let place =
            place.map_err(|_| io::Error::new(io::ErrorKind::WouldBlock, "too much of it is under way already"))?;
        let helper = Arc::clone(&self.helpers).acquire_owned().await.map_err(io::Error::other)?;
        Ok((helper, place))
    }
}

#[derive(Debug)]
struct Shares {
    signatures: Share,
    proofs: Share,
    pages: Share,
    snapshots: Share,
    entries: Share,
    files: Share,
}

impl Shares {
    fn new() -> Self {
        Self {
            signatures: Share::of(limits::SIGNATURE_THREADS),
            proofs: Share::of(limits::PROOF_THREADS),
            pages: Share::with_places(limits::PAGE_THREADS, limits::PAGES_QUEUED_MAX),
            snapshots: Share::of(limits::SNAPSHOT_THREADS),
            entries: Share::of(limits::ENTRY_THREADS),
            files: Share::of(limits::FILE_THREADS),
        }
    }

    fn of(&self, errand: Errand) -> &Share {
        match errand {
            Errand::Signatures => &self.signatures,
            Errand::Proofs => &self.proofs,
            Errand::Pages => &self.pages,
            Errand::Snapshots => &self.snapshots,
            Errand::Entries => &self.entries,
            Errand::Files => &self.files,
        }
    }
}

/// The number of all helpers: as many as there can be errands under way.
const HELPERS: usize = limits::SIGNATURE_THREADS
    + limits::PROOF_THREADS
    + limits::PAGE_THREADS
    + limits::SNAPSHOT_THREADS
    + limits::ENTRY_THREADS
    + limits::FILE_THREADS;

/// The runtime of the control thread, which has no helpers: errands on them would not be counted.
pub(crate) fn control_runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().max_blocking_threads(1).build()
}

/// The runtime beside the control thread, with all helpers.
pub(crate) fn work_runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(limits::WORK_THREADS)
        .max_blocking_threads(HELPERS)
        .thread_name("skep-work")
        .enable_all()
        .build()
}

/// The threads of a node's control plane. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Threads {
    control: Handle,
    work: Handle,
    shares: Arc<Shares>,
}

impl Threads {
    pub(crate) fn new(control: Handle, work: Handle) -> Self {
        Self { control, work, shares: Arc::new(Shares::new()) }
    }

    /// Runs everything on the runtime of a test.
    #[cfg(test)]
    pub(crate) fn here() -> Self {
        Self::new(Handle::current(), Handle::current())
    }

    /// The thread of Raft.
    pub(crate) fn control(&self) -> &Handle {
        &self.control
    }

    /// The threads for everything else.
    pub(crate) fn work(&self) -> &Handle {
        &self.work
    }

    /// Runs work on the control thread: at once if the caller is on it already.
    ///
    /// # Errors
    /// If the work panicked, or the control thread is ending.
    pub(crate) async fn on_control<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<T> {
        if Handle::try_current().is_ok_and(|here| here.id() == self.control.id()) {
            return Ok(task.await);
        }
        self.control.spawn(task).await.map_err(io::Error::other)
    }

    /// Has a helper do some work, and waits for it. Work that began is finished, even if the caller stops waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if too many errands of the kind are under way already; another kind of error if
    /// the work panicked, or the node is stopping.
    pub(crate) async fn offload<T: Send + 'static>(
        &self,
        errand: Errand,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        #[cfg(test)]
        if crate::simulation::is_under_way() {
            // In a simulation there is one thread, and one order of things.
            return Ok(task());
        }
        let taken = self.shares.of(errand).take().await?;
        let task = move || {
            let _taken = taken;
            task()
        };
        self.work.spawn_blocking(task).await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    fn runtimes() -> (Runtime, Runtime, Threads) {
        let (control, work) = (control_runtime().unwrap(), work_runtime().unwrap());
        let threads = Threads::new(control.handle().clone(), work.handle().clone());
        (control, work, threads)
    }

    /// Keeps a helper busy until the sender is dropped. Returns when the helper has begun.
    async fn keep_one(threads: &Threads, errand: Errand) -> Sender<()> {
        let (end, ends) = channel::<()>();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let threads = threads.clone();
        tokio::spawn(async move {
            let wait = move || {
                let _ = begun.send(());
                let _ = ends.recv();
            };
            threads.offload(errand, wait).await
        });
        begins.await.unwrap();
        end
    }

    #[test]
    fn snapshots_that_take_long_hold_up_nothing_but_other_snapshots() {
        let (_control, work, threads) = runtimes();
        work.block_on(async {
            let mut kept = Vec::new();
            for _ in 0..limits::SNAPSHOT_THREADS {
                kept.push(keep_one(&threads, Errand::Snapshots).await);
            }
            for errand in [Errand::Signatures, Errand::Proofs, Errand::Pages, Errand::Entries, Errand::Files] {
                assert_eq!(threads.offload(errand, move || errand).await.unwrap(), errand);
            }
            let mut next = Box::pin(threads.offload(Errand::Snapshots, || ()));
            assert!(futures::poll!(&mut next).is_pending());
            kept.pop();
            next.await.unwrap();
        });
    }

    #[test]
    fn no_proof_of_leadership_waits_behind_what_clients_signed() {
        let (_control, work, threads) = runtimes();
        work.block_on(async {
            let mut kept = Vec::new();
            for _ in 0..limits::SIGNATURE_THREADS {
                kept.push(keep_one(&threads, Errand::Signatures).await);
            }
            let mut next = Box::pin(threads.offload(Errand::Signatures, || ()));
            assert!(futures::poll!(&mut next).is_pending());
            assert_eq!(threads.offload(Errand::Proofs, || 7).await.unwrap(), 7);
            drop(kept);
            next.await.unwrap();
        });
    }

    #[test]
    fn one_more_page_than_may_wait_is_refused() {
        let (_control, work, threads) = runtimes();
        work.block_on(async {
            let mut kept = Vec::new();
            for _ in 0..limits::PAGE_THREADS {
                kept.push(keep_one(&threads, Errand::Pages).await);
            }
            let mut waiting = Vec::new();
            for _ in limits::PAGE_THREADS..limits::PAGES_QUEUED_MAX {
                let mut page = Box::pin(threads.offload(Errand::Pages, || ()));
                assert!(futures::poll!(&mut page).is_pending());
                waiting.push(page);
            }
            let refused = threads.offload(Errand::Pages, || ()).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
            waiting.pop();
            let mut taken = Box::pin(threads.offload(Errand::Pages, || ()));
            assert!(futures::poll!(&mut taken).is_pending(), "an errand whose caller is gone makes room");
            drop((kept, waiting));
            taken.await.unwrap();
        });
    }

    #[test]
    fn what_is_asked_of_the_control_thread_is_done_there_whoever_asks() {
        let (control, work, threads) = runtimes();
        let there = threads.control().id();
        let asked = threads.clone();
        let from_work = work.spawn(async move { asked.on_control(async { Handle::current().id() }).await });
        control.block_on(async {
            assert_eq!(from_work.await.unwrap().unwrap(), there);
            assert_eq!(threads.on_control(async { Handle::current().id() }).await.unwrap(), there);
        });
    }

    #[test]
    fn work_goes_on_while_the_control_thread_is_busy() {
        let (control, _work, threads) = runtimes();
        control.block_on(async {
            let (answer, answered) = channel();
            let asked = threads.clone();
            threads.work().spawn(async move {
                let seven = asked.offload(Errand::Pages, || 7).await.unwrap();
                answer.send(seven).unwrap();
            });
            // The control thread does nothing but this.
            assert_eq!(answered.recv().unwrap(), 7);
        });
    }
}
