//! What a leader decides, in virtual time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::{FleetLimits, HeartbeatKey, OrchestratorConfig, OrchestratorEffect, OrchestratorEvent, Policy};
use skep_protocol::agent::AgentOp;
use skep_protocol::entry::Decision;
use skep_protocol::heartbeat::{ClaimsUpdate, Renewal};
use skep_protocol::ids::{AttachmentId, NodeId, TaskId};
use skep_protocol::limits;
use skep_protocol::outcome::Receipt;
use skep_protocol::position::Position;
use skep_protocol::task::{DisconnectPolicy, Priority, Reconcile, TaskOp, TaskSpec, TaskStatus};

use support::*;

/// Longest time that the orchestrator waits after it confirmed a renewal, in milliseconds.
const WAIT: u64 = LEASE.orchestrator_ms();

fn answers(effects: &[OrchestratorEffect]) -> Vec<(HeartbeatKey, Vec<Renewal>)> {
    let answer = |effect: &OrchestratorEffect| match effect {
        OrchestratorEffect::Answer { key, reply } => Some((*key, reply.agents.iter().map(|a| a.renewal).collect())),
        _ => None,
    };
    effects.iter().filter_map(answer).collect()
}

fn updates(effects: &[OrchestratorEffect]) -> Vec<(NodeId, ClaimsUpdate)> {
    let update = |effect: &OrchestratorEffect| match effect {
        OrchestratorEffect::Update { node, update } => Some((*node, update.clone())),
        _ => None,
    };
    effects.iter().filter_map(update).collect()
}

fn rounds(effects: &[OrchestratorEffect]) -> usize {
    effects.iter().filter(|effect| **effect == OrchestratorEffect::BeginRound).count()
}

fn confirmed(confirmed: bool) -> OrchestratorEvent {
    OrchestratorEvent::RoundEnded { confirmed }
}

fn arrived(arrived: bool) -> OrchestratorEvent {
    OrchestratorEvent::UpdateEnded { node: node(1), arrived }
}

/// A shard with agent r1 attached to node 1, and its leader.
fn with_agent() -> (Shard, Lead, AttachmentId) {
    let mut shard = Shard::new();
    let attachment = shard.attached(attach("r1", 1, 1));
    let mut lead = Lead::new(&shard);
    lead.settle(&mut shard);
    // Its node knows that it holds nothing.
    lead.tell(&shard, arrived(true));
    (shard, lead, attachment)
}

fn renew(shard: &mut Shard, lead: &mut Lead, name: &str, at: u8, attachment: AttachmentId) -> Renewal {
    lead.heartbeat(shard, at, vec![says(name, attachment, 0)]);
    let mut effects = lead.carry_out(shard);
    effects.extend(lead.tell(shard, confirmed(true)));
    answers(&effects)[0].1[0]
}

#[test]
fn a_lease_that_is_not_renewed_ends_after_its_time_and_margin_and_not_before() {
    let (mut shard, mut lead, attachment) = with_agent();
    shard.pass(1_000);
    assert_eq!(renew(&mut shard, &mut lead, "r1", 1, attachment), Renewal::Confirmed);
    assert_eq!(lead.orchestrator.poll_timeout(&shard.state, shard.now), Some(shard.now.plus_ms(WAIT)));
    shard.pass(WAIT - 1);
    assert_eq!(lead.proposals(&shard), []);
    shard.pass(1);
    assert_eq!(lead.proposals(&shard), [Decision::ExpireLease { agent: agent("r1"), attachment }]);
}

#[test]
fn a_renewal_is_confirmed_only_by_a_round_that_began_after_it_arrived() {
    let (mut shard, mut lead, attachment) = with_agent();
    let first = lead.heartbeat(&shard, 1, vec![says("r1", attachment, 0)]);
    assert_eq!(rounds(&lead.carry_out(&mut shard)), 1);
    let second = lead.heartbeat(&shard, 1, vec![says("r1", attachment, 0)]);
    assert_eq!(rounds(&lead.carry_out(&mut shard)), 0, "one at a time");
    let effects = lead.tell(&shard, confirmed(true));
    assert_eq!(answers(&effects), [(first, vec![Renewal::Confirmed])]);
    assert_eq!(rounds(&effects), 1, "the second needs a round of its own");
    assert_eq!(answers(&lead.tell(&shard, confirmed(true))), [(second, vec![Renewal::Confirmed])]);
}

#[test]
fn without_a_quorum_nothing_is_renewed() {
    let (mut shard, mut lead, attachment) = with_agent();
    let before = lead.orchestrator.poll_timeout(&shard.state, shard.now);
    shard.pass(1_000);
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 0)]);
    lead.carry_out(&mut shard);
    let effects = lead.tell(&shard, confirmed(false));
    assert_eq!(answers(&effects)[0].1, [Renewal::NotConfirmed]);
    let stranger = AttachmentId(attachment.0 + 1);
    lead.heartbeat(&shard, 1, vec![says("r1", stranger, 0)]);
    lead.carry_out(&mut shard);
    let effects = lead.tell(&shard, confirmed(false));
    assert_eq!(answers(&effects)[0].1, [Renewal::NotConfirmed], "nor is any attachment known to have ended");
    assert_eq!(lead.orchestrator.poll_timeout(&shard.state, shard.now), before, "the lease ends as it would have");
}

#[test]
fn nothing_is_renewed_once_its_expiry_is_on_its_way() {
    let (mut shard, mut lead, attachment) = with_agent();
    shard.pass(WAIT);
    assert_eq!(lead.proposals(&shard).len(), 1);
    assert_eq!(renew(&mut shard, &mut lead, "r1", 1, attachment), Renewal::NotConfirmed);
    lead.tell(&shard, OrchestratorEvent::ProposalEnded { applied: false });
    assert_eq!(
        renew(&mut shard, &mut lead, "r1", 1, attachment),
        Renewal::NotConfirmed,
        "whatever became of the proposal"
    );
    shard.decide(Decision::ExpireLease { agent: agent("r1"), attachment });
    lead.tell(&shard, OrchestratorEvent::Applied);
    assert_eq!(renew(&mut shard, &mut lead, "r1", 1, attachment), Renewal::NotAttached);
    let forgotten = shard.now.plus_ms(FleetLimits::default().agent_ttl_ms);
    let next = lead.orchestrator.poll_timeout(&shard.state, shard.now);
    assert_eq!(next, Some(forgotten), "nothing is left to do but to forget it");
}

#[test]
fn an_expiry_of_which_nothing_was_heard_is_proposed_again() {
    let (mut shard, mut lead, attachment) = with_agent();
    shard.pass(WAIT);
    let expiry = [Decision::ExpireLease { agent: agent("r1"), attachment }];
    assert_eq!(lead.proposals(&shard), expiry);
    assert_eq!(lead.tell(&shard, OrchestratorEvent::ProposalEnded { applied: false }), []);
    shard.pass(2_000);
    assert_eq!(lead.proposals(&shard), expiry);
}

#[test]
fn a_new_leader_counts_every_lease_in_full() {
    let (mut shard, _, attachment) = with_agent();
    shard.pass(60_000);
    let mut next = Lead::new(&shard);
    assert_eq!(next.proposals(&shard), []);
    shard.pass(WAIT - 1);
    assert_eq!(next.proposals(&shard), []);
    shard.pass(1);
    assert_eq!(next.proposals(&shard), [Decision::ExpireLease { agent: agent("r1"), attachment }]);
}

#[test]
fn a_node_speaks_only_for_the_agents_that_it_serves() {
    let (mut shard, mut lead, attachment) = with_agent();
    shard.ok(create(1, spec()));
    lead.heartbeat(&shard, 2, vec![says("r1", attachment, 1)]);
    lead.carry_out(&mut shard);
    let effects = lead.tell(&shard, confirmed(true));
    assert_eq!(answers(&effects)[0].1, [Renewal::NotAttached]);
    assert_eq!(shard.status(1), TaskStatus::Pending);
}

#[test]
fn work_goes_to_whoever_asked_and_is_told_to_its_node_with_its_task() {
    let (mut shard, mut lead, attachment) = with_agent();
    shard.ok(create(1, spec()));
    assert!(lead.tell(&shard, OrchestratorEvent::Applied).is_empty(), "nobody asked yet");
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 1)]);
    let updates = updates(&lead.carry_out(&mut shard));
    assert_eq!(shard.status(1), TaskStatus::Claimed);
    assert_eq!(updates.len(), 1);
    let (to, update) = &updates[0];
    assert_eq!((*to, update.as_of), (node(1), shard.index));
    assert_eq!(update.agents[0].held, [(task_id(1), shard.task(1).epoch)]);
    assert_eq!(update.agents[0].tasks[0].id, task_id(1));
}

#[test]
fn a_credit_is_used_once_whatever_is_repeated() {
    let (mut shard, mut lead, attachment) = with_agent();
    (1..=2).for_each(|n| drop(shard.ok(create(n, spec()))));
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 1)]);
    lead.carry_out(&mut shard);
    shard.ok(complete(1, "r1", 1));
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 1)]);
    lead.applied(&mut shard);
    assert_eq!(shard.status(2), TaskStatus::Pending, "it asked for one task and has had it");
    let mut next = Lead::new(&shard);
    next.heartbeat(&shard, 1, vec![says("r1", attachment, 1)]);
    next.carry_out(&mut shard);
    assert_eq!(shard.status(2), TaskStatus::Pending, "a new leader knows it too");
    next.heartbeat(&shard, 1, vec![says("r1", attachment, 2)]);
    next.carry_out(&mut shard);
    assert_eq!(shard.status(2), TaskStatus::Claimed);
}

#[test]
fn an_agent_that_was_not_heard_of_lately_is_given_nothing() {
    let (mut shard, mut lead, attachment) = with_agent();
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 1)]);
    lead.carry_out(&mut shard);
    shard.pass(LEASE.ttl_ms / 2 + 1);
    shard.ok(create(1, spec()));
    assert_eq!(proposals(lead.tell(&shard, OrchestratorEvent::Applied)), []);
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 1)]);
    lead.carry_out(&mut shard);
    assert_eq!(shard.status(1), TaskStatus::Claimed);
}

#[test]
fn round_robin_takes_turns() {
    let mut shard = Shard::new();
    let names = ["r1", "r2", "r3"];
    let attachments = names.map(|name| shard.attached(attach_as(name, 1, 1, role(&[], 9))));
    let mut lead = Lead::new(&shard);
    let wishes = names.iter().zip(attachments).map(|(name, attachment)| says(name, attachment, 9)).collect();
    lead.heartbeat(&shard, 1, wishes);
    (1..=6).for_each(|n| drop(shard.ok(create(n, spec()))));
    lead.applied(&mut shard);
    for name in names {
        let held = shard.state.agents_after(None).find(|view| view.id == agent(name)).unwrap().held;
        assert_eq!(held, 2, "{name}");
    }
}

#[test]
fn the_nearest_gets_the_task() {
    let mut shard = Shard::new();
    let at = |x_mm| Some(Position { x_mm, y_mm: 0 });
    let far = shard.attached(attach("far", 1, 1));
    let near = shard.attached(attach("near", 1, 1));
    let config = OrchestratorConfig { policy: Policy::Nearest };
    let mut lead = Lead::with(&shard, config);
    let wish =
        |name, attachment, place| skep_protocol::heartbeat::AgentHeartbeat { place, ..says(name, attachment, 1) };
    shard.ok(create(1, TaskSpec { place: at(9_000), ..spec() }));
    lead.heartbeat(&shard, 1, vec![wish("far", far, at(0)), wish("near", near, at(8_000))]);
    lead.carry_out(&mut shard);
    assert_eq!(shard.state.agents_after(None).find(|v| v.id == agent("near")).unwrap().held, 1);
}

#[test]
fn a_task_is_given_to_those_who_can_do_it_most_urgent_first() {
    let mut shard = Shard::new();
    let plain = shard.attached(attach("plain", 1, 1));
    let lifter = shard.attached(attach_as("lifter", 1, 1, role(&["lift"], 1)));
    let heavy = TaskSpec { required: [capability("lift")].into(), ..spec() };
    shard.ok(create(1, spec()));
    shard.ok(create(2, TaskSpec { priority: skep_protocol::task::Priority::Urgent, ..heavy.clone() }));
    shard.ok(create(3, heavy));
    let mut lead = Lead::new(&shard);
    lead.heartbeat(&shard, 1, vec![says("plain", plain, 9), says("lifter", lifter, 9)]);
    lead.carry_out(&mut shard);
    let statuses = [1, 2, 3].map(|n| shard.status(n));
    assert_eq!(statuses, [TaskStatus::Claimed, TaskStatus::Claimed, TaskStatus::Pending]);
}

#[test]
fn a_task_in_backoff_is_given_when_its_time_comes_without_anything_else_happening() {
    let (mut shard, mut lead, attachment) = with_agent();
    shard.ok(create(1, spec()));
    shard.ok(take(1, "other"));
    shard.ok(fail(1, "other", 1));
    lead.tell(&shard, OrchestratorEvent::Applied);
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 1)]);
    lead.carry_out(&mut shard);
    assert_eq!(shard.status(1), TaskStatus::Pending);
    let due = lead.orchestrator.poll_timeout(&shard.state, shard.now).unwrap();
    assert_eq!(due, shard.now.plus_ms(100));
    shard.now = due;
    lead.settle(&mut shard);
    assert_eq!(shard.status(1), TaskStatus::Claimed);
}

#[test]
fn a_kept_task_goes_to_its_former_holder_first_when_it_is_back() {
    let mut shard = Shard::new();
    let policy = DisconnectPolicy { lost_after_ms: 60_000, replace: true, reconcile: Reconcile::KeepOriginal };
    shard.ok(create(1, TaskSpec { disconnect: policy, ..spec() }));
    let first = shard.attached(attach("r1", 1, 1));
    shard.ok(take(1, "r1"));
    shard.decide(Decision::ExpireLease { agent: agent("r1"), attachment: first });
    let (back, other) = (shard.attached(attach("r1", 1, 2)), shard.attached(attach("a-other", 1, 1)));
    let mut lead = Lead::new(&shard);
    lead.heartbeat(&shard, 1, vec![says("a-other", other, 1), says("r1", back, 1)]);
    lead.carry_out(&mut shard);
    assert_eq!(shard.state.agents_after(None).find(|v| v.id == agent("r1")).unwrap().held, 1);
}

#[test]
fn a_node_that_could_not_be_told_is_told_when_it_is_heard_of_and_what_it_lost_too() {
    let (mut shard, mut lead, attachment) = with_agent();
    shard.ok(create(1, spec()));
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 1)]);
    assert_eq!(updates(&lead.carry_out(&mut shard)).len(), 1);
    let failed = OrchestratorEvent::UpdateEnded { node: node(1), arrived: false };
    assert!(updates(&lead.tell(&shard, failed)).is_empty(), "not again at once");
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 1)]);
    assert_eq!(updates(&lead.carry_out(&mut shard)).len(), 1);
    let arrived = OrchestratorEvent::UpdateEnded { node: node(1), arrived: true };
    assert!(updates(&lead.tell(&shard, arrived)).is_empty(), "it knows");
    shard.ok(TaskOp::Cancel { task: task_id(1), reason: reason("") });
    let told = updates(&lead.tell(&shard, OrchestratorEvent::Applied));
    assert_eq!(told[0].1.agents[0].held, [], "that it is gone");
}

#[test]
fn large_tasks_are_told_in_parts_and_all_of_them_in_the_end() {
    let mut shard = Shard::new();
    let attachment = shard.attached(attach_as("r1", 1, 1, role(&[], 100)));
    for n in 1..=40 {
        shard.ok(create(n, TaskSpec { payload: vec![0; 60_000], ..spec() }));
    }
    let mut lead = Lead::new(&shard);
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 100)]);
    let mut told = std::collections::BTreeSet::new();
    let mut effects = lead.carry_out(&mut shard);
    for _ in 0..10 {
        for (_, update) in updates(&effects) {
            told.extend(update.agents[0].tasks.iter().map(|task| task.id));
        }
        effects = lead.tell(&shard, OrchestratorEvent::UpdateEnded { node: node(1), arrived: true });
    }
    assert_eq!(told.len(), 40);
}

#[test]
fn a_node_behind_a_thin_link_is_told_of_tasks_one_by_one() {
    let mut shard = Shard::new();
    let attachment = shard.attached(attach_as("r1", 1, 1, role(&[], 100)));
    for n in 1..=5 {
        shard.ok(create(n, TaskSpec { payload: vec![0; 20_000], ..spec() }));
    }
    let mut lead = Lead::new(&shard);
    lead.tell(&shard, OrchestratorEvent::Carries { node: node(1), bytes: 16_384 });
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 100)]);
    let mut told = std::collections::BTreeSet::new();
    let mut effects = lead.carry_out(&mut shard);
    for _ in 0..10 {
        for (_, update) in updates(&effects) {
            assert!(update.agents[0].tasks.len() <= 1, "{} at once", update.agents[0].tasks.len());
            told.extend(update.agents[0].tasks.iter().map(|task| task.id));
        }
        effects = lead.tell(&shard, OrchestratorEvent::UpdateEnded { node: node(1), arrived: true });
    }
    assert_eq!(told.len(), 5);
}

#[test]
fn the_first_word_of_a_new_leader_comes_however_little_there_is_to_tell() {
    let (mut shard, mut lead, attachment) = with_agent();
    shard.ok(create(1, spec()));
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 1)]);
    lead.carry_out(&mut shard);
    lead.tell(&shard, arrived(true));
    // The claim ends, and the leader dies before it told the node.
    shard.ok(TaskOp::Cancel { task: task_id(1), reason: reason("") });
    let mut next = Lead::new(&shard);
    let told = updates(&next.settle(&mut shard));
    assert_eq!(told[0].1.agents[0].held, []);
}

#[test]
fn a_lease_is_not_renewed_while_its_holder_does_not_know_what_it_lost() {
    let (mut shard, mut lead, attachment) = with_agent();
    shard.ok(create(1, spec()));
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 1)]);
    lead.carry_out(&mut shard);
    lead.tell(&shard, confirmed(true));
    lead.tell(&shard, arrived(true));
    assert_eq!(renew(&mut shard, &mut lead, "r1", 1, attachment), Renewal::Confirmed);
    shard.ok(TaskOp::Cancel { task: task_id(1), reason: reason("") });
    lead.tell(&shard, OrchestratorEvent::Applied);
    assert_eq!(renew(&mut shard, &mut lead, "r1", 1, attachment), Renewal::NotConfirmed);
    lead.tell(&shard, arrived(true));
    assert_eq!(renew(&mut shard, &mut lead, "r1", 1, attachment), Renewal::Confirmed);
}

#[test]
fn an_agent_that_goes_and_is_forgotten_at_once_leaves_no_lease_behind() {
    let (mut shard, mut lead, attachment) = with_agent();
    shard.ok(AgentOp::Detach { agent: agent("r1"), attachment });
    shard.ok(AgentOp::Remove { agent: agent("r1") });
    lead.applied(&mut shard);
    shard.pass(WAIT);
    assert_eq!(lead.proposals(&shard), []);
    assert_eq!(lead.orchestrator.poll_timeout(&shard.state, shard.now), None);
}

#[test]
fn an_update_whose_answer_was_lost_may_have_arrived_so_that_nothing_it_told_of_is_prolonged() {
    let (mut shard, mut lead, attachment) = with_agent();
    shard.ok(create(1, spec()));
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 1)]);
    assert_eq!(updates(&lead.carry_out(&mut shard)).len(), 1);
    lead.tell(&shard, OrchestratorEvent::UpdateEnded { node: node(1), arrived: false });
    shard.ok(TaskOp::Cancel { task: task_id(1), reason: reason("") });
    lead.tell(&shard, OrchestratorEvent::Applied);
    assert_eq!(renew(&mut shard, &mut lead, "r1", 1, attachment), Renewal::NotConfirmed);
    lead.tell(&shard, OrchestratorEvent::UpdateEnded { node: node(1), arrived: true });
    assert_eq!(renew(&mut shard, &mut lead, "r1", 1, attachment), Renewal::Confirmed);
}

#[test]
fn tasks_that_nobody_can_do_keep_nobody_from_work() {
    let mut shard = Shard::new();
    let attachment = shard.attached(attach_as("r1", 1, 1, role(&[], 1)));
    let beyond = TaskSpec { required: [capability("fly")].into(), priority: Priority::Urgent, ..spec() };
    for n in 0..=limits::CLAIM_SCAN_MAX as u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        shard.ok(TaskOp::Create { task: TaskId::from_bytes(id), spec: Box::new(beyond.clone()) });
    }
    shard.ok(create(9, spec()));
    let mut lead = Lead::new(&shard);
    lead.heartbeat(&shard, 1, vec![says("r1", attachment, 1)]);
    lead.carry_out(&mut shard);
    assert_eq!(shard.status(9), TaskStatus::Claimed);
    assert!(matches!(shard.ok(take_any("r2")), Receipt::NothingToClaim));
}
