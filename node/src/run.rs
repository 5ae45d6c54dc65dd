//! Running a node from its start to its end: what its terminal, its service manager or its launcher tells the process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use skep_config::Config;
use skep_protocol::fleet::Build;
use skep_protocol::node_dir::NodeDir;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::node::{Node, NodeError};

/// Since when the certificates of transports are valid, after 1970: `rcgen`, with which `libp2p-tls` makes them, dates them
/// 1975-01-01, and its verifier asks the machine's wall clock.
const CERTIFICATES_SINCE: Duration = Duration::from_secs(1_826 * 24 * 60 * 60);

/// Why a node was not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// libp2p's QUIC would write its session keys into a file.
    #[error("SSLKEYLOGFILE is set; a node does not write its session keys anywhere: unset it")]
    WritesKeys,
    /// The system gives the process no runtime, or no signals.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// Runs a node until it is told to stop.
///
/// `while_stdin`: also stop when standard input ends. `build`: what it can apply.
///
/// # Errors
/// [`RunError`] says why it did not start, or what failed.
pub(crate) fn run(config: Config, node_dir: &NodeDir, while_stdin: bool, build: Build) -> Result<(), RunError> {
    if std::env::var_os("SSLKEYLOGFILE").is_some() {
        return Err(RunError::WritesKeys);
    }
    look_at_wall_clock();
    let node = Node::bind(config, node_dir, build)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Before callers reach the node, so that no signal ends it in the middle of a call.
    let signals = {
        let _within = runtime.enter();
        Signals::listen()?
    };
    let mut running = node.spawn(runtime)?;
    running.serve_until(signals.told_to_stop(while_stdin));
    Ok(running.drain()?)
}

/// Nothing is decided by the wall clock, but transports let nobody in before a certificate's time begins: says so where
/// the machine has not been told the time. The node goes on, and connects when it is.
fn look_at_wall_clock() {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if wall < CERTIFICATES_SINCE {
        tracing::error!(
            "this machine's wall clock is before 1975, when peers' certificates become valid: no peer can be reached. \
             Set it (timedatectl, fake-hwclock, or date -s); the node then connects by itself"
        );
    }
}

/// The signals that end a node.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    /// Listens to them from now on. Within a runtime.
    fn listen() -> std::io::Result<Self> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate, hangup: hangup()? })
    }

    /// Waits for one of them, or until standard input ends if that counts.
    async fn told_to_stop(mut self, while_stdin: bool) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = hung_up(&mut self.hangup) => {}
            () = input_ended(while_stdin) => {}
        }
    }
}

/// Waits until standard input has ended; for ever if nobody asked.
pub(crate) async fn input_ended(asked: bool) {
    if !asked {
        return std::future::pending().await;
    }
    let (ended, waiting) = oneshot::channel();
    let read = move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    };
    // A thread of its own: reading cannot be called off, and must not keep the runtime from stopping.
    match std::thread::Builder::new().name("skep-stdin".to_owned()).spawn(read) {
        Ok(_) => drop(waiting.await),
        Err(error) => tracing::error!(%error, "standard input cannot be watched"),
    }
}

/// The signal that the terminal of this process has gone away: it drains, as for SIGTERM. None where whoever started it has
/// it ignored, as nohup(1) does.
fn hangup() -> std::io::Result<Option<Signal>> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if ignores_hangup(&status) { Ok(None) } else { signal(SignalKind::hangup()).map(Some) }
}

/// Whether a process ignores SIGHUP, which is the first bit of the mask (proc(5)).
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_started_the_process_may_have_it_ignore_that_its_terminal_goes_away() {
        assert!(ignores_hangup("Name:\tskep\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("Name:\tskep\nSigIgn:\t0000000000001000\n"));
        assert!(!ignores_hangup(""));
    }
}
