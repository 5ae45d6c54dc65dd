//! Commands: what an operator wants robots to do.
//!
//! A task is work that any capable agent may claim; a command is meant for the robots that it names. Each of them does
//! it at most once, before its deadline, or not at all.

mod change;
mod class;
mod control;
mod op;
mod outcome;
mod query;
mod refusal;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::codec::CodecError;
use crate::fleet::FleetLimits;
use crate::ids::CommandId;
use crate::signing::{OperatorKey, OperatorSecret, Place, Signed};
use crate::text::{AgentId, ContentType, GroupName, TraceParent, Verb};
use crate::time::LogInstant;

pub use change::CommandChange;
pub use class::{CommandClass, DeliverySeq, PerClass};
pub use control::{CommandControl, ControlKind, SignedControl};
pub use op::{CommandOp, DeliveryReport, EndedDelivery};
pub use outcome::{CommandOutcome, CommandProgress, Steps, VoidCause};
pub use query::{CommandView, DeliveryView};
pub use refusal::CommandRefusal;

/// For whom a command is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Target {
    /// One agent.
    Agent(AgentId),
    /// All agents that belonged to a group when the shard accepted the command.
    Group(GroupName),
    /// All agents that take commands. The operator needs a grant for that.
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

/// How the leader releases a command for many robots: a few at a time, so that an operator can watch them, and abort
/// the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waves {
    /// Number of agents in one wave.
    pub agents: u32,
    /// Time between two waves, and before the first one, in milliseconds.
    pub every_ms: u64,
}

/// What an operator wants robots to do, as the operator states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The site, shard and genesis: the command means something there only.
    pub place: Place,
    /// Id of the command, made by the client.
    pub id: CommandId,
    /// The agents for whom it is.
    pub target: Target,
    /// The verb: what the robots are to do.
    pub verb: Verb,
    /// The media type of the arguments.
    pub content_type: ContentType,
    /// The arguments; opaque to Skep. In a signed command they are a part of what was signed.
    pub args: Bytes,
    /// No robot starts it after this instant of the shard's clock.
    pub deadline: LogInstant,
    /// The class, which says for which other commands it waits.
    pub class: CommandClass,
    /// Whether a robot that does not know whether it did it may do it again.
    pub idempotent: bool,
    /// A command that no robot is to start any more to which this one is delivered.
    pub supersedes: Option<CommandId>,
    /// The command from which this one came.
    pub parent: Option<CommandId>,
    /// The trace to which the command belongs.
    pub trace: TraceParent,
    /// How the leader releases it; all at once if none.
    pub waves: Option<Waves>,
    /// Key of the operator who signs it.
    pub operator: OperatorKey,
}

/// Why a shard or a node refuses a command by its form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum InvalidCommand {
    /// The arguments or the result are too large.
    #[error("{bytes} bytes of arguments or result; at most {max} are allowed")]
    Args {
        /// The size that was given, in bytes.
        bytes: usize,
        /// The most that are allowed.
        max: u64,
    },
    /// Waves that are empty, too large, too close or too far apart.
    #[error(
        "waves of {agents} agents every {every_ms} ms; give 1 to {agents_max} agents every {every_ms_min} to \
         {every_ms_max} ms"
    )]
    Waves {
        /// Number of agents in a wave.
        agents: u32,
        /// Time between two waves, in milliseconds.
        every_ms: u64,
        /// The most agents in a wave.
        agents_max: u32,
        /// The shortest time between two waves, in milliseconds.
        every_ms_min: u64,
        /// The longest time between two waves, in milliseconds.
        every_ms_max: u64,
    },
    /// A command that would supersede itself.
    #[error("a command cannot supersede itself")]
    SupersedesItself,
    /// The agent names too many groups.
    #[error("{given} groups; at most {max} are allowed")]
    Groups {
        /// The number that was given.
        given: usize,
        /// The most that are allowed.
        max: u64,
    },
    /// A field that changes what a statement means, and that this Skep does not know.
    #[error("it has field {number}, which changes what it means and is not known here; upgrade this Skep")]
    UnknownField {
        /// Its number in the protobuf definition.
        number: u32,
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

    /// Signs the command; the signer becomes its `operator`.
    ///
    /// # Errors
    /// [`CodecError`] if it is over its limit.
    pub fn sign(self, by: &OperatorSecret) -> Result<SignedCommand, CodecError> {
        Signed::sign(self, by)
    }
}

/// A command, signed.
pub type SignedCommand = Signed<Command>;

/// The id of a command that an operator sends to one agent again: the same at each try, so that the shard takes it
/// once.
pub fn redriven(command: CommandId, agent: &AgentId) -> CommandId {
    let hash = Sha256::new().chain_update(REDRIVEN).chain_update(command.as_bytes()).chain_update(agent.as_str());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    // A UUID of version 8, whose bytes are of its maker's choice (RFC 9562).
    (bytes[6], bytes[8]) = (bytes[6] & 0x0f | 0x80, bytes[8] & 0x3f | 0x80);
    CommandId::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Genesis, ShardId};
    use crate::signing::Statement;

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
        assert!(!of_kind(CommandControl::DOMAIN) && !of_kind(b""));
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
