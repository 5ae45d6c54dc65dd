//! Hosts of their own on one machine: a network namespace for each node, on a bridge in one more.
//!
//! This needs root. All names have this process's pid in them, and everything is removed when this is dropped; what a
//! killed launcher has left, the next one removes.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{LaunchError, io_error};

/// The prefix of the names of namespaces.
const PREFIX: &str = "skep";
/// The device of a host on the bridge.
const DEVICE: &str = "eth0";
/// The most hosts on one bridge.
const HOSTS_MAX: usize = 200;

/// A number of hosts. Dropping it removes them.
#[derive(Debug)]
pub struct Hosts {
    count: usize,
    bridge: String,
}

pub(crate) fn run(program: &str, args: &[&str]) -> Result<(), LaunchError> {
    let command = || format!("{program} {}", args.join(" "));
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let failed = |output: String| LaunchError::Command { command: command(), output };
    let output = output.map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

impl Hosts {
    /// The address of the namespace between the hosts, for all hosts.
    pub(crate) const BETWEEN: Ipv4Addr = Ipv4Addr::new(10, 77, 255, 254);

    /// Whether this process may make hosts, and has the tools for that; otherwise why not.
    ///
    /// # Errors
    /// The reason as text.
    pub fn available() -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces need root".to_owned());
        }
        for (program, package) in
            [("ip", "iproute2"), ("tc", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")]
        {
            let found = Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
            if found.is_err() {
                return Err(format!("'{program}' is not installed; it is in the package {package}"));
            }
        }
        let trial = format!("{PREFIX}-{}-trial", std::process::id());
        run("ip", &["netns", "add", &trial]).map_err(|error| error.to_string())?;
        run("ip", &["netns", "del", &trial]).map_err(|error| error.to_string())
    }

    /// Makes hosts that all reach each other.
    ///
    /// # Errors
    /// [`LaunchError::Command`] says which command failed and what it printed.
    pub fn create(count: usize) -> Result<Self, LaunchError> {
        if count > HOSTS_MAX {
            let output = format!("at most {HOSTS_MAX} hosts");
            return Err(LaunchError::Command { command: format!("{count} hosts"), output });
        }
        remove_abandoned();
        let hosts = Self { count, bridge: format!("{PREFIX}-{}-bridge", std::process::id()) };
        let bridge = hosts.bridge.as_str();
        run("ip", &["netns", "add", bridge])?;
        run("ip", &["-n", bridge, "link", "add", "br0", "type", "bridge"])?;
        run("ip", &["-n", bridge, "link", "set", "br0", "up"])?;
        run("ip", &["-n", bridge, "address", "add", &format!("{}/16", Self::BETWEEN), "dev", "br0"])?;
        for at in 0..count {
            let (name, port) = (hosts.name(at), format!("port{at}"));
            run("ip", &["netns", "add", &name])?;
            let pair = ["-n", &name, "link", "add", DEVICE, "type", "veth", "peer", "name", &port, "netns", bridge];
            run("ip", &pair)?;
            run("ip", &["-n", bridge, "link", "set", &port, "master", "br0", "up"])?;
            let address = format!("{}/16", hosts.address(at));
            run("ip", &["-n", &name, "address", "add", &address, "dev", DEVICE])?;
            run("ip", &["-n", &name, "link", "set", DEVICE, "up"])?;
            run("ip", &["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(hosts)
    }

    fn name(&self, at: usize) -> String {
        format!("{PREFIX}-{}-{at}", std::process::id())
    }

    fn entry(&self, at: usize) -> String {
        format!("--net=/var/run/netns/{}", self.name(at))
    }

    /// The address of a host, for the others.
    pub fn address(&self, at: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, u8::try_from(at + 1).unwrap_or(u8::MAX))
    }

    /// Does something in the network between the hosts: sockets that it opens stay there.
    ///
    /// # Errors
    /// [`LaunchError::Io`].
    pub(crate) fn between<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LaunchError> {
        let path = Path::new("/var/run/netns").join(&self.bridge);
        let enter = || -> io::Result<T> {
            let network = File::open(&path)?;
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        };
        // On a thread that ends with it: a thread stays in the namespace that it entered.
        let ended = std::thread::scope(|scope| scope.spawn(enter).join());
        let ended = ended.unwrap_or_else(|_| Err(io::Error::other("its thread ended")));
        ended.map_err(io_error(path.display().to_string()))
    }

    /// A command on a host. Its process is the program's own.
    pub fn command(&self, at: usize, program: &Path) -> Command {
        // Not by 'ip netns exec': that makes a mount namespace too, which would keep alive what others unmount.
        let mut command = Command::new("nsenter");
        command.arg(self.entry(at)).arg(program);
        command
    }

    /// Cuts one direction: what one host sends does not reach another.
    ///
    /// # Errors
    /// [`LaunchError::Command`].
    pub fn cut(&self, from: usize, to: usize) -> Result<(), LaunchError> {
        let to = format!("{}/32", self.address(to));
        run("ip", &["-n", &self.name(from), "route", "replace", "blackhole", &to])
    }

    /// Takes back a cut: what the host sends reaches the other again.
    ///
    /// # Errors
    /// [`LaunchError::Command`].
    pub fn join(&self, from: usize, to: usize) -> Result<(), LaunchError> {
        let to = format!("{}/32", self.address(to));
        run("ip", &["-n", &self.name(from), "route", "del", "blackhole", &to])
    }

    /// Loses this many of a hundred packets that reach a host; none if zero.
    ///
    /// # Errors
    /// [`LaunchError::Command`].
    pub fn lose(&self, at: usize, percent: u32) -> Result<(), LaunchError> {
        let entry = self.entry(at);
        if percent == 0 {
            return run("nsenter", &[&entry, "nft", "delete", "table", "inet", "skep"]);
        }
        let rules = format!(
            "table inet skep {{\nchain in {{\ntype filter hook input priority 0;\nnumgen random mod 100 < {percent} drop;\n}}\n}}"
        );
        run("nsenter", &[&entry, "nft", &rules])
    }

    /// Limits what a host sends to a rate, in kilobits a second; none for no limit.
    ///
    /// # Errors
    /// [`LaunchError::Command`].
    pub fn slow_down(&self, at: usize, kbit_per_s: Option<u32>) -> Result<(), LaunchError> {
        let name = self.name(at);
        let Some(kbit) = kbit_per_s else { return run("tc", &["-n", &name, "qdisc", "del", "dev", DEVICE, "root"]) };
        let rate = format!("{kbit}kbit");
        let shape = ["root", "tbf", "rate", &rate, "burst", "4kb", "latency", "400ms"];
        run("tc", &[&["-n", &name, "qdisc", "replace", "dev", DEVICE], shape.as_slice()].concat())
    }

    /// Pulls a host's plug, or puts it in again.
    ///
    /// # Errors
    /// [`LaunchError::Command`].
    pub fn plug(&self, at: usize, in_: bool) -> Result<(), LaunchError> {
        run("ip", &["-n", &self.name(at), "link", "set", DEVICE, if in_ { "up" } else { "down" }])
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for at in 0..self.count {
            let _ = run("ip", &["netns", "del", &self.name(at)]);
        }
        let _ = run("ip", &["netns", "del", &self.bridge]);
    }
}

/// Removes namespaces of launchers that are gone.
fn remove_abandoned() {
    let Ok(output) = Command::new("ip").args(["netns", "list"]).output() else { return };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let mut parts = name.split('-');
        let (Some(PREFIX), Some(pid)) = (parts.next(), parts.next().and_then(|pid| pid.parse::<u32>().ok())) else {
            continue;
        };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            let _ = run("ip", &["netns", "del", name]);
        }
    }
}
