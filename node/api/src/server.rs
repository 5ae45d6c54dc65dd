//! The two listeners of the API.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use skep_config::{ApiConfig, cannot_listen};
use skep_proto::v1;
use skep_protocol::limits;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tonic::service::{Interceptor, InterceptorLayer};
use tonic::transport::Server;
use tonic::transport::server::{TcpConnectInfo, UdsConnectInfo};
use tonic::{Request, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::calls::Calls;
use crate::doors::{Doors, GuestInfo};
use crate::drain::until;
use crate::greet::greeted;
use crate::grpc;
use crate::service::Host;
use crate::unread::KeepsPages;

/// How long open streams may keep the API from stopping.
const DRAIN: Duration = Duration::from_secs(2);

/// Why the API did not start.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The API cannot bind its socket.
    #[error("the API's socket {path}: {source}")]
    Socket {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The API cannot listen on its TCP address.
    #[error("{}", cannot_listen("the API", .address, "TCP", .source, "api.listen"))]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The reflection service cannot read the API's description.
    #[error("the API's own description is malformed: {0}")]
    Reflection(String),
}

/// The running API.
pub struct Api {
    address: Option<SocketAddr>,
    socket: PathBuf,
    health: HealthReporter,
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Lets a call in only with the token, or over a connection that has shown that it knows the token.
#[derive(Clone)]
struct WithToken {
    token: Arc<str>,
}

impl Interceptor for WithToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let guest = request.extensions().get::<GuestInfo<TcpConnectInfo>>();
        if !guest.is_some_and(GuestInfo::is_proven) && !same(given.as_bytes(), self.token.as_bytes()) {
            let why = "over TCP the API wants the token in <dir>/token: 'authorization: Bearer …'";
            return Err(Status::unauthenticated(why));
        }
        let caller = guest.map(GuestInfo::let_in).transpose()?;
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller.page().clone());
            request.extensions_mut().insert(caller);
        }
        Ok(request)
    }
}

/// Lets a call in only from a process of the node's own user, or of root.
#[derive(Clone, Copy)]
struct SameUser {
    uid: u32,
}

impl Interceptor for SameUser {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let guest = request.extensions().get::<GuestInfo<UdsConnectInfo>>();
        let uid = guest.and_then(|guest| guest.of.peer_cred).map(|peer| peer.uid());
        if !uid.is_some_and(|uid| uid == self.uid || uid == 0) {
            return Err(Status::permission_denied("the socket serves the node's own user only"));
        }
        let caller = guest.map(GuestInfo::let_in).transpose()?;
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller.page().clone());
            request.extensions_mut().insert(caller);
        }
        Ok(request)
    }
}

/// Compares in a time that does not depend on where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (x, y)| differs | (x ^ y)) == 0
}

impl Api {
    /// Binds the socket, and the TCP address if there is one with a token, and serves both. `connections` is the number
    /// of connections for which the process has descriptors.
    ///
    /// # Errors
    /// [`ApiError`] says which listener failed, and why.
    pub async fn start(
        config: &ApiConfig,
        socket: &Path,
        token: Option<String>,
        calls: Calls,
        connections: usize,
    ) -> Result<Self, ApiError> {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status("", ServingStatus::NotServing).await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|e| ApiError::Reflection(e.to_string()))?;
        let (stop, stopped) = watch::channel(false);
        let over_tcp = config.listen.zip(token);
        let doors = Doors::new(connections, over_tcp.is_some());
        let host = Host::new(calls, doors.clone(), stopped.clone());
        let routes = grpc::routes(&host, config.site.clone()).add_service(health_service).add_service(reflection);
        let unix = bind_socket(socket).map_err(|source| ApiError::Socket { path: socket.to_owned(), source })?;
        let tcp = match over_tcp {
            None => None,
            Some((listen, token)) => {
                let tcp_error = |source| ApiError::Tcp { address: listen, source };
                let tcp = TcpListener::bind(listen).await.map_err(tcp_error)?;
                let address = tcp.local_addr().map_err(tcp_error)?;
                Some((tcp, address, Arc::<str>::from(token)))
            }
        };
        // The user of the process, and not the owner of the socket's path by now.
        let uid = rustix::process::geteuid().as_raw();
        let on_socket = tuned()
            .layer(InterceptorLayer::new(SameUser { uid }))
            .layer(KeepsPages)
            .add_routes(routes.clone())
            .serve_with_incoming_shutdown(doors.guests(unix), until(stopped.clone()));
        let mut tasks = vec![tokio::spawn(async move { report("socket", on_socket.await) })];
        let address = tcp.as_ref().map(|(_, address, _)| *address);
        if let Some((tcp, _, token)) = tcp {
            let incoming = greeted(doors.guests(tcp), Arc::clone(&token));
            let with_token = InterceptorLayer::new(WithToken { token });
            let on_tcp = tuned()
                .layer(with_token)
                .layer(KeepsPages)
                .add_routes(routes)
                .serve_with_incoming_shutdown(incoming, until(stopped));
            tasks.push(tokio::spawn(async move { report("tcp", on_tcp.await) }));
        }
        Ok(Self { address, socket: socket.to_owned(), health, stop, tasks })
    }

    /// The TCP address on which the API listens; none if it serves the socket only.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Sets what the health service says of the node as a whole.
    pub async fn set_ready(&self, ready: bool) {
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.health.set_service_status("", status).await;
    }

    /// Takes no new calls, gives open ones a moment, and stops.
    pub async fn stop(self) {
        self.health.set_service_status("", ServingStatus::NotServing).await;
        self.stop.send_replace(true);
        for mut task in self.tasks {
            if tokio::time::timeout(DRAIN, &mut task).await.is_err() {
                task.abort();
            }
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn tuned() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(15)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .initial_stream_window_size(Some(1 << 20))
        .initial_connection_window_size(Some(4 << 20))
        .max_concurrent_streams(Some(limits::STREAM_REQUESTS_MAX as u32))
}

fn report(listener: &str, ended: Result<(), tonic::transport::Error>) {
    if let Err(error) = ended {
        tracing::error!(listener, %error, "the API does not listen any more");
    }
}

/// Binds the socket for its owner only. It replaces a socket on which no process listens any more; the lock of the
/// directory tells that no other node uses it.
fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_a_connection_that_has_proved_nothing_needs_the_token() {
        let mut with_token = WithToken { token: Arc::from("0123456789abcdef0123456789abcdef") };
        let mut with = |given: &str| {
            let mut request = Request::new(());
            request.metadata_mut().insert("authorization", given.parse().unwrap());
            with_token.call(request).is_ok()
        };
        assert!(with("Bearer 0123456789abcdef0123456789abcdef"));
        for wrong in ["", "Bearer ", "Bearer 0123456789abcdef", "0123456789abcdef0123456789abcdef"] {
            assert!(!with(wrong), "{wrong:?}");
        }
    }
}
