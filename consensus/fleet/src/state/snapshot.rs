//! The state as bytes.
//!
//! A snapshot holds only what does not follow from the objects themselves; the reader makes the indexes anew. It
//! encodes and decodes one object after another, so that there are never two states in memory on the way. The caller
//! guards the bytes with checksums, since bytes with a flipped bit may well decode.

use serde::{Deserialize, Serialize};
use skep_protocol::agent::AgentRecord;
use skep_protocol::fleet::{FLEET_VERSIONS, FleetLimits, FleetVersions};
use skep_protocol::ids::{ClaimEpoch, TaskId};
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::query::Dropped;
use skep_protocol::signing::OperatorKey;
use skep_protocol::task::Task;
use skep_protocol::text::{AgentId, NodeName};
use skep_protocol::time::LogInstant;
use skep_trust::{PublicKey, Serial, SiteTime};

use super::changes::Changes;
use super::dedup::{Dedup, Remembered};
use super::head::Head;
use super::{FleetState, LogPosition};
use crate::tables::commands::{CommandState, Commands, CommandsHead, OutboxHead};
use crate::tables::operators::{Operator, Operators, OperatorsHead};
use crate::tables::site::{Invited, Site, SiteHead, StoredMember};
use crate::tables::tasks::Tasks;

/// The snapshot format that this Skep writes and reads.
const FORMAT: u8 = 13;
/// Bytes at which a part of a snapshot is handed on. One object is never divided.
const PART_BYTES: usize = 64 * 1024;

/// Why a snapshot is refused. The state is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The snapshot has no bytes.
    #[error("the snapshot is empty")]
    Empty,
    /// Another Skep wrote the snapshot.
    #[error("the snapshot has format {found}; this Skep reads format {FORMAT}. {}", remedy(.found))]
    Format {
        /// The format of the snapshot.
        found: u8,
    },
    /// The shard has agreed on entries that this Skep cannot apply.
    #[error("the shard speaks fleet version {found}, and this Skep speaks {speaks}; install one that speaks it")]
    FleetVersion {
        /// The fleet version of the shard.
        found: u32,
        /// The fleet versions that this Skep can apply.
        speaks: FleetVersions,
    },
    /// The snapshot is cut off, or rubbish.
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

fn remedy(found: &u8) -> &'static str {
    if *found > FORMAT {
        "Upgrade it"
    } else {
        "Run the Skep that wrote it, or have this node replaced as a voter and start it on an empty directory"
    }
}

fn malformed(why: &impl std::fmt::Display) -> SnapshotError {
    SnapshotError::Malformed(why.to_string())
}

#[derive(Serialize, Deserialize)]
struct StoredHead {
    limits: FleetLimits,
    applied: Option<(u64, u64)>,
    clock: LogInstant,
    digest: u128,
    next_seq: u64,
    epoch_floor: ClaimEpoch,
    dedup_floor: LogInstant,
    dropped: Dropped,
}

impl StoredHead {
    fn restored(&self, fleet_version: u32) -> Head {
        let applied = self.applied.map(|(index, term)| LogPosition { index, term });
        Head {
            limits: self.limits,
            fleet_version,
            applied,
            applying: applied.unwrap_or_default(),
            clock: self.clock,
            digest: self.digest,
            next_seq: self.next_seq,
            dropped: self.dropped,
        }
    }
}

/// Where a snapshot goes, a part at a time.
struct Out<'a, E> {
    part: Vec<u8>,
    to: &'a mut dyn FnMut(&[u8]) -> Result<(), E>,
}

impl<E: From<SnapshotError>> Out<'_, E> {
    fn put(&mut self, value: &impl Serialize) -> Result<(), E> {
        let part = std::mem::take(&mut self.part);
        self.part = postcard::to_extend(value, part).map_err(|e| malformed(&e))?;
        if self.part.len() >= PART_BYTES { self.hand_on() } else { Ok(()) }
    }

    fn put_all<T: Serialize>(&mut self, count: usize, items: impl Iterator<Item = T>) -> Result<(), E> {
        self.put(&(count as u64))?;
        for item in items {
            self.put(&item)?;
        }
        Ok(())
    }

    fn put_site(&mut self, site: Option<&Site>) -> Result<(), E> {
        self.put(&site.map(Site::head))?;
        let Some(site) = site else { return Ok(()) };
        let (revocations, members, names) = (site.revocations(), site.members(), site.names());
        self.put_all(revocations.len(), revocations)?;
        self.put_all(members.len(), members)?;
        self.put_all(names.len(), names)?;
        let (invitations, serials) = (site.invitations(), site.serials());
        self.put_all(invitations.len(), invitations)?;
        self.put_all(serials.len(), serials)
    }

    fn hand_on(&mut self) -> Result<(), E> {
        (self.to)(&self.part)?;
        self.part.clear();
        Ok(())
    }
}

/// The rest of a snapshot.
struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn take<T: Deserialize<'a>>(&mut self) -> Result<T, SnapshotError> {
        let (value, rest) = postcard::take_from_bytes(self.0).map_err(|e| malformed(&e))?;
        self.0 = rest;
        Ok(value)
    }

    /// Takes as many records as are said to follow. A number that was made up ends with the bytes.
    fn take_all<T: Deserialize<'a>>(
        &mut self,
        mut each: impl FnMut(T) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        for _ in 0..self.take::<u64>()? {
            each(self.take()?)?;
        }
        Ok(())
    }

    fn take_site(&mut self) -> Result<Option<Site>, SnapshotError> {
        let Some(head) = self.take::<Option<SiteHead>>()? else { return Ok(None) };
        let mut revocations = Vec::new();
        self.take_all(|numbered: (u64, Vec<u8>)| {
            revocations.push(numbered);
            Ok(())
        })?;
        let site = Site::from_head(head, revocations);
        let mut site = site.ok_or_else(|| malformed(&"its root documents or revocations are not those of a site"))?;
        self.take_all(|member: StoredMember| {
            let restored = site.restore_member(member);
            if restored { Ok(()) } else { Err(malformed(&"a member has no certificate")) }
        })?;
        self.take_all(|(name, holder): (NodeName, (PublicKey, SiteTime))| {
            site.restore_name(name, holder);
            Ok(())
        })?;
        self.take_all(|invited: Invited| {
            site.restore_invitation(invited);
            Ok(())
        })?;
        self.take_all(|(serial, until): (Serial, SiteTime)| {
            site.restore_serial(serial, until);
            Ok(())
        })?;
        Ok(Some(site))
    }
}

impl FleetState {
    /// The state as bytes. The format comes first, and then the fleet version, as bytes of their own: software that
    /// cannot read the rest can say why.
    ///
    /// # Errors
    /// [`SnapshotError::Malformed`] if the encoder fails, which plain data does not.
    pub fn to_snapshot(&self) -> Result<Vec<u8>, SnapshotError> {
        let mut bytes = Vec::new();
        self.write_snapshot(&mut |part: &[u8]| {
            bytes.extend_from_slice(part);
            Ok::<(), SnapshotError>(())
        })?;
        Ok(bytes)
    }

    /// Hands on the state as bytes, in parts of about 64 KiB each. The format comes first, and then the fleet version,
    /// as bytes of their own: software that cannot read the rest can say why.
    ///
    /// # Errors
    /// Those of the function that takes them, and [`SnapshotError::Malformed`] if the encoder fails, which plain data
    /// does not.
    pub fn write_snapshot<E: From<SnapshotError>>(&self, to: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut part = vec![FORMAT];
        part.extend_from_slice(&self.head.fleet_version.to_be_bytes());
        let mut out = Out { part, to };
        out.put(&StoredHead {
            limits: self.head.limits,
            applied: self.head.applied.map(|p| (p.index, p.term)),
            clock: self.head.clock,
            digest: self.head.digest,
            next_seq: self.head.next_seq,
            epoch_floor: self.tasks.epoch_floor(),
            dedup_floor: self.dedup.floor(),
            dropped: self.head.dropped,
        })?;
        out.put_all(self.tasks.count(), self.tasks.records())?;
        out.put_all(self.tasks.ended_count(), self.tasks.ended())?;
        let agents = self.agents.records();
        out.put_all(agents.len(), agents)?;
        let (operators, outboxes, commands) =
            (self.operators.records(), self.commands.outbox_heads(), self.commands.records());
        out.put(&self.operators.head())?;
        out.put(&self.commands.head())?;
        out.put_all(operators.len(), operators)?;
        out.put_all(outboxes.len(), outboxes)?;
        out.put_all(commands.len(), commands)?;
        out.put_site(self.site.as_ref())?;
        let ids = if is_on(Mutant::DedupInMemory) { 0 } else { self.dedup.len() };
        out.put_all(ids, self.dedup.records().take(ids))?;
        out.hand_on()
    }

    /// The state that these bytes hold, if this Skep can apply the entries after it.
    ///
    /// # Errors
    /// [`SnapshotError`] says what is wrong with them.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, SnapshotError> {
        Self::read_snapshot(bytes, FLEET_VERSIONS)
    }

    /// The state that these bytes hold, if a build that speaks these versions can apply the entries after it.
    ///
    /// # Errors
    /// [`SnapshotError`] says what is wrong with them.
    pub fn read_snapshot(bytes: &[u8], speaks: FleetVersions) -> Result<Self, SnapshotError> {
        let (format, bytes) = bytes.split_first().ok_or(SnapshotError::Empty)?;
        if *format != FORMAT {
            return Err(SnapshotError::Format { found: *format });
        }
        let (version, bytes) = bytes.split_first_chunk::<4>().ok_or_else(|| malformed(&"it is cut off"))?;
        let found = u32::from_be_bytes(*version);
        // Zero: the shard has agreed on nothing yet.
        if found != 0 && !speaks.contains(found) {
            return Err(SnapshotError::FleetVersion { found, speaks });
        }
        let mut from = In(bytes);
        let head: StoredHead = from.take()?;
        let mut state = Self::of_head(head.restored(found));
        state.tasks = Tasks::above(head.epoch_floor);
        state.take_objects(&mut from)?;
        state.site = from.take_site()?;
        state.dedup = Dedup::empty(head.dedup_floor, head.clock);
        let mut before = LogInstant::ZERO;
        from.take_all::<Remembered<'_>>(|record| {
            let restored = state.dedup.restore(&record, &mut before);
            if restored { Ok(()) } else { Err(malformed(&"a request id is in it twice, or its answer is none")) }
        })?;
        if !from.0.is_empty() {
            return Err(malformed(&format!("{} bytes too many", from.0.len())));
        }
        Ok(state)
    }

    fn take_objects(&mut self, from: &mut In<'_>) -> Result<(), SnapshotError> {
        let applied = self.head.applying.index;
        from.take_all(|task: Task| {
            self.tasks.restore(task, &mut self.agents, &self.head.cx(&mut Changes::default()));
            Ok(())
        })?;
        from.take_all(|(seq, id): (u64, TaskId)| {
            let restored = self.tasks.restore_ended(seq, id);
            if restored { Ok(()) } else { Err(malformed(&format!("task {id} is listed as ended and is not"))) }
        })?;
        from.take_all(|(id, record): (AgentId, AgentRecord)| {
            let held = self.tasks.held_count(&id);
            self.agents.restore(&id, record, held, applied);
            Ok(())
        })?;
        self.operators = Operators::from_head(from.take::<OperatorsHead>()?);
        self.commands = Commands::from_head(from.take::<CommandsHead>()?);
        from.take_all(|(key, operator): (OperatorKey, Operator)| {
            self.operators.restore(key, operator);
            Ok(())
        })?;
        self.operators.stand_all_anew();
        from.take_all(|(agent, head): (AgentId, OutboxHead)| {
            self.commands.restore_outbox(agent, head, applied);
            Ok(())
        })?;
        from.take_all(|record: CommandState| {
            self.commands.restore_record(record);
            Ok(())
        })
    }
}
