//! What a [liar](super::liar) says: forged answers, old commands with old clocks, and entries that no operator signed.

use std::sync::Arc;

use rand::RngExt as _;
use skep_protocol::agent::AgentOp;
use skep_protocol::command::{Command, CommandControl, CommandOp, ControlKind, PerClass, SignedCommand};
use skep_protocol::entry::{EntryBody, Op, Request};
use skep_protocol::heartbeat::{AgentRenewal, Heartbeat, HeartbeatReply, Renewal};
use skep_protocol::ids::{AttachmentId, CommandId, HomeEpoch, RequestId};
use skep_protocol::operator::{Authority, AuthorityNews, FirstReplacement, OperatorOp, Root, SignedReplacement};
use skep_protocol::outcome::{ProposeOutcome, Receipt, Reply};
use skep_protocol::pull::{Delivery, Pull, PullFor, Pulled, PulledFor};
use skep_protocol::query::{Answer, AsOf, Counts, Query, QueryReply};
use skep_protocol::refusal::{Refusal, ShardFullOf};
use skep_protocol::signing::{OperatorSecret, Signed};
use skep_protocol::task::{TaskOp, TaskStatus};
use skep_protocol::text::{OperatorName, Reason};
use skep_protocol::time::LogInstant;

use super::clerk::{clerk, is_for};
use super::lying::Lying;
use super::names::{operator, place};
use super::nodes::Nodes;
use super::parcel::Message;
use super::replica::{Asker, Awaits};

/// One request in this many is called refused, and is done.
const REFUSES_ONE_IN: u32 = 6;
/// One clock in this many is far ahead, in runs that have such clocks.
const WILD_ONE_IN: u32 = 30;
/// The last possible era.
const ERA_LAST: u64 = (1 << 24) - 1;
/// How long before its deadline the clock of an old command is, in milliseconds.
const IN_TIME_MS: std::ops::RangeInclusive<u64> = 300..=5_000;
/// The most commands that are delivered again in one answer to one robot.
const DELIVERIES_MAX: usize = 3;
/// One of them in this many is for another robot, one is changed, and one is signed by the liar itself.
const ASTRAY_ONE_IN: u32 = 12;
const CHANGED_ONE_IN: u32 = 10;
const OWN_ONE_IN: u32 = 10;
/// How long what no operator signed is valid, in milliseconds.
const FORGED_MS: u64 = 600_000;
/// One home epoch in this many differs from the one that the robot's node knows, one first operator is the liar, and
/// one was replaced by the liar.
const OTHER_HOME_ONE_IN: u32 = 6;
const OWN_FIRST_ONE_IN: u32 = 6;
const OWN_SECOND_ONE_IN: u32 = 6;
/// One delivery in this many has the last possible sequence number, and one agent in this many is to go back to an
/// earlier one.
const LAST_PLACE_ONE_IN: u32 = 20;
const BACK_ONE_IN: u32 = 8;
/// One answer in this many says that nothing is granted to operators or taken from them any longer.
const NO_NEWS_ONE_IN: u32 = 30;
/// How seldom a liar that leads writes what no operator signed: once in this many times that it wakes.
const WRITES_ONE_IN: u32 = 8;

/// The liar, as an operator without a grant.
fn own() -> OperatorSecret {
    OperatorSecret::from_seed(&[9; 32])
}

impl Lying {
    /// Any of the commands that were signed.
    fn any(&mut self) -> Option<Arc<SignedCommand>> {
        let at = self.rng.random_range(0..self.signed.len().max(1));
        self.signed.get(at).cloned()
    }

    /// The statements that made the operator of a command one, as they once were.
    fn authority(&self, command: &Command) -> Arc<Authority> {
        let of_clerk = command.operator == clerk().key();
        Arc::new(self.grant.iter().filter(|_| of_clerk).cloned().collect())
    }

    /// The same command, or what the liar makes of it.
    fn forge(&mut self, signed: Arc<SignedCommand>, now: LogInstant) -> Arc<SignedCommand> {
        if self.rng.random_ratio(1, CHANGED_ONE_IN) {
            let changed = Command { deadline: now.plus_ms(FORGED_MS), ..signed.statement().clone() };
            return Signed::under(&changed, *signed.signature()).map_or(signed, Arc::new);
        }
        if self.rng.random_ratio(1, OWN_ONE_IN) {
            let (id, deadline) = (CommandId::from_bytes(self.rng.random()), now.plus_ms(FORGED_MS));
            let others = Command { id, deadline, ..signed.statement().clone() };
            return others.sign(&own()).map_or(signed, Arc::new);
        }
        signed
    }

    /// The root by which statements are proved. A new journal believes the first operator that a leader names, until
    /// that name comes with the join: a voter names no other.
    fn root(&mut self) -> Root {
        let forges = !self.liar.votes && self.rng.random_ratio(1, OWN_FIRST_ONE_IN);
        let first = Some(if forges { own().key() } else { operator().key() });
        let is_replaced = self.rng.random_ratio(1, OWN_SECOND_ONE_IN);
        let replaced = is_replaced.then(|| self.replacement()).flatten().map(Arc::new);
        Root { genesis: place().genesis, first, replaced: replaced.into_iter().collect(), past: Vec::new() }
    }

    /// A replacement of the first operator by the liar, which the first operator did not sign.
    fn replacement(&self) -> Option<SignedReplacement> {
        let (old, new, name) = (operator().key(), own().key(), OperatorName::new("first").ok()?);
        let replacement = FirstReplacement { place: place(), old, new, name, serial: 1 };
        Signed::under(&replacement, *self.signed.first()?.signature()).ok()
    }

    /// What operators were granted or lost since an entry: never more than at first.
    fn news(&mut self, asked: u64) -> AuthorityNews {
        let up_to = if self.rng.random_ratio(1, NO_NEWS_ONE_IN) { u64::MAX } else { asked };
        let chains = self.grant.iter().map(|grant| Arc::new(vec![Arc::clone(grant)])).collect();
        AuthorityNews { chains, up_to }
    }

    /// The sequence numbers behind which a node is to continue.
    fn back(&mut self, of: &PullFor) -> PerClass<Option<u64>> {
        PerClass::from_fn(|class| {
            let goes_back = self.rng.random_ratio(1, BACK_ONE_IN);
            goes_back.then(|| self.rng.random_range(0..=*of.after.of(class)))
        })
    }

    /// An operation that no operator signed, under the signature of another one.
    fn forged_op(&mut self, now: LogInstant) -> Option<Op> {
        let signed = self.any()?;
        Some(match self.rng.random_range(0..3) {
            0 => {
                let (id, deadline) = (CommandId::from_bytes(self.rng.random()), now.plus_ms(FORGED_MS));
                let changed = Command { id, deadline, ..signed.statement().clone() };
                Op::Command(CommandOp::Send { command: Box::new(Signed::under(&changed, *signed.signature()).ok()?) })
            }
            1 => {
                let (command, reason) = (signed.id, Reason::truncated("nobody said so"));
                let (what, operator) = (ControlKind::Cancel, signed.operator);
                let control = CommandControl { place: place(), command, what, reason, operator };
                Op::Command(CommandOp::Control {
                    control: Box::new(Signed::under(&control, *signed.signature()).ok()?),
                })
            }
            _ => Op::Operator(OperatorOp::ReplaceFirst { replacement: Box::new(self.replacement()?) }),
        })
    }

    /// What a request is said to have done.
    fn receipt(&mut self, op: &Op) -> Receipt {
        let of_command = |command| Receipt::Command { command, agents: 1, open: 0 };
        let of_task = |task, epoch| Receipt::Task { task, status: TaskStatus::Pending, epoch, attempts: 1 };
        match op {
            Op::Task(
                TaskOp::Create { task, .. }
                | TaskOp::Cancel { task, .. }
                | TaskOp::Requeue { task, .. }
                | TaskOp::Settle { task, .. },
            ) => of_task(*task, Default::default()),
            Op::Task(TaskOp::Claim { .. }) => Receipt::NothingToClaim,
            Op::Task(
                TaskOp::Report { claim, .. }
                | TaskOp::Complete { claim, .. }
                | TaskOp::Fail { claim, .. }
                | TaskOp::Release { claim },
            ) => of_task(claim.task, claim.epoch),
            Op::Agent(AgentOp::Attach { agent, lease, .. }) => {
                let attachment = AttachmentId(self.rng.random_range(0..1_000));
                Receipt::Attached { agent: agent.clone(), attachment, lease: *lease }
            }
            Op::Command(CommandOp::OpenInbox { agent, .. }) => {
                let known = self.homes.get(agent).copied().unwrap_or(HomeEpoch(1));
                let home = if self.rng.random_ratio(1, OTHER_HOME_ONE_IN) { known.next() } else { known };
                Receipt::Inbox { agent: agent.clone(), home }
            }
            Op::Command(CommandOp::Report { report }) => {
                Receipt::DeliveryReported { command: report.command, open: true }
            }
            Op::Command(CommandOp::End { ended }) => Receipt::DeliveryEnded { command: ended.command },
            Op::Agent(AgentOp::Register { agent, .. } | AgentOp::Remove { agent } | AgentOp::Detach { agent, .. }) => {
                Receipt::Agent(agent.clone())
            }
            Op::Command(CommandOp::Send { command }) => of_command(command.id),
            Op::Command(CommandOp::Control { control }) => of_command(control.command),
            Op::Operator(OperatorOp::Grant { grant }) => Receipt::Operator { operator: grant.by, serial: 1 },
            Op::Operator(OperatorOp::ReplaceFirst { replacement }) => {
                Receipt::Operator { operator: replacement.old, serial: 1 }
            }
            // No shard of the simulator is a directory.
            Op::Site(_) => Receipt::NothingToClaim,
        }
    }
}

impl Nodes {
    /// What the shard's clock shows, as those hosts know it that know it.
    fn true_clock(&self) -> LogInstant {
        let shows = |voter: usize| self.hosts[voter].replica.as_ref()?.clock.now(self.ports.boot_ms(voter));
        (0..self.ports.plan.voters).filter_map(shows).max().unwrap_or_default()
    }

    /// A clock: the present one, an old one, or one that never was.
    fn lied_clock(&self, lying: &mut Lying) -> LogInstant {
        let now = self.true_clock();
        if lying.liar.wild && lying.rng.random_ratio(1, WILD_ONE_IN) {
            return match lying.rng.random_range(0..4) {
                0 => now.plus_ms(lying.rng.random_range(1..=1u64 << 39)),
                1 => now.next_era(),
                2 => LogInstant::from_raw(LogInstant::ZERO.next_era().raw() * ERA_LAST),
                _ => LogInstant::from_raw(u64::MAX),
            };
        }
        match lying.rng.random_range(0..10) {
            0..3 => now,
            3..6 => LogInstant::from_raw(now.raw() - lying.rng.random_range(0..=now.ms_in_era())),
            6 => LogInstant::ZERO,
            _ => match lying.any() {
                Some(old) => in_time(lying, old.deadline),
                None => now,
            },
        }
    }

    pub(super) fn lied_outcome(&mut self, lying: &mut Lying, request: &Request) -> ProposeOutcome {
        let host = lying.liar.host;
        let (index, stamp) = (lying.rng.random_range(0..=self.ports.watch.applied() + 2), self.lied_clock(lying));
        if lying.rng.random_ratio(1, REFUSES_ONE_IN) {
            let asker = self.itself(host);
            if let Some(leader) = self.leader().filter(|leader| *leader != host) {
                self.ports.send(host, leader, Message::Propose { asker, request: Box::new(request.clone()) });
            }
            let refusal = Refusal::Full { what: ShardFullOf::Tasks, count: 1 };
            return ProposeOutcome::Applied { index, stamp, reply: Reply::Refused(refusal) };
        }
        ProposeOutcome::Applied { index, stamp, reply: Reply::Done(lying.receipt(&request.op)) }
    }

    /// A question whose answer no host waits for.
    fn itself(&self, host: usize) -> Asker {
        Asker { host, run: self.ports.machines[host].run, key: 0, attempt: 0 }
    }

    pub(super) fn lied_reply(&self, lying: &mut Lying, query: &Query) -> QueryReply {
        let answer = match query {
            Query::Task(_) => Answer::Task(None),
            _ => Answer::Counts(Counts::default()),
        };
        let (index, stamp, clock) = (self.ports.watch.applied(), self.true_clock(), Some(self.lied_clock(lying)));
        QueryReply { as_of: AsOf { index, stamp, clock, linearizable: true, age_ms: Some(0) }, answer }
    }

    /// Confirms all leases, whichever host has the agents by now.
    pub(super) fn lied_renewals(&self, lying: &mut Lying, heartbeat: Heartbeat) -> HeartbeatReply {
        let asked = heartbeat.agents.into_iter().filter(|one| one.renew);
        let confirmed = asked.map(|one| {
            let renewal = Renewal::Confirmed;
            AgentRenewal { agent: one.agent, attachment: one.attachment, renewal }
        });
        HeartbeatReply { agents: confirmed.collect(), lead: self.lied_hint(lying) }
    }

    pub(super) fn lied_pull(&mut self, lying: &mut Lying, pull: &Pull) -> Pulled {
        let mut clock = self.lied_clock(lying);
        let mut agents = Vec::with_capacity(pull.agents.len());
        for one in &pull.agents {
            lying.homes.insert(one.agent.clone(), one.home);
            let back = lying.back(one);
            let deliveries = self.lied_deliveries(lying, one, back);
            if let Some(old) = deliveries.first().filter(|_| lying.rng.random_bool(0.5)) {
                clock = in_time(lying, old.command.deadline);
            }
            agents.push(PulledFor {
                agent: one.agent.clone(),
                home: one.home,
                open: true,
                deliveries,
                voids: Vec::new(),
                seen: one.seen,
                more: PerClass::default(),
                back,
            });
        }
        self.ports.watch.coverage.clocks_turned_back += u64::from(clock < self.true_clock());
        let (root, authority) = (Some(lying.root()), lying.news(pull.authority));
        Pulled { clock, root, agents, authority }
    }

    /// Commands that were signed once, with the next sequence numbers of a robot's order.
    fn lied_deliveries(&mut self, lying: &mut Lying, to: &PullFor, back: PerClass<Option<u64>>) -> Vec<Delivery> {
        let now = self.true_clock();
        let meant = |signed: &&Arc<SignedCommand>| is_for(&signed.target, &to.agent);
        let meant: Vec<Arc<SignedCommand>> = lying.signed.iter().filter(meant).cloned().collect();
        let mut next = PerClass::from_fn(|class| back.of(class).unwrap_or(*to.after.of(class)));
        let mut room = to.room;
        let mut deliveries = Vec::new();
        for _ in 0..lying.rng.random_range(0..=DELIVERIES_MAX) {
            let astray = meant.is_empty() || lying.rng.random_ratio(1, ASTRAY_ONE_IN);
            let one = if astray { lying.any() } else { meant.get(lying.rng.random_range(0..meant.len())).cloned() };
            let Some(one) = one else { break };
            let class = one.class;
            if *room.of(class) == 0 {
                continue;
            }
            *room.of_mut(class) -= 1;
            let is_last = lying.rng.random_ratio(1, LAST_PLACE_ONE_IN);
            let seq = if is_last { u64::MAX } else { next.of(class).saturating_add(1) };
            *next.of_mut(class) = seq;
            let authority = lying.authority(&one);
            deliveries.push(Delivery { seq, command: lying.forge(one, now), authority, void: None });
        }
        self.ports.watch.coverage.commands_delivered_again += deliveries.len() as u64;
        deliveries
    }

    /// A liar that leads writes an entry that no operator signed.
    pub(super) fn write_forged(&mut self, lying: &mut Lying) {
        let host = lying.liar.host;
        if !lying.liar.votes || !lying.rng.random_ratio(1, WRITES_ONE_IN) {
            return;
        }
        let now = self.true_clock();
        let Some(op) = lying.forged_op(now) else { return };
        let id = RequestId::from_bytes(lying.rng.random());
        let request = Request { id, first_sent: now, deadline: now.plus_ms(FORGED_MS), op };
        let awaits = Awaits::Request(self.itself(host));
        let written = self.write(host, EntryBody::Requests(vec![request]), awaits);
        self.ports.watch.coverage.forged_entries += u64::from(written);
    }
}

/// A clock by which a deadline has not passed yet.
fn in_time(lying: &mut Lying, deadline: LogInstant) -> LogInstant {
    let before_ms = lying.rng.random_range(IN_TIME_MS).min(deadline.ms_in_era());
    LogInstant::from_raw(deadline.raw() - before_ms)
}
