//! What was written down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use skep_client::v1;

use super::VerifyError;
use crate::demo::StoryRecord;
use crate::record::{ClientRecord, RecordError, read};
use crate::station::Effect;

/// How far a voter is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadRecord {
    /// Its name.
    pub node: String,
    /// The last entry that it applied.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The rolling digest of everything that it applied.
    pub digest: String,
}

/// A task as a voter holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Its id.
    pub task: String,
    /// Where it stands, as the API names it.
    pub status: String,
    /// Its last claim.
    pub epoch: u64,
}

/// A transition of a task, as a voter holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// Where it stands in the log.
    pub index: u64,
    /// The shard's log clock.
    pub clock: u64,
    /// The task.
    pub task: String,
    /// What happened.
    pub change: String,
    /// By whom, or from whom.
    pub agent: String,
    /// Under which claim.
    pub epoch: u64,
    /// Why.
    pub detail: String,
    /// The request that asked for it.
    pub request: String,
}

fn text(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl TaskRecord {
    /// From the API.
    pub fn of(task: &v1::Task) -> Self {
        Self { task: text(&task.id), status: task.status().as_str_name().to_owned(), epoch: task.epoch }
    }

    /// Whether nothing more happens to it.
    pub fn has_ended(&self) -> bool {
        !matches!(self.status.as_str(), "TASK_STATUS_PENDING" | "TASK_STATUS_CLAIMED" | "TASK_STATUS_UNSPECIFIED")
    }
}

impl ChangeRecord {
    /// From the API.
    pub fn of(event: v1::TaskEvent) -> Self {
        Self {
            index: event.index,
            clock: event.clock,
            task: text(&event.task_id),
            change: event.kind,
            agent: event.agent,
            epoch: event.epoch,
            detail: event.detail,
            request: text(&event.request_id),
        }
    }
}

/// What one voter holds in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VoterRecord {
    /// How far it is.
    pub head: HeadRecord,
    /// Its tasks.
    pub tasks: Vec<TaskRecord>,
    /// Their transitions, in the order of the log for each task.
    pub changes: Vec<ChangeRecord>,
}

/// Everything that was written down.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// What was done to the testnet.
    pub story: Vec<StoryRecord>,
    /// What was asked of the world, in its order.
    pub effects: Vec<Effect>,
    /// What each client did and heard, by the name of its history.
    pub clients: BTreeMap<String, Vec<ClientRecord>>,
    /// What every voter holds.
    pub voters: Vec<VoterRecord>,
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, VerifyError> {
    let io = |source| RecordError::Io { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        files.push(entry.map_err(io)?.path());
    }
    files.sort();
    Ok(files)
}

fn stem(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().split('.').next().unwrap_or_default().to_owned()
}

impl Evidence {
    /// Reads what a demo has left in its directory.
    ///
    /// # Errors
    /// [`VerifyError`] names what cannot be read.
    pub fn read(dir: &Path) -> Result<Self, VerifyError> {
        let story: Vec<StoryRecord> = read(&dir.join("story.jsonl"))?;
        let effects = read(&dir.join("actuator.jsonl"))?;
        let mut clients = BTreeMap::new();
        for path in files(&dir.join("histories"))? {
            clients.insert(stem(&path), read(&path)?);
        }
        let mut voters = Vec::new();
        for path in files(&dir.join("final"))?.iter().filter(|path| path.to_string_lossy().ends_with(".head.jsonl")) {
            let beside = |what: &str| path.with_file_name(format!("{}.{what}.jsonl", stem(path)));
            let head = read::<HeadRecord>(path)?.pop();
            let head = head.ok_or_else(|| VerifyError::Missing(format!("{} is empty", path.display())))?;
            voters.push(VoterRecord { head, tasks: read(&beside("tasks"))?, changes: read(&beside("changes"))? });
        }
        let evidence = Self { story, effects, clients, voters };
        let ended = evidence.story.iter().any(|record| matches!(record, StoryRecord::Ended { .. }));
        if !ended || evidence.voters.is_empty() {
            return Err(VerifyError::Missing(format!("{} holds no run that came to its end", dir.display())));
        }
        Ok(evidence)
    }

    /// Everything that clients were told is done.
    pub fn acknowledged(&self) -> impl Iterator<Item = (&crate::record::Call, &str)> {
        self.clients.values().flatten().filter_map(|record| match record {
            ClientRecord::Ok { call, request, .. } => Some((call, request.as_str())),
            _ => None,
        })
    }

    /// Whether any process was suspended: then a robot may act on a look at the clock that is old.
    pub fn anything_paused(&self) -> bool {
        self.story.iter().any(|record| matches!(record, StoryRecord::Paused { .. }))
    }

    /// The robots' leases and the longest silence of a leader, in milliseconds.
    pub fn terms(&self) -> (u64, u64) {
        let begun = |record: &StoryRecord| match record {
            StoryRecord::Begun { lease_ttl_ms, election_ms_max, .. } => Some((*lease_ttl_ms, *election_ms_max)),
            _ => None,
        };
        self.story.iter().find_map(begun).unwrap_or((5_000, 3_000))
    }

    /// An instant on the boot clock, in nanoseconds, and on the shard's log clock.
    pub fn clock(&self) -> Option<(u64, u64)> {
        self.story.iter().find_map(|record| match record {
            StoryRecord::Begun { at_ns, clock, .. } => Some((*at_ns, *clock)),
            _ => None,
        })
    }

    /// The transitions, as the first voter holds them. All voters hold the same, or S8 is violated.
    pub fn changes(&self) -> &[ChangeRecord] {
        self.voters.first().map(|voter| voter.changes.as_slice()).unwrap_or_default()
    }
}
