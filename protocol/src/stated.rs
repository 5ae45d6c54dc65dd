//! What operators state as protobuf messages: from their bytes, and to them.
//!
//! These messages are a part of the vocabulary, since a statement is kept and verified as the bytes that were signed.
//! The messages of the local API, and its services, are in `skep-proto`, which knows a transport.

mod command;
mod operator;
mod recovery;

use bytes::Bytes;
use prost::Message;

use crate::codec::CodecError;
use crate::command::Target;
use crate::field::{FieldError, InField as _, field};
use crate::ids::{Genesis, ShardId};
use crate::signing::{OperatorKey, Place};
use crate::text::{AgentId, GroupName, SiteName};

/// What operators sign, generated from `proto/skep/v1/statements.proto`.
#[allow(missing_docs, rustdoc::all, clippy::all, unreachable_pub)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/skep.v1.rs"));
}

/// Fields below this one change what a statement means: one that is not known refuses it.
const CRITICAL_BELOW: u32 = 32;

/// The fields of a message by their numbers, and the messages in them.
struct Fields(&'static [(u32, Option<&'static Fields>)]);

static TARGET: Fields = Fields(&[(1, None), (2, None), (3, None)]);
static PAIR: Fields = Fields(&[(1, None), (2, None)]);

const CUT_OFF: &str = "it is cut off";

/// A number of the wire format (<https://protobuf.dev/programming-guides/encoding/#varints>).
fn varint(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(CUT_OFF)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number in it has no end")
}

fn take<'a>(bytes: &mut &'a [u8], count: u64) -> Result<&'a [u8], &'static str> {
    let count = usize::try_from(count).map_err(|_| CUT_OFF)?;
    let (taken, rest) = bytes.split_at_checked(count).ok_or(CUT_OFF)?;
    *bytes = rest;
    Ok(taken)
}

/// The first field of a message that is not known and may not be passed over, in the messages inside, too.
fn first_unknown(mut bytes: &[u8], known: &Fields) -> Result<Option<u32>, &'static str> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = u32::try_from(key >> 3).map_err(|_| "a field has no number")?;
        let inner = match key & 7 {
            0 => varint(&mut bytes).map(|_| None)?,
            1 => take(&mut bytes, 8).map(|_| None)?,
            2 => {
                let length = varint(&mut bytes)?;
                Some(take(&mut bytes, length)?)
            }
            5 => take(&mut bytes, 4).map(|_| None)?,
            _ => return Err("a field is of no sort that there is"),
        };
        let of = known.0.iter().find(|(known, _)| *known == number).map(|(_, of)| *of);
        let found = match (of, inner) {
            (Some(Some(of)), Some(inner)) => first_unknown(inner, of)?,
            (None, _) if number < CRITICAL_BELOW => Some(number),
            _ => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn malformed(what: &'static str, why: impl ToString) -> CodecError {
    CodecError::Malformed { what, why: why.to_string() }
}

/// A message, and the first field in it that is not known and may not be passed over.
fn message<M: Message + Default>(
    what: &'static str,
    body: &Bytes,
    known: &Fields,
) -> Result<(M, Option<u32>), CodecError> {
    let unknown = first_unknown(body, known).map_err(|why| malformed(what, why))?;
    let message = M::decode(body.clone()).map_err(|error| malformed(what, error))?;
    Ok((message, unknown))
}

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
        check("CommandStatement", &command::COMMAND, &messages);
        check("ControlStatement", &command::CONTROL, &messages);
        check("GrantStatement", &operator::GRANT, &messages);
        check("FirstOperatorStatement", &operator::FIRST, &messages);
        check("ReplaceFirstStatement", &operator::REPLACE_FIRST, &messages);
        check("RecoverStatement", &recovery::RECOVER, &messages);
    }

    #[test]
    fn a_field_that_is_not_known_is_found_wherever_it_is_unless_it_may_be_passed_over() {
        let known = |bytes: &[u8]| first_unknown(bytes, &command::COMMAND);
        assert_eq!(known(&[]), Ok(None));
        // Field 40 and field 31, numbers; field 6 with field 9 inside; a group; cut off.
        assert_eq!(known(&[0xc0, 0x02, 1]), Ok(None));
        assert_eq!(known(&[0xc0, 0x02, 1, 0xf8, 0x01, 1]), Ok(Some(31)));
        assert_eq!(known(&[0x32, 2, 0x48, 1]), Ok(Some(9)));
        assert!(known(&[0x33]).is_err());
        assert!(known(&[0x32, 9, 1]).is_err());
    }
}
