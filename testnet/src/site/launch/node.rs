//! One node of a testnet.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skep_client::{Client, Endpoint, Settings, v1};

use crate::error::{LaunchError, io_error};

/// One node.
#[derive(Debug)]
pub struct TestNode {
    /// The node's name.
    pub name: String,
    /// The node's directory.
    pub dir: PathBuf,
    /// The node's PeerId.
    pub id: String,
    pub(super) control: String,
    pub(super) mesh: String,
    api: Option<String>,
    pub(super) variables: Vec<(String, String)>,
    pub(super) child: Option<Child>,
}

/// A node as it was made.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) node: String,
    pub(super) control: String,
    pub(super) mesh: String,
    pub(super) api: Option<String>,
}

impl TestNode {
    pub(super) fn of(name: String, dir: PathBuf, made: Made) -> Self {
        let Made { node: id, control, mesh, api } = made;
        Self { name, dir, id, control, mesh, api, variables: Vec::new(), child: None }
    }

    /// Sets an environment variable from the next start on.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// The port of its mesh: one below that of its control plane.
    pub(super) fn mesh_port(&self) -> u16 {
        let control = self.control.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        control.unwrap_or(1).saturating_sub(1)
    }

    /// Whether the node's process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// The node's process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// A client of the node's socket.
    pub fn client(&self) -> Client {
        self.client_with(Settings::default())
    }

    /// A client that gives up soon, for repeated questions.
    pub fn impatient_client(&self) -> Client {
        let patience = Duration::from_millis(500);
        self.client_with(Settings { patience, attempt_timeout: patience, ..Settings::default() })
    }

    /// A client of the node's socket with settings of its own.
    pub fn client_with(&self, settings: Settings) -> Client {
        match Client::with_settings(Endpoint::of_dir(&self.dir), settings) {
            Ok(client) => client,
            Err(error) => unreachable!("a socket's path is always an endpoint: {error}"),
        }
    }

    /// The node's TCP endpoint, with its token.
    ///
    /// # Errors
    /// [`LaunchError::Io`] if the node was not made with one, or there is no token yet.
    pub fn tcp_endpoint(&self) -> Result<Endpoint, LaunchError> {
        let address = self.api.clone().ok_or_else(|| io::Error::other("it serves its API at its socket only"));
        let address = address.map_err(io_error(self.name.clone()))?;
        let path = self.dir.join("token");
        let token = std::fs::read_to_string(&path).map_err(io_error(path.display().to_string()))?;
        Ok(Endpoint::Tcp { address, token: token.trim().to_owned() })
    }

    /// Returns the ids of the tasks that the node's replica holds.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn held(&self) -> Result<BTreeSet<[u8; 16]>, LaunchError> {
        let failed = |status: skep_client::Status| LaunchError::Command {
            command: format!("dump of {}", self.name),
            output: status.to_string(),
        };
        let mut items = self.client().dump_shard().await?;
        let mut held = BTreeSet::new();
        while let Some(reply) = items.message().await.map_err(failed)? {
            if let Some(v1::shard_dump_reply::Item::Task(task)) = reply.item
                && let Ok(id) = task.task_id.try_into()
            {
                held.insert(id);
            }
        }
        Ok(held)
    }

    /// Writes a line into the node's log, to find the place again.
    pub fn mark(&self, text: &str) {
        if let Ok(mut log) = File::options().append(true).open(self.dir.join("log")) {
            let _ = writeln!(log, "--- {text}");
        }
    }
}
