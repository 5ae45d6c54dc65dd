//! The members of its site that a node has met or heard of: what each may do, where it may be, and who is out again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use skep_admission::SiteHandle;
use skep_protocol::codec::Encoded as _;
use skep_protocol::frame::{FrameKind, MemberAddresses};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::limits;
use skep_protocol::mutant::{Mutant, is_on};
use skep_protocol::text::AgentId;
use skep_trust::{Refusal, Role, SiteNews};

use super::calls::Class;
use super::gate::{Gate, Pass, TURNED_AWAY, Turned};
use super::may::Action;
use super::peers::{Entry, Peer, Peers};

/// How long a peer has to say where members are.
const ASK_PATIENCE: Duration = Duration::from_secs(5);

impl Peers {
    /// Whether certificates say who is let in, and no list.
    pub(crate) fn is_of_site(&self) -> bool {
        self.gate.is_some()
    }

    /// What is known of the site; none where the list says who is let in.
    pub(crate) fn site(&self) -> Option<&SiteHandle> {
        self.gate.as_ref().map(|gate| &gate.site)
    }

    /// Whether a node may do something, for an agent if it is about one. This node may what it does by itself, and
    /// without a site everybody may who is listed.
    pub(crate) fn may(&self, node: NodeId, action: Action, agent: Option<&AgentId>) -> bool {
        if self.gate.is_none() || node == self.local {
            return true;
        }
        let pass = self.entries().get(&node).and_then(|entry| entry.pass.clone());
        pass.is_some_and(|pass| pass.may(action, agent))
    }

    /// The members that may vote, of those that this node has met.
    pub(crate) fn members_that_vote(&self) -> BTreeSet<NodeId> {
        let votes = |entry: &Entry| entry.pass.as_ref().is_some_and(|pass| pass.may(Action::Vote, None));
        self.entries().iter().filter(|(_, entry)| votes(entry)).map(|(node, _)| *node).collect()
    }

    /// The members that may issue certificates, of those that are connected.
    pub(crate) fn issuers(&self) -> Vec<NodeId> {
        let Some(view) = self.site().map(SiteHandle::view) else { return Vec::new() };
        let named = &view.root().document().issuers;
        let issues = |pass: &Pass| pass.member().is(Role::Issuer) || named.contains_key(&pass.member().key);
        let entries = self.entries();
        let connected = entries.iter().filter(|(_, entry)| entry.peer.is_some());
        let issuers = connected.filter(|(_, entry)| entry.pass.as_deref().is_some_and(issues));
        issuers.map(|(node, _)| *node).collect()
    }

    /// How many nodes were refused since this one started, by kind.
    pub(crate) fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.gate.as_ref().map(Gate::refused).unwrap_or_default()
    }

    /// Whether there is a place for a node among those that are known. At a site one is made: somebody goes for it who
    /// is not connected, and was met longest ago or never.
    pub(super) fn has_place(&self, node: NodeId) -> bool {
        let mut entries = self.entries();
        if entries.contains_key(&node) {
            return true;
        }
        if self.gate.is_none() || node == self.local {
            return false;
        }
        let mut gone = None;
        if entries.len() >= limits::MEMBERS_KNOWN_MAX {
            let may_go = entries.iter().filter(|(_, entry)| entry.peer.is_none() && !entry.places.is_configured());
            gone = may_go.min_by_key(|(_, entry)| entry.met).map(|(node, _)| *node);
            match gone {
                Some(gone) => _ = entries.remove(&gone),
                None => return false,
            }
        }
        entries.insert(node, Entry::default());
        drop(entries);
        if let Some(gone) = gone {
            self.forget_shards(gone);
            self.forget_twins(gone);
        }
        true
    }

    /// Judges all members once more that were let in, and cuts the links of those who are out.
    pub(super) async fn judge_all(&self) {
        let pass = |(node, entry): (&NodeId, &Entry)| Some((*node, Arc::clone(entry.pass.as_ref()?)));
        let passes = self.entries().iter().filter_map(pass).collect();
        self.judge(passes).await;
    }

    /// Judges a peer once more that was let in: what is known may have changed since.
    pub(super) async fn judge_again(&self, peer: &Peer) {
        let pass = peer.pass.as_ref().map(|pass| (peer.node, Arc::clone(pass)));
        self.judge(pass.into_iter().collect()).await;
    }

    async fn judge(&self, passes: Vec<(NodeId, Arc<Pass>)>) {
        let Some(gate) = &self.gate else { return };
        for (node, pass, refusal) in gate.judge(passes).await {
            self.cut_off_member(gate, (node, &pass), refusal);
        }
    }

    fn cut_off_member(&self, gate: &Gate, (node, pass): (NodeId, &Arc<Pass>), refusal: Refusal) {
        if is_on(Mutant::RevokedStillServed) {
            return;
        }
        pass.ends();
        let is_this = |other: &Option<Arc<Pass>>| other.as_ref().is_some_and(|other| Arc::ptr_eq(other, pass));
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&node) else { return };
        if is_this(&entry.pass) {
            entry.pass = None;
        }
        let peer = entry.peer.clone().filter(|peer| is_this(&peer.pass));
        drop(entries);
        if let Some(peer) = peer {
            peer.link.close(TURNED_AWAY, b"");
            gate.turned(node, &Turned::Refused(refusal));
        }
    }

    /// Takes note of what a peer tells of who belongs to the site.
    ///
    /// # Errors
    /// If this node is of no site.
    pub(crate) async fn learn(&self, news: SiteNews) -> Result<(), String> {
        let gate = self.gate.as_ref().ok_or("this node lets in whom it lists")?;
        gate.learn(news).await;
        Ok(())
    }

    /// Where to try to find a node, after so many tries; none if nobody knows where it is.
    pub(super) fn place(&self, node: NodeId, tries: usize) -> Option<SocketAddr> {
        self.entries().get(&node)?.places.next(tries)
    }

    /// The nodes that can be dialled.
    pub(super) fn with_places(&self) -> Vec<NodeId> {
        let entries = self.entries();
        entries.iter().filter(|(_, entry)| entry.places.next(0).is_some()).map(|(node, _)| *node).collect()
    }

    /// Where this node has met members that may vote, those first that are connected.
    pub(crate) fn addresses_of_voters(&self) -> MemberAddresses {
        let entries = self.entries();
        let place = |(node, entry): (&NodeId, &Entry)| {
            let may_vote = entry.pass.as_ref()?.may(Action::Vote, None);
            let at = entry.places.last_met().filter(|_| may_vote)?;
            Some((entry.peer.is_none(), *node, at))
        };
        let mut met: Vec<(bool, NodeId, SocketAddr)> = entries.iter().filter_map(place).collect();
        drop(entries);
        met.sort_unstable();
        let known = met.into_iter().take(limits::MEMBER_ADDRESSES_TOLD_MAX).map(|(_, node, at)| (node, at));
        MemberAddresses { known: known.collect() }
    }

    /// Takes note of where others say that members are.
    pub(super) fn note_addresses(&self, said: MemberAddresses) {
        let mut is_news = false;
        for (node, at) in said.known.into_iter().take(limits::MEMBER_ADDRESSES_TOLD_MAX) {
            let is_nowhere = at.ip().is_unspecified() || at.port() == 0;
            if !is_nowhere && self.has_place(node) {
                let mut entries = self.entries();
                is_news |= entries.get_mut(&node).is_some_and(|entry| entry.places.said(at));
            }
        }
        if is_news {
            self.note_change();
        }
    }

    /// Asks a peer where members are that may vote.
    pub(super) async fn ask_addresses(&self, node: NodeId, least: Duration) {
        let answer = self.call(node, Class::Query, FrameKind::Addresses, ShardId(0), &[], least).await;
        if let Some(said) = answer.ok().and_then(|answer| MemberAddresses::decode(&answer).ok()) {
            self.note_addresses(said);
        }
    }

    /// Asks some of those who vote where the others are.
    pub(super) async fn ask_where_voters_are(self) {
        let voters = self.roles.borrow().voters.clone();
        let connected = voters.into_iter().filter(|node| self.connected(*node).is_some());
        for node in connected.take(limits::SOUGHT_PEERS_MAX).collect::<Vec<_>>() {
            self.ask_addresses(node, ASK_PATIENCE).await;
        }
    }

    /// Whether somebody votes of whom this node does not know where it is.
    pub(super) fn misses_a_voter(&self) -> bool {
        let voters = self.roles.borrow().voters.clone();
        self.gate.is_some() && voters.into_iter().any(|node| node != self.local && self.place(node, 0).is_none())
    }
}

#[cfg(test)]
impl Peers {
    /// By what another node of a simulation is let in; none if this one is of no site, or refuses it.
    pub(crate) fn pass_of(&self, other: &Self) -> Option<Pass> {
        let (gate, theirs) = (self.gate.as_ref()?, other.gate.as_ref()?);
        let shown = theirs.site.hello().chain.to_bytes().into();
        let admitted = gate.site.admit(&shown, other.local.into()).ok()?;
        Some(Pass::new(admitted, gate.site.hello().news))
    }

    /// Whether another node of a simulation is let in.
    pub(crate) fn lets_in(&self, other: &Self) -> bool {
        self.gate.is_none() || self.pass_of(other).is_some()
    }
}

#[cfg(test)]
mod tests {
    use skep_config::PeerConfig;
    use skep_trust::Role;

    use super::super::hall::{NOW, ROOT, certificate, chain, gate, hello, member, node, out};
    use super::*;
    use crate::clock::Clocks;

    fn at(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    /// A member that nobody has met.
    fn unknown(n: usize) -> NodeId {
        let mut key = [1; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        NodeId::from_public_key(key)
    }

    /// The peers of a voter that was told where one of them is.
    fn peers(gate: Gate) -> Peers {
        let config = PeerConfig { id: node(2), name: None, control: Some(at(2)), mesh: None, voter: false };
        Peers::new(node(1), &[config], Clocks::default()).of_site(Some(gate))
    }

    /// A member was let in, and has left again.
    async fn meet(peers: &Peers, of: NodeId, roles: &[Role]) {
        let gate = peers.gate.clone().unwrap();
        let admitted = gate.admit(&hello(chain(&certificate(of, roles), ROOT)), of).await.unwrap();
        assert!(peers.has_place(of));
        let mut entries = peers.entries();
        let entry = entries.get_mut(&of).unwrap();
        entry.pass = Some(Arc::new(Pass::new(admitted, gate.site.hello().news)));
        entry.met = Some(tokio::time::Instant::now());
        entry.places.met(at(9));
    }

    #[tokio::test]
    async fn however_many_members_a_node_hears_of_it_keeps_so_many_and_those_first_that_it_has_met() {
        let peers = peers(gate(&member(node(1), &[Role::Voter])));
        meet(&peers, node(3), &[Role::Voter]).await;
        for n in 0..3 * limits::MEMBERS_KNOWN_MAX {
            peers.note_addresses(MemberAddresses { known: vec![(unknown(n), at(7))] });
        }
        assert_eq!(peers.entries().len(), limits::MEMBERS_KNOWN_MAX);
        assert!(peers.admits(node(2)) && peers.admits(node(3)), "what is configured stays, and whom it has met");
        let last = 3 * limits::MEMBERS_KNOWN_MAX - 1;
        assert!(peers.admits(unknown(last)) && !peers.admits(unknown(0)));
        assert_eq!(peers.addresses_of_voters().known, [(node(3), at(9))], "nobody tells hearsay");
    }

    #[tokio::test]
    async fn a_node_is_told_of_no_more_members_at_a_time_and_of_no_place_that_is_none() {
        let peers = peers(gate(&member(node(1), &[Role::Voter])));
        let nowhere = [(unknown(1), ([0, 0, 0, 0], 7).into()), (unknown(2), at(0)), (node(1), at(7))];
        peers.note_addresses(MemberAddresses { known: nowhere.into() });
        assert_eq!(peers.with_places(), [node(2)]);
        let many = (10..10_000).map(|n| (unknown(n), at(7))).collect();
        peers.note_addresses(MemberAddresses { known: many });
        assert_eq!(peers.entries().len(), 1 + limits::MEMBER_ADDRESSES_TOLD_MAX);
    }

    #[tokio::test]
    async fn a_member_that_is_out_may_nothing_and_is_not_named_to_others() {
        let site = member(node(1), &[Role::Voter]);
        let peers = peers(gate(&site));
        meet(&peers, node(3), &[Role::Voter]).await;
        meet(&peers, node(4), &[Role::Voter]).await;
        assert_eq!(peers.members_that_vote(), BTreeSet::from([node(3), node(4)]));
        site.learn(&out(&[node(3)])).unwrap();
        peers.judge_all().await;
        assert!(!peers.may(node(3), Action::Vote, None) && peers.may(node(4), Action::Vote, None));
        assert_eq!(peers.addresses_of_voters().known, [(node(4), at(9))]);
        assert!(peers.may(node(1), Action::Attach, None), "what it does itself nobody asks");
    }

    #[tokio::test]
    async fn how_sure_a_link_is_follows_what_the_node_knows_of_site_time() {
        let site = member(node(1), &[Role::Voter]);
        let peers = peers(gate(&site));
        meet(&peers, node(3), &[Role::Voter]).await;
        let may = |action| peers.may(node(3), action, None);
        assert!(may(Action::Vote) && may(Action::BeBelieved));
        site.doubt_clock();
        peers.judge_all().await;
        assert!(may(Action::Vote) && !may(Action::BeBelieved), "it votes where a log says so");
        site.heard_clock(NOW);
        peers.judge_all().await;
        assert!(may(Action::BeBelieved));
        site.heard_clock(NOW.plus_ms(10_000_000));
        peers.judge_all().await;
        assert!(!may(Action::Vote) && !may(Action::Change), "its certificate has ended");
    }

    #[tokio::test]
    async fn without_a_site_whoever_is_listed_may_do_what_members_may_and_nobody_else_is_known() {
        let config = PeerConfig { id: node(2), name: None, control: Some(at(2)), mesh: None, voter: false };
        let peers = Peers::new(node(1), &[config], Clocks::default());
        assert!(!peers.is_of_site() && peers.may(node(2), Action::Vote, None));
        peers.note_addresses(MemberAddresses { known: vec![(node(3), at(3))] });
        assert!(!peers.admits(node(3)) && !peers.has_place(node(3)));
        assert!(peers.learn(out(&[node(2)])).await.is_err());
    }
}
