//! Agents that came and went, and what a shard keeps of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::{FleetLimits, FleetState};
use skep_protocol::agent::{AgentChange, AgentOp, AgentRefusal};
use skep_protocol::change::ChangeKind;
use skep_protocol::entry::{Decision, EntryBody, Op};
use skep_protocol::ids::{AttachmentId, HomeEpoch};
use skep_protocol::refusal::Refusal;
use skep_protocol::task::{TaskOp, TaskRefusal};
use skep_protocol::time::LogInstant;
use support::hall::*;
use support::*;

const KNOWN_MS: u64 = 30_000;

fn hall() -> Hall {
    let mut shard = Shard::with_limits(FleetLimits { agent_ttl_ms: KNOWN_MS, ..FleetLimits::default() });
    shard.apply(founding(FleetLimits::default()));
    Hall { shard }
}

fn attachment_of(hall: &Hall, robot: &str) -> Option<AttachmentId> {
    hall.state.agent(&agent(robot)).and_then(|record| record.attachment).map(|attachment| attachment.id)
}

fn leave(hall: &mut Hall, robot: &str) -> AttachmentId {
    let attachment = attachment_of(hall, robot).unwrap();
    hall.ok(AgentOp::Detach { agent: agent(robot), attachment });
    attachment
}

fn is_known(hall: &Hall, robot: &str) -> bool {
    hall.state.agent(&agent(robot)).is_some()
}

fn forget(robot: &str, idle_since: LogInstant) -> Decision {
    Decision::ForgetAgent { agent: agent(robot), idle_since }
}

/// Agents that the orchestrator's present decisions forget.
fn forgotten(hall: &mut Hall) -> Vec<String> {
    let removed = |change| match change {
        ChangeKind::Agent { agent, change: AgentChange::Removed } => Some(agent.to_string()),
        _ => None,
    };
    hall.settle().into_iter().filter_map(removed).collect()
}

#[test]
fn an_agent_that_nobody_serves_is_forgotten_by_an_entry_once_it_was_known_for_long() {
    let mut hall = hall();
    hall.join("r1", 1, journal(1), &["aisle"]);
    hall.join("r2", 2, journal(2), &["aisle"]);
    hall.pass(KNOWN_MS);
    let attachment = attachment_of(&hall, "r2").unwrap();
    leave(&mut hall, "r1");
    let left = hall.now;
    hall.pass(KNOWN_MS - 1);
    let lead = Lead::new(&hall);
    assert_eq!(lead.orchestrator.poll_timeout(&hall.state, hall.now), Some(left.plus_ms(KNOWN_MS)));
    hall.decide(forget("r1", left));
    assert!(is_known(&hall, "r1"), "one that decides too early changes nothing");
    hall.pass(1);
    let mut lead = Lead::new(&hall);
    assert_eq!(proposals(lead.effects()), [forget("r1", left)]);
    let applied = hall.decide(forget("r1", left));
    assert!(matches!(&applied.changes[..], [change] if change.request.is_none()), "{:?}", applied.changes);
    assert_eq!(applied.changes[0].what, ChangeKind::from((agent("r1"), AgentChange::Removed)));
    assert!(!is_known(&hall, "r1") && is_known(&hall, "r2"));
    // Nothing is left of it for a command to find.
    let aisle = hall.command(1, skep_protocol::command::Target::Group("aisle".parse().unwrap()));
    hall.send(aisle);
    assert_eq!((hall.waiting("r1").len(), hall.waiting("r2").len()), (0, 1));
    hall.decide(Decision::ExpireLease { agent: agent("r2"), attachment });
    assert_eq!(forgotten(&mut hall), Vec::<String>::new(), "it has only just left");
}

#[test]
fn one_that_is_served_again_or_was_registered_is_not_forgotten() {
    let mut hall = hall();
    hall.ok(AgentOp::Register { agent: agent("by-hand"), role: role(&["lift"], 1) });
    hall.join("r1", 1, journal(1), &[]);
    hall.join("known", 2, journal(2), &[]);
    hall.ok(AgentOp::Register { agent: agent("known"), role: role(&[], 1) });
    leave(&mut hall, "known");
    leave(&mut hall, "r1");
    let left = hall.now;
    hall.pass(KNOWN_MS / 2);
    hall.join("r1", 1, journal(1), &[]);
    hall.pass(KNOWN_MS);
    // A decision that was long under way is of another time.
    hall.decide(forget("r1", left));
    leave(&mut hall, "r1");
    hall.decide(forget("r1", left));
    assert!(is_known(&hall, "r1"));
    hall.pass(KNOWN_MS);
    assert_eq!(forgotten(&mut hall), ["r1"]);
    hall.pass(100 * KNOWN_MS);
    assert_eq!(forgotten(&mut hall), Vec::<String>::new());
    assert!(is_known(&hall, "by-hand") && is_known(&hall, "known"));
}

#[test]
fn an_agent_with_work_is_not_forgotten() {
    let mut hall = hall();
    hall.join("r1", 1, journal(1), &[]);
    hall.join("r2", 2, journal(2), &[]);
    leave(&mut hall, "r1");
    leave(&mut hall, "r2");
    hall.ok(create(1, skep_protocol::task::TaskSpec { stale_after_ms: 10 * KNOWN_MS, ..spec() }));
    // By hand, as an agent without an attachment may.
    hall.ok(take(1, "r1"));
    let mut long = hall.command(1, to("r2"));
    long.deadline = hall.now.plus_ms(3 * KNOWN_MS);
    hall.send(long);
    hall.pass(KNOWN_MS);
    assert_eq!(forgotten(&mut hall), Vec::<String>::new());
    assert!(is_known(&hall, "r1") && is_known(&hall, "r2"));
    let lead = Lead::new(&hall);
    let again = lead.orchestrator.poll_timeout(&hall.state, hall.now);
    assert_eq!(again, Some(hall.now.plus_ms(KNOWN_MS)), "they are looked at again after as long");
    hall.ok(complete(1, "r1", 1));
    hall.control(1, skep_protocol::command::ControlKind::Cancel);
    hall.pass(KNOWN_MS);
    assert_eq!(forgotten(&mut hall), ["r1", "r2"]);
    assert_eq!(hall.state.counts().agents, 0);
}

#[test]
fn an_agent_that_comes_again_is_another_one() {
    let mut hall = hall();
    let home = hall.join("r1", 1, journal(1), &[]);
    hall.ok(create(1, spec()));
    hall.ok(take(1, "r1"));
    let first = leave(&mut hall, "r1");
    hall.pass(KNOWN_MS);
    assert_eq!(forgotten(&mut hall), ["r1"]);
    // A restart in between changes nothing of it.
    hall.state = FleetState::from_snapshot(&hall.state.to_snapshot().unwrap()).unwrap();
    let again: HomeEpoch = hall.join("r1", 1, journal(1), &[]);
    let second = attachment_of(&hall, "r1").unwrap();
    assert!(second > first, "attachment {second} after {first}");
    assert!(again > home, "{again:?} after {home:?}");
    // What is said under the earlier attachment counts for no agent.
    hall.decide(Decision::ExpireLease { agent: agent("r1"), attachment: first });
    assert_eq!(attachment_of(&hall, "r1"), Some(second));
    let claim = Op::Task(TaskOp::Claim { agent: agent("r1"), task: Some(task_id(1)), attachment: Some(first) });
    assert!(matches!(hall.refused(claim), Refusal::Agent(AgentRefusal::NotAttached { .. })));
    hall.ok(take(1, "r1"));
    assert!(matches!(hall.refused(complete(1, "r1", 1)), Refusal::Task(TaskRefusal::StaleEpoch { .. })));
    hall.ok(complete(1, "r1", 2));
}

#[test]
fn a_restart_and_a_lost_clock_make_nobody_forgotten_early() {
    let mut hall = hall();
    hall.join("r1", 1, journal(1), &[]);
    leave(&mut hall, "r1");
    hall.pass(KNOWN_MS / 2);
    hall.ok(create(1, spec()));
    hall.state = FleetState::from_snapshot(&hall.state.to_snapshot().unwrap()).unwrap();
    hall.pass(KNOWN_MS / 2 - 1);
    assert_eq!(forgotten(&mut hall), Vec::<String>::new());
    // For how long is not known.
    hall.apply(EntryBody::ClockLost);
    hall.now = hall.state.clock();
    hall.pass(KNOWN_MS - 1);
    assert_eq!(forgotten(&mut hall), Vec::<String>::new());
    hall.pass(1);
    assert_eq!(forgotten(&mut hall), ["r1"]);
}
