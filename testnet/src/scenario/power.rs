//! Power cuts: voters on file systems of their own, which lose power while clients write.
//!
//! A killed process proves nothing about fsync, since what it wrote stays in the page cache. Here each voter's data is
//! on ext4 on a loop device, which is shut down without flushing its journal: what was not synced is gone, as after a
//! pulled plug. Then the device is mounted again and the node started again.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use skep_client::{Client, Read, pages, v1};

use crate::error::{LaunchError, io_error};
use crate::site::hosts::run;
use crate::site::launch::{Layout, TestNode, Testnet};
use crate::workload::{Done, Load};

/// The size of each file system.
const DISK: &str = "512M";
/// How long clients write before the power goes, in milliseconds.
const BEFORE_MS: std::ops::Range<u64> = 200..1_500;
/// How long clients of the remaining nodes go on then, in milliseconds.
const AFTER_MS: std::ops::Range<u64> = 0..500;
/// Bytes of payload in a task.
const PAYLOAD_BYTES: usize = 256;
/// How many tasks a page of the list has.
const PAGE: u32 = 1_000;

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct PowerOptions {
    /// The path of the program that is a node.
    pub binary: PathBuf,
    /// A fresh directory.
    pub dir: PathBuf,
    /// How many nodes; all of them vote.
    pub voters: usize,
    /// How many clients, each with one write under way.
    pub clients: usize,
    /// How many power cuts.
    pub cuts: u32,
    /// The seed of when the power goes, and of which voters.
    pub seed: u64,
}

/// The result of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PowerReport {
    /// Why nothing was done; none if something was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// How many power cuts there were.
    pub cuts: u32,
    /// How many of them hit one voter.
    pub of_one: u32,
    /// How many of them hit a quorum at once.
    pub of_quorum: u32,
    /// How many of them hit all voters at once.
    pub of_all: u32,
    /// How many writes were acknowledged.
    pub acknowledged: usize,
    /// How many writes had an unknown outcome.
    pub unknown: u64,
    /// How many acknowledged writes some voter does not hold.
    pub lost: usize,
    /// How many calls made more than one task.
    pub doubled: usize,
    /// The seed of when the power went, and of which voters.
    pub seed: u64,
    /// Whether nothing was lost or doubled.
    pub ok: bool,
}

/// Whether power cuts are possible here; otherwise why not.
///
/// # Errors
/// The reason as text.
pub fn available() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("mounting file systems needs root".to_owned());
    }
    for (program, package) in [("mkfs.ext4", "e2fsprogs"), ("xfs_io", "xfsprogs")] {
        if Command::new(program).arg("-V").output().is_err() {
            return Err(format!("'{program}' is not installed; it is in the package {package}"));
        }
    }
    run("losetup", &["--find"]).map_err(|error| error.to_string())
}

/// A file system in a file, under a node's data.
struct Disk {
    image: PathBuf,
    mounted: PathBuf,
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl Disk {
    /// Puts a file system under a directory that is not in use, with everything that is in it.
    fn under(data: &Path) -> Result<Self, LaunchError> {
        let (image, beside) = (data.with_extension("img"), data.with_extension("before"));
        let failed = || io_error(text(data));
        std::fs::rename(data, &beside).map_err(failed())?;
        std::fs::create_dir(data).map_err(failed())?;
        run("truncate", &["-s", DISK, &text(&image)])?;
        run("mkfs.ext4", &["-q", "-F", &text(&image)])?;
        let disk = Self { image, mounted: data.to_owned() };
        disk.mount()?;
        run("cp", &["-a", &text(&beside.join(".")), &text(data)])?;
        // The former content is on the disk; for what follows, the store is responsible.
        run("sync", &["-f", &text(data)])?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), LaunchError> {
        run("mount", &["-o", "loop", &text(&self.image), &text(&self.mounted)])
    }

    /// Cuts the power: what was not synced is lost.
    fn cut(&self) -> Result<(), LaunchError> {
        run("xfs_io", &["-x", "-c", "shutdown", &text(&self.mounted)])
    }

    fn unmount(&self) -> Result<(), LaunchError> {
        run("umount", &[&text(&self.mounted)])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &text(&self.mounted)]);
    }
}

/// Runs power cuts.
///
/// # Errors
/// [`LaunchError`] if it could not run. The report has what it found.
pub async fn power(options: PowerOptions) -> Result<PowerReport, LaunchError> {
    let mut report = PowerReport { seed: options.seed, ..PowerReport::default() };
    if let Err(why) = available() {
        report.skipped = Some(why);
        report.ok = true;
        return Ok(report);
    }
    let mut rng = SmallRng::seed_from_u64(options.seed);
    let mut net = Testnet::create(Layout {
        binary: options.binary,
        dir: options.dir,
        nodes: options.voters,
        voters: options.voters,
        preset: "sim".to_owned(),
        overrides: vec!["store.segment_bytes=4194304".to_owned()],
        hosts: None,
        links: None,
        tcp: false,
    })?;
    let disks: Result<Vec<Disk>, LaunchError> =
        net.nodes.iter().map(|node| Disk::under(&node.dir.join("data"))).collect();
    let disks = disks?;
    net.up().await?;
    let all: Vec<usize> = (0..options.voters).collect();
    let mut acknowledged: Vec<[u8; 16]> = Vec::new();
    for cut in 0..options.cuts {
        let before = Duration::from_millis(rng.random_range(BEFORE_MS));
        let victims = victims(cut, options.voters, &mut rng, &mut report);
        let after = Duration::from_millis(rng.random_range(AFTER_MS));
        let done = cut_power(&mut net, &disks, &victims, options.clients, (before, after)).await?;
        acknowledged.extend(done.acknowledged);
        report.unknown += done.unknown;
        net.until_equal(&all).await?;
        report.lost = acknowledged.len() - net.verify(&acknowledged).await?;
        let _ = writeln!(
            std::io::stderr(),
            "power cut {} of {} voters: {} acknowledged so far, {} lost",
            cut + 1,
            victims.len(),
            acknowledged.len(),
            report.lost
        );
        if report.lost > 0 {
            break;
        }
    }
    report.cuts = report.of_one + report.of_quorum + report.of_all;
    report.acknowledged = acknowledged.len();
    report.doubled = doubled(&net).await?;
    report.ok = report.lost == 0 && report.doubled == 0;
    drop(net);
    drop(disks);
    Ok(report)
}

/// Cuts the power of some voters while clients write, and brings it back; returns what the clients have done.
async fn cut_power(
    net: &mut Testnet,
    disks: &[Disk],
    victims: &[usize],
    clients: usize,
    (before, after): (Duration, Duration),
) -> Result<Done, LaunchError> {
    let connections: Vec<Client> = net.nodes.iter().map(TestNode::impatient_client).collect();
    let load = Load::start(&connections, clients, PAYLOAD_BYTES);
    tokio::time::sleep(before).await;
    for at in victims {
        disks[*at].cut()?;
    }
    // If some voters are left, clients go on; then they are stopped, and every answer that they got counts.
    tokio::time::sleep(after).await;
    let done = load.stop().await;
    for at in victims {
        net.kill(*at);
        disks[*at].unmount()?;
        disks[*at].mount()?;
        net.start(*at)?;
    }
    Ok(done)
}

/// The voters that lose power: one voter, a quorum, all of them, in turns.
fn victims(cut: u32, voters: usize, rng: &mut SmallRng, report: &mut PowerReport) -> Vec<usize> {
    let count = match cut % 3 {
        0 => {
            report.of_one += 1;
            1
        }
        1 => {
            report.of_quorum += 1;
            voters / 2 + 1
        }
        _ => {
            report.of_all += 1;
            voters
        }
    };
    let first = rng.random_range(0..voters);
    (0..count).map(|n| (first + n) % voters).collect()
}

/// How many calls were carried out more than once: every call gives its task a title of its own.
async fn doubled(net: &Testnet) -> Result<usize, LaunchError> {
    let leader = net.leader().await?;
    let client = net.nodes[leader].client();
    let (mut titles, mut doubled) = (std::collections::BTreeSet::new(), 0);
    let ask = async |after: Vec<u8>| client.tasks(&[], &after, PAGE, Read::Linearizable).await;
    let count = |page: v1::ListTasksReply| {
        for task in page.tasks {
            doubled += usize::from(!titles.insert(task.spec.unwrap_or_default().title));
        }
    };
    pages(ask, count).await?;
    Ok(doubled)
}
