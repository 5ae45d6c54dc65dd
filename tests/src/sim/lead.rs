//! What replicas do: follow, lead, and take what is committed.

use std::rc::Rc;

use rand::RngExt as _;
use skep_fleet::{Orchestrator, OrchestratorConfig, OrchestratorEvent, Policy};
use skep_protocol::entry::{Entry, EntryBody, Request};
use skep_protocol::leader::{LeaderHint, Voters};
use skep_protocol::outcome::{ProposeOutcome, Reply};
use skep_protocol::refusal::{Refusal, RequestRefusal};

use super::names::node_id;
use super::nodes::Nodes;
use super::parcel::Message;
use super::replica::{Ack, Append, Asker, Awaits, HEARTBEAT_MS, Round, RoundFor};
use super::watch::Seen;

impl Nodes {
    /// What a replica does when time passes.
    pub(super) fn on_replica_time(&mut self, host: usize) {
        let (boot_ms, round_ms) = (self.ports.boot_ms(host), self.round_ms(host));
        let random = self.ports.rng.random();
        let Some(replica) = &mut self.hosts[host].replica else { return };
        if replica.lead.is_none() && round_ms > 0 {
            replica.detector.measured_round(round_ms);
        }
        if let Some(lead) = &mut replica.lead {
            replica.detector.leads(boot_ms, random);
            let beat = lead.beat_at <= boot_ms;
            if beat {
                lead.beat_at = boot_ms + HEARTBEAT_MS;
                // What was not acknowledged since the last one is sent again.
                lead.next.clone_from(&lead.matched);
            }
            let (over, rounds) =
                std::mem::take(&mut lead.rounds).into_iter().partition(|(_, until, _)| *until <= boot_ms);
            lead.rounds = rounds;
            self.end_rounds(host, over, false);
            self.end_overdue(host);
            self.answer_pulls(host);
            if beat {
                self.replicate(host);
            }
            self.orchestrate(host, None);
        } else if replica.detector.poll(boot_ms, random) {
            replica.attempts_without_clock += 1;
            if replica.clock.now(boot_ms).is_some() || replica.attempts_without_clock > 1 {
                self.stand(host);
            }
        }
        self.tell_leader(host);
    }

    /// When a replica has something to do next, on its host's clock.
    pub(super) fn replica_timeout(&self, host: usize) -> Option<u64> {
        let boot_ms = self.ports.boot_ms(host);
        let replica = self.hosts[host].replica.as_ref()?;
        let Some(lead) = &replica.lead else { return Some(replica.detector.poll_timeout()) };
        let now = replica.clock.now(boot_ms);
        let due = lead.orchestrator.as_ref().zip(now).and_then(|(orchestrator, now)| {
            let at = orchestrator.poll_timeout(&replica.state, now)?;
            Some(boot_ms + at.since_ms(now).max(1))
        });
        let pulls = lead.pulls.iter().map(|waiting| waiting.until_ms).min();
        [Some(lead.beat_at), due, lead.proposing_until, pulls].into_iter().flatten().min()
    }

    /// Ends what the orchestrator waits for in vain.
    fn end_overdue(&mut self, host: usize) {
        let boot_ms = self.ports.boot_ms(host);
        let Some(lead) = self.hosts[host].replica.as_mut().and_then(|replica| replica.lead.as_mut()) else { return };
        let proposal = lead.proposing_until.take_if(|until| *until <= boot_ms).is_some();
        let deaf: Vec<usize> =
            lead.updates.iter().filter(|(_, (_, until))| *until <= boot_ms).map(|(to, _)| *to).collect();
        lead.updates.retain(|to, _| !deaf.contains(to));
        if proposal {
            self.orchestrate(host, Some(OrchestratorEvent::ProposalEnded { applied: false }));
        }
        for to in deaf {
            self.orchestrate(host, Some(OrchestratorEvent::UpdateEnded { node: node_id(to), arrived: false }));
        }
    }

    /// Sends every follower what it lacks.
    pub(super) fn replicate(&mut self, host: usize) {
        let boot_ms = self.ports.boot_ms(host);
        for voter in (0..self.ports.plan.voters).filter(|voter| *voter != host) {
            let bytes_max = self.ports.fabric.bulk_bytes(host, voter, self.ports.now);
            let Some(replica) = &mut self.hosts[host].replica else { return };
            if let Some(append) = replica.append_for(host, voter, boot_ms, bytes_max) {
                self.ports.send(host, voter, Message::Append(Box::new(append)));
            }
        }
    }

    pub(super) fn on_append(&mut self, host: usize, append: &Append) {
        self.follow(host, append.term);
        let (boot_ms, random) = (self.ports.boot_ms(host), self.ports.rng.random());
        let Some(replica) = &mut self.hosts[host].replica else { return };
        let term = replica.durable.term;
        let matched = if append.term < term {
            Err(0)
        } else {
            replica.leader = Some(append.from);
            replica.heard_leader_at = Some(boot_ms);
            replica.attempts_without_clock = 0;
            replica.detector.heard_leader(boot_ms, random);
            if let Some(clock) = append.clock {
                self.on_clock_in_frame(host, append.from, clock);
            }
            if append.snapshot.is_some() {
                self.ports.watch.coverage.snapshots_installed += 1;
            }
            let Some(replica) = &mut self.hosts[host].replica else { return };
            replica.take(append, boot_ms)
        };
        let ack = Ack { term, from: host, matched, round: append.round };
        self.ports.send(host, append.from, Message::Ack(ack));
        self.apply(host);
        self.tell_leader(host);
        self.arm(host);
    }

    pub(super) fn on_ack(&mut self, host: usize, ack: Ack) {
        self.follow(host, ack.term);
        let boot_ms = self.ports.boot_ms(host);
        let voters = self.ports.plan.voters;
        let bytes_max = self.ports.fabric.bulk_bytes(host, ack.from, self.ports.now);
        let Some(replica) = &mut self.hosts[host].replica else { return };
        let Some(lead) = replica.lead.as_mut().filter(|lead| lead.term == ack.term) else { return };
        lead.heard_at[ack.from] = Some(boot_ms);
        lead.confirmed[ack.from] = lead.confirmed[ack.from].max(ack.round);
        let mut behind = false;
        match ack.matched {
            Ok(matched) => {
                lead.matched[ack.from] = lead.matched[ack.from].max(matched);
                lead.next[ack.from] = lead.next[ack.from].max(matched);
                behind = lead.next[ack.from] < replica.durable.end();
            }
            Err(hint) if hint >= lead.matched[ack.from] => {
                lead.next[ack.from] = hint;
                behind = true;
            }
            Err(_) => {}
        }
        let confirmed = |round: u64| {
            let others = lead.confirmed.iter().filter(|known| **known >= round).count();
            (others + 1) * 2 > voters
        };
        let rounds = std::mem::take(&mut lead.rounds);
        let lead_rounds = rounds.into_iter().map(|(round, until, what)| (confirmed(round), (round, until, what)));
        let rounds: Vec<_> = lead_rounds.collect();
        replica.committed = replica.committed.max(replica.majority(host));
        if behind
            && bytes_max > 0
            && let Some(append) = replica.append_for(host, ack.from, boot_ms, bytes_max)
        {
            self.ports.send(host, ack.from, Message::Append(Box::new(append)));
        }
        self.apply(host);
        self.end_confirmed(host, rounds);
        self.tell_leader(host);
        self.arm(host);
    }

    /// Ends rounds that a majority confirmed and that wait for nothing else; the others go on.
    fn end_confirmed(&mut self, host: usize, rounds: Vec<(bool, Round)>) {
        let Some(replica) = &mut self.hosts[host].replica else { return };
        let applied = replica.applied;
        let waits = |what: &RoundFor| matches!(what, RoundFor::Orchestrator { next } if applied < *next);
        let (over, going_on): (Vec<_>, Vec<_>) =
            rounds.into_iter().partition(|(confirmed, (_, _, what))| *confirmed && !waits(what));
        let Some(lead) = &mut replica.lead else { return };
        lead.rounds.extend(going_on.into_iter().map(|(_, round)| round));
        self.end_rounds(host, over.into_iter().map(|(_, round)| round).collect(), true);
    }

    /// Applies what is committed.
    fn apply(&mut self, host: usize) {
        let boot_ms = self.ports.boot_ms(host);
        let mut applied_any = false;
        loop {
            let Some(replica) = &mut self.hosts[host].replica else { return };
            if replica.applied >= replica.committed {
                break;
            }
            let Some((position, entry)) = replica.position() else { break };
            let applied = match &entry {
                Some(entry) => replica.state.apply(position, entry),
                None => {
                    replica.state.skip(position);
                    skep_fleet::Applied::default()
                }
            };
            let (stamp, digest) = (replica.state.clock(), replica.state.digest());
            replica.clock.observe_stamp(stamp, boot_ms);
            replica.applied += 1;
            applied_any = true;
            let own = replica.lead.as_mut().filter(|lead| lead.term == position.term);
            let awaits = own.and_then(|lead| lead.pending.remove(&(position.index as usize)));
            replica.compact();
            let entry = entry.as_deref();
            self.ports.see(&Seen::Applied { host, position, entry, applied: &applied, digest });
            match awaits {
                Some(Awaits::Request(asker)) => {
                    let reply = applied.replies.into_iter().next();
                    let outcome = match reply {
                        Some(Reply::Refused(Refusal::Request(RequestRefusal::Deposed))) => {
                            ProposeOutcome::NotLeader(LeaderHint::default())
                        }
                        Some(reply) => ProposeOutcome::Applied { index: position.index, stamp, reply },
                        None => ProposeOutcome::Unknown,
                    };
                    self.ports.send(host, asker.host, Message::Proposed { asker, outcome });
                }
                Some(Awaits::Decisions) => {
                    if let Some(lead) = self.hosts[host].replica.as_mut().and_then(|replica| replica.lead.as_mut()) {
                        lead.proposing_until = None;
                    }
                    self.orchestrate(host, Some(OrchestratorEvent::ProposalEnded { applied: true }));
                }
                Some(Awaits::Clock) => {
                    if let Some(replica) = &mut self.hosts[host].replica {
                        replica.clock.begin(stamp, boot_ms);
                    }
                }
                None => {}
            }
        }
        if applied_any {
            self.take_the_lead(host);
            self.answer_pulls(host);
            self.orchestrate(host, Some(OrchestratorEvent::Applied));
        }
    }

    /// Begins to lead once the leader's own first entry is applied and it has a clock.
    fn take_the_lead(&mut self, host: usize) {
        let boot_ms = self.ports.boot_ms(host);
        let policy = if self.ports.plan.nearest { Policy::Nearest } else { Policy::RoundRobin };
        let Some(replica) = &mut self.hosts[host].replica else { return };
        let Some(lead) = replica.lead.as_mut().filter(|lead| lead.orchestrator.is_none() && replica.applied > lead.own)
        else {
            return;
        };
        if let Some(now) = replica.clock.lead(boot_ms) {
            lead.orchestrator = Some(Orchestrator::new(OrchestratorConfig { policy }, &replica.state, now));
            self.ports.see(&Seen::Leads);
            return self.announce(host);
        }
        if !std::mem::replace(&mut lead.asked_for_clock, true) {
            let term = lead.term;
            let entry = Entry { stamp: Default::default(), term, body: EntryBody::ClockLost };
            replica.push(Some(Rc::new(entry)), Some(Awaits::Clock));
            self.ports.watch.coverage.clocks_lost += 1;
            self.replicate(host);
        }
    }

    /// Writes an entry as the leader of a term; false if the host takes no proposals.
    pub(super) fn write(&mut self, host: usize, body: EntryBody, awaits: Awaits) -> bool {
        let boot_ms = self.ports.boot_ms(host);
        let Some(replica) = &mut self.hosts[host].replica else { return false };
        let (true, Some(stamp)) = (replica.is_ready(host, boot_ms), replica.clock.now(boot_ms)) else { return false };
        let Some(term) = replica.lead.as_ref().map(|lead| lead.term) else { return false };
        let index = replica.push(Some(Rc::new(Entry { stamp, term, body })), Some(awaits)) as u64;
        self.ports.see(&Seen::Written { term, index });
        self.replicate(host);
        true
    }

    /// Tells every host that the leader leads.
    fn announce(&mut self, host: usize) {
        if !self.ports.plan.announces {
            return;
        }
        let hint = LeaderHint { leader: Some(node_id(host)), ..self.hint(host) };
        for to in (0..self.hosts.len()).filter(|to| *to != host) {
            self.ports.send(host, to, Message::Leads { by: host, hint: hint.clone() });
        }
    }

    /// What a host knows of who leads: from its replica, or from what its engine has learned.
    pub(super) fn hint(&self, host: usize) -> LeaderHint {
        let known = &self.hosts[host];
        let Some(replica) = &known.replica else { return known.known.clone() };
        let voters = Voters::of((0..self.ports.plan.voters).map(node_id));
        LeaderHint { leader: replica.leader.map(node_id), term: replica.durable.term, voters }
    }

    /// The same hint, from a host that does not lead.
    pub(super) fn elsewhere(&self, host: usize) -> LeaderHint {
        self.hint(host).elsewhere(node_id(host))
    }

    pub(super) fn on_propose(&mut self, host: usize, asker: Asker, request: Request) {
        if self.write(host, EntryBody::Requests(vec![request]), Awaits::Request(asker)) {
            return;
        }
        let outcome = match self.hosts[host].replica {
            Some(_) => ProposeOutcome::NotLeader(self.elsewhere(host)),
            None if self.hint(host) == LeaderHint::default() => ProposeOutcome::NoSuchShard,
            None => ProposeOutcome::NotLeader(self.elsewhere(host)),
        };
        self.ports.send(host, asker.host, Message::Proposed { asker, outcome });
    }
}
