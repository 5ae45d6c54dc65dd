//! Elections.

use rand::RngExt as _;
use skep_protocol::outcome::ProposeOutcome;

use super::nodes::Nodes;
use super::parcel::Message;
use super::replica::{Awaits, LEASE_MS, Lead};
use super::watch::Seen;

impl Nodes {
    /// A voter asks the others for their votes.
    pub(super) fn stand(&mut self, host: usize) {
        let newness = self.hosts[host].replica.as_ref().map(|replica| replica.durable.newness());
        let grants = |voter: usize| {
            let (boot_ms, known) = (self.ports.boot_ms(voter), &self.hosts[voter]);
            let is_awake = self.ports.machines[voter].is_awake();
            let Some(replica) = known.replica.as_ref().filter(|_| is_awake) else { return false };
            let hears = replica.heard_leader_at.is_some_and(|at| boot_ms.saturating_sub(at) < LEASE_MS);
            let leads = replica.has_quorum(voter, boot_ms);
            let agrees = self.ports.fabric.connects(host, voter) && !hears && !leads;
            voter == host || (agrees && Some(replica.durable.newness()) <= newness)
        };
        let granting: Vec<usize> = (0..self.ports.plan.voters).filter(|voter| grants(*voter)).collect();
        if granting.len() * 2 <= self.ports.plan.voters {
            return;
        }
        let term = |voter: &usize| self.hosts[*voter].replica.as_ref().map(|replica| replica.durable.term);
        let term = granting.iter().filter_map(term).max().unwrap_or(0) + 1;
        for voter in granting {
            self.follow(voter, term);
            self.note_vote(voter, host);
        }
        self.lead(host, term);
    }

    /// The round trip that an election needs where voters are far: to as many of them as make a quorum.
    pub(super) fn round_ms(&self, host: usize) -> u64 {
        let others = (0..self.ports.plan.voters).filter(|voter| *voter != host);
        let mut rounds: Vec<u64> = others.map(|voter| 2 * self.ports.fabric.far_ms(host, voter)).collect();
        rounds.sort_unstable();
        rounds.get(rounds.len().div_ceil(2).saturating_sub(1)).copied().unwrap_or(0)
    }

    /// A voter that votes for one that is far does not hear of it at once.
    fn note_vote(&mut self, voter: usize, leads: usize) {
        if self.ports.fabric.far_ms(voter, leads) == 0 {
            return;
        }
        let (boot_ms, random) = (self.ports.boot_ms(voter), self.ports.rng.random());
        if let Some(replica) = &mut self.hosts[voter].replica {
            replica.detector.voted(boot_ms, random);
        }
    }

    /// Takes over a newer term; a leader of an older one leads no longer.
    pub(super) fn follow(&mut self, host: usize, term: u64) {
        let Some(replica) = &mut self.hosts[host].replica else { return };
        if term <= replica.durable.term {
            return;
        }
        replica.durable.term = term;
        replica.leader = None;
        let pending = replica.step_down();
        for awaits in pending.into_values() {
            if let Awaits::Request(asker) = awaits {
                self.ports.send(host, asker.host, Message::Proposed { asker, outcome: ProposeOutcome::Unknown });
            }
        }
        self.tell_leader(host);
    }

    fn lead(&mut self, host: usize, term: u64) {
        let (boot_ms, voters) = (self.ports.boot_ms(host), self.ports.plan.voters);
        let Some(replica) = &mut self.hosts[host].replica else { return };
        let end = replica.durable.end();
        replica.leader = Some(host);
        replica.attempts_without_clock = 0;
        replica.lead = Some(Lead {
            term,
            own: end,
            asked_for_clock: false,
            // The leader does not know what others hold: it finds out by asking.
            matched: vec![0; voters],
            next: vec![end; voters],
            heard_at: vec![None; voters],
            confirmed: vec![0; voters],
            round: 0,
            rounds: Vec::new(),
            pending: std::collections::BTreeMap::new(),
            orchestrator: None,
            proposing_until: None,
            updates: std::collections::BTreeMap::new(),
            pulls: Vec::new(),
            pulls_looked: None,
            askers: std::collections::BTreeMap::new(),
            next_key: 1,
            beat_at: boot_ms,
        });
        replica.push(None, None);
        self.ports.see(&Seen::Elected { host, term });
        self.replicate(host);
        self.arm(host);
    }
}
