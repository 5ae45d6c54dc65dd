//! A testnet that stays up, and what others may do to its processes meanwhile.
//!
//! One process launches everything and serves a socket in the testnet's directory; `skep testnet kill n2` and its
//! siblings ask it. Only its own children can be named.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::error::{LaunchError, io_error};
use crate::site::child::suspend;
use crate::site::warehouse::{DemoSite, SiteOptions};
use crate::workload::Workload;

/// What a testnet can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum TestnetVerb {
    /// To tell what runs.
    Status,
    /// To send SIGKILL.
    Kill {
        /// The name of the process.
        name: String,
    },
    /// To send SIGSTOP.
    Pause {
        /// The name of the process.
        name: String,
    },
    /// To send SIGCONT.
    Resume {
        /// The name of the process.
        name: String,
    },
    /// To start a process again, after a SIGKILL if it runs.
    Restart {
        /// The name of the process.
        name: String,
    },
    /// To end everything.
    Down,
}

/// A process of a testnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// The name of the process.
    pub name: String,
    /// `node` or `robot`.
    pub what: String,
    /// The process id; none if the process does not run.
    pub pid: Option<u32>,
    /// `running`, `paused` or `stopped`.
    pub state: String,
    /// The role in the shard of a node that answers; empty otherwise.
    pub role: String,
    /// The directory of the node, or of the robot's node.
    pub dir: PathBuf,
}

/// What a testnet answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Why it was not done; none if it was.
    pub error: Option<String>,
    /// The processes that run.
    pub processes: Vec<ProcessRow>,
}

/// The path of a testnet's socket.
pub fn socket(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// Asks a testnet that is up.
///
/// # Errors
/// [`LaunchError::Io`] if there is none in this directory.
pub async fn ask(dir: &Path, verb: &TestnetVerb) -> Result<Answer, LaunchError> {
    let socket = socket(dir);
    let failed = || io_error(format!("no testnet is up in {} ('skep testnet up' starts one)", dir.display()));
    let stream = UnixStream::connect(&socket).await.map_err(failed())?;
    let (receive, mut send) = stream.into_split();
    let mut line = serde_json::to_vec(verb).map_err(|e| failed()(e.into()))?;
    line.push(b'\n');
    send.write_all(&line).await.map_err(failed())?;
    let mut reply = String::new();
    BufReader::new(receive).read_line(&mut reply).await.map_err(failed())?;
    serde_json::from_str(&reply).map_err(|e| failed()(e.into()))
}

/// A testnet that is up.
pub struct Up {
    site: DemoSite,
    dir: PathBuf,
    paused: std::collections::BTreeSet<String>,
}

impl Up {
    /// Starts a testnet.
    ///
    /// # Errors
    /// [`LaunchError`].
    pub async fn start(options: &SiteOptions, workload: &Workload) -> Result<Self, LaunchError> {
        if UnixStream::connect(socket(&options.dir)).await.is_ok() {
            let output = "it is up already; 'skep testnet down' ends it".to_owned();
            return Err(LaunchError::Command { command: format!("testnet in {}", options.dir.display()), output });
        }
        let site = DemoSite::up(options, workload).await?;
        Ok(Self { site, dir: options.dir.clone(), paused: std::collections::BTreeSet::new() })
    }

    /// The processes of the testnet.
    pub async fn processes(&mut self) -> Vec<ProcessRow> {
        let mut rows = Vec::new();
        for node in &self.site.net.nodes {
            let paused = self.paused.contains(&node.name);
            let status = match node.pid() {
                Some(_) if !paused => node.impatient_client().shard_status().await.ok(),
                _ => None,
            };
            rows.push(ProcessRow {
                name: node.name.clone(),
                what: "node".to_owned(),
                pid: node.pid(),
                state: state(node.pid(), paused),
                role: status.map(|status| status.role).unwrap_or_default(),
                dir: node.dir.clone(),
            });
        }
        for n in 0..self.site.robots.len() {
            let dir = self.site.node_at(n).map(|at| self.site.net.nodes[at].dir.clone()).unwrap_or_default();
            let robot = &mut self.site.robots[n];
            let pid = if robot.has_ended() { None } else { robot.pid() };
            rows.push(ProcessRow {
                name: robot.name.clone(),
                what: "robot".to_owned(),
                pid,
                state: state(pid, self.paused.contains(&robot.name)),
                role: String::new(),
                dir,
            });
        }
        rows
    }

    /// Serves verbs until one of them ends the testnet, or `until` ends. Then every process is ended.
    ///
    /// # Errors
    /// [`LaunchError::Io`] if the socket cannot be opened.
    pub async fn serve(mut self, until: impl Future<Output = ()>) -> Result<(), LaunchError> {
        let socket = socket(&self.dir);
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).map_err(io_error(socket.display().to_string()))?;
        let mut until = std::pin::pin!(until);
        loop {
            let stream = tokio::select! {
                () = &mut until => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(_) => continue,
                },
            };
            // One at a time: a client that does not finish its line delays the others only briefly.
            let served = tokio::time::timeout(std::time::Duration::from_secs(10), self.answer(stream)).await;
            if matches!(served, Ok(Ok(true))) {
                break;
            }
        }
        let _ = std::fs::remove_file(&socket);
        for at in 0..self.site.net.nodes.len() {
            self.site.net.stop(at).await;
        }
        Ok(())
    }

    /// Answers a client; returns whether its verb ends the testnet.
    async fn answer(&mut self, stream: UnixStream) -> std::io::Result<bool> {
        let (receive, mut send) = stream.into_split();
        let mut line = String::new();
        BufReader::new(receive).read_line(&mut line).await?;
        let verb: TestnetVerb = serde_json::from_str(&line).map_err(std::io::Error::other)?;
        let error = self.carry_out(&verb).err().map(|error| error.to_string());
        let answer = Answer { error, processes: self.processes().await };
        let mut reply = serde_json::to_vec(&answer).map_err(std::io::Error::other)?;
        reply.push(b'\n');
        send.write_all(&reply).await?;
        Ok(verb == TestnetVerb::Down)
    }

    fn carry_out(&mut self, verb: &TestnetVerb) -> Result<(), LaunchError> {
        let (name, verb) = match verb {
            TestnetVerb::Status | TestnetVerb::Down => return Ok(()),
            TestnetVerb::Kill { name }
            | TestnetVerb::Pause { name }
            | TestnetVerb::Resume { name }
            | TestnetVerb::Restart { name } => (name, verb),
        };
        let node = self.site.net.nodes.iter().position(|node| node.name == *name);
        let robot = self.site.robots.iter().position(|robot| robot.name == *name);
        let pid = match (node, robot) {
            (Some(at), _) => self.site.net.nodes[at].pid(),
            (None, Some(at)) => self.site.robots[at].pid(),
            (None, None) => {
                let output = "there is no such process; 'skep testnet status' shows which there are".to_owned();
                return Err(LaunchError::Command { command: name.clone(), output });
            }
        };
        let stopped = || LaunchError::Command { command: name.clone(), output: "it does not run".to_owned() };
        match verb {
            TestnetVerb::Pause { .. } => {
                suspend(pid.ok_or_else(stopped)?, true)?;
                self.paused.insert(name.clone());
            }
            TestnetVerb::Resume { .. } => {
                suspend(pid.ok_or_else(stopped)?, false)?;
                self.paused.remove(name);
            }
            TestnetVerb::Kill { .. } | TestnetVerb::Restart { .. } | TestnetVerb::Status | TestnetVerb::Down => {
                self.paused.remove(name);
                let starts = matches!(verb, TestnetVerb::Restart { .. });
                match (node, robot) {
                    (Some(at), _) => {
                        self.site.net.kill(at);
                        if starts {
                            self.site.net.start(at)?;
                        }
                    }
                    (None, Some(at)) => {
                        self.site.robots[at].kill();
                        if starts {
                            self.site.robots[at].start()?;
                        }
                    }
                    (None, None) => {}
                }
            }
        }
        Ok(())
    }
}

fn state(pid: Option<u32>, paused: bool) -> String {
    match pid {
        None => "stopped",
        Some(_) if paused => "paused",
        Some(_) => "running",
    }
    .to_owned()
}
