//! Commands, and what operators want of them.

use bytes::Bytes;
use prost::Message as _;

use super::{PAIR, TARGET, key, place, stated_target, target, v1};
use crate::codec::CodecError;
use crate::command::{Command, CommandClass, CommandControl, ControlKind, Waves};
use crate::critical::{Fields, malformed, message};
use crate::field::{FieldError, InField as _, field};
use crate::ids::CommandId;
use crate::limits;
use crate::signing::{OperatorKey, Place, Statement};
use crate::text::{AgentId, ContentType, Reason, TraceParent, Verb};
use crate::time::LogInstant;

static EMPTY: Fields = Fields(&[]);
pub(super) static COMMAND: Fields = Fields(&[
    (1, None),
    (2, None),
    (3, None),
    (4, None),
    (5, None),
    (6, Some(&TARGET)),
    (7, None),
    (8, None),
    (9, None),
    (10, None),
    (11, None),
    (12, None),
    (13, None),
    (14, None),
    (15, None),
    (16, Some(&PAIR)),
]);
pub(super) static CONTROL: Fields = Fields(&[
    (1, None),
    (2, None),
    (3, None),
    (4, None),
    (5, None),
    (6, Some(&EMPTY)),
    (7, Some(&EMPTY)),
    (8, Some(&PAIR)),
    (9, Some(&EMPTY)),
    (10, None),
]);

fn id(name: &'static str, bytes: &[u8]) -> Result<CommandId, FieldError> {
    bytes.try_into().map(CommandId::from_bytes).map_err(|_| field(name, "give the 16 bytes of a UUID"))
}

fn optional_id(name: &'static str, bytes: &[u8]) -> Result<Option<CommandId>, FieldError> {
    if bytes.is_empty() { Ok(None) } else { id(name, bytes).map(Some) }
}

fn id_bytes(id: Option<CommandId>) -> Vec<u8> {
    id.map(|id| id.as_bytes().to_vec()).unwrap_or_default()
}

fn command(stated: v1::CommandStatement) -> Result<Command, FieldError> {
    Ok(Command {
        place: place(&stated.genesis, &stated.site, stated.shard)?,
        id: id("id", &stated.id)?,
        target: target(stated.target)?,
        verb: Verb::new(&stated.verb).in_field("verb")?,
        content_type: ContentType::new(&stated.content_type).in_field("content_type")?,
        args: stated.args,
        deadline: LogInstant::from_raw(stated.deadline),
        class: if stated.urgent { CommandClass::Urgent } else { CommandClass::Routine },
        idempotent: stated.idempotent,
        supersedes: optional_id("supersedes", &stated.supersedes)?,
        parent: optional_id("parent", &stated.parent)?,
        trace: TraceParent::new(&stated.traceparent).in_field("traceparent")?,
        waves: stated.waves.map(|waves| Waves { agents: waves.agents, every_ms: waves.every_ms }),
        operator: key("operator", &stated.operator)?,
    })
}

impl Statement for Command {
    const WHAT: &'static str = "command";
    const DOMAIN: &'static [u8] = b"skep/command/1\0";
    const BYTES_MAX: usize = limits::COMMAND_STATEMENT_BYTES_MAX;

    fn place(&self) -> &Place {
        &self.place
    }

    fn signer(&self) -> OperatorKey {
        self.operator
    }

    fn signed_as(self, signer: OperatorKey) -> Self {
        Self { operator: signer, ..self }
    }

    fn to_body(&self) -> Vec<u8> {
        let stated = v1::CommandStatement {
            genesis: self.place.genesis.as_bytes().to_vec(),
            site: self.place.site.to_string(),
            shard: self.place.shard.0,
            operator: self.operator.as_bytes().to_vec(),
            id: self.id.as_bytes().to_vec(),
            target: Some(stated_target(&self.target)),
            verb: self.verb.to_string(),
            content_type: self.content_type.to_string(),
            args: self.args.clone(),
            deadline: self.deadline.raw(),
            urgent: self.class == CommandClass::Urgent,
            idempotent: self.idempotent,
            supersedes: id_bytes(self.supersedes),
            parent: id_bytes(self.parent),
            traceparent: self.trace.to_string(),
            waves: self.waves.map(|Waves { agents, every_ms }| v1::StatedWaves { agents, every_ms }),
        };
        stated.encode_to_vec()
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &COMMAND)?;
        Ok((command(stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}

fn control(stated: v1::ControlStatement) -> Result<CommandControl, FieldError> {
    use v1::control_statement::What;
    let what = match stated.what {
        Some(What::Cancel(v1::StatedCancel {})) => ControlKind::Cancel,
        Some(What::Abort(v1::StatedAbort {})) => ControlKind::Abort,
        Some(What::Resolve(v1::StatedResolve { agent, done })) => {
            ControlKind::Resolve { agent: AgentId::new(&agent).in_field("resolve.agent")?, done }
        }
        Some(What::Discard(v1::StatedDiscard {})) => ControlKind::Discard,
        None => return Err(field("what", "it is missing")),
    };
    Ok(CommandControl {
        place: place(&stated.genesis, &stated.site, stated.shard)?,
        command: id("command_id", &stated.command_id)?,
        what,
        reason: Reason::new(&stated.reason).in_field("reason")?,
        operator: key("operator", &stated.operator)?,
    })
}

impl Statement for CommandControl {
    const WHAT: &'static str = "control of a command";
    const DOMAIN: &'static [u8] = b"skep/control/1\0";
    const BYTES_MAX: usize = limits::CONTROL_STATEMENT_BYTES_MAX;

    fn place(&self) -> &Place {
        &self.place
    }

    fn signer(&self) -> OperatorKey {
        self.operator
    }

    fn signed_as(self, signer: OperatorKey) -> Self {
        Self { operator: signer, ..self }
    }

    fn to_body(&self) -> Vec<u8> {
        use v1::control_statement::What;
        let what = match &self.what {
            ControlKind::Cancel => What::Cancel(v1::StatedCancel {}),
            ControlKind::Abort => What::Abort(v1::StatedAbort {}),
            ControlKind::Resolve { agent, done } => {
                What::Resolve(v1::StatedResolve { agent: agent.to_string(), done: *done })
            }
            ControlKind::Discard => What::Discard(v1::StatedDiscard {}),
        };
        let stated = v1::ControlStatement {
            genesis: self.place.genesis.as_bytes().to_vec(),
            site: self.place.site.to_string(),
            shard: self.place.shard.0,
            operator: self.operator.as_bytes().to_vec(),
            command_id: self.command.as_bytes().to_vec(),
            what: Some(what),
            reason: self.reason.to_string(),
        };
        stated.encode_to_vec()
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &CONTROL)?;
        Ok((control(stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}
