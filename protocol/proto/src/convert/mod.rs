//! The border between the vocabulary and the protobuf types of the local API.
//!
//! This checks everything that a client sends, field by field, and a refusal names the field.

use std::collections::BTreeSet;
use std::time::Duration;

pub use skep_protocol::field::FieldError;
use skep_protocol::field::{InField as _, field};
use skep_protocol::ids::{RequestId, ShardId};
use skep_protocol::limits;
use skep_protocol::query::AsOf;
use skep_protocol::task::InvalidSpec;
use skep_protocol::text::Capability;
use skep_protocol::time::LogInstant;

use crate::v1;

pub use agents::{agent_to_proto, attach, position, register_agent, remove_agent, role_to_proto};
pub use command_events::command_events;
pub use commands::{
    command_id, command_step, command_to_proto, command_view_to_proto, control_command, first_operator, genesis,
    go_token, grant_operator, news_to_proto, operator_to_proto, optional_command_id, outcome, place, place_to_proto,
    replace_first, send_command, take_commands, wait_ms,
};
pub use failures::failure;
pub use operator_events::operator_event;
pub use shards::{dumped_task_to_proto, fault_to_proto, shard_status_to_proto, voters_to_proto};
pub use site::{
    admit, optional_site_key, propose, site_invitation_to_proto, site_member_to_proto, site_receipt_to_proto,
    site_summary_to_proto,
};
pub use site_events::site_event;
pub use statements::signed_to_proto;
pub use tasks::{
    event_to_proto, feeds, optional_task_id, priority_to_proto, receipt_to_proto, request_id, status, status_to_proto,
    task_id, task_request, task_spec, task_spec_to_proto, task_to_proto, task_view_to_proto,
};
pub use topics::{publication, topic, value_to_proto};

mod agents;
mod command_events;
mod commands;
mod failures;
mod operator_events;
mod shards;
mod site;
mod site_events;
mod statements;
mod tasks;
mod topics;

/// Reads the shard that a request names: 0 is the site's first one.
pub fn shard_id(shard: u32) -> ShardId {
    if shard == 0 { ShardId::FIRST } else { ShardId(shard) }
}

/// Reads how many items a page is to hold.
///
/// # Errors
/// [`FieldError`] if that is 0.
pub fn page_limit(asked: Option<u32>) -> Result<u32, FieldError> {
    const DEFAULT: u32 = 100;
    match asked {
        Some(0) => Err(field("limit", format!("give 1 to {}, or leave it out", limits::PAGE_ITEMS_MAX))),
        asked => Ok(asked.unwrap_or(DEFAULT).min(limits::PAGE_ITEMS_MAX as u32)),
    }
}

fn permille(given: u32) -> Result<u16, FieldError> {
    u16::try_from(given).ok().filter(|p| *p <= 1_000).ok_or_else(|| field("permille", "give 0 to 1000"))
}

/// The identity of a mutating request, as far as the client gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The shard that the request is for.
    pub shard: ShardId,
    /// The request id; none if the node is to make one.
    pub id: Option<RequestId>,
    /// The shard's clock at the first sending; none if the node is to fill it in.
    pub first_sent: Option<LogInstant>,
    /// The deadline on the shard's clock; none for the default.
    pub deadline: Option<LogInstant>,
}

/// Reads the identity of a mutating request.
///
/// # Errors
/// [`FieldError`] if the id is neither empty nor 16 bytes.
pub fn meta(meta: Option<v1::RequestMeta>) -> Result<Meta, FieldError> {
    let meta = meta.unwrap_or_default();
    let id = if meta.request_id.is_empty() {
        None
    } else {
        let bytes = meta.request_id.as_slice().try_into();
        Some(RequestId::from_bytes(bytes.map_err(|_| field("meta.request_id", "give the 16 bytes of a UUIDv7"))?))
    };
    let instant = |raw: u64| (raw != 0).then(|| LogInstant::from_raw(raw));
    Ok(Meta { shard: shard_id(meta.shard), id, first_sent: instant(meta.first_sent), deadline: instant(meta.deadline) })
}

fn duration_ms(name: &'static str, duration: Option<prost_types::Duration>) -> Result<Option<u64>, FieldError> {
    let Some(duration) = duration else { return Ok(None) };
    let duration = Duration::try_from(duration).map_err(|_| field(name, "it is negative or not a duration"))?;
    u64::try_from(duration.as_millis()).map(Some).map_err(|_| field(name, "it is too long"))
}

/// The protobuf form of a duration in milliseconds.
pub fn duration_to_proto(ms: u64) -> prost_types::Duration {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: i32::try_from(ms % 1_000).unwrap_or(0) * 1_000_000 }
}

fn capabilities(name: &'static str, texts: &[String]) -> Result<BTreeSet<Capability>, FieldError> {
    if texts.len() > limits::CAPABILITIES_MAX {
        let (given, max) = (texts.len(), limits::CAPABILITIES_MAX as u64);
        return Err(field(name, InvalidSpec::Capabilities { given, max }));
    }
    texts.iter().map(|text| Capability::new(text).in_field(name)).collect()
}

/// The protobuf form of the state that an answer is based on.
pub fn as_of_to_proto(as_of: &AsOf) -> v1::AsOf {
    v1::AsOf {
        index: as_of.index,
        stamp: as_of.stamp.raw(),
        clock: as_of.clock.map_or(0, LogInstant::raw),
        linearizable: as_of.linearizable,
        age_ms: as_of.age_ms,
    }
}

#[cfg(test)]
mod tests;
