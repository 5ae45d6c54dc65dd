//! Commands: what an operator wants robots to do.
//!
//! A task is work that whoever can claims; a command is meant for the robots that it names, and each of them does it at
//! most once, before its deadline, or not at all.

mod change;
mod class;
mod op;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::authority::{Authority, OperatorKey, OperatorSecret};
use crate::codec::CodecError;
use crate::fleet::FleetLimits;
use crate::ids::{CommandId, NodeId};
use crate::statement::{Place, Signed};
use crate::text::{AgentId, ContentType, GroupName, Reason, TraceParent, Verb};
use crate::time::LogInstant;

pub use change::CommandChange;
pub use class::{CommandClass, DeliverySeq, PerClass};
pub use op::{CommandOp, DeliveryReport, EndedDelivery};

/// For whom a command is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Target {
    /// One agent.
    Agent(AgentId),
    /// All agents that said they are of a group, when the command was accepted.
    Group(GroupName),
    /// All agents that take commands. Needs a grant of its own.
    All,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(agent) => write!(f, "{agent}"),
            Self::Group(group) => write!(f, "group {group}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// How a command for many is let out: so many at a time, so that they can be watched, and the rest called off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waves {
    /// Agents in one wave.
    pub agents: u32,
    /// Between two waves, in milliseconds, and before the first.
    pub every_ms: u64,
}

/// What an operator wants done, as it states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The shard: the only one where it means anything.
    pub place: Place,
    /// Its id, made by the client.
    pub id: CommandId,
    /// For whom.
    pub target: Target,
    /// What is asked for.
    pub verb: Verb,
    /// What sort of bytes the arguments are.
    pub content_type: ContentType,
    /// The arguments; opaque to Skep. In a signed command they are a part of what was signed.
    pub args: Bytes,
    /// No robot starts it after this instant of the shard's clock.
    pub deadline: LogInstant,
    /// How it stands to others.
    pub class: CommandClass,
    /// Whether a robot that does not know whether it did it may do it again.
    pub idempotent: bool,
    /// A command that is not to be started any more where this one is delivered.
    pub supersedes: Option<CommandId>,
    /// The command that this one came from.
    pub parent: Option<CommandId>,
    /// The trace that it belongs to.
    pub trace: TraceParent,
    /// How it is let out; all at once if it does not say.
    pub waves: Option<Waves>,
    /// Who signs it.
    pub operator: OperatorKey,
}

/// Why a command or a grant was refused as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum InvalidCommand {
    /// The arguments or the result are too large.
    #[error("{bytes} bytes of arguments or result; at most {max} are allowed")]
    Args {
        /// How many.
        bytes: usize,
        /// How many may be.
        max: u64,
    },
    /// Waves that are empty, too large, too close or too far apart.
    #[error(
        "waves of {agents} agents every {every_ms} ms; give 1 to {agents_max} agents every {every_ms_min} to \
         {every_ms_max} ms"
    )]
    Waves {
        /// Agents in one.
        agents: u32,
        /// Between two.
        every_ms: u64,
        /// Most agents in one.
        agents_max: u32,
        /// The shortest between two.
        every_ms_min: u64,
        /// The longest between two.
        every_ms_max: u64,
    },
    /// A command that would supersede itself.
    #[error("a command cannot supersede itself")]
    SupersedesItself,
    /// Too many groups.
    #[error("{given} groups; at most {max} are allowed")]
    Groups {
        /// How many.
        given: usize,
        /// How many may be.
        max: u64,
    },
    /// A number that leaves none for later statements.
    #[error("serial {given} is far above {last}, the last one; give {last} plus one")]
    Serial {
        /// The serial that was given.
        given: u64,
        /// The last one.
        last: u64,
    },
    /// A field that changes what a statement means, and that is not known here.
    #[error("it has field {number}, which changes what it means and is not known here; upgrade this Skep")]
    UnknownField {
        /// Its number.
        number: u32,
    },
    /// Too many verbs or targets.
    #[error("a grant names {given} verbs or targets; at most {max} are allowed, or any")]
    GrantNames {
        /// How many.
        given: usize,
        /// How many may be.
        max: u64,
    },
}

/// Checks the size of a command's result by the limit of this build.
///
/// # Errors
/// [`InvalidCommand::Args`] if it is over the limit.
pub fn check_result(result: &[u8]) -> Result<(), InvalidCommand> {
    check_result_within(result, &FleetLimits::default())
}

/// Checks the size of a command's result by the limit of a shard.
///
/// # Errors
/// [`InvalidCommand::Args`] if it is over the limit.
pub fn check_result_within(result: &[u8], limits: &FleetLimits) -> Result<(), InvalidCommand> {
    let (bytes, max) = (result.len(), limits.args_bytes_max);
    if bytes as u64 > max { Err(InvalidCommand::Args { bytes, max }) } else { Ok(()) }
}

const REDRIVEN: &[u8] = b"skep/command-redriven/1\0";

impl Command {
    /// Checks the limits of this build that the fields' own types do not.
    ///
    /// # Errors
    /// [`InvalidCommand`] names the field.
    pub fn check(&self) -> Result<(), InvalidCommand> {
        self.check_within(&FleetLimits::default())
    }

    /// Checks the limits of a shard that the fields' own types do not.
    ///
    /// # Errors
    /// [`InvalidCommand`] names the field.
    pub fn check_within(&self, limits: &FleetLimits) -> Result<(), InvalidCommand> {
        check_result_within(&self.args, limits)?;
        if self.supersedes == Some(self.id) {
            return Err(InvalidCommand::SupersedesItself);
        }
        let Some(Waves { agents, every_ms }) = self.waves else { return Ok(()) };
        let (every_ms_min, every_ms_max) = (limits.wave_every_ms_min, limits.wave_every_ms_max);
        let (agents_max, apart) = (limits.wave_agents_max, (every_ms_min..=every_ms_max).contains(&every_ms));
        if agents == 0 || agents > agents_max || !apart {
            return Err(InvalidCommand::Waves { agents, every_ms, agents_max, every_ms_min, every_ms_max });
        }
        Ok(())
    }

    /// Signs the command; its `operator` is whoever signs.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(self, by: &OperatorSecret) -> Result<SignedCommand, CodecError> {
        Signed::sign(self, by)
    }
}

/// A command, signed.
pub type SignedCommand = Signed<Command>;

/// The id of a command that is sent again to one agent: the same however often that is tried, so that it is sent once.
pub fn redriven(command: CommandId, agent: &AgentId) -> CommandId {
    let hash = Sha256::new().chain_update(REDRIVEN).chain_update(command.as_bytes()).chain_update(agent.as_str());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    // A UUID of version 8, whose bytes are whatever its maker says (RFC 9562).
    (bytes[6], bytes[8]) = (bytes[6] & 0x0f | 0x80, bytes[8] & 0x3f | 0x80);
    CommandId::from_bytes(bytes)
}

/// What an operator wants of a command that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderKind {
    /// Whoever has not started it does not start it.
    Cancel,
    /// It is let out to nobody any more; whoever it was let out to goes on.
    Abort,
    /// An agent of which nobody knows whether it did it: this is what happened, on the operator's word.
    Resolve {
        /// Which agent.
        agent: AgentId,
        /// Whether it was done.
        done: bool,
    },
    /// Nobody need look at it any more: what failed of it is settled.
    Discard,
}

/// What an operator states to have a command cancelled, aborted or resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOrder {
    /// The shard.
    pub place: Place,
    /// Which command.
    pub command: CommandId,
    /// What is wanted.
    pub what: OrderKind,
    /// Why.
    pub reason: Reason,
    /// Who signs it.
    pub operator: OperatorKey,
}

/// An order, signed.
pub type SignedOrder = Signed<CommandOrder>;

impl CommandOrder {
    /// Signs the order; its `operator` is whoever signs.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(self, by: &OperatorSecret) -> Result<SignedOrder, CodecError> {
        Signed::sign(self, by)
    }
}

/// How a command ended at one robot. Exactly one of these, for every command that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandOutcome {
    /// The robot's software did it.
    Succeeded {
        /// What came of it; opaque to Skep.
        result: Vec<u8>,
    },
    /// The robot's software began, and it failed.
    Failed {
        /// Why.
        reason: Reason,
    },
    /// The robot's software, or its node, would not do it; or too many commands to it had not ended.
    Rejected {
        /// Why.
        reason: Reason,
    },
    /// It was not started by its deadline.
    Expired,
    /// It was called off before it was started.
    Cancelled,
    /// Another command took its place before it was started.
    Superseded,
    /// Nobody knows whether it was done.
    Indeterminate {
        /// Why not.
        reason: Reason,
    },
}

impl CommandOutcome {
    /// Its name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Rejected { .. } => "rejected",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Indeterminate { .. } => "indeterminate",
        }
    }

    /// Bytes of what came of it.
    pub const fn result_bytes(&self) -> usize {
        match self {
            Self::Succeeded { result } => result.len(),
            Self::Failed { .. }
            | Self::Rejected { .. }
            | Self::Expired
            | Self::Cancelled
            | Self::Superseded
            | Self::Indeterminate { .. } => 0,
        }
    }

    /// The same, without what came of it.
    #[must_use]
    pub fn without_result(&self) -> Self {
        match self {
            Self::Succeeded { .. } => Self::Succeeded { result: Vec::new() },
            outcome => outcome.clone(),
        }
    }

    /// Whether somebody may have to look at it: it was wanted, and it is not known to be done.
    pub const fn is_failure(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Rejected { .. } | Self::Expired | Self::Indeterminate { .. })
    }

    /// Whether the robot may have moved by it.
    pub const fn may_have_acted(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Failed { .. } | Self::Indeterminate { .. })
    }
}

/// Why a command is not to be started any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoidCause {
    /// Its deadline passed.
    Expired,
    /// An operator called it off.
    Cancelled,
    /// Another one took its place.
    Superseded,
    /// Its operator may not ask for it any more.
    Revoked,
}

impl VoidCause {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
            Self::Revoked => "revoked",
        }
    }

    /// How it ends where it was not started.
    pub const fn outcome(self) -> CommandOutcome {
        match self {
            Self::Expired => CommandOutcome::Expired,
            Self::Cancelled | Self::Revoked => CommandOutcome::Cancelled,
            Self::Superseded => CommandOutcome::Superseded,
        }
    }
}

/// When a robot's node took each step, on the shard's clock as the node knew it; none for steps that were not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// The command is in the node's journal.
    pub received: Option<LogInstant>,
    /// The robot's software took it on.
    pub accepted: Option<LogInstant>,
    /// The intent is in the journal, and the software was told to go.
    pub started: Option<LogInstant>,
    /// The outcome is in the journal.
    pub ended: Option<LogInstant>,
}

impl Steps {
    /// These steps, and others where these were not taken.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            received: self.received.or(other.received),
            accepted: self.accepted.or(other.accepted),
            started: self.started.or(other.started),
            ended: self.ended.or(other.ended),
        }
    }

    /// Those of them that are other than they were.
    #[must_use]
    pub fn since(self, were: Self) -> Self {
        let new = |now: Option<LogInstant>, was| if now == was { None } else { now };
        Self {
            received: new(self.received, were.received),
            accepted: new(self.accepted, were.accepted),
            started: new(self.started, were.started),
            ended: new(self.ended, were.ended),
        }
    }
}

/// How far a robot's software says it has come with a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandProgress {
    /// Thousandths of the work.
    pub permille: u16,
    /// In the software's words.
    pub note: Reason,
    /// When it was said, on the shard's clock as the robot's node knew it; none if it did not.
    pub at: Option<LogInstant>,
}

/// A command at one agent, as a shard knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryView {
    /// The agent.
    pub agent: AgentId,
    /// In which wave it is let out to it.
    pub wave: u32,
    /// Its place in the agent's order of its class; none before it is let out.
    pub seq: Option<DeliverySeq>,
    /// The node that has it, or may have; none as long as nobody can.
    pub node: Option<NodeId>,
    /// When it was let out.
    pub released_at: Option<LogInstant>,
    /// Why it is not to be started, if it is not.
    pub void: Option<VoidCause>,
    /// How it ended.
    pub outcome: Option<CommandOutcome>,
    /// When the shard heard how it ended.
    pub ended_at: Option<LogInstant>,
    /// When its node took each step, by the node's own bound of the shard's clock.
    pub steps: Steps,
    /// How far its software says it has come; none once it has ended.
    pub progress: Option<CommandProgress>,
}

/// A command as a shard knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandView {
    /// The command.
    pub command: Arc<SignedCommand>,
    /// When it was accepted.
    pub accepted_at: LogInstant,
    /// By which entry.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// For how many agents it is.
    pub agents: u32,
    /// At how many of them it has not ended.
    pub open: u32,
    /// At how many of them it failed, was refused or too late, or nobody knows, and was not sent again.
    pub failed: u32,
    /// Whether somebody settled what failed of it.
    pub discarded: bool,
    /// How it stands at each agent, or, if it ended long ago, at those where it is a dead letter; left out in lists.
    pub deliveries: Vec<DeliveryView>,
}

/// A command on its way to one robot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its place in the robot's order of its class.
    pub seq: u64,
    /// The command.
    pub command: Arc<SignedCommand>,
    /// What makes its operator one.
    pub authority: Arc<Authority>,
    /// Why it is not to be started, if it is not: it is taken down, and ends.
    pub void: Option<VoidCause>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Genesis, ShardId};
    use crate::statement::Statement;

    fn place() -> Place {
        Place { site: "hall".parse().unwrap(), shard: ShardId(1), genesis: Genesis::from_bytes([6; 16]) }
    }

    fn command(by: &OperatorSecret) -> Command {
        Command {
            place: place(),
            id: CommandId::from_bytes([7; 16]),
            target: Target::Agent("robot-7".parse().unwrap()),
            verb: "goto".parse().unwrap(),
            content_type: ContentType::new("application/json").unwrap(),
            args: Bytes::from_static(b"{\"x\":3}"),
            deadline: LogInstant::from_raw(90_000),
            class: CommandClass::Routine,
            idempotent: false,
            supersedes: None,
            parent: None,
            trace: TraceParent::new("").unwrap(),
            waves: None,
            operator: by.key(),
        }
    }

    #[test]
    fn a_signature_holds_for_one_command_and_no_other() {
        let (by, other) = (OperatorSecret::from_seed(&[1; 32]), OperatorSecret::from_seed(&[2; 32]));
        let signed = command(&by).sign(&by).unwrap();
        assert!(signed.is_signed());
        assert_eq!(*signed.statement(), command(&by));
        let forgeries: [fn(&mut Command); 8] = [
            |command| command.deadline = command.deadline.plus_ms(1),
            |command| command.args = Bytes::from_static(b"{\"x\":4}"),
            |command| command.target = Target::All,
            |command| command.place.shard = ShardId(2),
            |command| command.place.genesis = Genesis::from_bytes([7; 16]),
            |command| command.place.site = "yard".parse().unwrap(),
            |command| command.idempotent = true,
            |command| command.class = CommandClass::Urgent,
        ];
        for forge in forgeries {
            let mut forged = command(&by);
            forge(&mut forged);
            assert!(!Signed::under(&forged, *signed.signature()).unwrap().is_signed());
        }
        let forged = Command { operator: other.key(), ..command(&by) };
        assert!(!Signed::under(&forged, *signed.signature()).unwrap().is_signed());
    }

    #[test]
    fn a_signature_of_one_kind_is_none_of_another() {
        let by = OperatorSecret::from_seed(&[1; 32]);
        let signed = command(&by).sign(&by).unwrap();
        let of_kind = |domain: &[u8]| by.key().verifies(&[domain, signed.body()].concat(), signed.signature());
        assert!(of_kind(Command::DOMAIN));
        assert!(!of_kind(CommandOrder::DOMAIN) && !of_kind(b""));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_name() {
        let by = OperatorSecret::from_seed(&[1; 32]);
        let mut large = command(&by);
        let max = crate::limits::ARGS_BYTES_MAX;
        large.args = vec![0; max + 1].into();
        assert_eq!(large.check(), Err(InvalidCommand::Args { bytes: max + 1, max: max as u64 }));
        for waves in [(0, 100), (1, 0), (u32::MAX, 100), (1, u64::MAX)] {
            let waves = Some(Waves { agents: waves.0, every_ms: waves.1 });
            assert!(matches!(Command { waves, ..command(&by) }.check(), Err(InvalidCommand::Waves { .. })));
        }
        let itself = Command { supersedes: Some(command(&by).id), ..command(&by) };
        assert_eq!(itself.check(), Err(InvalidCommand::SupersedesItself));
        assert_eq!(command(&by).check(), Ok(()));
    }
}
