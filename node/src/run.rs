//! Building the parts of a node, and draining them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use skep_api::{Api, Calls};
use skep_config::Config;
use skep_consensus::{Consensus, FromLeader, Identity, ReadableBy, write_whole};
use skep_mesh::Mesh;
use skep_protocol::fleet::Build;
use skep_protocol::places::Places;
use skep_store::{JournalReport, Journals, StoreOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::checks;
use crate::cli::Failure;
use crate::descriptors;
use crate::driver::Driver;

/// Since when the certificates of transports are valid, after 1970: `rcgen`, with which `libp2p-tls` makes them, dates them
/// 1975-01-01, and its verifier asks the machine's wall clock.
const CERTIFICATES_SINCE: Duration = Duration::from_secs(1_826 * 24 * 60 * 60);

/// Shortest token that is taken for a whole one, in characters.
const TOKEN_BYTES_MIN: usize = 32;

/// Runs a node until it is told to stop.
///
/// `while_stdin`: also stop when standard input ends. `build`: what it can apply.
pub(crate) fn run(config: Config, places: &Places, while_stdin: bool, build: Build) -> Result<(), Failure> {
    // libp2p's QUIC would write its session keys into this file.
    if std::env::var_os("SSLKEYLOGFILE").is_some() {
        return Err(Failure::usage("SSLKEYLOGFILE is set; a node does not write its session keys anywhere: unset it"));
    }
    look_at_wall_clock();
    let descriptors = descriptors::raise();
    let identity = Identity::load(&places.key()).map_err(Failure::failed)?;
    tracing::info!(node = %identity.node(), name = %config.node.name, site = %config.node.site, "starting");
    // What may keep the node from starting comes before anybody hears of it.
    let journals = Journals::open(&places.journals(), rand::random(), StoreOptions::default().on_fatal);
    let journals = journals.map_err(Failure::failed)?;
    let (consensus, updates) =
        Consensus::start(identity.clone(), config.control.clone(), &places.data(), build).map_err(Failure::failed)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(Failure::failed)?;
    let own = (&identity, config, places, descriptors);
    let served = runtime.block_on(serve(own, (&consensus, updates), journals, while_stdin));
    runtime.shutdown_timeout(Duration::from_secs(2));
    consensus.stop();
    tracing::info!("stopped");
    served
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

async fn serve(
    (identity, config, places, descriptors): (&Identity, Config, &Places, u64),
    (consensus, updates): (&Consensus, mpsc::Receiver<FromLeader>),
    journals: (Journals, mpsc::Receiver<JournalReport>),
    while_stdin: bool,
) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let mut hangup = hangup().map_err(Failure::failed)?;
    let keeps = places.mesh();
    let (mesh, received) = Mesh::start(*identity.seed(), &config.mesh, Some(&keeps)).map_err(Failure::failed)?;
    let (calls, calls_in) = Calls::channel();
    let token = config.api.listen.map(|_| token(&places.token())).transpose()?;
    let (socket, connections) = (places.socket(), descriptors::for_callers(descriptors));
    let api = Api::start(&config.api, &socket, token, calls.clone(), connections).await.map_err(Failure::failed)?;
    let control = consensus.handle().address().map(|address| address.to_string()).unwrap_or_default();
    let tcp = api.address().map_or("off".to_owned(), |address| address.to_string());
    tracing::info!(socket = %socket.display(), %tcp, %control, "serving");
    let wanted = config.checks.clone();
    let (driver, mut ready) =
        Driver::new(config, (consensus.handle(), updates), (mesh.handle(), received), (calls, calls_in), journals);
    checks::start(&wanted, &places.dir, &consensus.handle(), &mesh.handle());
    let (stop, stopped) = oneshot::channel();
    let driving = tokio::spawn(driver.run(stopped));
    let mut input_ended = std::pin::pin!(input_ended(while_stdin));
    loop {
        let is_ready = *ready.borrow_and_update();
        api.set_ready(is_ready).await;
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = hung_up(&mut hangup) => break,
            () = &mut input_ended => break,
            changed = ready.changed() => if changed.is_err() { break },
        }
    }
    tracing::info!("draining");
    // New calls are refused first, then those under way are answered, then the parts below them stop.
    api.stop().await;
    drop(stop);
    let driven = driving.await;
    mesh.stop().await;
    driven.map_err(|error| Failure::failed(format!("the driver failed: {error}")))
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

/// The token for the API over TCP; made when there is none.
fn token(path: &Path) -> Result<String, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::failed(format!("{}: {why}", path.display()));
    if let Ok(known) = std::fs::metadata(path)
        && known.permissions().mode() & 0o077 != 0
    {
        return Err(failed(&"others can read it: remove it, and the node makes another"));
    }
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let token = text.trim();
            let whole = token.len() >= TOKEN_BYTES_MIN && token.bytes().all(|byte| byte.is_ascii_graphic());
            let cut = "it holds no token, and may be cut off; remove it, and the node makes another";
            return if whole { Ok(token.to_owned()) } else { Err(failed(&cut)) };
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(&e)),
    }
    let bytes: [u8; 32] = rand::random();
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    write_whole(path, format!("{token}\n").as_bytes(), ReadableBy::Owner).map_err(|e| failed(&e))?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_others_can_read_or_that_is_none_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let made = token(&path).unwrap();
        assert_eq!(token(&path).unwrap(), made);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(token(&path).is_err());
        std::fs::write(&path, "a").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(token(&path).is_err());
    }

    #[test]
    fn who_started_the_process_may_have_it_ignore_that_its_terminal_goes_away() {
        assert!(ignores_hangup("Name:\tskep\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("Name:\tskep\nSigIgn:\t0000000000001000\n"));
        assert!(!ignores_hangup(""));
    }
}
