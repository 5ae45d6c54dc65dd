//! The names in a run: its shard and the shard's first operator, its hosts, and its robots.

use std::collections::BTreeSet;

use skep_fleet::{FleetLimits, FleetState, LogPosition};
use skep_protocol::entry::{Charter, Entry, EntryBody, Founding};
use skep_protocol::fleet::{FLEET_VERSIONS, Rules};
use skep_protocol::ids::{Genesis, NodeId, ShardId};
use skep_protocol::operator::FirstOperator;
use skep_protocol::signing::{OperatorSecret, Place};
use skep_protocol::text::{GroupName, OperatorName, SiteName};
use skep_protocol::time::LogInstant;

/// The only shard.
pub(super) const SHARD: ShardId = ShardId(1);

pub(super) fn node_id(host: usize) -> NodeId {
    NodeId::from_public_key([u8::try_from(host).unwrap_or(0) + 1; 32])
}

pub(super) fn host_of(node: NodeId) -> usize {
    usize::from(node.public_key()[0]) - 1
}

pub(super) fn site() -> SiteName {
    SiteName::new("sim").unwrap_or_else(|error| unreachable!("{error}"))
}

/// The shard's first operator.
pub(super) fn operator() -> OperatorSecret {
    OperatorSecret::from_seed(&[7; 32])
}

/// The place in which its statements hold.
pub(super) fn place() -> Place {
    Place { site: site(), shard: SHARD, genesis: Genesis::from_bytes([6; 16]) }
}

/// The state of a shard after its first entry.
#[allow(clippy::expect_used, reason = "constants within their limits")]
pub(super) fn founded(term: u64) -> FleetState {
    let name = OperatorName::new("first").expect("a name");
    let first = FirstOperator { place: place(), operator: operator().key(), name }.sign(&operator());
    let charter = Charter { place: place(), first: first.ok(), root: None };
    let rules = Rules { version: FLEET_VERSIONS.max, limits: FleetLimits::default() };
    let body = EntryBody::Founding(Box::new(Founding { rules, charter }));
    let mut state = FleetState::empty();
    state.apply(LogPosition { index: 0, term }, &Entry { stamp: LogInstant::ZERO, term, body });
    state
}

/// The groups of a robot.
pub(super) fn groups_of(number: usize) -> BTreeSet<GroupName> {
    let name = if number.is_multiple_of(2) { "even" } else { "odd" };
    GroupName::new(name).into_iter().collect()
}
