//! A robot whose key was stolen, in a site where everything else goes wrong as well: a process with the key of a peer
//! that all nodes list and that votes nowhere. What it does is up to its own program (`rogue`, of the tests): this code
//! speaks with nodes only through their API.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::error::{LaunchError, io_error};
use crate::scenario::{ScenarioError, broken};
use crate::site::child::Child;
use crate::site::robot::POSE;
use crate::site::warehouse::DemoSite;

/// The file with its output, and the file that lists the nodes for it.
const OUTPUT: &str = "bad-robot.log";
const NODES: &str = "bad-robot.json";

/// Wait before a listener whose node has gone subscribes again.
const LISTENS_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Within this time it has its turn with each of its deeds, again and again, whatever else goes wrong.
const SHOWN_WITHIN: Duration = Duration::from_secs(10 * 60);

/// The first line of its output.
#[derive(Deserialize)]
struct Announced {
    deeds: Vec<String>,
}

/// Another line of its output. Lines of another form are for people.
#[derive(Deserialize)]
struct Done {
    deed: String,
    times: u64,
    why: Option<String>,
}

/// The results of one kind of deed of a bad robot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeedCount {
    /// How many turns it had.
    pub turns: u64,
    /// In how many turns the deed reached a node.
    pub done: u64,
    /// How often it did the deed in those turns: frames that its victim answered, refused or ended a connection for,
    /// connections that it took, messages that went out to neighbours.
    pub times: u64,
    /// Why the deed failed, at the last turn at which it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// Reads the results of each kind of deed from its output.
fn count(output: &str) -> BTreeMap<String, DeedCount> {
    let mut counts: BTreeMap<String, DeedCount> = BTreeMap::new();
    for line in output.lines() {
        if let Ok(Announced { deeds }) = serde_json::from_str(line) {
            for deed in deeds {
                counts.entry(deed).or_default();
            }
        }
        let Ok(Done { deed, times, why }) = serde_json::from_str(line) else { continue };
        let count = counts.entry(deed).or_default();
        count.turns += 1;
        count.done += u64::from(times > 0);
        count.times += times;
        count.failed = why.or(count.failed.take());
    }
    counts
}

/// The deeds that never reached a node: the run shows nothing of those.
pub(super) fn not_shown(deeds: &BTreeMap<String, DeedCount>) -> Vec<String> {
    deeds.iter().filter(|(_, count)| count.done == 0).map(|(deed, _)| deed.clone()).collect()
}

/// Whether a run was long enough for a bad robot to do everything.
pub(super) fn is_long_enough(lasts: Duration) -> bool {
    lasts >= SHOWN_WITHIN
}

/// A running bad robot.
pub(super) struct BadRobot {
    child: Child,
    output: PathBuf,
    _listeners: JoinSet<()>,
}

/// Subscribes to the robots' positions at every node, for as long as the result lives: without a subscriber no
/// publication reaches a node in the mesh.
fn listeners(site: &DemoSite) -> JoinSet<()> {
    let mut listeners = JoinSet::new();
    for client in site.clients() {
        listeners.spawn(async move {
            loop {
                if let Ok(mut values) = client.subscribe(&[POSE]).await {
                    while let Ok(Some(_)) = values.message().await {}
                }
                // Its node is down, or was restarted.
                tokio::time::sleep(LISTENS_AGAIN_AFTER).await;
            }
        });
    }
    listeners
}

/// The PeerId of the bad robot, as its program says.
pub(super) fn identity(program: &Path, seed: u64) -> Result<String, LaunchError> {
    let seed = seed.to_string();
    let ran = Command::new(program).args(["--identity", "--seed", &seed]).stdin(Stdio::null()).output();
    let ran = ran.map_err(io_error(program.display().to_string()))?;
    if !ran.status.success() {
        let output = String::from_utf8_lossy(&ran.stderr).into_owned();
        return Err(LaunchError::Command { command: format!("{} --identity", program.display()), output });
    }
    Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}

impl BadRobot {
    /// Starts it on a host of its own, the one behind those of the nodes, if they have hosts.
    pub(super) fn start(program: &Path, seed: u64, site: &DemoSite) -> Result<Self, LaunchError> {
        let (dir, at) = (site.net.dir(), site.net.nodes.len());
        let nodes = dir.join(NODES);
        let list = serde_json::to_vec_pretty(&site.net.addresses()).unwrap_or_default();
        std::fs::write(&nodes, list).map_err(io_error(nodes.display().to_string()))?;
        let (command, from) = match site.net.hosts() {
            None => (Command::new(program), IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Some(hosts) => (hosts.command(at, program), IpAddr::V4(hosts.address(at))),
        };
        let pairs = [
            ("--seed", seed.to_string()),
            ("--nodes", nodes.to_string_lossy().into_owned()),
            ("--robots", site.robots.len().to_string()),
            ("--from", from.to_string()),
        ];
        let args = command.get_args().map(|arg| arg.to_string_lossy().into_owned());
        let args = args.chain(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
        let output = dir.join(OUTPUT);
        let mut child = Child::new("bad-robot", Path::new(command.get_program()), args.collect(), output.clone());
        child.start()?;
        Ok(Self { child, output, _listeners: listeners(site) })
    }

    /// Ends it, and returns its results.
    pub(super) fn end(mut self, dir: &Path) -> Result<BTreeMap<String, DeedCount>, ScenarioError> {
        if self.child.has_ended() {
            return Err(broken(dir, "the bad robot ended by itself".to_owned()));
        }
        self.child.kill();
        let output = std::fs::read_to_string(&self.output).map_err(io_error(self.output.display().to_string()))?;
        let deeds = count(&output);
        if deeds.values().all(|count| count.done == 0) {
            return Err(broken(dir, "nothing that the bad robot did reached a node".to_owned()));
        }
        Ok(deeds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_bad_robot_never_did_is_named_whether_it_was_its_turn_or_not() {
        let output = r#"{"deeds":["flood","lie","silent"]}
something for people
{"deed":"lie","node":"a","times":0,"why":"it is down"}
{"deed":"lie","node":"b","times":30}
{"deed":"silent","node":"a","times":0,"why":"it took too long"}
{"deed":"cut o"#;
        let deeds = count(output);
        let lie = DeedCount { turns: 2, done: 1, times: 30, failed: Some("it is down".to_owned()) };
        assert_eq!((deeds.len(), deeds.get("lie")), (3, Some(&lie)));
        assert_eq!(not_shown(&deeds), ["flood", "silent"]);
        assert_eq!(deeds["silent"].failed.as_deref(), Some("it took too long"));
        assert!(is_long_enough(Duration::from_secs(3_600)) && !is_long_enough(Duration::from_secs(180)));
    }
}
