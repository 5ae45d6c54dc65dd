//! Dead letters of commands: which ones a shard keeps, and how operators send them again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_fleet::{FleetLimits, FleetState};
use skep_protocol::command::*;
use skep_protocol::outcome::Receipt;
use skep_protocol::refusal::Refusal;
use support::hall::*;
use support::*;

/// A site that keeps two ended commands, and two dead letters.
fn hall(robots: &[&str]) -> Hall {
    Hall::within(FleetLimits { ended_commands_kept: 2, ..FleetLimits::default() }).joined(robots)
}

fn failed() -> CommandOutcome {
    CommandOutcome::Failed { reason: reason("broken") }
}

/// Sends a command to a group.
fn broadcast(hall: &mut Hall, n: u8) {
    let command = hall.command(n, Target::Group("aisle".parse().unwrap()));
    hall.send(command);
}

fn end(hall: &mut Hall, robot: &str, n: u8, place: u64, outcome: CommandOutcome) {
    let ended = hall.ended(robot, n, (1, place), outcome);
    hall.ok(ended);
}

/// A command that succeeds at once, and whose deadline passes.
fn done(hall: &mut Hall, n: u8, place: u64) {
    let command = hall.command(n, to("r1"));
    hall.send(command);
    end(hall, "r1", n, place, succeeded());
    hall.pass(11_000);
}

/// Number of agents of a command, number of its dead letters, and the agents whose deliveries are kept.
fn kept(hall: &Hall, n: u8) -> Option<(u32, u32, Vec<String>)> {
    let view = hall.state.command(&id(n))?;
    Some((view.agents, view.failed, view.deliveries.iter().map(|of| of.agent.to_string()).collect()))
}

#[test]
fn of_a_broadcast_that_ended_long_ago_only_its_dead_letters_are_kept() {
    let mut hall = hall(&["r1", "r2"]);
    broadcast(&mut hall, 1);
    end(&mut hall, "r1", 1, 1, failed());
    end(&mut hall, "r2", 1, 1, succeeded());
    hall.pass(11_000);
    done(&mut hall, 2, 2);
    let both = vec!["r1".to_owned(), "r2".to_owned()];
    assert_eq!(kept(&hall, 1), Some((2, 1, both)), "as long as any command is");
    done(&mut hall, 3, 3);
    assert_eq!(kept(&hall, 1), Some((2, 1, vec!["r1".to_owned()])));
    assert_eq!(kept(&hall, 2), None, "dead letters are forgotten last");
    let again = FleetState::from_snapshot(&hall.state.to_snapshot().unwrap()).unwrap();
    assert_eq!(again.command(&id(1)), hall.state.command(&id(1)));
}

#[test]
fn of_too_many_dead_letters_the_first_in_order_are_let_go_of() {
    let mut hall = hall(&["r1", "r2", "r3"]);
    broadcast(&mut hall, 1);
    for robot in ["r1", "r2", "r3"] {
        end(&mut hall, robot, 1, 1, failed());
    }
    let all = ["r1", "r2", "r3"].map(str::to_owned).to_vec();
    assert_eq!(kept(&hall, 1), Some((3, 3, all)), "it could still be sent again");
    hall.pass(11_000);
    done(&mut hall, 2, 2);
    assert_eq!(kept(&hall, 1), Some((3, 2, vec!["r2".to_owned(), "r3".to_owned()])));
    broadcast(&mut hall, 3);
    for (robot, place) in [("r1", 3), ("r2", 2), ("r3", 2)] {
        end(&mut hall, robot, 3, place, failed());
    }
    assert_eq!(kept(&hall, 1), None, "the command goes with its last dead letter");
}

#[test]
fn what_was_sent_again_is_no_dead_letter_any_more_and_is_not_sent_twice_however_soon_it_is_forgotten() {
    let mut hall = hall(&["r1", "r2"]);
    let target = Target::Group("aisle".parse().unwrap());
    let first = Command { deadline: hall.now.plus_ms(60_000), ..hall.command(1, target) };
    hall.send(first);
    end(&mut hall, "r1", 1, 1, failed());
    end(&mut hall, "r2", 1, 1, failed());
    let both = vec!["r1".to_owned(), "r2".to_owned()];
    let other = Command { parent: Some(id(1)), verb: "lift".parse().unwrap(), ..hall.command(9, to("r2")) };
    hall.send(other);
    assert_eq!(kept(&hall, 1), Some((2, 2, both.clone())), "that asks for something else");
    let again = |hall: &Hall| Command { parent: Some(id(1)), ..hall.command(2, to("r1")) };
    let command = again(&hall);
    assert_eq!(hall.send(command), Receipt::Command { command: id(2), agents: 1, open: 1 });
    assert_eq!(kept(&hall, 1), Some((2, 1, both)));
    end(&mut hall, "r1", 2, 2, succeeded());
    hall.pass(11_000);
    done(&mut hall, 3, 3);
    assert_eq!(kept(&hall, 2), None);
    let command = again(&hall);
    assert_eq!(hall.refused(signed(command)), Refusal::Command(CommandRefusal::Exists(id(2))));
    let restored = FleetState::from_snapshot(&hall.state.to_snapshot().unwrap()).unwrap();
    assert_eq!(restored.command(&id(1)), hall.state.command(&id(1)));
    let command = Command { parent: Some(id(1)), ..hall.command(4, to("r2")) };
    hall.send(command);
    assert_eq!(hall.state.command(&id(1)).map(|view| view.failed), Some(0));
    // An operator who has sent all of it again discards the letter.
    hall.control(1, ControlKind::Discard);
}
