//! The state as bytes.
//!
//! Only what cannot be told from the objects themselves is written; the indexes are made anew. The caller guards the
//! bytes with checksums, since a flipped bit may well decode.

use std::sync::Arc;

use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};
use skep_protocol::agent::AgentRecord;
use skep_protocol::fleet::{FLEET_VERSIONS, FleetLimits, FleetVersions};
use skep_protocol::ids::{ClaimEpoch, RequestId, TaskId};
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::task::Task;
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

use super::commands::{Commands, CommandsBody};
use super::dedup::{Dedup, Remembered};
use super::{FleetState, LogPosition};

/// The snapshot format that is written, and read.
const FORMAT: u8 = 3;

/// Why a snapshot was refused. The state is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Nothing in it.
    #[error("the snapshot is empty")]
    Empty,
    /// Written by another Skep.
    #[error("the snapshot has format {found}, and this Skep reads format {FORMAT}; install one that reads it")]
    Format {
        /// The format found.
        found: u8,
    },
    /// The shard has agreed on entries that this Skep cannot apply.
    #[error("the shard speaks fleet version {found}, and this Skep speaks {speaks}; install one that speaks it")]
    FleetVersion {
        /// The version found.
        found: u32,
        /// Those that it can apply.
        speaks: FleetVersions,
    },
    /// Cut off, or rubbish.
    #[error("the snapshot is malformed: {0}")]
    Malformed(String),
}

impl SnapshotError {
    /// Whether nothing is wrong with the snapshot, and another build reads it.
    pub fn is_of_another_build(&self) -> bool {
        match self {
            Self::Format { .. } | Self::FleetVersion { .. } => true,
            Self::Empty | Self::Malformed(_) => false,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Head {
    limits: FleetLimits,
    applied: Option<(u64, u64)>,
    clock: LogInstant,
    digest: u128,
    next_seq: u64,
    epoch_floor: ClaimEpoch,
    dedup_floor: LogInstant,
}

#[derive(Serialize)]
struct BodyRef<'a> {
    head: Head,
    #[serde(serialize_with = "tasks")]
    tasks: &'a FleetState,
    #[serde(serialize_with = "ended")]
    ended: &'a FleetState,
    #[serde(serialize_with = "agents")]
    agents: &'a FleetState,
    commands: CommandsBody,
    #[serde(serialize_with = "dedup")]
    dedup: &'a FleetState,
}

#[derive(Deserialize)]
struct Body {
    head: Head,
    tasks: Vec<Task>,
    ended: Vec<(u64, TaskId)>,
    agents: Vec<(AgentId, AgentRecord)>,
    commands: CommandsBody,
    dedup: Vec<(RequestId, Remembered)>,
}

fn sequence<S, T>(serializer: S, items: impl ExactSizeIterator<Item = T>) -> Result<S::Ok, S::Error>
where
    S: Serializer,
    T: Serialize,
{
    let mut seq = serializer.serialize_seq(Some(items.len()))?;
    for item in items {
        seq.serialize_element(&item)?;
    }
    seq.end()
}

fn tasks<S: Serializer>(state: &FleetState, serializer: S) -> Result<S::Ok, S::Error> {
    sequence(serializer, state.tasks.values().map(AsRef::<Task>::as_ref))
}

fn ended<S: Serializer>(state: &FleetState, serializer: S) -> Result<S::Ok, S::Error> {
    sequence(serializer, state.ended.iter())
}

fn agents<S: Serializer>(state: &FleetState, serializer: S) -> Result<S::Ok, S::Error> {
    sequence(serializer, state.agents.iter().map(|(id, record)| (id, record.as_ref())))
}

fn dedup<S: Serializer>(state: &FleetState, serializer: S) -> Result<S::Ok, S::Error> {
    if is_on(Mutant::DedupInMemory) {
        return serializer.serialize_seq(Some(0))?.end();
    }
    sequence(serializer, state.dedup.iter())
}

impl FleetState {
    /// The state as bytes. The format comes first, and then the fleet version, as bytes of its own: whoever cannot read the
    /// rest can say why.
    ///
    /// # Errors
    /// [`SnapshotError::Malformed`] if the encoder fails, which plain data does not.
    pub fn to_snapshot(&self) -> Result<Vec<u8>, SnapshotError> {
        let body = BodyRef {
            head: Head {
                limits: self.limits,
                applied: self.applied.map(|p| (p.index, p.term)),
                clock: self.clock,
                digest: self.digest,
                next_seq: self.next_seq,
                epoch_floor: self.epoch_floor,
                dedup_floor: self.dedup.floor(),
            },
            tasks: self,
            ended: self,
            agents: self,
            commands: self.commands.to_body(),
            dedup: self,
        };
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.fleet_version.to_be_bytes());
        postcard::to_extend(&body, bytes).map_err(|e| SnapshotError::Malformed(e.to_string()))
    }

    /// The state that these bytes hold, if this Skep can apply what comes after it.
    ///
    /// # Errors
    /// [`SnapshotError`] says what is wrong with them.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, SnapshotError> {
        Self::read_snapshot(bytes, FLEET_VERSIONS)
    }

    /// The state that these bytes hold, if a build that speaks these versions can apply what comes after it.
    ///
    /// # Errors
    /// [`SnapshotError`] says what is wrong with them.
    pub fn read_snapshot(bytes: &[u8], speaks: FleetVersions) -> Result<Self, SnapshotError> {
        let (format, bytes) = bytes.split_first().ok_or(SnapshotError::Empty)?;
        if *format != FORMAT {
            return Err(SnapshotError::Format { found: *format });
        }
        let malformed = |why: &dyn std::fmt::Display| SnapshotError::Malformed(why.to_string());
        let (version, bytes) = bytes.split_first_chunk::<4>().ok_or_else(|| malformed(&"it is cut off"))?;
        let found = u32::from_be_bytes(*version);
        // Zero: nothing is agreed on yet.
        if found != 0 && !speaks.contains(found) {
            return Err(SnapshotError::FleetVersion { found, speaks });
        }
        let (body, rest) = postcard::take_from_bytes::<Body>(bytes).map_err(|e| malformed(&e))?;
        if !rest.is_empty() {
            return Err(malformed(&format!("{} bytes too many", rest.len())));
        }
        let mut state = Self::new(body.head.limits);
        state.fleet_version = found;
        state.applied = body.head.applied.map(|(index, term)| LogPosition { index, term });
        state.applying = state.applied.map_or(0, |position| position.index);
        state.clock = body.head.clock;
        state.digest = body.head.digest;
        state.next_seq = body.head.next_seq;
        state.epoch_floor = body.head.epoch_floor;
        state.dedup = Dedup::restore(body.head.dedup_floor, body.dedup);
        for (id, record) in body.agents {
            state.agents.insert(id.clone(), Arc::new(record));
            state.touch(&id);
        }
        state.commands = Commands::from_body(body.commands, state.applying);
        for task in body.tasks {
            state.index(&task);
            state.tasks.insert(task.id, Arc::new(task));
        }
        for (seq, id) in body.ended {
            if !state.task(&id).is_some_and(|task| task.state.status().is_terminal()) {
                return Err(malformed(&format!("task {id} is listed as ended and is not")));
            }
            state.note_end(seq, id);
        }
        Ok(state)
    }
}
