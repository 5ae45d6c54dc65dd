//! Where QUIC is driven.
//!
//! Raft waits for what arrives on its connections, so they are driven on the control thread. A handshake is no part of that:
//! it makes and verifies signatures for about a millisecond on a small board, and a site whose power comes back has hundreds
//! at a time. So a connection that is shaking hands is driven beside that thread, and moves there when it is established.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::threads::Threads;

/// Drives the endpoint, or a connection.
type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// How the driver that quinn is about to spawn hears that its connection is established.
    static NEXT: Cell<Option<oneshot::Receiver<()>>> = const { Cell::new(None) };
}

/// A connection that is shaking hands. Its driver moves to the control thread when this is dropped.
pub(super) struct Handshake {
    _over: oneshot::Sender<()>,
}

/// Begins a connection, by a call of quinn that spawns its driver before it returns.
pub(super) fn begin<T>(call: impl FnOnce() -> T) -> (T, Handshake) {
    let (over, is_over) = oneshot::channel();
    NEXT.set(Some(is_over));
    let begun = call();
    // A call that failed has spawned nothing.
    NEXT.take();
    (begun, Handshake { _over: over })
}

/// quinn's tasks on our threads.
#[derive(Debug)]
pub(super) struct Drivers {
    threads: Threads,
}

impl Drivers {
    pub(super) fn new(threads: Threads) -> Self {
        Self { threads }
    }
}

impl Runtime for Drivers {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        // A connection keeps the timer that it has in its handshake.
        let _control = self.threads.control().enter();
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, driver: Driver) {
        let control = self.threads.control();
        match NEXT.take() {
            Some(is_over) => self.threads.work().spawn(shake_hands(driver, is_over, control.clone())),
            None => control.spawn(driver),
        };
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let _control = self.threads.control().enter();
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// Drives a connection until its handshake is over, and has it driven on the control thread from then on.
async fn shake_hands(mut driver: Driver, is_over: oneshot::Receiver<()>, control: Handle) {
    tokio::select! {
        biased;
        () = &mut driver => return,
        _ = is_over => {}
    }
    control.spawn(driver);
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Id;
    use tokio::sync::mpsc;

    use super::*;
    use crate::threads::{control_runtime, work_runtime};

    #[test]
    fn a_connection_is_driven_beside_the_control_thread_until_it_is_established() {
        let (control, work) = (control_runtime().unwrap(), work_runtime().unwrap());
        let threads = Threads::new(control.handle().clone(), work.handle().clone());
        let (beside, there) = (threads.work().id(), threads.control().id());
        let drivers = Drivers::new(threads);
        // A driver that says where it is each time that it is woken.
        let driver = |said: mpsc::Sender<Id>, mut wake: mpsc::Receiver<()>| -> Driver {
            Box::pin(async move {
                loop {
                    said.try_send(Handle::current().id()).unwrap();
                    if wake.recv().await.is_none() {
                        return;
                    }
                }
            })
        };
        control.block_on(async {
            let (said, mut hear) = mpsc::channel(64);
            let (wake, woken) = mpsc::channel(64);
            let ((), handshake) = begin(|| drivers.spawn(driver(said.clone(), woken)));
            assert_eq!(hear.recv().await, Some(beside));
            wake.try_send(()).unwrap();
            assert_eq!(hear.recv().await, Some(beside));
            drop(handshake);
            loop {
                wake.try_send(()).unwrap();
                match hear.recv().await.unwrap() {
                    id if id == there => break,
                    id => assert_eq!(id, beside),
                }
            }
            // What is begun in no handshake is there at once, such as the endpoint.
            let ((), handshake) = begin(|| ());
            let (_wake, woken) = mpsc::channel(64);
            drop(wake);
            drivers.spawn(driver(said, woken));
            assert_eq!(hear.recv().await, Some(there), "a call that spawned nothing leaves nothing behind");
            drop(handshake);
        });
    }
}
