//! Entries in, replies and changes out.

use skep_protocol::change::ShardChange;
use skep_protocol::command::{CommandOp, CommandRefusal, InvalidCommand};
use skep_protocol::entry::{Decision, Entry, EntryBody, Op, Request};
use skep_protocol::fleet::{FleetLimits, Rules};
use skep_protocol::operator::{OperatorChange, OperatorRefusal};
use skep_protocol::outcome::{Receipt, Reply};
use skep_protocol::refusal::{Refusal, RequestRefusal};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::changes::{Changes, count_dropped};
use super::{Applied, FleetState, LogPosition};

impl FleetState {
    /// Applies the entry at an index of the log. Deterministic: depends on the state and the arguments only.
    ///
    /// A leader that had been deposed proposed an entry whose own term is not the term of its place: the entry changes
    /// nothing, and clients may send its requests again.
    ///
    /// A lost clock moves on to the next era. Every deadline has passed then, early and not late: those of requests,
    /// whose ids the shard forgets, of commands, with the waves that were not released, and of tasks that no agent has
    /// begun. What the shard has to wait for it still waits for: fences, retry backoff, and the time for which a task
    /// is kept for its former holder. Holders keep their claims, since their leases go on beside the log; the claims
    /// are stale a full time later. The rate of an operator begins anew. From then on the shard counts how long a
    /// command may be in doubt, and how long no node serves an agent.
    ///
    /// The same holds for a shard that goes on as another group: for how long it had no quorum is not known.
    ///
    /// The entries before it say by which version and limits it is applied. The caller has made sure that this build
    /// can apply the version on which the entry itself agrees, if it agrees on one.
    pub fn apply(&mut self, position: LogPosition, entry: &Entry) -> Applied {
        self.head.applying = position;
        let mut changes = Changes::default();
        let replies = if entry.term == position.term {
            self.apply_body(entry, &mut changes)
        } else if let EntryBody::Requests(requests) = &entry.body {
            deposed(requests)
        } else {
            Vec::new()
        };
        let applied = Applied { replies, changes: changes.list };
        self.advance(position, &applied);
        applied
    }

    /// Passes over an entry that carries nothing for the state: a new leader's first, or a change of members.
    pub fn skip(&mut self, position: LogPosition) {
        self.advance(position, &Applied::default());
    }

    fn apply_body(&mut self, entry: &Entry, changes: &mut Changes) -> Vec<Reply> {
        let before = self.head.clock;
        let begins_era = match &entry.body {
            EntryBody::ClockLost => true,
            EntryBody::Recovered(recovered) => self.is_recovery(recovered),
            EntryBody::Requests(_) | EntryBody::Decisions(_) | EntryBody::Rules(_) | EntryBody::Founding(_) => false,
        };
        self.head.clock = if begins_era { self.head.clock.next_era() } else { self.head.clock.max(entry.stamp) };
        self.tasks.open_gates(self.head.clock);
        self.dedup.forget_expired(self.head.clock);
        self.commands.note_leader(begins_era, &self.head.cx(changes));
        if begins_era {
            self.tasks.carry_over(before, &mut self.agents, &mut self.head.cx(changes));
            self.agents.count_all_idle_anew(self.head.clock);
            changes.record(self.head.clock, ShardChange::ClockLost { now: self.head.clock });
        }
        self.note_site_time(before, begins_era, changes);
        match &entry.body {
            EntryBody::ClockLost => Vec::new(),
            EntryBody::Recovered(recovered) => {
                if begins_era {
                    self.recover(recovered, changes);
                }
                Vec::new()
            }
            EntryBody::Rules(rules) => {
                self.agree(rules, changes);
                Vec::new()
            }
            EntryBody::Founding(founding) => {
                // Once in the life of a shard.
                if self.place().is_none() {
                    self.agree(&founding.rules, changes);
                    self.operators.found(founding, &mut self.head.cx(changes));
                    self.found_site(&founding.charter, changes);
                }
                Vec::new()
            }
            // A leader proposes nothing before that.
            EntryBody::Requests(requests) if self.head.fleet_version == 0 => deposed(requests),
            EntryBody::Decisions(_) if self.head.fleet_version == 0 => Vec::new(),
            EntryBody::Decisions(decisions) => {
                decisions.iter().for_each(|decision| self.decide(decision, changes));
                Vec::new()
            }
            EntryBody::Requests(requests) => requests.iter().map(|request| self.answer(request, changes)).collect(),
        }
    }

    /// Goes by other rules from the next entry on. The shard had agreed before on a version that is not above the
    /// present one.
    fn agree(&mut self, rules: &Rules, changes: &mut Changes) {
        if rules.version > self.head.fleet_version {
            (self.head.fleet_version, self.head.limits) = (rules.version, rules.limits);
            changes.record(self.head.clock, ShardChange::RulesAgreed { rules: Box::new(rules.clone()) });
        }
    }

    fn decide(&mut self, decision: &Decision, changes: &mut Changes) {
        let cx = &mut self.head.cx(changes);
        let (tasks, commands, agents) = (&mut self.tasks, &mut self.commands, &mut self.agents);
        match decision {
            Decision::ExpireClaim { task, epoch } => tasks.expire_claim(*task, *epoch, agents, cx),
            Decision::ExpireTask { task } => tasks.expire(*task, agents, cx),
            Decision::AssignTask { task, agent, attachment, nth } => {
                tasks.assign(*task, agent, *attachment, *nth, agents, cx);
            }
            Decision::ExpireLease { agent, attachment } => self.expire_lease(agent, *attachment, changes),
            Decision::ReleaseWave { command, wave } => commands.release_wave(*command, *wave, agents, cx),
            Decision::ExpireCommand { command } => commands.expire(*command, agents, cx),
            Decision::DoubtCommand { command } => commands.doubt(*command, agents, cx),
            Decision::ForgetAgent { agent, idle_since } => self.forget_agent(agent, *idle_since, changes),
            Decision::LeftOffice { voter } => self.leave_office(*voter, changes),
        }
    }

    fn answer(&mut self, request: &Request, changes: &mut Changes) -> Reply {
        let body_hash = body_hash(&request.op);
        if let Some(reply) = self.dedup.recall(request, body_hash) {
            return reply;
        }
        if let Err(refusal) = self.check_window(request) {
            return Reply::Refused(refusal);
        }
        changes.request = Some(request.id);
        let stated = check_stated(&request.op);
        let reply = match stated.and_then(|()| self.execute(&request.op, changes)) {
            Ok(receipt) => Reply::Done(receipt),
            Err(refusal) => {
                let why = || Box::new(refusal.clone());
                if let Some((by, command)) = request.op.operator() {
                    changes.record(self.head.clock, OperatorChange::Refused { by, command, why: why() });
                } else if let Op::Command(CommandOp::End { ended }) = &request.op {
                    changes.record(self.head.clock, self.commands.refused_outcome(ended, why()));
                } else if let Op::Site(op) = &request.op {
                    self.note_site_refusal(op, &refusal, changes);
                }
                Reply::Refused(refusal)
            }
        };
        changes.request = None;
        let forgotten = self.dedup.remember(request, body_hash, &reply, self.head.limits.dedup_ids_max);
        count_dropped(&mut self.head.dropped.request_ids, forgotten);
        reply
    }

    /// Whether a request that the shard does not remember can be new.
    fn check_window(&self, request: &Request) -> Result<(), Refusal> {
        let (first_sent, deadline, now) = (request.first_sent, request.deadline, self.head.clock);
        let possible = first_sent <= now.plus_ms(self.head.limits.clock_lead_ms_max)
            && first_sent <= deadline
            && deadline.since_ms(first_sent) <= self.head.limits.request_deadline_ms_max;
        if !possible {
            return Err(RequestRefusal::ClockImpossible { first_sent, deadline, now }.into());
        }
        if deadline < now {
            return Err(RequestRefusal::Expired { deadline, now }.into());
        }
        if first_sent < self.dedup.floor() {
            return Err(RequestRefusal::Forgotten { first_sent, floor: self.dedup.floor() }.into());
        }
        let FleetLimits { dedup_ids_max, dedup_ahead_part, .. } = self.head.limits;
        if first_sent > now && self.dedup.is_full_ahead(dedup_ids_max, dedup_ahead_part) {
            return Err(RequestRefusal::SentAhead { first_sent, now }.into());
        }
        Ok(())
    }

    fn execute(&mut self, op: &Op, changes: &mut Changes) -> Result<Receipt, Refusal> {
        self.check_is_for(op)?;
        match op {
            Op::Task(op) => self.tasks.apply(op, &mut self.agents, &mut self.head.cx(changes)),
            Op::Agent(op) => self.apply_to_agents(op, changes),
            Op::Operator(op) => self.apply_to_operators(op, changes),
            Op::Command(op) => self.commands.apply(op, &self.agents, &mut self.operators, &mut self.head.cx(changes)),
            Op::Site(op) => self.apply_to_site(op, changes),
        }
    }

    /// Moves on to an index of the log and folds what it did into the digest.
    fn advance(&mut self, position: LogPosition, applied: &Applied) {
        self.head.applied = Some(position);
        let mut hash = Xxh3::new();
        hash.update(&self.head.digest.to_be_bytes());
        hash.update(&position.index.to_be_bytes());
        hash.update(&position.term.to_be_bytes());
        hash.update(&self.head.clock.raw().to_be_bytes());
        // Encoding plain data into memory cannot fail; if it ever did, it would do so on every replica alike.
        hash.update(&postcard::to_stdvec(&applied.replies).unwrap_or_default());
        hash.update(&postcard::to_stdvec(&applied.changes).unwrap_or_default());
        self.head.digest = hash.digest128();
    }
}

/// Checks that this build understands what an operator states, and that the operator signed it. Every replica checks it
/// here, whatever the leader that proposed it checked.
fn check_stated(op: &Op) -> Result<(), Refusal> {
    if let Some(number) = op.unknown_field() {
        return Err(CommandRefusal::Invalid(InvalidCommand::UnknownField { number }).into());
    }
    op.forged().map_or(Ok(()), |operator| Err(OperatorRefusal::NotSigned(operator).into()))
}

/// The answers to requests that the shard does not judge: clients may send them again.
fn deposed(requests: &[Request]) -> Vec<Reply> {
    requests.iter().map(|_| Reply::Refused(RequestRefusal::Deposed.into())).collect()
}

/// Tells one body from another under the same request id.
fn body_hash(op: &Op) -> u64 {
    xxh3_64(&postcard::to_stdvec(op).unwrap_or_default())
}
