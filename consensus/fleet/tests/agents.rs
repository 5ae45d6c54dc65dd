//! Agents, their attachments, and what becomes of the tasks that they hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::FleetState;
use skep_protocol::agent::{AgentOp, AgentRefusal};
use skep_protocol::change::ChangeKind;
use skep_protocol::entry::{Decision, EntryBody, Op};
use skep_protocol::ids::AttachmentId;
use skep_protocol::refusal::{Refusal, RequestRefusal};
use skep_protocol::task::{
    DisconnectPolicy, KeptFor, ReclaimCause, Reconcile, RetryPolicy, TaskChange, TaskOp, TaskRefusal, TaskSpec,
    TaskState, TaskStatus, WaitReason,
};

use support::*;

fn expire(name: &str, attachment: AttachmentId) -> Decision {
    Decision::ExpireLease { agent: agent(name), attachment }
}

fn assign(n: u8, name: &str, attachment: AttachmentId, nth: u64) -> Decision {
    Decision::AssignTask { task: task_id(n), agent: agent(name), attachment, nth }
}

fn kept(policy: DisconnectPolicy) -> TaskSpec {
    TaskSpec { disconnect: policy, ..spec() }
}

#[test]
fn an_agent_belongs_to_one_node_and_one_run_of_its_software_at_a_time() {
    let mut shard = Shard::new();
    let first = shard.attached(attach("r1", 1, 1));
    for (at, session) in [(2, 1), (1, 2), (2, 2)] {
        assert!(matches!(shard.refused(attach("r1", at, session)), Refusal::Agent(AgentRefusal::Elsewhere { .. })));
    }
    let again = shard.attached(attach("r1", 1, 1));
    assert!(again > first, "the same run may attach again, under an attachment of its own");
    shard.decide(expire("r1", first));
    assert!(
        matches!(shard.refused(attach("r1", 2, 2)), Refusal::Agent(AgentRefusal::Elsewhere { .. })),
        "that one had ended before"
    );
    shard.decide(expire("r1", again));
    assert!(shard.attached(attach("r1", 2, 2)) > again);
}

#[test]
fn an_attached_agent_is_not_removed() {
    let mut shard = Shard::new();
    shard.attached(attach("r1", 1, 1));
    assert!(matches!(
        shard.refused(AgentOp::Remove { agent: agent("r1") }),
        Refusal::Agent(AgentRefusal::Elsewhere { .. })
    ));
}

#[test]
fn what_an_agent_held_is_pending_at_once_when_its_lease_ends() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    let attachment = shard.attached(attach("r1", 1, 1));
    shard.ok(take(1, "r1"));
    shard.pass(7_000);
    let applied = shard.decide(expire("r1", attachment));
    let reclaimed = applied.changes.iter().find_map(|change| match &change.what {
        ChangeKind::Task { change: TaskChange::Reclaimed { cause, not_before, .. }, .. } => Some((*cause, *not_before)),
        _ => None,
    });
    assert_eq!(reclaimed, Some((ReclaimCause::LeaseExpired, shard.now)));
    shard.ok(take(1, "r2"));
    assert!(
        matches!(shard.refused(complete(1, "r1", 1)), Refusal::Task(TaskRefusal::StaleEpoch { .. })),
        "the former holder is fenced"
    );
    shard.ok(complete(1, "r2", 2));
}

#[test]
fn a_claim_after_the_end_of_its_attachment_is_refused() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    let attachment = shard.attached(attach("r1", 1, 1));
    let claim = Op::Task(TaskOp::Claim { agent: agent("r1"), task: Some(task_id(1)), attachment: Some(attachment) });
    shard.decide(expire("r1", attachment));
    assert!(matches!(shard.refused(claim), Refusal::Agent(AgentRefusal::NotAttached { .. })));
    shard.decide(assign(1, "r1", attachment, 0));
    assert_eq!(shard.status(1), TaskStatus::Pending);
}

#[test]
fn an_agent_that_keeps_dying_with_a_task_makes_it_a_dead_letter() {
    let mut shard = Shard::new();
    let retry = RetryPolicy { attempts_max: 2, ..spec().retry };
    shard.ok(create(1, TaskSpec { retry, ..spec() }));
    for session in 1..=2 {
        let attachment = shard.attached(attach("r1", 1, session));
        shard.ok(take(1, "r1"));
        shard.decide(expire("r1", attachment));
    }
    let TaskState::DeadLettered { reason, .. } = &shard.task(1).state else { panic!("{:?}", shard.task(1).state) };
    assert!(reason.as_str().contains("lease"), "{reason}");
}

#[test]
fn an_assignment_counts_against_its_credit_once_however_often_it_is_proposed() {
    let mut shard = Shard::new();
    (1..=3).for_each(|n| drop(shard.ok(create(n, spec()))));
    let attachment = shard.attached(attach_as("r1", 1, 1, role(&[], 3)));
    shard.decide(assign(1, "r1", attachment, 0));
    shard.decide(assign(2, "r1", attachment, 0));
    assert_eq!(shard.status(2), TaskStatus::Pending, "the first credit is used");
    shard.decide(assign(2, "r1", attachment, 1));
    assert_eq!(shard.status(2), TaskStatus::Claimed);
    assert_eq!(shard.state.agent(&agent("r1")).unwrap().attachment.unwrap().assigned, 2);
}

#[test]
fn nobody_is_assigned_more_than_it_may_hold_or_what_it_cannot_do() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    shard.ok(create(2, spec()));
    shard.ok(create(3, TaskSpec { required: [capability("lift")].into(), ..spec() }));
    let attachment = shard.attached(attach("r1", 1, 1));
    shard.decide(assign(3, "r1", attachment, 0));
    assert_eq!(shard.status(3), TaskStatus::Pending);
    shard.decide(assign(1, "r1", attachment, 0));
    shard.decide(assign(2, "r1", attachment, 1));
    assert_eq!((shard.status(1), shard.status(2)), (TaskStatus::Claimed, TaskStatus::Pending));
}

#[test]
fn a_task_that_is_not_replaced_waits_for_its_former_holder_and_no_longer() {
    let mut shard = Shard::new();
    let policy = DisconnectPolicy { lost_after_ms: 30_000, replace: false, reconcile: Reconcile::FirstCome };
    shard.ok(create(1, kept(policy)));
    let attachment = shard.attached(attach("r1", 1, 1));
    shard.ok(take(1, "r1"));
    shard.decide(expire("r1", attachment));
    assert!(matches!(shard.refused(take(1, "r2")), Refusal::Task(TaskRefusal::KeptFor { .. })));
    assert_eq!(shard.ok(take_any("r2")), skep_protocol::outcome::Receipt::NothingToClaim);
    shard.pass(29_999);
    assert!(matches!(shard.refused(take(1, "r2")), Refusal::Task(TaskRefusal::KeptFor { .. })));
    shard.pass(1);
    shard.ok(take(1, "r2"));
}

#[test]
fn a_former_holder_that_is_back_in_time_gets_its_task_under_a_new_epoch() {
    let mut shard = Shard::new();
    let policy = DisconnectPolicy { lost_after_ms: 30_000, replace: false, reconcile: Reconcile::FirstCome };
    shard.ok(create(1, kept(policy)));
    let attachment = shard.attached(attach("r1", 1, 1));
    shard.ok(take(1, "r1"));
    shard.decide(expire("r1", attachment));
    let attachment = shard.attached(attach("r1", 1, 2));
    shard.decide(assign(1, "r1", attachment, 0));
    assert_eq!(shard.task(1).epoch.0, 2);
    assert!(matches!(shard.refused(complete(1, "r1", 1)), Refusal::Task(TaskRefusal::StaleEpoch { .. })));
}

#[test]
fn an_agent_that_detaches_gives_everything_back_to_whoever_comes() {
    let mut shard = Shard::new();
    let policy = DisconnectPolicy { lost_after_ms: 30_000, replace: false, reconcile: Reconcile::FirstCome };
    shard.ok(create(1, kept(policy)));
    let attachment = shard.attached(attach("r1", 1, 1));
    shard.ok(take(1, "r1"));
    shard.ok(AgentOp::Detach { agent: agent("r1"), attachment });
    shard.ok(take(1, "r2"));
    assert!(matches!(
        shard.refused(AgentOp::Detach { agent: agent("r1"), attachment }),
        Refusal::Agent(AgentRefusal::NotAttached { .. })
    ));
}

#[test]
fn a_checkpoint_outlives_its_holder_and_not_a_requeue() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    let attachment = shard.attached(attach("r1", 1, 1));
    shard.ok(take(1, "r1"));
    let progress = |by, epoch, checkpoint| {
        Op::Task(TaskOp::Report { claim: claim(1, by, epoch), permille: 500, note: reason(""), checkpoint })
    };
    shard.ok(progress("r1", 1, Some(vec![7])));
    shard.decide(expire("r1", attachment));
    shard.ok(take(1, "r2"));
    assert_eq!(shard.task(1).checkpoint.as_deref(), Some([7].as_slice()));
    shard.ok(progress("r2", 2, None));
    assert_eq!(shard.task(1).checkpoint.as_deref(), Some([7].as_slice()), "progress without one leaves it");
    let too_large = vec![0; skep_protocol::limits::CHECKPOINT_BYTES_MAX + 1];
    assert!(matches!(shard.refused(progress("r2", 2, Some(too_large))), Refusal::Request(RequestRefusal::Invalid(_))));
    shard.ok(TaskOp::Requeue { task: task_id(1), reason: reason("") });
    assert_eq!(shard.task(1).checkpoint, None);
}

#[test]
fn a_task_that_nobody_works_on_says_why() {
    let mut shard = Shard::new();
    shard.ok(create(1, TaskSpec { required: [capability("lift")].into(), ..spec() }));
    let why = |shard: &Shard| shard.state.why_waiting(shard.task(1), shard.now);
    assert_eq!(why(&shard), Some(WaitReason::NoAgents));
    shard.attached(attach("r1", 1, 1));
    assert_eq!(why(&shard), Some(WaitReason::NobodyCapable { attached: 1, lacking: vec![capability("lift")] }));
    let lifter = shard.attached(attach_as("r2", 2, 1, role(&["lift"], 1)));
    assert_eq!(why(&shard), Some(WaitReason::NobodyReady { capable: 1, free: 1 }));
    shard.ok(create(2, spec()));
    shard.ok(take(2, "r2"));
    assert_eq!(why(&shard), Some(WaitReason::AllBusy { capable: 1 }));
    shard.ok(complete(2, "r2", 1));
    shard.decide(assign(1, "r2", lifter, 0));
    assert_eq!(why(&shard), None);
    shard.ok(fail(1, "r2", 1));
    assert!(matches!(why(&shard), Some(WaitReason::BackingOff { .. })));
}

#[test]
fn attachments_and_kept_tasks_survive_a_snapshot() {
    let mut shard = Shard::new();
    let policy = DisconnectPolicy { lost_after_ms: 30_000, replace: true, reconcile: Reconcile::KeepOriginal };
    shard.ok(create(1, kept(policy)));
    let first = shard.attached(attach("r1", 1, 1));
    shard.ok(take(1, "r1"));
    shard.decide(expire("r1", first));
    let attached = shard.attached(attach("r2", 2, 2));
    let restored = FleetState::from_snapshot(&shard.state.to_snapshot().unwrap()).unwrap();
    assert_eq!(restored.digest(), shard.state.digest());
    assert_eq!(restored.agent(&agent("r2")).unwrap().attachment.unwrap().id, attached);
    let TaskState::Pending { kept_for, .. } = &restored.task(&task_id(1)).unwrap().state else { panic!("not pending") };
    let until = shard.now.plus_ms(30_000);
    assert_eq!(kept_for, &Some(KeptFor { agent: agent("r1"), until, exclusive: false }));
}

#[test]
fn a_task_that_is_given_back_is_pending_at_once_and_its_giver_is_fenced() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    shard.attached(attach("r1", 1, 1));
    shard.ok(take(1, "r1"));
    let release = |by, epoch| Op::Task(TaskOp::Release { claim: claim(1, by, epoch) });
    assert!(matches!(shard.refused(release("r2", 1)), Refusal::Task(TaskRefusal::NotHolder { .. })));
    shard.ok(release("r1", 1));
    assert!(matches!(shard.refused(complete(1, "r1", 1)), Refusal::Task(TaskRefusal::WrongStatus { .. })));
    shard.ok(take(1, "r2"));
    assert!(matches!(shard.refused(release("r1", 1)), Refusal::Task(TaskRefusal::StaleEpoch { .. })));
}

#[test]
fn a_claim_that_is_taken_from_an_attached_agent_is_nobodys_until_its_lease_must_have_ended() {
    type Take = fn(&mut Shard);
    let takes: [(&str, Take); 3] = [
        ("requeue", |shard| drop(shard.ok(TaskOp::Requeue { task: task_id(1), reason: reason("") }))),
        ("cancel and requeue", |shard| {
            shard.ok(TaskOp::Cancel { task: task_id(1), reason: reason("") });
            shard.ok(TaskOp::Requeue { task: task_id(1), reason: reason("") });
        }),
        ("stale", |shard| {
            shard.pass(10_000);
            shard.decide(Decision::ExpireClaim { task: task_id(1), epoch: skep_protocol::ids::ClaimEpoch(1) });
        }),
    ];
    for (what, take_back) in takes {
        let mut shard = Shard::new();
        shard.ok(create(1, spec()));
        shard.attached(attach("r1", 1, 1));
        shard.ok(take(1, "r1"));
        take_back(&mut shard);
        shard.pass(LEASE.orchestrator_ms() - 1);
        assert!(matches!(shard.refused(take(1, "r2")), Refusal::Task(TaskRefusal::BackingOff { .. })), "{what}");
        shard.pass(1);
        shard.ok(take(1, "r2"));
    }
}

#[test]
fn giving_back_costs_no_attempt() {
    let mut shard = Shard::new();
    shard.ok(create(1, spec()));
    for epoch in 1..=9 {
        shard.ok(take(1, "r1"));
        shard.ok(TaskOp::Release { claim: claim(1, "r1", epoch) });
    }
    assert_eq!((shard.status(1), shard.task(1).attempts), (TaskStatus::Pending, 0));
    assert!(shard.task(1).failures.is_empty());
}

#[test]
fn the_same_run_of_an_agent_does_not_shorten_its_lease() {
    let mut shard = Shard::new();
    shard.attached(attach("r1", 1, 1));
    let mut shorter = attach("r1", 1, 1);
    let Op::Agent(AgentOp::Attach { lease, .. }) = &mut shorter else { unreachable!() };
    lease.ttl_ms = 1_000;
    shard.attached(shorter);
    assert_eq!(shard.state.agent(&agent("r1")).unwrap().attachment.unwrap().lease, LEASE);
}

#[test]
fn a_fence_outlives_a_lost_clock_though_every_deadline_has_passed() {
    let mut shard = Shard::new();
    shard.attached(attach("r1", 1, 1));
    shard.attached(attach("r2", 2, 1));
    shard.ok(create(1, spec()));
    shard.ok(take(1, "r1"));
    shard.ok(TaskOp::Requeue { task: task_id(1), reason: reason("once more") });
    shard.ok(create(2, spec()));
    shard.ok(take(2, "r1"));
    shard.ok(TaskOp::Cancel { task: task_id(2), reason: reason("no more") });
    shard.pass(1_000);
    shard.ok(create(3, spec()));
    shard.apply(EntryBody::ClockLost);
    shard.now = shard.state.clock();
    shard.ok(TaskOp::Requeue { task: task_id(2), reason: reason("after all") });
    for n in [1, 2] {
        assert!(
            matches!(shard.refused(take(n, "r2")), Refusal::Task(TaskRefusal::BackingOff { .. })),
            "r1 may still work on task {n}"
        );
    }
    shard.pass(LEASE.orchestrator_ms() - 1_000);
    shard.ok(take(1, "r2"));
    shard.ok(complete(1, "r2", 2));
    shard.ok(take(2, "r2"));
}
