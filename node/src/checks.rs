//! What a node does for the checkers of a run: it keeps a history of itself, and does not speak with peers that a file
//! names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use skep_config::ChecksConfig;
use skep_consensus::{ConsensusHandle, ShardRole};
use skep_mesh::MeshHandle;
use skep_protocol::ids::{NodeId, ShardId};

/// How often the node looks at its own state, and at the file of cut-off peers.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many bytes of history one process writes. After that it writes no more.
const HISTORY_BYTES_MAX: usize = 1 << 30;

/// One line of the history.
#[derive(Serialize)]
struct Line<'a> {
    node: &'a str,
    incarnation: &'a str,
    /// The id of the machine's start.
    boot_id: &'a str,
    pid: u32,
    /// Nanoseconds of the boot clock, which all processes of a machine share.
    mono_ns: u64,
    /// The log clock of the shard as the node knows it.
    clock: Option<u64>,
    #[serde(flatten)]
    seen: Seen,
}

/// What the node saw of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Seen {
    Started,
    /// How far this node's replica of a shard is.
    Shard {
        shard: u32,
        role: String,
        leads: bool,
        term: u64,
        /// The last index; none before the first entry, whose index is 0.
        index: Option<u64>,
        digest: String,
        voters: Vec<String>,
    },
}

/// Does what the configuration asks for, until the node ends.
pub(crate) fn start(config: &ChecksConfig, dir: &Path, consensus: &ConsensusHandle, mesh: &MeshHandle) {
    if let Some(path) = &config.history {
        let (path, consensus) = (dir.join(path), consensus.clone());
        tokio::spawn(async move {
            if let Err(error) = keep_history(&path, &consensus).await {
                tracing::warn!(path = %path.display(), %error, "the history for checkers ends here");
            }
        });
    }
    if let Some(path) = &config.cuts {
        tokio::spawn(follow_cuts(dir.join(path), consensus.clone(), mesh.clone()));
    }
}

fn boot_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

async fn keep_history(path: &Path, consensus: &ConsensusHandle) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let (node, incarnation) = (consensus.node().to_string(), consensus.incarnation().to_string());
    let mut written = 0;
    let mut write = |clock: Option<u64>, seen: Seen| {
        let (pid, mono_ns) = (std::process::id(), boot_ns());
        let boot_id = boot_id.trim();
        let line = Line { node: &node, incarnation: &incarnation, boot_id, pid, mono_ns, clock, seen };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        written += bytes.len();
        if written > HISTORY_BYTES_MAX {
            return Err(io::Error::other(format!("it has reached its limit of {HISTORY_BYTES_MAX} bytes")));
        }
        file.write_all(&bytes)
    };
    write(None, Seen::Started)?;
    let mut last: BTreeMap<ShardId, Seen> = BTreeMap::new();
    loop {
        for shard in consensus.shards() {
            let Some(seen) = look(consensus, shard) else { continue };
            if last.get(&shard) != Some(&seen) {
                write(consensus.clock(shard).map(|clock| clock.raw()), seen.clone())?;
                last.insert(shard, seen);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn look(consensus: &ConsensusHandle, shard: ShardId) -> Option<Seen> {
    let status = consensus.status(shard)?;
    Some(Seen::Shard {
        shard: shard.0,
        role: status.role.to_string(),
        leads: status.role == ShardRole::Leader,
        term: status.term,
        index: status.applied,
        digest: format!("{:032x}", status.digest),
        voters: status.voters.into_iter().map(|voter| voter.raft_id.to_string()).collect(),
    })
}

/// Does not speak with the peers that a file names, one a line, for as long as the file names them.
async fn follow_cuts(path: PathBuf, consensus: ConsensusHandle, mesh: MeshHandle) {
    let mut known = BTreeSet::new();
    loop {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let cut_off: BTreeSet<NodeId> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
        if cut_off != known {
            consensus.cut_off(cut_off.clone());
            mesh.cut_off(cut_off.clone());
            known = cut_off;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
