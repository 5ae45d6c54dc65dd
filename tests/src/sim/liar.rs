//! A host that lies: it is listed as a peer, and answers as a leader does.
//!
//! It votes nowhere, like a robot whose key was stolen, or it is one of the voters. It has everything that operators
//! ever signed, since every listed peer reads the history. It lies and behaves by turns: a host that no node asks does
//! no harm.
//!
//! No robot's software runs on it and no customer calls it: what it says to itself does not matter. Its replica, if it
//! has one, keeps to Raft, since the log of this simulator is a model: other tests try with real Raft what real Raft
//! takes, and from which peers.

use std::sync::Arc;

use rand::RngExt as _;
use skep_engine::Outcome;
use skep_protocol::command::CommandOp;
use skep_protocol::entry::Op;
use skep_protocol::leader::{LeaderHint, Voters};
use skep_protocol::operator::OperatorOp;
use skep_protocol::pull::{PullFailure, Pulled};

use super::lying::{Lying, name_of};
use super::names::node_id;
use super::nodes::Nodes;
use super::parcel::Message;
use super::replica::Asker;
use super::watch::Seen;

/// How often it says that it leads while it lies, in milliseconds.
const SAYS_EVERY_MS: u64 = 1_000;
/// It answers one question in this many as it should.
const HONEST_ONE_IN: u32 = 8;

impl Nodes {
    /// The liar learns what an operator signed.
    pub(super) fn liar_reads(&mut self, op: &Op) {
        let Some(lying) = &mut self.liar else { return };
        match op {
            Op::Command(CommandOp::Send { command }) => lying.signed.push(Arc::new(command.as_ref().clone())),
            Op::Operator(OperatorOp::Grant { grant }) => {
                lying.grant.get_or_insert_with(|| Arc::new(grant.as_ref().clone()));
            }
            _ => {}
        }
    }

    /// What it does by itself, whenever hosts look around.
    pub(super) fn liar_wakes(&mut self) {
        let Some(mut lying) = self.liar.take() else { return };
        let host = lying.liar.host;
        lying.turn(self.ports.now);
        if self.ports.machines[host].is_awake() {
            if lying.lies {
                self.say_it_leads(&mut lying);
                self.write_forged(&mut lying);
            }
            for (asker, pull) in std::mem::take(&mut lying.pulls) {
                let pulled = self.lied_pull(&mut lying, &pull);
                lying.told.insert(name_of(asker));
                self.ports.send(host, asker.host, Message::Pulled { asker, result: Ok(pulled) });
            }
        }
        self.liar = Some(lying);
    }

    fn say_it_leads(&mut self, lying: &mut Lying) {
        if lying.says_at_ms > self.ports.now {
            return;
        }
        lying.says_at_ms = self.ports.now + SAYS_EVERY_MS;
        let (host, hint) = (lying.liar.host, self.lied_hint(lying));
        for to in (0..self.hosts.len()).filter(|to| *to != host) {
            self.ports.send(host, to, Message::Leads { by: host, hint: hint.clone() });
        }
    }

    /// Its hint: that it leads, in a term after all others, and votes.
    pub(super) fn lied_hint(&self, lying: &mut Lying) -> LeaderHint {
        let host = lying.liar.host;
        let terms = self.hosts.iter().filter_map(|known| known.replica.as_ref()).map(|replica| replica.durable.term);
        let newest = terms.max().unwrap_or(0);
        let is_last = lying.liar.wild && lying.rng.random_ratio(1, 20);
        let term = if is_last { u64::MAX } else { newest + lying.rng.random_range(1..=3) };
        let voters = Voters::of((0..self.ports.plan.voters).chain([host]).map(node_id));
        LeaderHint { leader: Some(node_id(host)), term, voters }
    }

    /// Lets the liar answer a message, if the message reaches it and is to be answered falsely. Every other message is
    /// given back.
    pub(super) fn lie_about(&mut self, to: usize, message: Message) -> Option<Message> {
        let Some(mut lying) = self.liar.take_if(|lying| lying.liar.host == to && lying.lies) else {
            return Some(message);
        };
        let given_back = self.lie_to(&mut lying, message);
        self.liar = Some(lying);
        given_back
    }

    fn lie_to(&mut self, lying: &mut Lying, message: Message) -> Option<Message> {
        let host = lying.liar.host;
        let asker = match &message {
            Message::Propose { asker, .. }
            | Message::Query { asker, .. }
            | Message::Heartbeat { asker, .. }
            | Message::Pull { asker, .. } => *asker,
            _ => return Some(message),
        };
        if asker.host == host || lying.rng.random_ratio(1, HONEST_ONE_IN) {
            return Some(message);
        }
        self.ports.watch.coverage.lies += 1;
        let answer = match message {
            Message::Propose { request, .. } => {
                Message::Proposed { asker, outcome: self.lied_outcome(lying, &request) }
            }
            Message::Query { query, .. } => {
                Message::Queried { asker, reply: Box::new(Ok(self.lied_reply(lying, &query))) }
            }
            Message::Heartbeat { heartbeat, .. } => {
                Message::Heard { by: host, asker, result: Ok(self.lied_renewals(lying, heartbeat)) }
            }
            Message::Pull { pull, .. } => {
                // Answered when it wakes: after an answer at once, the next question would come at once.
                lying.pulls.push((asker, pull));
                return None;
            }
            other => return Some(other),
        };
        self.ports.send(host, asker.host, answer);
        None
    }

    /// Answers a pull. The clock in the answer is noted if the host's engine took it, which asks for more then: an
    /// answer that comes too late has no effect.
    pub(super) fn on_pulled(&mut self, host: usize, asker: Asker, result: Result<Pulled, PullFailure>) {
        let clock = result.as_ref().ok().map(|pulled| pulled.clock);
        let (run, asked) = (self.ports.machines[host].run, self.hosts[host].pulls_by);
        self.on_outcome(asker, Outcome::Pull(result.map(Box::new)));
        let Some(lying) = &self.liar else { return };
        let lie = lying.told.contains(&name_of(asker));
        // The engine takes no answer to an earlier question than the last.
        let may_be = run == asker.run && asked == Some(asker.key);
        let taken = may_be && self.hosts[host].pulls_by != asked;
        if let Some(clock) = clock.filter(|_| may_be && (lie || taken)) {
            let boot_ms = self.ports.boot_ms(host);
            self.ports.see(&Seen::ClockTold { host, run, boot_ms, clock, lie, taken });
        }
    }
}
