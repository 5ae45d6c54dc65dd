//! Classes of commands: urgent ones have an order, a room and a place in answers of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_protocol::agent::AgentOp;
use skep_protocol::command::*;
use skep_protocol::ids::{CommandId, HomeEpoch};
use skep_protocol::limits;
use skep_protocol::outcome::Receipt;
use skep_protocol::pull::{Pull, PullFor, PulledFor};
use skep_protocol::refusal::Refusal;
use support::hall::*;
use support::*;

/// Id number `n`: there are more of these than of short ids.
fn nth(n: usize) -> CommandId {
    CommandId::from_bytes((n as u128 + 1).to_be_bytes())
}

fn urgent(hall: &Hall, n: u8, target: Target) -> Command {
    Command { class: CommandClass::Urgent, ..hall.command(n, target) }
}

/// Sends this many routine commands to a robot, with this many bytes of arguments each.
fn fill(hall: &mut Hall, robot: &str, count: usize, bytes: usize) {
    for n in 0..count {
        let command = Command { id: nth(n), args: vec![7; bytes].into(), ..hall.command(1, to(robot)) };
        hall.send(command);
    }
}

/// The question of a robot's node that has room for this many.
fn asked(hall: &Hall, robot: &str, room: PerClass<u32>) -> PullFor {
    let attachment = hall.state.agent(&agent(robot)).unwrap().attachment.unwrap();
    let (agent, attachment, journal, home) = (agent(robot), attachment.id, journal(1), HomeEpoch(1));
    PullFor { agent, attachment, journal, home, after: PerClass::default(), seen: 0, room }
}

fn pulled(hall: &Hall, at: u8, agents: Vec<PullFor>) -> Vec<PulledFor> {
    pulled_over(hall, at, agents, usize::MAX)
}

/// The answer to the same question on a way that carries this many bytes at once.
fn pulled_over(hall: &Hall, at: u8, agents: Vec<PullFor>, bytes: usize) -> Vec<PulledFor> {
    hall.state.pull(node(at), &Pull { agents, wait_ms: 1_000, replaced: 0, authority: 0 }, None, bytes)
}

fn ids(answer: &PulledFor) -> Vec<CommandId> {
    answer.deliveries.iter().map(|delivery| delivery.command.id).collect()
}

#[test]
fn an_urgent_command_behind_eighty_routine_ones_is_delivered_at_once() {
    let mut hall = Hall::with(&["r1"]);
    fill(&mut hall, "r1", 80, 1);
    let hold = urgent(&hall, 200, to("r1"));
    hall.send(hold);
    // Its node has as many routine ones as it takes.
    let room = PerClass { routine: 0, urgent: limits::INBOX_URGENT_MAX as u32 };
    let after = PerClass { routine: limits::INBOX_MAX as u64, urgent: 0 };
    let asked = PullFor { after, ..asked(&hall, "r1", room) };
    let answer = pulled(&hall, 1, vec![asked.clone()]);
    assert_eq!(ids(&answer[0]), [id(200)]);
    assert_eq!((answer[0].deliveries[0].seq, answer[0].more), (1, PerClass { routine: true, urgent: false }));
    // The order of routine ones goes on where it stood.
    let room = PerClass { routine: 2, urgent: 0 };
    let answer = pulled(&hall, 1, vec![PullFor { room, ..asked }]);
    assert_eq!(ids(&answer[0]), [nth(64), nth(65)]);
    assert_eq!(answer[0].more, PerClass { routine: true, urgent: true });
}

#[test]
fn large_arguments_of_routine_commands_keep_no_urgent_one_of_any_agent_from_an_answer() {
    let mut hall = Hall::new();
    for (n, robot) in (1..).zip(["r1", "r2"]) {
        let attached = hall.ok(attach(robot, 1, n));
        let Receipt::Attached { attachment, .. } = attached else { panic!("{attached:?}") };
        hall.open(robot, attachment, journal(1), &[]);
    }
    let fits = limits::PULL_BYTES_SOFT_MAX / limits::ARGS_BYTES_MAX;
    fill(&mut hall, "r1", fits + 8, limits::ARGS_BYTES_MAX);
    let hold = urgent(&hall, 200, to("r2"));
    hall.send(hold);
    let room = PerClass { routine: 1_000, urgent: 1 };
    let answer = pulled(&hall, 1, vec![asked(&hall, "r1", room), asked(&hall, "r2", room)]);
    assert_eq!(ids(&answer[1]), [id(200)]);
    assert!(answer[0].more.routine && answer[0].deliveries.len() <= fits + 1, "{}", answer[0].deliveries.len());
}

#[test]
fn a_thin_link_gets_commands_one_by_one_and_all_of_them_in_the_end() {
    let mut hall = Hall::with(&["r1"]);
    fill(&mut hall, "r1", 5, limits::ARGS_BYTES_MAX);
    let room = PerClass { routine: 1_000, urgent: 1 };
    let mut next = asked(&hall, "r1", room);
    for n in 0..5 {
        let answer = pulled_over(&hall, 1, vec![next.clone()], 1);
        assert_eq!(ids(&answer[0]), [nth(n)]);
        assert_eq!(answer[0].more.routine, n < 4);
        next.after.routine = answer[0].deliveries[0].seq;
    }
}

#[test]
fn routine_commands_fill_no_room_of_urgent_ones_and_the_ends_of_one_class_make_room_in_it() {
    let mut hall = Hall::with(&["r1"]);
    fill(&mut hall, "r1", limits::OUTBOX_MAX, 1);
    let full = |count: usize| Refusal::Command(CommandRefusal::OutboxFull { agent: agent("r1"), count: count as u64 });
    let routine = hall.command(200, to("r1"));
    assert_eq!(hall.refused(signed(routine.clone())), full(limits::OUTBOX_MAX));
    for n in 0..limits::OUTBOX_URGENT_MAX {
        let command = Command { id: nth(10_000 + n), ..urgent(&hall, 1, to("r1")) };
        hall.send(command);
    }
    let one_more = urgent(&hall, 201, to("r1"));
    assert_eq!(hall.refused(signed(one_more.clone())), full(limits::OUTBOX_URGENT_MAX));
    let end = |hall: &mut Hall, command: CommandId| {
        let seq = hall.place(command, (1, 1));
        let ended = EndedDelivery { agent: agent("r1"), command, seq, outcome: succeeded(), steps: Steps::default() };
        hall.ok(CommandOp::End { ended: Box::new(ended) })
    };
    end(&mut hall, nth(10_000));
    let again = |command: Command| Command { args: b"again".to_vec().into(), ..command };
    assert_eq!(hall.refused(signed(again(routine))), full(limits::OUTBOX_MAX));
    hall.send(again(one_more));
}

#[test]
fn another_journal_gets_what_nobody_had_in_the_order_of_each_class() {
    let mut hall = Hall::new();
    hall.join("r1", 1, journal(1), &[]);
    let attachment = hall.state.agent(&agent("r1")).unwrap().attachment.unwrap().id;
    hall.ok(AgentOp::Detach { agent: agent("r1"), attachment });
    for (n, class) in [(1, CommandClass::Routine), (2, CommandClass::Urgent), (3, CommandClass::Routine)] {
        let command = Command { class, ..hall.command(n, to("r1")) };
        hall.send(command);
    }
    hall.join("r1", 2, journal(2), &[]);
    assert_eq!(hall.waiting("r1"), [(1, id(1), None), (2, id(3), None), (1, id(2), None)]);
    let copy = skep_fleet::FleetState::from_snapshot(&hall.state.to_snapshot().unwrap()).unwrap();
    let waiting = hall.waiting("r1");
    hall.state = copy;
    assert_eq!(hall.waiting("r1"), waiting, "a snapshot holds the order of each class");
    let next = urgent(&hall, 4, to("r1"));
    hall.send(next);
    assert!(hall.waiting("r1").contains(&(2, id(4), None)));
}
