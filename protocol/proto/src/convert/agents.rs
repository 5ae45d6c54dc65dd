//! Agents at the border.

use skep_protocol::agent::{AgentOp, AgentView, Role};
use skep_protocol::attach::AttachWish;
use skep_protocol::field::{FieldError, InField as _, field};
use skep_protocol::ids::SessionId;
use skep_protocol::lease::LeaseTerms;
use skep_protocol::position::Position;
use skep_protocol::text::{AgentId, RoleName};

use super::{Meta, capabilities, duration_ms, duration_to_proto, meta, shard_id};
use crate::v1;

fn role(role: Option<v1::Role>) -> Result<Role, FieldError> {
    let role = role.ok_or_else(|| field("role", "it is missing"))?;
    let role = Role {
        name: RoleName::new(&role.name).in_field("role.name")?,
        capabilities: capabilities("role.capabilities", &role.capabilities)?,
        stateful: role.stateful,
        max_concurrent: role.max_concurrent.unwrap_or(1),
    };
    role.check().in_field("role")?;
    Ok(role)
}

/// Reads the first message of an agent's stream.
///
/// # Errors
/// [`FieldError`] names the field that is out of bounds.
pub fn attach(request: v1::AttachAgent) -> Result<AttachWish, FieldError> {
    let session = request.session.as_slice().try_into();
    let lease = duration_ms("lease_ttl", request.lease_ttl)?.map(|ttl_ms| LeaseTerms { ttl_ms });
    if let Some(lease) = lease {
        lease.check().in_field("lease_ttl")?;
    }
    Ok(AttachWish {
        shard: shard_id(request.shard),
        agent: AgentId::new(&request.agent).in_field("agent")?,
        role: role(request.role)?,
        session: SessionId::from_bytes(session.map_err(|_| field("session", "give the 16 bytes of a UUID"))?),
        lease,
    })
}

/// Reads a position on the floor.
pub fn position(position: v1::Position) -> Position {
    Position { x_mm: position.x_mm, y_mm: position.y_mm }
}

/// The protobuf form of a position on the floor.
pub(super) fn position_to_proto(position: Position) -> v1::Position {
    v1::Position { x_mm: position.x_mm, y_mm: position.y_mm }
}

/// Reads a registration: its identity and its operation.
///
/// # Errors
/// [`FieldError`] names the field that is out of bounds.
pub fn register_agent(request: v1::RegisterAgentRequest) -> Result<(Meta, AgentOp), FieldError> {
    let role = role(request.role)?;
    let agent = AgentId::new(&request.agent).in_field("agent")?;
    Ok((meta(request.meta)?, AgentOp::Register { agent, role }))
}

/// Reads a removal: its identity and its operation.
///
/// # Errors
/// [`FieldError`] names the field that is out of bounds.
pub fn remove_agent(request: v1::RemoveAgentRequest) -> Result<(Meta, AgentOp), FieldError> {
    let agent = AgentId::new(&request.agent).in_field("agent")?;
    Ok((meta(request.meta)?, AgentOp::Remove { agent }))
}

/// The protobuf form of an agent.
pub fn agent_to_proto(agent: &AgentView) -> v1::Agent {
    v1::Agent {
        id: agent.id.to_string(),
        role: Some(role_to_proto(&agent.role)),
        held: agent.held,
        overlaps: agent.overlaps,
        node: agent.attachment.map(|attachment| attachment.node.to_string()).unwrap_or_default(),
        attachment: agent.attachment.map_or(0, |attachment| attachment.id.0),
        lease_ttl: agent.attachment.map(|attachment| duration_to_proto(attachment.lease.ttl_ms)),
    }
}

/// The protobuf form of a role.
pub fn role_to_proto(role: &Role) -> v1::Role {
    v1::Role {
        name: role.name.to_string(),
        capabilities: role.capabilities.iter().map(ToString::to_string).collect(),
        stateful: role.stateful,
        max_concurrent: Some(role.max_concurrent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_may_hold_nothing_is_refused_and_not_given_one() {
        // Koed00/django-q#602
        let with = |max_concurrent| role(Some(v1::Role { name: "r".into(), max_concurrent, ..Default::default() }));
        assert_eq!(with(None).unwrap().max_concurrent, 1);
        assert_eq!(with(Some(0)).unwrap_err().field, "role");
    }
}
