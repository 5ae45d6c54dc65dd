//! The protobuf messages, and how their fields are read.

use prost::Message;
use skep_protocol::field::{FieldError, field};

use crate::keys::PublicKey;

/// Sealed and shown messages, generated from `proto/skep/trust/v1/trust.proto`.
#[allow(missing_docs, rustdoc::all, clippy::all, unreachable_pub)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/skep.trust.v1.rs"));
}

/// Checks that a field holds so many bytes.
pub(crate) fn exactly<const BYTES: usize>(name: &'static str, given: &[u8]) -> Result<[u8; BYTES], FieldError> {
    given.try_into().map_err(|_| field(name, format!("it has {} bytes; give {BYTES}", given.len())))
}

/// Checks that a field holds so many bytes, or none.
pub(crate) fn exactly_or_none<const BYTES: usize>(
    name: &'static str,
    given: &[u8],
) -> Result<Option<[u8; BYTES]>, FieldError> {
    if given.is_empty() { Ok(None) } else { exactly(name, given).map(Some) }
}

pub(crate) fn key(name: &'static str, given: &[u8]) -> Result<PublicKey, FieldError> {
    exactly(name, given).map(PublicKey::from_bytes)
}

pub(crate) fn key_or_none(name: &'static str, given: &[u8]) -> Result<Option<PublicKey>, FieldError> {
    Ok(exactly_or_none(name, given)?.map(PublicKey::from_bytes))
}

/// Checks that a field holds at most so many values.
pub(crate) fn at_most<T>(name: &'static str, given: Vec<T>, max: usize) -> Result<Vec<T>, FieldError> {
    let count = given.len();
    if count > max { Err(field(name, format!("there are {count}; at most {max} are allowed"))) } else { Ok(given) }
}

/// Checks that a field is there.
pub(crate) fn there<T>(name: &'static str, given: Option<T>) -> Result<T, FieldError> {
    given.ok_or_else(|| field(name, "it is missing"))
}

/// The bytes of an optional fixed-size field.
pub(crate) fn bytes_of<const BYTES: usize>(given: Option<&[u8; BYTES]>) -> Vec<u8> {
    given.map(|bytes| bytes.to_vec()).unwrap_or_default()
}

/// The encoded form of a message.
pub(crate) fn encoded(message: &impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use prost_types::field_descriptor_proto::Type;
    use prost_types::{DescriptorProto, FileDescriptorSet};
    use skep_protocol::critical::Fields;

    use super::*;

    /// Checks that the fields of a message, and of the messages in it, are those of the definition.
    fn check(name: &str, known: &Fields, messages: &BTreeMap<&str, &DescriptorProto>) {
        let defined = messages[name];
        let numbers: BTreeSet<u32> = defined.field.iter().map(|of| u32::try_from(of.number()).unwrap()).collect();
        assert_eq!(known.0.iter().map(|(number, _)| *number).collect::<BTreeSet<u32>>(), numbers, "{name}");
        for defined in &defined.field {
            let number = u32::try_from(defined.number()).unwrap();
            let (_, of) = known.0.iter().find(|(known, _)| *known == number).unwrap();
            let is_message = defined.r#type() == Type::Message;
            assert_eq!(of.is_some(), is_message, "{name}.{}", defined.name());
            if let Some(of) = of {
                check(defined.type_name().strip_prefix(".skep.trust.v1.").unwrap(), of, messages);
            }
        }
    }

    /// A field that a message gets must be added to its table, or its own node would refuse it.
    #[test]
    fn known_fields_are_those_of_the_definition() {
        let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/trust.bin"));
        let set = FileDescriptorSet::decode(bytes).unwrap();
        let file = set.file.iter().find(|file| file.name() == "skep/trust/v1/trust.proto").unwrap();
        let messages = file.message_type.iter().map(|message| (message.name(), message)).collect();
        for (name, fields) in [
            ("SealedStatement", &crate::sealed::SEALED),
            ("RootStatement", &crate::root::ROOT),
            ("CertificateStatement", &crate::certificate::CERTIFICATE),
            ("InvitationStatement", &crate::invitation::INVITATION),
            ("KnockStatement", &crate::join::KNOCK),
            ("JoinRequestStatement", &crate::join::REQUEST),
            ("JoinReplyStatement", &crate::reply::REPLY),
            ("CertificateChain", &crate::links::CHAIN),
            ("RevocationStatement", &crate::revocation::REVOCATION),
            ("SealedRevocation", &crate::revocation::SEALED_REVOCATION),
            ("TrustHello", &crate::hello::HELLO),
            ("SiteNews", &crate::news::NEWS),
        ] {
            check(name, fields, &messages);
        }
    }
}
