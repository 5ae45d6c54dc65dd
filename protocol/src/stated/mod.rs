//! What operators state as protobuf messages: from their bytes, and to them.
//!
//! These messages are a part of the vocabulary, since a node keeps and verifies a statement as the bytes that were
//! signed. The messages of the local API, and its services, are in `skep-proto`, which knows a transport.

mod command;
mod operator;
mod recovery;

use crate::command::Target;
use crate::critical::Fields;
use crate::field::{FieldError, InField as _, field};
use crate::ids::{Genesis, ShardId};
use crate::signing::{OperatorKey, Place};
use crate::text::{AgentId, GroupName, SiteName};

/// What operators sign, generated from `proto/skep/v1/statements.proto`.
#[allow(missing_docs, rustdoc::all, clippy::all, unreachable_pub)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/skep.v1.rs"));
}

static TARGET: Fields = Fields(&[(1, None), (2, None), (3, None)]);
static PAIR: Fields = Fields(&[(1, None), (2, None)]);

fn place(genesis: &[u8], site: &str, shard: u32) -> Result<Place, FieldError> {
    let genesis = genesis.try_into().map_err(|_| field("genesis", "give the 16 bytes of the shard's genesis"))?;
    let (site, shard) = (SiteName::new(site).in_field("site")?, ShardId(shard));
    Ok(Place { site, shard, genesis: Genesis::from_bytes(genesis) })
}

fn key(name: &'static str, bytes: &[u8]) -> Result<OperatorKey, FieldError> {
    let bytes = bytes.try_into().map_err(|_| field(name, "give the 32 bytes of an ed25519 public key"))?;
    Ok(OperatorKey::from_bytes(bytes))
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use prost::Message as _;
    use prost_types::{DescriptorProto, FileDescriptorSet};

    use super::*;

    /// Checks that the fields of a message, and of the messages in it, are those of the definition.
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

    /// A field that a message gets must be added to its table, or its own node would refuse it.
    #[test]
    fn known_fields_are_those_of_the_definition() {
        let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/statements.bin"));
        let set = FileDescriptorSet::decode(bytes).unwrap();
        let file = set.file.iter().find(|file| file.name() == "skep/v1/statements.proto").unwrap();
        let messages = file.message_type.iter().map(|message| (message.name(), message)).collect();
        check("CommandStatement", &command::COMMAND, &messages);
        check("ControlStatement", &command::CONTROL, &messages);
        check("GrantStatement", &operator::GRANT, &messages);
        check("FirstOperatorStatement", &operator::FIRST, &messages);
        check("ReplaceFirstStatement", &operator::REPLACE_FIRST, &messages);
        check("RecoverStatement", &recovery::RECOVER, &messages);
    }
}
