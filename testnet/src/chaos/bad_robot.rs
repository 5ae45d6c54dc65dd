//! A robot whose key was stolen, in a site where everything else goes wrong as well: a process with the key of a peer that all
//! nodes list and that votes nowhere. What it does is its program's own affair (`rogue`, of the tests): nothing here speaks with
//! nodes but by their API.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::child::Child;
use crate::demo::{DemoError, DemoSite, broken};
use crate::launch::{LaunchError, io_error};

/// Its output, and the list of the nodes that it is told.
const OUTPUT: &str = "bad-robot.log";
const NODES: &str = "bad-robot.json";

/// A line of its output. Lines of another form are for people.
#[derive(Deserialize)]
struct Done {
    deed: String,
    times: u64,
}

/// A running one.
pub(super) struct BadRobot {
    child: Child,
    output: PathBuf,
}

/// Which node it is, as its program says.
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
    /// Starts it on a host of its own, the one behind those of the nodes, if they have such.
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
        Ok(Self { child, output })
    }

    /// Ends it: what it did, and how often it could.
    pub(super) fn end(mut self, dir: &Path) -> Result<BTreeMap<String, u64>, DemoError> {
        if self.child.has_ended() {
            return Err(broken(dir, "the bad robot ended by itself".to_owned()));
        }
        self.child.kill();
        let output = std::fs::read_to_string(&self.output).map_err(io_error(self.output.display().to_string()))?;
        let mut deeds: BTreeMap<String, u64> = BTreeMap::new();
        for done in output.lines().filter_map(|line| serde_json::from_str::<Done>(line).ok()) {
            *deeds.entry(done.deed).or_default() += u64::from(done.times > 0);
        }
        if deeds.values().all(|times| *times == 0) {
            return Err(broken(dir, "the bad robot could do nothing".to_owned()));
        }
        Ok(deeds)
    }
}
