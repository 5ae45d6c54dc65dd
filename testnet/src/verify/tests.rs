use skep_protocol::ids::{AttachmentId, HomeEpoch};
use skep_protocol::offer::GoToken;

use super::*;
use crate::record::{
    Call, ChangeRecord, ClientRecord, HeadRecord, HeldClaim, Op, StoryRecord, TaskRecord, VoterRecord,
};
use crate::site::station::{Effect, Question, Refused, Step};

fn change(index: u64, clock: u64, kind: &str, agent: &str, epoch: u64, request: &str) -> ChangeRecord {
    let text = str::to_owned;
    ChangeRecord {
        index,
        clock,
        task: text("t1"),
        change: text(kind),
        agent: text(agent),
        epoch,
        detail: if kind == "reclaimed" { text("the lease of its holder ended") } else { String::new() },
        request: text(request),
    }
}

fn effect(robot: &str, epoch: u64, errand: u32, step: Step, checked_ms: u64) -> Effect {
    let (robot, task) = (robot.to_owned(), "t1".to_owned());
    let question = Question { robot, run: 0, task, epoch, errand, step, checked_ms, until_ms: 1_000, token: None };
    Effect { at_ns: checked_ms * 1_000_000, question, refused: None }
}

fn ok(client: &str, op: Op, epoch: u64, errands: u32, request: &str) -> ClientRecord {
    let call = Call { client: client.to_owned(), op, task: "t1".to_owned(), epoch, errands };
    ClientRecord::Ok { at_ns: 1, call, request: request.to_owned(), index: 1 }
}

/// One order of one errand; robot r1 did it and died before its report, and r2 finished the order.
fn good() -> Evidence {
    let changes = vec![
        change(1, 100, "created", "", 0, "q1"),
        change(2, 110, "claimed", "r1", 1, ""),
        change(5, 6_200, "reclaimed", "r1", 1, ""),
        change(6, 6_201, "claimed", "r2", 2, ""),
        change(7, 6_300, "completed", "r2", 2, "q2"),
    ];
    let task = TaskRecord { task: "t1".into(), status: "TASK_STATUS_COMPLETED".into(), epoch: 2 };
    let voter = |name: &str| VoterRecord {
        head: HeadRecord { node: name.to_owned(), index: 9, term: 2, digest: "d".to_owned() },
        tasks: vec![task.clone()],
        changes: changes.clone(),
    };
    let held = HeldClaim { robot: "r1".into(), task: "t1".into(), epoch: 1 };
    let mut duplicate = effect("r2", 2, 0, Step::Start, 800);
    duplicate.refused = Some(Refused::Duplicate);
    let renewed = |until_ms| ClientRecord::Renewed { at_ms: 10, until_ms };
    Evidence {
        story: vec![
            StoryRecord::Begun {
                at_ns: 0,
                nodes: 3,
                voters: 2,
                robots: 2,
                workload: "test".into(),
                lease_ttl_ms: 5_000,
                election_ms_max: 3_000,
                seed: 1,
                clock: 50,
            },
            StoryRecord::Killed { at_ns: 1, name: "n0".into(), leader: false, clock: 300, held: vec![held] },
            StoryRecord::Elected { at_ns: 2, name: "n1".into(), after_ms: 900 },
            StoryRecord::Ended { at_ns: 3 },
        ],
        deeds: Vec::new(),
        effects: vec![effect("r1", 1, 0, Step::Start, 100), effect("r1", 1, 0, Step::Done, 200), duplicate],
        clients: [
            ("orders".to_owned(), vec![ok("orders", Op::Create, 0, 0, "q1")]),
            ("r1".to_owned(), vec![renewed(1_000)]),
            ("r2".to_owned(), vec![renewed(1_000), ok("r2", Op::Complete, 2, 0, "q2")]),
        ]
        .into(),
        voters: vec![voter("n1"), voter("n2")],
        nodes: Default::default(),
    }
}

/// The invariants that a run violates.
fn violated(evidence: &Evidence) -> Vec<&'static str> {
    CHECKS.iter().filter(|(_, check)| !check(evidence).is_empty()).map(|(name, _)| *name).collect()
}

fn spoiled(spoil: impl FnOnce(&mut Evidence)) -> Vec<&'static str> {
    let mut evidence = good();
    spoil(&mut evidence);
    violated(&evidence)
}

fn report(evidence: &Evidence) -> Report {
    Report::of(evidence, Vec::new(), Vec::new())
}

#[test]
fn a_good_run_violates_nothing_and_is_counted() {
    assert_eq!(violated(&good()), [] as [&str; 0]);
    let report = report(&good());
    assert_eq!(report.tasks, Tasks { created: 1, completed: 1, dead_lettered: 0, lost: 0 });
    let refused = Refusals { stale: 0, duplicate: 1 };
    assert_eq!(report.effects, Effects { starts: 1, duplicates: 0, stale: 0, refused });
    assert_eq!((report.reassigned, report.failovers_ms.as_slice()), (1, [900].as_slice()));
    assert_eq!((report.latency_ms.claim.p50, report.latency_ms.complete.p99), (10, 6_200));
    assert_eq!((report.explained.len(), report.explained[0].done_by.as_str()), (1, "r1 under epoch 1"));
    assert!(report.ok);
}

#[test]
fn a_duplicate_that_nothing_explains_is_not_ok() {
    let mut evidence = good();
    evidence.story.retain(|record| !matches!(record, StoryRecord::Killed { .. }));
    assert!(!report(&evidence).ok);
}

#[test]
fn a_lost_acknowledgement_is_found() {
    let lost = |evidence: &mut Evidence| evidence.voters.iter_mut().for_each(|voter| drop(voter.changes.remove(4)));
    assert_eq!(spoiled(lost), ["S1"]);
    let forgotten = |evidence: &mut Evidence| {
        evidence.clients.insert(
            "r1".to_owned(),
            vec![ClientRecord::Renewed { at_ms: 10, until_ms: 1_000 }, ok("r1", Op::Progress, 1, 1, "q1")],
        );
    };
    assert_eq!(spoiled(forgotten), ["S1"], "r2 asked for an errand that was reported as done");
    let on_one = |evidence: &mut Evidence| drop(evidence.voters[1].changes.remove(4));
    assert_eq!(spoiled(on_one), ["S1", "S8"]);
}

#[test]
fn an_order_that_has_not_ended_is_lost() {
    let open = |evidence: &mut Evidence| {
        evidence.voters.iter_mut().for_each(|voter| voter.tasks[0].status = "TASK_STATUS_PENDING".to_owned());
    };
    assert_eq!(spoiled(open), ["lost"]);
    assert_eq!(spoiled(|evidence| evidence.voters.iter_mut().for_each(|voter| voter.tasks.clear())), ["lost"]);
}

#[test]
fn a_doubled_effect_is_found() {
    let again = |evidence: &mut Evidence| evidence.effects.push(effect("r1", 1, 0, Step::Start, 300));
    assert_eq!(spoiled(again), ["S3"]);
    let after_done = |evidence: &mut Evidence| evidence.effects[2].refused = None;
    assert_eq!(spoiled(after_done), ["S3"]);
    let mut evidence = good();
    after_done(&mut evidence);
    assert_eq!(report(&evidence).effects.duplicates, 1);
}

#[test]
fn a_command_that_an_earlier_owner_of_a_robot_begins_is_found() {
    let begun = |evidence: &mut Evidence, attachments: [u64; 2]| {
        for (at_ms, attachment) in (0..).zip(attachments) {
            let mut start = effect("r1", 1, 0, Step::Start, at_ms);
            let token = GoToken { home: HomeEpoch(1), attachment: AttachmentId(attachment) };
            (start.question.task, start.question.token) = (format!("{attachment}@r1"), Some(token));
            evidence.deeds.push(start);
        }
    };
    assert_eq!(spoiled(|evidence| begun(evidence, [7, 8])), [] as [&str; 0]);
    assert_eq!(spoiled(|evidence| begun(evidence, [8, 7])), ["S4"]);
}

/// A question of a run of a robot's software about a command, under a lease that it had from its look to an instant.
fn begun_by(run: u32, attachment: u64, (looked_ms, until_ms): (u64, u64)) -> Effect {
    let mut start = effect("r1", 1, 0, Step::Start, looked_ms);
    let token = GoToken { home: HomeEpoch(1), attachment: AttachmentId(attachment) };
    let question = &mut start.question;
    (question.run, question.until_ms) = (run, until_ms);
    (question.task, question.token) = (format!("{attachment}{looked_ms}@r1"), Some(token));
    start
}

#[test]
fn a_robot_that_is_started_elsewhere_after_its_lease_has_one_owner() {
    let moves = |evidence: &mut Evidence| {
        evidence.deeds.extend([begun_by(0, 7, (100, 1_000)), begun_by(1, 8, (1_000, 2_000))]);
        evidence.deeds.push(begun_by(1, 8, (1_500, 2_500)));
    };
    assert_eq!(spoiled(moves), [] as [&str; 0]);
    let and_the_run_before_wakes = |evidence: &mut Evidence| {
        moves(evidence);
        evidence.story.push(StoryRecord::Paused { at_ns: 1, name: "r1".into() });
        let mut late = begun_by(0, 7, (300, 1_000));
        (late.at_ns, late.refused) = (1_700_000_000, Some(Refused::Stale));
        evidence.deeds.push(late);
    };
    assert_eq!(spoiled(and_the_run_before_wakes), [] as [&str; 0], "it had looked before it was suspended");
}

#[test]
fn two_runs_of_a_robots_software_that_own_it_at_once_are_found() {
    let at_once = |refused| {
        move |evidence: &mut Evidence| {
            let mut second = begun_by(1, 8, (999, 2_000));
            second.refused = refused;
            evidence.deeds.extend([begun_by(0, 7, (100, 1_000)), second]);
        }
    };
    assert_eq!(spoiled(at_once(None)), ["S4"], "though its token is the greater one");
    assert_eq!(spoiled(at_once(Some(Refused::Stale))), ["S4"], "refused or not");
    let goes_on = |evidence: &mut Evidence| {
        evidence.deeds.extend([begun_by(0, 8, (100, 5_000)), begun_by(1, 8, (1_000, 2_000))]);
    };
    assert_eq!(spoiled(goes_on), ["S4"], "one of the two goes on");
    // The one run is commanded, and the other works on a task.
    let at_a_task = |evidence: &mut Evidence| evidence.deeds.push(begun_by(1, 8, (150, 2_000)));
    assert_eq!(spoiled(at_a_task), ["S4"]);
}

#[test]
fn a_robot_that_moved_is_judged_by_the_run_that_asked() {
    let renewed = |evidence: &mut Evidence, run: &str| {
        let notes = vec![ClientRecord::Renewed { at_ms: 1_050, until_ms: 2_000 }];
        evidence.clients.entry(run.to_owned()).or_default().extend(notes);
    };
    let moved = |evidence: &mut Evidence| {
        let asked = &mut evidence.effects[2];
        asked.at_ns = 1_100_000_000;
        (asked.question.run, asked.question.checked_ms, asked.question.until_ms) = (1, 1_100, 2_000);
    };
    let orderly = |evidence: &mut Evidence| {
        moved(evidence);
        renewed(evidence, "r2+1");
    };
    assert_eq!(spoiled(orderly), [] as [&str; 0]);
    let by_the_lease_of_another_run = |evidence: &mut Evidence| {
        moved(evidence);
        renewed(evidence, "r2");
    };
    assert_eq!(spoiled(by_the_lease_of_another_run), ["S7"]);
    let suspended = |run: &'static str| {
        move |evidence: &mut Evidence| {
            orderly(evidence);
            evidence.effects[2].refused = Some(Refused::Stale);
            evidence.story.push(StoryRecord::Paused { at_ns: 1, name: run.into() });
        }
    };
    assert_eq!(spoiled(suspended("r2+1")), [] as [&str; 0]);
    assert_eq!(spoiled(suspended("r2")), ["S7"], "the run that it left behind");
    let taken_early = |evidence: &mut Evidence| {
        evidence.clients.insert("r1+1".into(), vec![ClientRecord::Renewed { at_ms: 10, until_ms: 6_151 }]);
    };
    assert_eq!(spoiled(taken_early), ["S7"], "whichever run of its holder had the lease");
}

#[test]
fn a_node_that_was_killed_explains_what_the_runs_that_were_there_did_not_hear() {
    let explained = |run: &str, node: &str| {
        let mut evidence = good();
        for record in &mut evidence.story {
            if let StoryRecord::Killed { held, .. } = record {
                held.clear();
            }
        }
        evidence.story.push(StoryRecord::Placed { at_ns: 1, run: run.into(), node: node.into() });
        report(&evidence).ok
    };
    assert!(explained("r1", "n0"));
    assert!(!explained("r1", "n7"), "another node");
    assert!(!explained("r1+1", "n0"), "another run of the same robot's software");
}

#[test]
fn a_second_owner_or_a_falling_epoch_is_found() {
    let two = |evidence: &mut Evidence| {
        evidence.voters.iter_mut().for_each(|voter| voter.changes[3].epoch = 1);
    };
    assert!(spoiled(two).contains(&"S6"));
    let stranger = |evidence: &mut Evidence| evidence.effects[1].question.robot = "r2".to_owned();
    assert_eq!(spoiled(stranger), ["S6"]);
    let falls = |evidence: &mut Evidence| {
        evidence.effects.push(effect("r2", 2, 1, Step::Start, 850));
        evidence.effects.push(effect("r1", 1, 2, Step::Start, 860));
    };
    assert_eq!(spoiled(falls), ["S6"]);
    let mut evidence = good();
    falls(&mut evidence);
    assert_eq!(report(&evidence).effects.stale, 1);
}

#[test]
fn a_holder_that_does_not_stop_is_found_even_if_the_station_stopped_it() {
    let late = |evidence: &mut Evidence| evidence.effects[2].at_ns = 2_000 * 1_000_000;
    assert_eq!(spoiled(late), ["S7"]);
    let looked_late = |evidence: &mut Evidence| evidence.effects[2].question.checked_ms = 1_000;
    assert_eq!(spoiled(looked_late), ["S7"], "however soon it asked");
    let taken_early = |evidence: &mut Evidence| {
        evidence.clients.insert("r1".to_owned(), vec![ClientRecord::Renewed { at_ms: 10, until_ms: 6_151 }]);
    };
    assert_eq!(spoiled(taken_early), ["S7"]);
    let invented = |evidence: &mut Evidence| evidence.effects[2].question.until_ms = 9_000;
    assert_eq!(spoiled(invented), ["S7"]);
    let stale = |evidence: &mut Evidence| evidence.effects[2].refused = Some(Refused::Stale);
    assert_eq!(spoiled(stale), ["S7"]);
    let paused = |evidence: &mut Evidence| {
        stale(evidence);
        evidence.story.push(StoryRecord::Paused { at_ns: 1, name: "r2".into() });
    };
    assert_eq!(spoiled(paused), [] as [&str; 0], "a suspended process is what the station's fence is for");
    let resumed_before = |evidence: &mut Evidence| {
        paused(evidence);
        evidence.story.push(StoryRecord::Resumed { at_ns: 2, name: "r2".into() });
    };
    assert_eq!(spoiled(resumed_before), ["S7"], "a suspension that was over excuses nothing");
}

#[test]
fn replicas_that_differ_are_found() {
    assert_eq!(spoiled(|evidence| evidence.voters[1].head.digest = "e".to_owned()), ["S8"]);
    assert_eq!(spoiled(|evidence| drop(evidence.voters.pop())), ["S8"], "one of which nothing is known is not equal");
    assert_eq!(spoiled(|evidence| evidence.voters.clear()), ["S6", "S8", "L4", "lost"]);
}

#[test]
fn a_late_leader_and_a_late_reassignment_are_found() {
    let late = |evidence: &mut Evidence| {
        evidence.story[2] = StoryRecord::Elected { at_ns: 2, name: "n1".into(), after_ms: 9_001 };
    };
    assert_eq!(spoiled(late), ["L1"]);
    let headless = |evidence: &mut Evidence| {
        let StoryRecord::Killed { leader, .. } = &mut evidence.story[1] else { unreachable!() };
        *leader = true;
        evidence.story.remove(2);
    };
    assert_eq!(spoiled(headless), ["L1"]);
    let stuck = |evidence: &mut Evidence| {
        evidence.voters.iter_mut().for_each(|voter| voter.changes[2].clock = 300 + 2 * 9_000 + 1);
    };
    assert_eq!(spoiled(stuck), ["L4"]);
    let never = |evidence: &mut Evidence| {
        evidence.voters.iter_mut().for_each(|voter| voter.changes.truncate(2));
    };
    assert!(spoiled(never).contains(&"L4"));
}

#[test]
fn a_claim_is_taken_back_when_the_log_clock_stood_there_however_far_it_has_fallen_behind() {
    // Until 6,500 ms its holder might act; the clock stood at 6,200 when it was taken.
    let looked = |at_ms: u64, clock| StoryRecord::Clock { at_ns: at_ms * 1_000_000, clock };
    let with = |looks: &[StoryRecord]| {
        let mut evidence = good();
        evidence.clients.get_mut("r1").unwrap().push(ClientRecord::Renewed { at_ms: 20, until_ms: 6_500 });
        evidence.story.splice(1..1, looks.iter().cloned());
        violated(&evidence)
    };
    assert_eq!(with(&[]), ["S7"], "the clock is taken to go on as it began");
    assert_eq!(with(&[looked(5_000, 5_050), looked(6_800, 6_250)]), [""; 0], "it had fallen behind by half a second");
    assert_eq!(with(&[looked(6_300, 6_250), looked(9_000, 6_900)]), ["S7"], "it fell behind later");
}
