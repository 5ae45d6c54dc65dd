//! Raises the rules that a shard agrees on: entries get a new meaning once every voter can apply it.
//!
//! A voter says in its hello, on each connection, which versions it can apply. The leader proposes a version only while
//! it is connected to every voter, of the old set and of the new one while voters change, and each voter has said that
//! it can apply the version. Any voter may lead next, and a voter on which the group counts must not stop at the entry.
//! The version brings the limits of the leader's build, so that a limit changes only where a version does.

use std::time::Duration;

use openraft::ServerState;
use skep_protocol::entry::{EntryBody, Founding};
use skep_protocol::fleet::{Build, FleetVersions, Rules};
use skep_protocol::ids::{NodeId, RaftId};
use skep_protocol::mutant::{Mutant, is_on};

use super::{MembershipError, Shard};
use crate::raft::fitness::Unfit;
use crate::raft::types::Member;

/// Interval between two looks whether every voter can apply the next version.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the voters can agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Agreement {
    /// The newest version that this node and all voters can apply; none if a voter has not said, or if there is none.
    pub(super) version: Option<u32>,
    /// The voters because of which this is not the newest version that this node can apply.
    pub(super) held_back_by: Vec<NodeId>,
}

/// What a build and voters with these versions agree on; a voter that is not connected has none.
fn agree(own: FleetVersions, voters: &[(NodeId, Option<FleetVersions>)]) -> Agreement {
    let said: Option<Vec<FleetVersions>> = voters.iter().map(|(_, said)| *said).collect();
    let version = said.and_then(|said| FleetVersions::newest_of_all(said.into_iter().chain([own])));
    let lacks = |said: &Option<FleetVersions>| said.is_none_or(|said| !said.contains(own.max));
    let held_back_by = voters.iter().filter(|(_, said)| lacks(said)).map(|(node, _)| *node).collect();
    Agreement { version, held_back_by }
}

impl Shard {
    fn build(&self) -> Build {
        self.inner.parts.build
    }

    /// Why this build takes no further part; none if it can apply what the shard has agreed on.
    pub(crate) fn unfit(&self) -> Option<&Unfit> {
        self.inner.fitness.unfit()
    }

    /// The answer to a peer that asks something of a replica that takes no further part.
    pub(super) fn check_fit(&self) -> Result<(), String> {
        match self.unfit() {
            Some(unfit) => Err(format!("this node takes no part in the shard: {unfit}")),
            None => Ok(()),
        }
    }

    /// The versions that a member says it can apply; none while it is not connected, or if another incarnation of it
    /// is.
    pub(super) fn speaks(&self, id: RaftId, member: &Member) -> Option<FleetVersions> {
        let parts = &self.inner.parts;
        if id == parts.raft_id() {
            return Some(parts.build.versions);
        }
        parts.peers.connected(member.node).filter(|peer| peer.raft_id() == id).map(|peer| peer.hello.fleet)
    }

    pub(super) fn fleet_version(&self) -> u32 {
        self.inner.state.read().fleet_version()
    }

    /// What the voters can agree on, as far as this node is connected.
    pub(super) fn agreement(&self) -> Agreement {
        let voters = self.voters();
        let said: Vec<_> = voters.iter().map(|(id, member)| (member.node, self.speaks(*id, member))).collect();
        agree(self.build().versions, &said)
    }

    /// Refuses a node that does not speak the version that the shard has agreed on.
    pub(super) fn check_speaks(&self, node: NodeId) -> Result<(), MembershipError> {
        let parts = &self.inner.parts;
        let version = self.fleet_version();
        let speaks = match parts.peers.connected(node) {
            _ if node == parts.node => parts.build.versions,
            Some(peer) => peer.hello.fleet,
            None => return Err(MembershipError::Unreachable { node }),
        };
        // Zero: the shard has agreed on nothing yet.
        if version == 0 || speaks.contains(version) {
            return Ok(());
        }
        Err(MembershipError::WrongVersion { node, speaks, version })
    }

    /// Refuses voters of a new shard that have no version in common.
    pub(super) fn check_common_version(&self, nodes: &[NodeId]) -> Result<(), MembershipError> {
        let parts = &self.inner.parts;
        let others = nodes.iter().filter_map(|node| parts.peers.connected(*node)).map(|peer| peer.hello.fleet);
        match FleetVersions::newest_of_all(others.chain([parts.build.versions])) {
            Some(_) => Ok(()),
            None => Err(MembershipError::Voters(
                "there is no fleet version that all of them speak; install Skeps of the same version on them"
                    .to_owned(),
            )),
        }
    }

    /// Proposes a version as the leader of a term, with the limits of this build; returns whether it was applied.
    async fn propose_version(&self, term: u64, version: u32) -> bool {
        let rules = Rules { version, limits: self.build().limits };
        let proposed = self.write_as(term, EntryBody::Rules(Box::new(rules))).await.is_some();
        if proposed {
            tracing::info!(shard = %self.id(), version, "the shard has agreed on a fleet version");
        }
        proposed
    }

    /// Gives a new shard its first entry, with the first rules: the oldest, unless every voter is known to speak newer
    /// ones. False if that failed this time.
    pub(super) async fn agree_first(&self, term: u64) -> bool {
        if self.fleet_version() > 0 {
            return true;
        }
        let version = self.agreement().version.unwrap_or(self.build().versions.min);
        let Some(charter) = self.charter() else {
            tracing::error!(shard = %self.id(), "the shard's first voters do not say what it is: it cannot begin");
            return false;
        };
        let genesis = charter.place.genesis;
        let rules = Rules { version, limits: self.build().limits };
        let founding = EntryBody::Founding(Box::new(Founding { rules, charter }));
        let founded = self.write_as(term, founding).await.is_some();
        if founded {
            tracing::info!(shard = %self.id(), version, %genesis, "the shard has begun");
        }
        founded
    }

    /// The version to propose, if there is one.
    fn next_version(&self) -> Option<u32> {
        let next = match is_on(Mutant::RaisedWithoutAllVoters) {
            true => Some(self.build().versions.max),
            false => self.agreement().version,
        };
        next.filter(|next| *next > self.fleet_version())
    }

    async fn raise(&self, term: u64) {
        if self.next_version().is_none() {
            return;
        }
        // No node becomes a voter meanwhile: a node that is to become one has shown that it speaks the present version.
        let _one_at_a_time = self.inner.changing_members.lock().await;
        if let Some(version) = self.next_version() {
            self.propose_version(term, version).await;
        }
    }
}

/// Raises the version of the shard whenever that is possible, for as long as this node leads the term.
pub(super) async fn run(shard: Shard, term: u64) {
    loop {
        let metrics = shard.metrics();
        let leads = metrics.state == ServerState::Leader && metrics.current_term == term;
        if !leads || metrics.running_state.is_err() || shard.unfit().is_some() {
            return;
        }
        shard.raise(term).await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What a test needs to put an entry of another build into the log.
#[cfg(test)]
impl Shard {
    /// Writes bytes as an entry; this node must lead.
    pub(crate) async fn write_bytes(&self, bytes: Vec<u8>) {
        use openraft::impls::ProgressResponder;
        use openraft::raft::ClientWriteResult;

        use crate::raft::types::{EntryBytes, TypeConfig};

        let term = self.inner.view.borrow().term;
        let (responder, written) = ProgressResponder::<TypeConfig, ClientWriteResult<TypeConfig>>::complete_only();
        let data = EntryBytes(bytes.into());
        let _ = self.raft().write(data).with_leader(term).responder(responder).await;
        // No task waits for the answer.
        drop(written);
    }

    /// The most live tasks that the shard has agreed on.
    pub(crate) fn live_tasks_max(&self) -> u64 {
        self.inner.state.read().limits().live_tasks_max
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::node;
    use super::*;

    #[test]
    fn a_version_is_agreed_on_once_every_voter_has_said_that_it_speaks_it() {
        let speaks = |min, max| FleetVersions { min, max };
        let of = |said: &[Option<FleetVersions>]| {
            let voters: Vec<_> = (1..).zip(said).map(|(n, said)| (node(n), *said)).collect();
            agree(speaks(1, 3), &voters)
        };
        let (old, new) = (Some(speaks(1, 2)), Some(speaks(2, 4)));
        assert_eq!(of(&[]), Agreement { version: Some(3), held_back_by: vec![] });
        assert_eq!(of(&[new, new]), Agreement { version: Some(3), held_back_by: vec![] });
        assert_eq!(of(&[new, old]), Agreement { version: Some(2), held_back_by: vec![node(2)] });
        assert_eq!(of(&[None, new]), Agreement { version: None, held_back_by: vec![node(1)] }, "it may be older");
        let later = Some(speaks(4, 5));
        assert_eq!(of(&[later]), Agreement { version: None, held_back_by: vec![node(1)] }, "nothing in common");
    }
}
