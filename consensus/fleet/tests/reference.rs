//! A naive model beside the state machine, and random entries through both.
//!
//! The model keeps plain vectors, looks at everything every time, and never forgets. It is written from the rules, not
//! from the code: first committed claim wins, epochs rise, attempts are bounded, ids are done once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use proptest::prelude::*;
use skep_fleet::{FleetLimits, FleetState};
use skep_protocol::agent::{AgentOp, AgentRefusal};
use skep_protocol::entry::{Decision, EntryBody, Op, Request};
use skep_protocol::ids::{AttachmentId, ClaimEpoch, RequestId};
use skep_protocol::outcome::{Receipt, Reply};
use skep_protocol::refusal::{Refusal, RequestRefusal};
use skep_protocol::task::{Priority, RetryPolicy, TaskOp, TaskRefusal, TaskSpec, TaskStatus};
use skep_protocol::time::LogInstant;
use support::*;

#[derive(Clone, Debug)]
struct ModelTask {
    n: u8,
    spec: TaskSpec,
    created: usize,
    status: TaskStatus,
    holder: Option<u8>,
    epoch: u64,
    attempts: u32,
    not_before: u64,
    fenced_until: u64,
    stale_at: u64,
    expires_at: Option<u64>,
}

#[derive(Default)]
struct Model {
    tasks: Vec<ModelTask>,
    answered: Vec<(Request, Reply)>,
    /// All attachments that there ever were, as the shard named them.
    attachments: Vec<AttachmentId>,
    /// The attached agents: the agent, its session, its attachment.
    attached: Vec<(u8, u8, AttachmentId)>,
    /// The stamp of the last entry.
    stamped: u64,
}

/// What a client asks, with small numbers, so that requests meet.
#[derive(Clone, Debug)]
enum Ask {
    Create { n: u8, priority: u8, attempts: u32, needs: bool, valid: bool },
    Take { n: u8, by: u8 },
    TakeAny { by: u8 },
    Progress { n: u8, by: u8, epoch: u64 },
    Complete { n: u8, by: u8, epoch: u64 },
    Fail { n: u8, by: u8, epoch: u64, retryable: bool },
    Cancel { n: u8 },
    Requeue { n: u8 },
    Attach { by: u8, session: u8 },
    TakeAttached { n: u8, by: u8, nth: u8 },
}

#[derive(Clone, Debug)]
enum Step {
    Ask(Ask),
    /// The same request again.
    Again(usize),
    /// Another body under a used id.
    Reuse(usize, Ask),
    ExpireClaim {
        n: u8,
        epoch: u64,
    },
    ExpireTask {
        n: u8,
    },
    ExpireLease {
        by: u8,
        nth: u8,
    },
    Pass(u64),
    LoseClock,
}

fn name(by: u8) -> String {
    format!("agent-{by}")
}

/// Agent 0 can lift and hold three; the others never registered.
fn limits_of(by: u8) -> (bool, usize) {
    if by == 0 { (true, 3) } else { (false, 1) }
}

fn op(ask: &Ask, model: &Model) -> Op {
    match *ask {
        Ask::Create { n, priority, attempts, needs, valid } => {
            let priority =
                [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent][usize::from(priority % 4)];
            let retry = RetryPolicy { attempts_max: attempts, backoff_initial_ms: 100, backoff_max_ms: 300 };
            let required = if needs { BTreeSet::from([capability("lift")]) } else { BTreeSet::new() };
            create(
                n,
                TaskSpec {
                    priority,
                    retry,
                    required,
                    valid_for_ms: valid.then_some(2_000),
                    stale_after_ms: 1_000,
                    ..spec()
                },
            )
        }
        Ask::Take { n, by } => take(n, &name(by)),
        Ask::TakeAny { by } => take_any(&name(by)),
        Ask::Progress { n, by, epoch } => Op::Task(TaskOp::Report {
            claim: claim(n, &name(by), epoch),
            permille: 1,
            note: reason(""),
            checkpoint: None,
        }),
        Ask::Complete { n, by, epoch } => complete(n, &name(by), epoch),
        Ask::Fail { n, by, epoch, retryable } => {
            Op::Task(TaskOp::Fail { claim: claim(n, &name(by), epoch), reason: reason("broken"), retryable })
        }
        Ask::Cancel { n } => Op::Task(TaskOp::Cancel { task: task_id(n), reason: reason("") }),
        Ask::Requeue { n } => Op::Task(TaskOp::Requeue { task: task_id(n), reason: reason("") }),
        Ask::Attach { by, session } => {
            let (lifts, max) = limits_of(by);
            attach_as(&name(by), session, session, role(if lifts { &["lift"] } else { &[] }, max as u32))
        }
        Ask::TakeAttached { n, by, nth } => Op::Task(TaskOp::Claim {
            agent: agent(&name(by)),
            task: Some(task_id(n)),
            attachment: Some(model.attachments.get(usize::from(nth)).copied().unwrap_or(AttachmentId(u64::MAX))),
        }),
    }
}

impl Model {
    fn find(&mut self, n: u8) -> Option<&mut ModelTask> {
        self.tasks.iter_mut().find(|task| task.n == n)
    }

    fn held(&self, by: u8) -> usize {
        self.tasks.iter().filter(|t| t.status == TaskStatus::Claimed && t.holder == Some(by)).count()
    }

    fn ask(&mut self, ask: &Ask, now: u64) -> Result<Option<u8>, &'static str> {
        match *ask {
            Ask::Create { n, valid, .. } => {
                if self.find(n).is_some() {
                    return Err("exists");
                }
                let Op::Task(TaskOp::Create { spec, .. }) = op(ask, self) else { unreachable!() };
                self.tasks.push(ModelTask {
                    n,
                    spec: *spec,
                    created: self.tasks.len(),
                    status: TaskStatus::Pending,
                    holder: None,
                    epoch: 0,
                    attempts: 0,
                    not_before: 0,
                    fenced_until: 0,
                    stale_at: 0,
                    expires_at: valid.then_some(now + 2_000),
                });
                Ok(Some(n))
            }
            Ask::Take { n, by } => {
                let (lifts, max) = limits_of(by);
                let held = self.held(by);
                let task = self.find(n).ok_or("none")?;
                match task.status {
                    TaskStatus::Claimed => return Err("lost"),
                    TaskStatus::Pending if task.not_before > now => return Err("backing off"),
                    TaskStatus::Pending if !task.spec.required.is_empty() && !lifts => return Err("not capable"),
                    TaskStatus::Pending if task.expires_at.is_some_and(|at| at <= now) => return Err("status"),
                    TaskStatus::Pending => {}
                    _ => return Err("status"),
                }
                if held >= max {
                    return Err("busy");
                }
                Self::give(task, by, now);
                Ok(Some(n))
            }
            Ask::TakeAny { by } => {
                let (lifts, max) = limits_of(by);
                let suits = |t: &&ModelTask| {
                    t.status == TaskStatus::Pending
                        && t.not_before <= now
                        && (t.spec.required.is_empty() || lifts)
                        && t.expires_at.is_none_or(|at| at > now)
                };
                let best =
                    self.tasks.iter().filter(suits).min_by_key(|t| (std::cmp::Reverse(t.spec.priority), t.created));
                let Some(n) = best.map(|t| t.n) else { return Ok(None) };
                if self.held(by) >= max {
                    return Err("busy");
                }
                Self::give(self.find(n).unwrap(), by, now);
                Ok(Some(n))
            }
            Ask::Progress { n, by, epoch } => {
                let task = self.claimed(n, by, epoch)?;
                task.stale_at = now + 1_000;
                Ok(Some(n))
            }
            Ask::Complete { n, by, epoch } => {
                self.claimed(n, by, epoch)?.status = TaskStatus::Completed;
                Ok(Some(n))
            }
            Ask::Fail { n, by, epoch, retryable } => {
                let task = self.claimed(n, by, epoch)?;
                Self::end_attempt(task, retryable, now);
                Ok(Some(n))
            }
            Ask::Cancel { n } => {
                self.fence(n, now);
                let task = self.find(n).ok_or("none")?;
                if task.status.is_terminal() && task.status != TaskStatus::DeadLettered {
                    return Err("status");
                }
                task.status = TaskStatus::Cancelled;
                Ok(Some(n))
            }
            Ask::Requeue { n } => {
                self.fence(n, now);
                let task = self.find(n).ok_or("none")?;
                if matches!(task.status, TaskStatus::Pending | TaskStatus::Completed) {
                    return Err("status");
                }
                task.status = TaskStatus::Pending;
                (task.attempts, task.not_before) = (0, task.fenced_until);
                task.expires_at = task.spec.valid_for_ms.map(|ms| now + ms);
                Ok(Some(n))
            }
            Ask::Attach { by, session } => {
                let other = |(agent, of, _): &(u8, u8, AttachmentId)| *agent == by && *of != session;
                if self.attached.iter().any(other) { Err("elsewhere") } else { Ok(None) }
            }
            Ask::TakeAttached { n, by, nth } => {
                let named = self.attachments.get(usize::from(nth)).copied();
                if !self.attached.iter().any(|(agent, _, id)| *agent == by && Some(*id) == named) {
                    return Err("not attached");
                }
                self.ask(&Ask::Take { n, by }, now)
            }
        }
    }

    /// Notes an attachment that the shard named.
    fn note(&mut self, ask: &Ask, reply: &Reply) {
        if let (Ask::Attach { by, session }, Reply::Done(Receipt::Attached { attachment, .. })) = (ask, reply) {
            self.attached.retain(|(agent, ..)| agent != by);
            self.attached.push((*by, *session, *attachment));
            self.attachments.push(*attachment);
        }
    }

    /// Fences a task: its holder may act for as long as its lease may last.
    fn fence(&mut self, n: u8, now: u64) {
        let attached: Vec<u8> = self.attached.iter().map(|(agent, ..)| *agent).collect();
        if let Some(task) = self.find(n).filter(|task| task.status == TaskStatus::Claimed)
            && task.holder.is_some_and(|holder| attached.contains(&holder))
        {
            task.fenced_until = now + LEASE.orchestrator_ms();
        }
    }

    fn expire_lease(&mut self, by: u8, nth: u8, now: u64) {
        let Some(attachment) = self.attachments.get(usize::from(nth)).copied() else { return };
        if !self.attached.iter().any(|(agent, _, id)| (*agent, *id) == (by, attachment)) {
            return;
        }
        self.attached.retain(|(agent, ..)| *agent != by);
        for task in self.tasks.iter_mut().filter(|t| t.status == TaskStatus::Claimed && t.holder == Some(by)) {
            Self::end_attempt(task, true, now);
            task.not_before = now;
        }
    }

    fn give(task: &mut ModelTask, by: u8, now: u64) {
        task.status = TaskStatus::Claimed;
        task.holder = Some(by);
        task.epoch += 1;
        task.attempts += 1;
        task.stale_at = now + 1_000;
    }

    fn claimed(&mut self, n: u8, by: u8, epoch: u64) -> Result<&mut ModelTask, &'static str> {
        let task = self.find(n).ok_or("none")?;
        if task.epoch != epoch {
            return Err("stale");
        }
        if task.status != TaskStatus::Claimed {
            return Err("status");
        }
        if task.holder != Some(by) {
            return Err("not holder");
        }
        Ok(task)
    }

    fn end_attempt(task: &mut ModelTask, retryable: bool, now: u64) {
        if retryable && task.attempts < task.spec.retry.attempts_max {
            task.status = TaskStatus::Pending;
            let wait = [100, 200, 300][(task.attempts as usize - 1).min(2)];
            task.not_before = now + wait;
        } else {
            task.status = TaskStatus::DeadLettered;
        }
    }

    fn expire_claim(&mut self, n: u8, epoch: u64, now: u64) {
        if let Some(task) = self.find(n)
            && task.status == TaskStatus::Claimed
            && task.epoch == epoch
            && task.stale_at <= now
        {
            self.fence(n, now);
            let Some(task) = self.find(n) else { return };
            Self::end_attempt(task, true, now);
            task.not_before = task.not_before.max(task.fenced_until);
        }
    }

    /// Starts the shard's clock anew: for how long there was none is not known.
    fn lose_clock(&mut self, now: u64) {
        let before = self.stamped;
        let carried = |at: u64| if at > before { now + (at - before) } else { at };
        for task in &mut self.tasks {
            task.fenced_until = carried(task.fenced_until);
            let valid = task.expires_at.is_none_or(|at| at > before);
            match task.status {
                TaskStatus::Pending => task.not_before = carried(task.not_before).max(task.fenced_until),
                TaskStatus::Claimed if valid && task.stale_at > before => task.stale_at = now + 1_000,
                _ => {}
            }
        }
    }

    /// Whether a task that was being done when the clock was lost is worthless when no more is heard of it.
    fn is_worthless(task: &ModelTask, now: u64) -> bool {
        let era = |at: u64| LogInstant::from_raw(at).era();
        let held_over = |at: u64| task.status == TaskStatus::Claimed && era(at) < era(task.stale_at);
        task.expires_at.is_some_and(|at| if held_over(at) { task.stale_at <= now } else { at <= now })
    }

    fn expire_task(&mut self, n: u8, now: u64) {
        if let Some(task) = self.find(n)
            && !task.status.is_terminal()
            && Self::is_worthless(task, now)
        {
            self.fence(n, now);
            self.find(n).unwrap().status = TaskStatus::Expired;
        }
    }
}

/// A reply in the words of the model.
fn simplified(reply: &Reply) -> Result<Option<u8>, &'static str> {
    match reply {
        Reply::Done(Receipt::Task { task, .. }) => Ok(Some(task.as_bytes()[0])),
        Reply::Done(Receipt::NothingToClaim) => Ok(None),
        Reply::Done(Receipt::Agent(_) | Receipt::Attached { .. }) => Ok(None),
        Reply::Done(other) => panic!("{other:?}"),
        Reply::Refused(refusal) => Err(match refusal {
            Refusal::Task(TaskRefusal::NoSuchTask(_)) => "none",
            Refusal::Task(TaskRefusal::Exists(_)) => "exists",
            Refusal::Task(TaskRefusal::WrongStatus { .. }) => "status",
            Refusal::Task(TaskRefusal::LostRace { .. }) => "lost",
            Refusal::Task(TaskRefusal::StaleEpoch { .. }) => "stale",
            Refusal::Task(TaskRefusal::NotHolder { .. }) => "not holder",
            Refusal::Task(TaskRefusal::BackingOff { .. }) => "backing off",
            Refusal::Task(TaskRefusal::NotCapable { .. }) => "not capable",
            Refusal::Agent(AgentRefusal::Busy { .. }) => "busy",
            Refusal::Agent(AgentRefusal::Elsewhere { .. }) => "elsewhere",
            Refusal::Agent(AgentRefusal::NotAttached { .. }) => "not attached",
            other => panic!("{other:?}"),
        }),
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    let n = 1..6u8;
    let by = 0..3u8;
    let by2 = by.clone();
    let epoch = 1..5u64;
    prop_oneof![
        (n.clone(), 0..4u8, 1..4u32, any::<bool>(), any::<bool>())
            .prop_map(|(n, priority, attempts, needs, valid)| Ask::Create { n, priority, attempts, needs, valid }),
        (n.clone(), by.clone()).prop_map(|(n, by)| Ask::Take { n, by }),
        by.clone().prop_map(|by| Ask::TakeAny { by }),
        (n.clone(), by.clone(), epoch.clone()).prop_map(|(n, by, epoch)| Ask::Progress { n, by, epoch }),
        (n.clone(), by.clone(), epoch.clone()).prop_map(|(n, by, epoch)| Ask::Complete { n, by, epoch }),
        (n.clone(), by, epoch, any::<bool>()).prop_map(|(n, by, epoch, retryable)| Ask::Fail {
            n,
            by,
            epoch,
            retryable
        }),
        n.clone().prop_map(|n| Ask::Cancel { n }),
        n.clone().prop_map(|n| Ask::Requeue { n }),
        (by2.clone(), 1..3u8).prop_map(|(by, session)| Ask::Attach { by, session }),
        (n, by2, 0..6u8).prop_map(|(n, by, nth)| Ask::TakeAttached { n, by, nth }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => ask().prop_map(Step::Ask),
        1 => (0..50usize).prop_map(Step::Again),
        1 => (0..50usize, ask()).prop_map(|(at, ask)| Step::Reuse(at, ask)),
        1 => (1..6u8, 1..5u64).prop_map(|(n, epoch)| Step::ExpireClaim { n, epoch }),
        1 => (1..6u8).prop_map(|n| Step::ExpireTask { n }),
        1 => (0..3u8, 0..6u8).prop_map(|(by, nth)| Step::ExpireLease { by, nth }),
        2 => (1..1_500u64).prop_map(Step::Pass),
        1 => Just(Step::LoseClock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_state_machine_does_what_the_naive_model_does(steps in prop::collection::vec(step(), 1..120)) {
        let mut shard = Shard::with_limits(FleetLimits::default());
        let lifter = skep_protocol::agent::Role {
            name: skep_protocol::text::RoleName::new("lifter").unwrap(),
            capabilities: [capability("lift")].into(),
            stateful: false,
            max_concurrent: 3,
        };
        shard.ok(AgentOp::Register { agent: agent(&name(0)), role: lifter });
        let mut model = Model { stamped: shard.now.raw(), ..Model::default() };
        let mut replica = FleetState::from_snapshot(&shard.state.to_snapshot().unwrap()).unwrap();
        for step in steps {
            let now = shard.now.raw();
            let body = match step {
                Step::Pass(ms) => { shard.pass(ms); continue }
                Step::LoseClock => {
                    shard.apply(EntryBody::ClockLost);
                    shard.now = shard.state.clock();
                    model.lose_clock(shard.now.raw());
                    EntryBody::ClockLost
                }
                Step::Ask(ask) => {
                    let request = shard.request(op(&ask, &model));
                    let expected = model.ask(&ask, now);
                    let reply = shard.send(&request);
                    prop_assert_eq!(simplified(&reply), expected, "{:?}", ask);
                    model.note(&ask, &reply);
                    model.answered.push((request.clone(), reply));
                    EntryBody::Requests(vec![request])
                }
                Step::Again(at) => {
                    let Some((request, first)) = model.answered.get(at).cloned() else { continue };
                    let reply = shard.send(&request);
                    let in_time = request.deadline >= shard.now;
                    prop_assert!(!in_time || reply == first, "a retry returns the first answer");
                    let expired = matches!(reply, Reply::Refused(Refusal::Request(RequestRefusal::Expired { .. })));
                    prop_assert!(in_time || expired, "after its deadline it is refused");
                    EntryBody::Requests(vec![request])
                }
                Step::Reuse(at, ask) => {
                    let Some((mut request, _)) = model.answered.get(at).cloned() else { continue };
                    let other = op(&ask, &model);
                    if other == request.op || request.deadline < shard.now { continue }
                    request.op = other;
                    let reply = shard.send(&request);
                    prop_assert_eq!(reply, Reply::Refused(Refusal::Request(RequestRefusal::IdReused)));
                    EntryBody::Requests(vec![request])
                }
                Step::ExpireClaim { n, epoch } => {
                    model.expire_claim(n, epoch, now);
                    let decision = Decision::ExpireClaim { task: task_id(n), epoch: ClaimEpoch(epoch) };
                    shard.decide(decision.clone());
                    EntryBody::Decisions(vec![decision])
                }
                Step::ExpireLease { by, nth } => {
                    model.expire_lease(by, nth, now);
                    let attachment = model.attachments.get(usize::from(nth)).copied().unwrap_or_default();
                    let decision = Decision::ExpireLease { agent: agent(&name(by)), attachment };
                    shard.decide(decision.clone());
                    EntryBody::Decisions(vec![decision])
                }
                Step::ExpireTask { n } => {
                    model.expire_task(n, now);
                    let decision = Decision::ExpireTask { task: task_id(n) };
                    shard.decide(decision.clone());
                    EntryBody::Decisions(vec![decision])
                }
            };
            model.stamped = shard.now.raw();
            // A replica that applies the same entries, and is snapshotted now and then, has the same digest.
            let entry = skep_protocol::entry::Entry { stamp: shard.now, term: shard.term, body };
            replica.apply(skep_fleet::LogPosition { index: shard.index, term: shard.term }, &entry);
            prop_assert_eq!(replica.digest(), shard.state.digest());
            if shard.index.is_multiple_of(7) {
                replica = FleetState::from_snapshot(&replica.to_snapshot().unwrap()).unwrap();
            }
            for task in &model.tasks {
                let real = shard.state.task(&task_id(task.n)).unwrap();
                prop_assert_eq!(real.state.status(), task.status);
                prop_assert_eq!(real.epoch, ClaimEpoch(task.epoch));
                prop_assert_eq!(real.attempts, task.attempts);
            }
            let counts = shard.state.counts();
            let count = |status| model.tasks.iter().filter(|t| t.status == status).count() as u64;
            prop_assert_eq!(counts.pending, count(TaskStatus::Pending));
            prop_assert_eq!(counts.claimed, count(TaskStatus::Claimed));
        }
    }
}

#[test]
fn request_ids_of_the_harness_are_not_the_models() {
    // The model compares by body: the harness must not make two requests with one id.
    let mut shard = Shard::new();
    let (a, b) = (shard.request(take_any("a")), shard.request(take_any("a")));
    assert_ne!(a.id, b.id);
    assert_ne!(a.id, RequestId::from_bytes([0; 16]));
    assert!(a.first_sent > LogInstant::ZERO);
}
