//! Where a node's API listens.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use skep_protocol::node_dir::{NodeDir, default_dir};
use tonic::transport::{Channel, Uri};

use crate::error::ClientError;
use crate::proof::{ConnectFailure, connected};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The address of a node's API. Its debug form has no token.
#[derive(Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// The path of its Unix socket.
    Socket(PathBuf),
    /// Its loopback TCP address, with the token that the node demands.
    Tcp {
        /// The address, such as `127.0.0.1:7342`.
        address: String,
        /// The content of the node's token file.
        token: String,
    },
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.describe())
    }
}

impl Endpoint {
    /// Finds the local node: the argument, else `$SKEP_ENDPOINT`, else the socket in the default directory.
    ///
    /// An endpoint is the path of a socket, `unix:PATH`, or `127.0.0.1:PORT`, with or without `http://`, with the token in
    /// `$SKEP_TOKEN`.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`] says what is missing.
    pub fn find(argument: Option<&str>) -> Result<Self, ClientError> {
        let given = match argument {
            Some(text) => Some(text.to_owned()),
            None => text_of("SKEP_ENDPOINT")?,
        };
        if let Some(text) = given {
            return Self::parse(&text, text_of("SKEP_TOKEN")?);
        }
        let dir = default_dir(variable);
        let dir = dir.ok_or_else(|| ClientError::Endpoint("no endpoint is given and $HOME is not set".to_owned()))?;
        Ok(Self::of_dir(&dir))
    }

    /// The socket of the node in this directory.
    pub fn of_dir(dir: &Path) -> Self {
        Self::Socket(NodeDir::of(dir).socket())
    }

    fn parse(text: &str, token: Option<String>) -> Result<Self, ClientError> {
        if text.is_empty() {
            return Err(ClientError::Endpoint(
                "the endpoint is empty; give a socket's path, or 127.0.0.1:PORT".to_owned(),
            ));
        }
        if text.starts_with("https://") {
            let why = format!("{text}: the API serves this machine only, without TLS; give http://127.0.0.1:PORT");
            return Err(ClientError::Endpoint(why));
        }
        if let Some(address) = text.strip_prefix("http://").or_else(|| host_and_port(text)) {
            let token = token.ok_or_else(|| {
                ClientError::Endpoint(
                    "over TCP the API wants a token: set SKEP_TOKEN to what is in <dir>/token".to_owned(),
                )
            })?;
            return Ok(Self::Tcp { address: address.trim_end_matches('/').to_owned(), token: token.trim().to_owned() });
        }
        Ok(Self::Socket(PathBuf::from(text.strip_prefix("unix:").unwrap_or(text))))
    }

    /// The endpoint in a form for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Socket(path) => path.display().to_string(),
            Self::Tcp { address, .. } => format!("http://{address}"),
        }
    }

    /// A channel that connects when it is used, and again whenever it has to. Over TCP each connection begins with a
    /// proof by both sides that they know the token; neither tells it.
    pub(crate) fn channel(&self) -> Result<Channel, ClientError> {
        let tuned = |endpoint: tonic::transport::Endpoint| {
            endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20)
                .http2_keep_alive_interval(Duration::from_secs(15))
                .keep_alive_timeout(Duration::from_secs(10))
        };
        let malformed = |e: &dyn std::fmt::Display| ClientError::Endpoint(format!("{}: {e}", self.describe()));
        match self {
            Self::Socket(path) => {
                let path = path.clone();
                let connect = tower::service_fn(move |_: Uri| {
                    let path = path.clone();
                    async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(path).await?)) }
                });
                let endpoint = tonic::transport::Endpoint::from_static("http://skep.local");
                Ok(tuned(endpoint).connect_with_connector_lazy(connect))
            }
            Self::Tcp { address, token } => {
                let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
                let endpoint = endpoint.map_err(|e| malformed(&e))?;
                let authority = endpoint.uri().authority().filter(|authority| authority.port_u16().is_some());
                let authority = authority.ok_or_else(|| malformed(&"give 127.0.0.1:PORT"))?;
                let (address, token) = (authority.to_string(), token.clone());
                let connect = tower::service_fn(move |_: Uri| {
                    let (address, token) = (address.clone(), token.clone());
                    async move { Ok::<_, ConnectFailure>(TokioIo::new(connected(&address, &token).await?)) }
                });
                Ok(tuned(endpoint).connect_with_connector_lazy(connect))
            }
        }
    }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Reads a variable of the environment that must be text.
fn text_of(name: &str) -> Result<Option<String>, ClientError> {
    let text = variable(name).map(OsString::into_string).transpose();
    text.map_err(|value| ClientError::Endpoint(format!("{name} is not UTF-8 text: {}", value.display())))
}

/// An address, where a path was possible: a user whose file has such a name says `unix:` or `./`.
fn host_and_port(text: &str) -> Option<&str> {
    let (host, port) = text.rsplit_once(':')?;
    let is_address = !host.is_empty() && host != "unix" && !text.contains('/') && port.parse::<u16>().is_ok();
    is_address.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_sockets_or_tcp_with_a_token() {
        let token = Some("secret\n".to_owned());
        assert_eq!(Endpoint::parse("unix:/a/b.sock", None).unwrap(), Endpoint::Socket("/a/b.sock".into()));
        assert_eq!(Endpoint::parse("/a/b.sock", None).unwrap(), Endpoint::Socket("/a/b.sock".into()));
        let tcp = Endpoint::Tcp { address: "127.0.0.1:7342".into(), token: "secret".into() };
        assert_eq!(Endpoint::parse("http://127.0.0.1:7342/", token).unwrap(), tcp);
        assert!(Endpoint::parse("http://127.0.0.1:7342", None).is_err());
        for bare in ["127.0.0.1:7342", "localhost:7342", "[::1]:7342"] {
            let found = Endpoint::parse(bare, Some("secret".to_owned())).unwrap();
            assert_eq!(found, Endpoint::Tcp { address: bare.into(), token: "secret".into() });
            assert!(Endpoint::parse(bare, None).unwrap_err().to_string().contains("SKEP_TOKEN"), "{bare}");
        }
        assert_eq!(Endpoint::parse("./a:1", None).unwrap(), Endpoint::Socket("./a:1".into()));
        assert_eq!(Endpoint::parse("unix:1", None).unwrap(), Endpoint::Socket("1".into()));
        assert!(Endpoint::parse("", None).is_err());
        assert!(Endpoint::parse("https://127.0.0.1:7342", None).is_err());
        assert!(!tcp.describe().contains("secret") && !format!("{tcp:?}").contains("secret"));
        assert!(Endpoint::parse("http://127.0.0.1", Some("secret".to_owned())).unwrap().channel().is_err());
    }
}
