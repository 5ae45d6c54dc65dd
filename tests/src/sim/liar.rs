//! A host that lies: it is listed as a peer, and answers as a leader does.
//!
//! It votes nowhere, as a robot whose key was stolen, or it is one of those who vote. It has all that operators ever signed,
//! since whoever is listed reads the history. By turns it lies and behaves: a host that is asked nothing any more does no harm.
//!
//! No robot's software runs on it and no customer calls it: what it says to itself is nobody's concern. Its replica, if it has
//! one, keeps to Raft, for the log of this simulator is a model: what real Raft takes, and from whom, is tried with real Raft.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use skep_engine::Outcome;
use skep_protocol::command::{CommandOp, SignedCommand};
use skep_protocol::entry::Op;
use skep_protocol::ids::HomeEpoch;
use skep_protocol::leader::{LeaderHint, Voters};
use skep_protocol::limits;
use skep_protocol::operator::{OperatorOp, SignedGrant};
use skep_protocol::pull::{Pull, PullFailure, Pulled};
use skep_protocol::text::AgentId;

use super::host::node_id;
use super::plan::{Fault, FaultKind, Plan};
use super::replica::Asker;
use super::watch::Seen;
use super::world::{Message, Sim};

/// What tells the draw of liars from the rest of a seed's.
const LIARS: u64 = 0x11a2_0000_0000_0004;
/// One run in so many has a liar; of these one in so many has one whose clocks are far ahead now and then.
const LIAR_ONE_IN: u32 = 5;
const WILD_ONE_IN: u32 = 3;
/// How long it lies, and how long it behaves, in milliseconds.
const LIES_MS: std::ops::RangeInclusive<u64> = 3_000..=9_000;
const BEHAVES_MS: std::ops::RangeInclusive<u64> = 2_000..=6_000;
/// How often it says that it leads while it lies, in milliseconds.
const SAYS_EVERY_MS: u64 = 1_000;
/// One question in so many it answers as it should.
const HONEST_ONE_IN: u32 = 8;
/// How long a run with a voter that lies goes on when nothing else goes wrong any more, in milliseconds. What such a voter
/// has promised comes to no end, so that none is waited for.
const VOTER_LIES_ON_MS: u64 = 10_000;
/// How long after a node can be sure of the shard's clock nodes end, in runs that go on for so long, how many of them, within
/// which time, and for how long each, in milliseconds.
const SURE_FOR_MS: u64 = 15_000;
const RESTARTS: usize = 6;
const RESTARTS_WITHIN_MS: u64 = 30_000;
const RESTART_MS: std::ops::RangeInclusive<u64> = 500..=3_000;

/// Who lies in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Lies {
    /// Nobody.
    Nobody,
    /// A host that is listed and votes nowhere: a robot that was stolen.
    Robot,
    /// One of those who vote.
    Voter,
}

impl fmt::Display for Lies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "nobody",
            Self::Robot => "robot",
            Self::Voter => "voter",
        })
    }
}

/// The host that lies in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Liar {
    pub(super) host: usize,
    pub(super) votes: bool,
    /// Whether its clocks and terms are far ahead now and then. Whoever has heard such a clock begins nothing more, which hides
    /// all else: few runs have them.
    pub(super) wild: bool,
}

impl fmt::Display for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, votes, wild } = self;
        let votes = if *votes { "votes" } else { "votes nowhere" };
        let wild = if *wild { ", and whose clocks are far ahead now and then" } else { "" };
        write!(f, "host {host} lies, which {votes}{wild}")
    }
}

impl Plan {
    /// The same with a liar, in some seeds, or as it is said. Drawn from a sequence of its own: whatever else a seed says stays
    /// what it is.
    pub(super) fn with_liar(mut self, lies: Option<Lies>) -> Self {
        let mut rng = SmallRng::seed_from_u64(self.seed ^ LIARS);
        let is_one = rng.random_ratio(1, LIAR_ONE_IN);
        let drawn = match (is_one, rng.random_bool(0.5)) {
            (false, _) => Lies::Nobody,
            (true, true) => Lies::Robot,
            (true, false) => Lies::Voter,
        };
        let (lies, wild) = (lies.unwrap_or(drawn), rng.random_ratio(1, WILD_ONE_IN));
        let host = match lies {
            Lies::Nobody => return self,
            Lies::Voter => rng.random_range(0..self.voters),
            Lies::Robot => {
                // One more, which everybody lists.
                self.hosts += 1;
                self.drift_ppm.push(rng.random_range(-40_000..=40_000));
                self.lists_all = true;
                self.hosts - 1
            }
        };
        let votes = lies == Lies::Voter;
        self.liar = Some(Liar { host, votes, wild });
        if votes && rng.random_bool(0.5) { self.restarted(&mut rng) } else { self }
    }

    /// The same for so long that journals say how far the shard's clock has surely come, after which some nodes start again: what
    /// they were told before, only their journals know then.
    fn restarted(mut self, rng: &mut SmallRng) -> Self {
        let from_ms = self.run_ms.max(limits::FLOOR_SETTLES_MS) + SURE_FOR_MS;
        for _ in 0..RESTARTS {
            let kind = FaultKind::Crash { host: self.used(rng.random_range(0..self.hosts)) };
            let (at_ms, for_ms) = (from_ms + rng.random_range(0..RESTARTS_WITHIN_MS), rng.random_range(RESTART_MS));
            self.faults.push(Fault { at_ms, for_ms, kind });
        }
        self.run_ms = from_ms + RESTARTS_WITHIN_MS + RESTART_MS.end();
        self
    }

    /// Whether it is the host that lies.
    pub(super) fn is_liar(&self, host: usize) -> bool {
        self.liar.is_some_and(|liar| liar.host == host)
    }

    /// A host that robots and customers use: this one, or the next one if this one lies.
    pub(super) fn used(&self, host: usize) -> usize {
        let host = host % self.hosts;
        if self.is_liar(host) { (host + 1) % self.hosts } else { host }
    }

    /// When a run with a voter that lies is over.
    pub(super) fn lied_until_ms(&self) -> Option<u64> {
        self.liar.filter(|liar| liar.votes).map(|_| self.run_ms + VOTER_LIES_ON_MS)
    }
}

/// What one question is known by.
type Question = (usize, u32, u64, u32);

fn name_of(asker: Asker) -> Question {
    (asker.host, asker.run, asker.key, asker.attempt)
}

/// The liar of a run under way.
pub(super) struct Lying {
    pub(super) liar: Liar,
    pub(super) rng: SmallRng,
    /// Whether it lies now, and when that changes.
    lies: bool,
    turns_at_ms: u64,
    says_at_ms: u64,
    /// All that operators signed.
    pub(super) signed: Vec<Arc<SignedCommand>>,
    /// The statement by which there was a clerk. It is shown also when there is none any more.
    pub(super) grant: Option<Arc<SignedGrant>>,
    /// In which time the journals of robots are, as their nodes said.
    pub(super) homes: BTreeMap<AgentId, HomeEpoch>,
    /// Pulls that wait for an answer.
    pulls: Vec<(Asker, Pull)>,
    /// Those that had a false one.
    told: BTreeSet<Question>,
}

impl Lying {
    pub(super) fn new(liar: Liar, seed: u64) -> Self {
        Self {
            liar,
            rng: SmallRng::seed_from_u64(seed ^ !LIARS),
            lies: false,
            turns_at_ms: 0,
            says_at_ms: 0,
            signed: Vec::new(),
            grant: None,
            homes: BTreeMap::new(),
            pulls: Vec::new(),
            told: BTreeSet::new(),
        }
    }

    fn turn(&mut self, now: u64) {
        if self.turns_at_ms <= now {
            self.lies = self.turns_at_ms > 0 && !self.lies;
            let for_ms = if self.lies { LIES_MS } else { BEHAVES_MS };
            self.turns_at_ms = now + self.rng.random_range(for_ms);
            self.says_at_ms = now;
        }
    }
}

impl Sim {
    /// The liar gets to know what an operator signed.
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
        lying.turn(self.now);
        if self.hosts[host].up && self.hosts[host].suspended == 0 {
            if lying.lies {
                self.say_it_leads(&mut lying);
                self.write_forged(&mut lying);
            }
            for (asker, pull) in std::mem::take(&mut lying.pulls) {
                let pulled = self.lied_pull(&mut lying, &pull);
                lying.told.insert(name_of(asker));
                self.send(host, asker.host, Message::Pulled { asker, result: Ok(pulled) });
            }
        }
        self.liar = Some(lying);
    }

    fn say_it_leads(&mut self, lying: &mut Lying) {
        if lying.says_at_ms > self.now {
            return;
        }
        lying.says_at_ms = self.now + SAYS_EVERY_MS;
        let (host, hint) = (lying.liar.host, self.lied_hint(lying));
        for to in (0..self.hosts.len()).filter(|to| *to != host) {
            self.send(host, to, Message::Leads { by: host, hint: hint.clone() });
        }
    }

    /// That it leads, in a term after all others, and votes.
    pub(super) fn lied_hint(&self, lying: &mut Lying) -> LeaderHint {
        let host = lying.liar.host;
        let terms = self.hosts.iter().filter_map(|known| known.replica.as_ref()).map(|replica| replica.durable.term);
        let newest = terms.max().unwrap_or(0);
        let is_last = lying.liar.wild && lying.rng.random_ratio(1, 20);
        let term = if is_last { u64::MAX } else { newest + lying.rng.random_range(1..=3) };
        let voters = Voters::of((0..self.plan.voters).chain([host]).map(node_id));
        LeaderHint { leader: Some(node_id(host)), term, voters }
    }

    /// Has the liar answer a message, if it comes to it and is to be answered falsely. Anything else is given back.
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
        self.watch.coverage.lies += 1;
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
                // Answered when it wakes: at once, and it would be asked again at once.
                lying.pulls.push((asker, pull));
                return None;
            }
            other => return Some(other),
        };
        self.send(host, asker.host, answer);
        None
    }

    /// A pull is answered. What its clock says is noted if the host's engine took it, which asks for more then: an answer that
    /// comes too late is nothing to it.
    pub(super) fn on_pulled(&mut self, host: usize, asker: Asker, result: Result<Pulled, PullFailure>) {
        let clock = result.as_ref().ok().map(|pulled| pulled.clock);
        let (run, asked) = (self.hosts[host].run, self.hosts[host].pulls_by);
        self.on_outcome(asker, Outcome::Pull(result.map(Box::new)));
        let Some(lying) = &self.liar else { return };
        let lie = lying.told.contains(&name_of(asker));
        // Of an earlier question than the last it takes no answer.
        let may_be = run == asker.run && asked == Some(asker.key);
        let taken = may_be && self.hosts[host].pulls_by != asked;
        if let Some(clock) = clock.filter(|_| may_be && (lie || taken)) {
            let boot_ms = self.boot_ms(host);
            self.see(&Seen::ClockTold { host, run, boot_ms, clock, lie, taken });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Scale;

    #[test]
    fn a_liar_changes_nothing_else_that_a_seed_says_and_is_used_by_nobody() {
        for seed in 0..50 {
            let of = |lies| Plan::of(seed, Scale { lies: Some(lies), ..Scale::default() });
            let (none, robot, voter) = (of(Lies::Nobody), of(Lies::Robot), of(Lies::Voter));
            for plan in [&robot, &voter] {
                assert_eq!(plan.faults[..none.faults.len()], none.faults);
                assert_eq!((plan.tasks, plan.voters), (none.tasks, none.voters));
                assert!((0..2 * plan.hosts).all(|host| !plan.is_liar(plan.used(host))));
            }
            assert_eq!(robot.hosts, none.hosts + 1);
            assert!(robot.is_liar(none.hosts) && (0..voter.voters).any(|host| voter.is_liar(host)));
            assert!(none.lied_until_ms().is_none() && robot.lied_until_ms().is_none());
        }
    }

    #[test]
    fn some_seeds_have_a_liar_of_each_kind_and_most_have_none() {
        let liars = (0..100).map(|seed| Plan::of(seed, Scale::default()).liar);
        let votes: Vec<bool> = liars.flatten().map(|liar| liar.votes).collect();
        assert!(votes.len() < 50 && votes.contains(&true) && votes.contains(&false), "{votes:?}");
    }
}
