//! Who votes in the shards that this node has heard of, for the connections that it keeps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use skep_protocol::ids::NodeId;
use tokio::time::Instant;

use crate::core::Core;
use crate::net::{Roles, sought_in};

/// How often own replicas are looked at, while they say who votes and while they do not.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOK_EVERY_AT_FIRST: Duration = Duration::from_millis(50);
/// How long some peers are kept that may know of a leader, before it is the turn of others.
const TURN: Duration = Duration::from_secs(5);

/// Who votes, from own replicas and from what others say.
fn voters(core: &Core) -> BTreeSet<NodeId> {
    let mut voters = BTreeSet::new();
    for shard in core.shards() {
        voters.extend(shard.hint().voters.iter().copied());
    }
    for (id, learned) in core.learned() {
        // What was heard before this node became a member is old.
        let is_member = core.shard(id).is_some_and(|shard| shard.view().borrow().member);
        if !is_member {
            // Whoever answers as a leader is one, whatever others say of who votes.
            voters.extend(learned.hint.leader);
            voters.extend(learned.hint.voters.iter().copied());
        }
    }
    voters
}

/// Looks once; whether anybody is known to vote. Until then those who are marked as voters count as such.
pub(crate) fn look(core: &Core, turn: usize) -> bool {
    let (known, marked) = (voters(core), &core.belief.marked);
    // Voters that were all replaced meanwhile name nobody: others who are marked are asked, too.
    let lost = core.learned().iter().any(|(_, learned)| learned.lost);
    let others = marked.iter().copied().filter(|id| lost && *id != core.site.node && !known.contains(id));
    let sought = sought_in(turn, &others.collect::<Vec<NodeId>>());
    let is_known = !known.is_empty();
    let voters = if is_known { known } else { marked.clone() };
    core.site.peers.assume(Roles { voters, known: is_known, sought });
    is_known
}

/// Keeps the control plane informed, for as long as the node runs.
pub(crate) async fn follow(core: Arc<Core>) {
    let mut taught = core.taught.subscribe();
    let (mut turn, mut turned) = (0, Instant::now());
    loop {
        if turned.elapsed() >= TURN {
            (turn, turned) = (turn + 1, Instant::now());
        }
        let wait = if look(&core, turn) { LOOK_EVERY } else { LOOK_EVERY_AT_FIRST };
        tokio::select! {
            biased;
            Ok(()) = taught.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}
