//! All nodes of a run.

use super::clerk::clerk;
use super::host::Host;
use super::lying::Lying;
use super::ports::{Ports, Presence};

/// The nodes of a run. They reach robots, customers and each other only by their ports, except for two models:
/// elections look at all voters at once, and so does the liar.
pub(super) struct Nodes {
    pub(super) ports: Ports,
    pub(super) hosts: Vec<Host>,
    /// What hosts found when they last looked which hosts they reach.
    pub(super) looked: Option<Presence>,
    /// The host that lies, if there is one.
    pub(super) liar: Option<Lying>,
}

impl Nodes {
    pub(super) fn new(ports: Ports, hosts: Vec<Host>) -> Self {
        let liar = ports.plan.liar.map(|liar| Lying::new(liar, ports.plan.seed));
        Self { ports, hosts, looked: None, liar }
    }

    /// The host that leads by the newest term.
    pub(super) fn leader(&self) -> Option<usize> {
        let term = |host: &usize| self.hosts[*host].replica.as_ref()?.lead.as_ref().map(|lead| lead.term);
        (0..self.ports.plan.voters).filter(|host| term(host).is_some()).max_by_key(term)
    }

    /// The number of the last statement about the clerk that any voter has applied; zero if there is none.
    pub(super) fn stated_of_clerk(&self) -> u64 {
        let (key, states) = (clerk().key(), self.hosts.iter().filter_map(|host| host.replica.as_ref()));
        let stated = states.filter_map(|replica| replica.state.operators().find(|grant| grant.operator == key));
        stated.map(|grant| grant.serial).max().unwrap_or(0)
    }
}
