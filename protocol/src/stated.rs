//! What operators state as protobuf messages: from their bytes, and to them.
//!
//! These messages are a part of the vocabulary, since a statement is kept and verified as the bytes that were signed. The
//! messages of the local API, and its services, are in `skep-proto`, which knows a transport.

mod recovery;

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;

use crate::authority::{Allowed, FirstOperator, FirstReplacement, OperatorGrant, OperatorKey};
use crate::codec::CodecError;
use crate::command::{Command, CommandClass, CommandOrder, OrderKind, Target, Waves};
use crate::critical::{Fields, malformed, message};
use crate::field::{FieldError, InField as _, field};
use crate::ids::{CommandId, Genesis, ShardId};
use crate::limits;
use crate::statement::{Place, Statement};
use crate::text::{AgentId, ContentType, GroupName, OperatorName, Reason, SiteName, TraceParent, Verb};
use crate::time::LogInstant;

/// What operators sign, generated from `proto/skep/v1/statements.proto`.
#[allow(missing_docs, rustdoc::all, clippy::all, unreachable_pub)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/skep.v1.rs"));
}

static TARGET: Fields = Fields(&[(1, None), (2, None), (3, None)]);
static TARGETS: Fields = Fields(&[(1, None), (2, Some(&TARGET))]);
static PAIR: Fields = Fields(&[(1, None), (2, None)]);
static EMPTY: Fields = Fields(&[]);
static COMMAND: Fields = Fields(&[
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
static CONTROL: Fields = Fields(&[
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
static GRANT: Fields = Fields(&[
    (1, None),
    (2, None),
    (3, None),
    (4, None),
    (5, None),
    (6, None),
    (7, None),
    (8, Some(&PAIR)),
    (9, Some(&TARGETS)),
    (10, None),
    (11, None),
    (12, None),
    (13, None),
    (14, None),
]);
static FIRST: Fields = Fields(&[(1, None), (2, None), (3, None), (4, None), (5, None)]);
static REPLACE_FIRST: Fields = Fields(&[(1, None), (2, None), (3, None), (4, None), (5, None), (6, None), (7, None)]);

fn place(genesis: &[u8], site: &str, shard: u32) -> Result<Place, FieldError> {
    let genesis = genesis.try_into().map_err(|_| field("genesis", "give the 16 bytes of the shard's genesis"))?;
    let (site, shard) = (SiteName::new(site).in_field("site")?, ShardId(shard));
    Ok(Place { site, shard, genesis: Genesis::from_bytes(genesis) })
}

fn key(name: &'static str, bytes: &[u8]) -> Result<OperatorKey, FieldError> {
    let bytes = bytes.try_into().map_err(|_| field(name, "give the 32 bytes of an ed25519 public key"))?;
    Ok(OperatorKey::from_bytes(bytes))
}

fn id(name: &'static str, bytes: &[u8]) -> Result<CommandId, FieldError> {
    bytes.try_into().map(CommandId::from_bytes).map_err(|_| field(name, "give the 16 bytes of a UUID"))
}

fn optional_id(name: &'static str, bytes: &[u8]) -> Result<Option<CommandId>, FieldError> {
    if bytes.is_empty() { Ok(None) } else { id(name, bytes).map(Some) }
}

fn id_bytes(id: Option<CommandId>) -> Vec<u8> {
    id.map(|id| id.as_bytes().to_vec()).unwrap_or_default()
}

fn target(target: Option<v1::StatedTarget>) -> Result<Target, FieldError> {
    use v1::stated_target::Target as Stated;
    match target.and_then(|target| target.target) {
        Some(Stated::Agent(agent)) => AgentId::new(&agent).map(Target::Agent).in_field("target.agent"),
        Some(Stated::Group(group)) => GroupName::new(&group).map(Target::Group).in_field("target.group"),
        Some(Stated::All(true)) => Ok(Target::All),
        Some(Stated::All(false)) | None => Err(field("target", "it is missing")),
    }
}

fn stated_target(target: &Target) -> v1::StatedTarget {
    use v1::stated_target::Target as Stated;
    let target = match target {
        Target::Agent(agent) => Stated::Agent(agent.to_string()),
        Target::Group(group) => Stated::Group(group.to_string()),
        Target::All => Stated::All(true),
    };
    v1::StatedTarget { target: Some(target) }
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
    const BYTES_MAX: usize = limits::ARGS_BYTES_MAX + 2_048;

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

fn order(stated: v1::ControlStatement) -> Result<CommandOrder, FieldError> {
    use v1::control_statement::What;
    let what = match stated.what {
        Some(What::Cancel(v1::StatedCancel {})) => OrderKind::Cancel,
        Some(What::Abort(v1::StatedAbort {})) => OrderKind::Abort,
        Some(What::Resolve(v1::StatedResolve { agent, done })) => {
            OrderKind::Resolve { agent: AgentId::new(&agent).in_field("resolve.agent")?, done }
        }
        Some(What::Discard(v1::StatedDiscard {})) => OrderKind::Discard,
        None => return Err(field("what", "it is missing")),
    };
    Ok(CommandOrder {
        place: place(&stated.genesis, &stated.site, stated.shard)?,
        command: id("command_id", &stated.command_id)?,
        what,
        reason: Reason::new(&stated.reason).in_field("reason")?,
        operator: key("operator", &stated.operator)?,
    })
}

impl Statement for CommandOrder {
    const WHAT: &'static str = "control of a command";
    const DOMAIN: &'static [u8] = b"skep/control/1\0";
    const BYTES_MAX: usize = 2_048;

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
            OrderKind::Cancel => What::Cancel(v1::StatedCancel {}),
            OrderKind::Abort => What::Abort(v1::StatedAbort {}),
            OrderKind::Resolve { agent, done } => {
                What::Resolve(v1::StatedResolve { agent: agent.to_string(), done: *done })
            }
            OrderKind::Discard => What::Discard(v1::StatedDiscard {}),
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
        Ok((order(stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}

/// What is allowed: nothing if it was left out.
fn allowed<T: Ord, F>(
    name: &'static str,
    any: bool,
    named: Vec<F>,
    one: impl Fn(F) -> Result<T, FieldError>,
) -> Result<Allowed<T>, FieldError> {
    match any {
        true if named.is_empty() => Ok(Allowed::Any),
        true => Err(field(name, "give any, or names, and not both")),
        false => named.into_iter().map(one).collect::<Result<BTreeSet<T>, _>>().map(Allowed::These),
    }
}

fn grant(stated: v1::GrantStatement) -> Result<OperatorGrant, FieldError> {
    let (verbs, targets) = (stated.verbs.unwrap_or_default(), stated.targets.unwrap_or_default());
    Ok(OperatorGrant {
        place: place(&stated.genesis, &stated.site, stated.shard)?,
        by: key("operator", &stated.operator)?,
        operator: key("to", &stated.to)?,
        name: OperatorName::new(&stated.name).in_field("name")?,
        // The first operator has number 0, which nobody stated.
        serial: Some(stated.serial).filter(|serial| *serial > 0).ok_or_else(|| field("serial", "give 1 or more"))?,
        verbs: allowed("verbs", verbs.any, verbs.names, |verb| Verb::new(&verb).in_field("verbs"))?,
        targets: allowed("targets", targets.any, targets.targets, |one| target(Some(one)))?,
        broadcast: stated.broadcast,
        per_minute: stated.per_minute,
        admin_depth: stated.admin_depth,
        revoked: stated.revoked,
        until: Some(LogInstant::from_raw(stated.until)).filter(|until| *until > LogInstant::ZERO),
    })
}

fn stated_verbs(verbs: &Allowed<Verb>) -> v1::StatedNames {
    match verbs {
        Allowed::Any => v1::StatedNames { any: true, names: Vec::new() },
        Allowed::These(these) => v1::StatedNames { any: false, names: these.iter().map(ToString::to_string).collect() },
    }
}

fn stated_targets(targets: &Allowed<Target>) -> v1::StatedTargets {
    match targets {
        Allowed::Any => v1::StatedTargets { any: true, targets: Vec::new() },
        Allowed::These(these) => v1::StatedTargets { any: false, targets: these.iter().map(stated_target).collect() },
    }
}

impl Statement for OperatorGrant {
    const WHAT: &'static str = "grant";
    const DOMAIN: &'static [u8] = b"skep/grant/1\0";
    const BYTES_MAX: usize = 16 * 1024;

    fn place(&self) -> &Place {
        &self.place
    }

    fn signer(&self) -> OperatorKey {
        self.by
    }

    fn signed_as(self, signer: OperatorKey) -> Self {
        Self { by: signer, ..self }
    }

    fn to_body(&self) -> Vec<u8> {
        let stated = v1::GrantStatement {
            genesis: self.place.genesis.as_bytes().to_vec(),
            site: self.place.site.to_string(),
            shard: self.place.shard.0,
            operator: self.by.as_bytes().to_vec(),
            to: self.operator.as_bytes().to_vec(),
            name: self.name.to_string(),
            serial: self.serial,
            verbs: Some(stated_verbs(&self.verbs)),
            targets: Some(stated_targets(&self.targets)),
            broadcast: self.broadcast,
            per_minute: self.per_minute,
            admin_depth: self.admin_depth,
            revoked: self.revoked,
            until: self.until.map_or(0, LogInstant::raw),
        };
        stated.encode_to_vec()
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &GRANT)?;
        Ok((grant(stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}

fn first(stated: &v1::FirstOperatorStatement) -> Result<FirstOperator, FieldError> {
    Ok(FirstOperator {
        place: place(&stated.genesis, &stated.site, stated.shard)?,
        operator: key("operator", &stated.operator)?,
        name: OperatorName::new(&stated.name).in_field("name")?,
    })
}

impl Statement for FirstOperator {
    const WHAT: &'static str = "first operator";
    const DOMAIN: &'static [u8] = b"skep/first/1\0";
    const BYTES_MAX: usize = 1_024;

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
        let stated = v1::FirstOperatorStatement {
            genesis: self.place.genesis.as_bytes().to_vec(),
            site: self.place.site.to_string(),
            shard: self.place.shard.0,
            operator: self.operator.as_bytes().to_vec(),
            name: self.name.to_string(),
        };
        stated.encode_to_vec()
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &FIRST)?;
        Ok((first(&stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}

fn replacement(stated: &v1::ReplaceFirstStatement) -> Result<FirstReplacement, FieldError> {
    Ok(FirstReplacement {
        place: place(&stated.genesis, &stated.site, stated.shard)?,
        old: key("operator", &stated.operator)?,
        new: key("new", &stated.new)?,
        name: OperatorName::new(&stated.name).in_field("name")?,
        serial: stated.serial,
    })
}

impl Statement for FirstReplacement {
    const WHAT: &'static str = "replacement of the first operator";
    const DOMAIN: &'static [u8] = b"skep/replace-first/1\0";
    const BYTES_MAX: usize = 1_024;

    fn place(&self) -> &Place {
        &self.place
    }

    fn signer(&self) -> OperatorKey {
        self.old
    }

    fn signed_as(self, signer: OperatorKey) -> Self {
        Self { old: signer, ..self }
    }

    fn to_body(&self) -> Vec<u8> {
        let stated = v1::ReplaceFirstStatement {
            genesis: self.place.genesis.as_bytes().to_vec(),
            site: self.place.site.to_string(),
            shard: self.place.shard.0,
            operator: self.old.as_bytes().to_vec(),
            new: self.new.as_bytes().to_vec(),
            name: self.name.to_string(),
            serial: self.serial,
        };
        stated.encode_to_vec()
    }

    fn from_body(body: &Bytes) -> Result<(Self, Option<u32>), CodecError> {
        let (stated, unknown) = message(Self::WHAT, body, &REPLACE_FIRST)?;
        Ok((replacement(&stated).map_err(|error| malformed(Self::WHAT, error))?, unknown))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prost_types::{DescriptorProto, FileDescriptorSet};

    use super::*;

    /// The fields of a message, and of those in it, are those that are defined.
    fn check(name: &str, known: &Fields, messages: &BTreeMap<&str, &DescriptorProto>) {
        let defined = messages[name];
        let numbers: BTreeSet<u32> = defined.field.iter().map(|of| u32::try_from(of.number()).unwrap()).collect();
        assert_eq!(known.0.iter().map(|(number, _)| *number).collect::<BTreeSet<u32>>(), numbers, "{name}");
        for defined in &defined.field {
            let number = u32::try_from(defined.number()).unwrap();
            let (_, of) = known.0.iter().find(|(known, _)| *known == number).unwrap();
            let inner = defined.type_name().strip_prefix(".skep.v1.");
            assert_eq!(of.is_some(), inner.is_some(), "{name}.{}", defined.name());
            if let (Some(of), Some(inner)) = (of, inner) {
                check(inner, of, messages);
            }
        }
    }

    /// A field that is added to a message is added to its table, or its own node would refuse it.
    #[test]
    fn known_fields_are_those_of_the_definition() {
        let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/statements.bin"));
        let set = FileDescriptorSet::decode(bytes).unwrap();
        let file = set.file.iter().find(|file| file.name() == "skep/v1/statements.proto").unwrap();
        let messages = file.message_type.iter().map(|message| (message.name(), message)).collect();
        check("CommandStatement", &COMMAND, &messages);
        check("ControlStatement", &CONTROL, &messages);
        check("GrantStatement", &GRANT, &messages);
        check("FirstOperatorStatement", &FIRST, &messages);
        check("ReplaceFirstStatement", &REPLACE_FIRST, &messages);
        check("RecoverStatement", &recovery::RECOVER, &messages);
    }
}
