//! Who is a member, as the mesh is told, and where this node is, as it tells the directory. Both are hints: the
//! handshake proves a key, and the certificate that it is a member's.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use skep_api::Calls;
use skep_consensus::ConsensusHandle;
use skep_mesh::{KnownMembers, MeshHandle};
use skep_protocol::entry::Op;
use skep_protocol::ids::ShardId;
use skep_protocol::limits;
use skep_protocol::query::{Answer, Query};
use skep_protocol::settled::Settled;
use skep_protocol::site::{SiteAddresses, SiteAnswer, SiteKey, SiteOp, SiteQuery};
use skep_trust::{MemberAddress, PublicKey};

use super::addresses::{address, multiaddress};
use super::directory::read;
use super::held::Keeper;

/// How often the node looks whom it knows, and where it is itself.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often it writes down where voters are, if they are elsewhere than before.
const NOTE_EVERY: Duration = Duration::from_secs(60);
/// How long it waits for an answer of the directory, in milliseconds.
const PATIENCE_MS: u64 = 5_000;

/// What the members of a site are followed by.
pub(super) struct Members {
    pub(super) consensus: ConsensusHandle,
    pub(super) mesh: MeshHandle,
    pub(super) calls: Calls,
    pub(super) keeper: Keeper,
    /// Where members are said to be, as it is written down.
    pub(super) hints: Vec<MemberAddress>,
}

/// Where a node is that listens there: on an address of its own, if it has one that other machines reach.
fn reached_at(control: Option<SocketAddr>, listening: &[String]) -> SiteAddresses {
    let meshes: Vec<SocketAddr> = listening.iter().filter_map(|at| address(at)).collect();
    let is_own = |at: &&SocketAddr| !at.ip().is_unspecified();
    let reached = meshes.iter().filter(is_own).find(|at| !at.ip().is_loopback());
    let mesh = reached.or_else(|| meshes.iter().find(is_own)).copied();
    let control = match control {
        Some(at) if at.ip().is_unspecified() => mesh.map(|mesh| SocketAddr::new(mesh.ip(), at.port())),
        at => at,
    };
    SiteAddresses { control, mesh }
}

/// Where members are: first those that were met, each with the mesh that was known of it before if none is known, and
/// then the others.
fn merged(mut met: Vec<MemberAddress>, before: &[MemberAddress]) -> Vec<MemberAddress> {
    for member in &mut met {
        let known = before.iter().find(|known| known.node == member.node);
        member.mesh = member.mesh.or_else(|| known?.mesh);
        member.control = member.control.or_else(|| known?.control);
    }
    let is_met = |known: &&MemberAddress| met.iter().any(|member| member.node == known.node);
    let others: Vec<MemberAddress> = before.iter().filter(|known| !is_met(known)).cloned().collect();
    met.into_iter().chain(others).take(limits::SITE_HINTS_MAX).collect()
}

impl Members {
    /// Tells the mesh who is a member, and the directory where this node is, for as long as it runs.
    pub(super) async fn follow(mut self) {
        let (mut known, mut listed, mut located) = (KnownMembers::new(), KnownMembers::new(), None);
        let (mut read_up_to, mut noted) = (None, Instant::now());
        loop {
            // What the directory says is read again once it may say something else.
            if self.consensus.view(ShardId::DIRECTORY).is_some() {
                let progress = *self.consensus.history_progress(ShardId::DIRECTORY).borrow();
                if read_up_to != Some(progress)
                    && let Some(all) = self.listed().await
                {
                    (listed, read_up_to) = (all, Some(progress));
                }
            }
            let members = self.met(&listed);
            if members != known {
                self.mesh.know_members(members.clone());
                known = members;
            }
            let own = reached_at(self.consensus.address(), &self.mesh.view().borrow().listening);
            if located != Some(own) && own != SiteAddresses::default() && self.locate(own).await {
                located = Some(own);
            }
            if noted.elapsed() >= NOTE_EVERY {
                noted = Instant::now();
                self.note_hints(&listed).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The members that this node's replica of the directory has, and where their meshes are.
    async fn listed(&self) -> Option<KnownMembers> {
        let limit = u32::try_from(limits::PAGE_ITEMS_MAX).unwrap_or(u32::MAX);
        let (mut all, mut after) = (KnownMembers::new(), None);
        while all.len() < limits::MESH_MEMBERS_MAX {
            let answer = read(&self.consensus, SiteQuery::Members { after, limit }).await?;
            let SiteAnswer::Members { members, next } = answer else { return None };
            let node = |key: SiteKey| PublicKey::from(key).node();
            all.extend(members.into_iter().map(|member| (node(member.key), member.addresses.mesh.map(multiaddress))));
            if next.is_none() {
                break;
            }
            after = next;
        }
        Some(all)
    }

    /// Writes down where the voters are that the node is connected to, before all that it was told: it looks for them
    /// there when it starts again.
    async fn note_hints(&mut self, listed: &KnownMembers) {
        let voters = self.consensus.members_that_vote().unwrap_or_default();
        let peers = self.consensus.peers().into_iter().filter(|peer| peer.up && voters.contains(&peer.node));
        let met = peers.map(|peer| MemberAddress {
            node: PublicKey::from(peer.node),
            control: peer.address,
            mesh: listed.get(&peer.node).and_then(|at| address(at.as_deref()?)),
        });
        let hints = merged(met.collect(), &self.hints);
        if hints == self.hints {
            return;
        }
        let (keeper, wanted) = (self.keeper.clone(), hints.clone());
        match tokio::task::spawn_blocking(move || keeper.keep_hints(&wanted)).await {
            Ok(Ok(())) => self.hints = hints,
            Ok(Err(error)) => tracing::warn!(%error, "where members are could not be written down"),
            Err(error) => tracing::debug!(%error, "the node stops"),
        }
    }

    /// Those, and the members that the control plane has met.
    fn met(&self, listed: &KnownMembers) -> KnownMembers {
        let met = self.consensus.peers().into_iter().map(|peer| (peer.node, None));
        let mut members: KnownMembers = met.take(limits::MESH_MEMBERS_MAX).collect();
        members.extend(listed.iter().map(|(node, at)| (*node, at.clone())));
        members.remove(&self.consensus.node());
        members
    }

    /// Tells the directory where this node is, if it says something else. Whether it is known there now.
    async fn locate(&self, own: SiteAddresses) -> bool {
        let member = SiteKey::from(self.consensus.node());
        let query = Query::Site(SiteQuery::Member(member));
        let Ok(reply) = self.calls.read(ShardId::DIRECTORY, query, PATIENCE_MS).await else { return false };
        match reply.answer {
            Answer::Site(SiteAnswer::Member(Some(known))) if known.addresses == own => true,
            Answer::Site(SiteAnswer::Member(Some(_))) => {
                let op = Op::Site(SiteOp::Locate { member, addresses: own });
                let settled = self.calls.request(ShardId::DIRECTORY, op, PATIENCE_MS).await;
                let is_done = matches!(settled, Settled::Done { .. });
                if !is_done {
                    tracing::debug!(?settled, "the directory does not know where this node is");
                }
                is_done
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_protocol::ids::NodeId;

    #[test]
    fn the_address_of_a_mesh_is_read_as_it_is_written() {
        for at in ["10.0.0.7:7340", "[fd00::7]:7340"] {
            let at: SocketAddr = at.parse().unwrap();
            assert_eq!(address(&multiaddress(at)), Some(at));
        }
        for other in [
            "",
            "/",
            "/ip4",
            "/ip4/10.0.0.7/tcp/7340",
            "/dns/edge/udp/7340/quic-v1",
            "/ip4/x/udp/1",
            "/ip4/1.2.3.4/udp/x",
        ] {
            assert_eq!(address(other), None, "{other}");
        }
    }

    #[test]
    fn a_node_says_an_address_that_others_reach_and_none_that_is_no_address() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let listening = ["/ip4/127.0.0.1/udp/7340/quic-v1", "/ip4/10.0.0.7/tcp/7340", "/ip4/10.0.0.7/udp/7340/quic-v1"];
        let listening = listening.map(str::to_owned);
        let anywhere = reached_at(Some(at("0.0.0.0:7341")), &listening);
        assert_eq!((anywhere.control, anywhere.mesh), (Some(at("10.0.0.7:7341")), Some(at("10.0.0.7:7340"))));
        let here = reached_at(Some(at("127.0.0.1:7341")), &listening[..1]);
        assert_eq!((here.control, here.mesh), (Some(at("127.0.0.1:7341")), Some(at("127.0.0.1:7340"))));
        assert_eq!(reached_at(Some(at("0.0.0.0:7341")), &[]), SiteAddresses::default());
    }

    #[test]
    fn where_voters_were_met_comes_before_what_was_told_and_forgets_no_mesh() {
        let member = |n: u8, control: &str, mesh: Option<&str>| MemberAddress {
            node: PublicKey::from(NodeId::from_public_key([n; 32])),
            control: Some(control.parse().unwrap()),
            mesh: mesh.map(|at| at.parse().unwrap()),
        };
        let before = [member(1, "10.0.0.1:1", Some("10.0.0.1:2")), member(2, "10.0.0.2:1", None)];
        let met = vec![member(3, "10.0.0.3:1", None), member(1, "10.0.0.9:1", None)];
        let now = merged(met, &before);
        let expected = [met_again(&before[0], "10.0.0.9:1"), before[1].clone()];
        assert_eq!((now.len(), &now[1..]), (3, &expected[..]));
        assert_eq!(merged(now.clone(), &now), now, "nothing new");
        let many: Vec<MemberAddress> = (0..=255).map(|n| member(n, "10.0.0.7:7", None)).collect();
        assert_eq!(merged(many, &before).len(), limits::SITE_HINTS_MAX);
    }

    /// The same member, whose control plane is elsewhere.
    fn met_again(member: &MemberAddress, control: &str) -> MemberAddress {
        MemberAddress { control: Some(control.parse().unwrap()), ..member.clone() }
    }
}
