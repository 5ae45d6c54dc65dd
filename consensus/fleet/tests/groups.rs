//! Commands for many: which agents get them, and what keeps them from others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use skep_fleet::FleetState;
use skep_protocol::agent::AgentOp;
use skep_protocol::command::*;
use skep_protocol::ids::CommandId;
use skep_protocol::limits;
use skep_protocol::outcome::{Receipt, Reply};
use skep_protocol::refusal::Refusal;
use support::hall::*;
use support::*;

const ROBOTS: [&str; 4] = ["r1", "r2", "r3", "r4"];
const GROUPS: [&str; 3] = ["aisle", "dock", "roof"];

/// Id number `n`: there are more of these than of short ids.
fn nth(n: usize) -> CommandId {
    CommandId::from_bytes((n as u128 + 1_000).to_be_bytes())
}

fn group(name: &str) -> Target {
    Target::Group(name.parse().unwrap())
}

fn leave(hall: &mut Hall, robot: &str) {
    if let Some(attachment) = hall.state.agent(&agent(robot)).and_then(|record| record.attachment) {
        hall.ok(AgentOp::Detach { agent: agent(robot), attachment: attachment.id });
    }
}

/// The standing of a command at each of its agents.
fn stands(hall: &Hall, n: u8) -> Vec<(String, Option<&'static str>)> {
    let view = hall.state.command(&id(n)).unwrap();
    let stand = |of: &DeliveryView| (of.agent.to_string(), of.outcome.as_ref().map(CommandOutcome::name));
    view.deliveries.iter().map(stand).collect()
}

#[test]
fn an_agent_whose_outbox_is_full_keeps_a_command_for_its_group_from_nobody_else() {
    let mut hall = Hall::new();
    hall.join("r1", 1, journal(1), &["aisle"]);
    hall.join("r2", 2, journal(2), &["aisle", "dock"]);
    hall.join("r3", 3, journal(3), &["aisle"]);
    // The robot is in the workshop, and all that was sent to it waits.
    leave(&mut hall, "r2");
    for n in 0..limits::OUTBOX_MAX {
        let command = Command { id: nth(n), ..hall.command(1, to("r2")) };
        hall.send(command);
    }
    for (n, target) in [(1, group("aisle")), (2, Target::All)] {
        let command = hall.command(n, target);
        let (reply, changes) = hall.told(signed(command));
        assert_eq!(reply, Reply::Done(Receipt::Command { command: id(n), agents: 3, open: 2 }));
        assert_eq!(outcomes(&changes), [("r2".to_owned(), "rejected")]);
        let expected = [("r1", None), ("r2", Some("rejected")), ("r3", None)];
        assert_eq!(stands(&hall, n), expected.map(|(robot, outcome)| (robot.to_owned(), outcome)));
        assert_eq!(hall.state.command(&id(n)).map(|view| view.failed), Some(1));
    }
    assert_eq!((hall.waiting("r1").len(), hall.waiting("r2").len()), (2, limits::OUTBOX_MAX));
    // There is room for what is urgent.
    let urgent = Command { class: CommandClass::Urgent, ..hall.command(3, group("aisle")) };
    assert_eq!(hall.send(urgent), Receipt::Command { command: id(3), agents: 3, open: 3 });
    // Where none of them has room, the shard refuses it.
    let count = limits::OUTBOX_MAX as u64;
    let nobody = hall.command(4, group("dock"));
    assert_eq!(
        hall.refused(signed(nobody)),
        Refusal::Command(CommandRefusal::OutboxFull { agent: agent("r2"), count })
    );
    let copy = FleetState::from_snapshot(&hall.state.to_snapshot().unwrap()).unwrap();
    assert_eq!(copy.command(&id(1)), hall.state.command(&id(1)));
}

#[test]
fn a_wave_goes_on_to_those_that_have_room() {
    let mut hall = Hall::with(&["r1", "r2", "r3"]);
    for n in 0..limits::OUTBOX_MAX {
        let command = Command { id: nth(n), ..hall.command(1, to("r1")) };
        hall.send(command);
    }
    let waves = Some(Waves { agents: 1, every_ms: 1_000 });
    let command = Command { waves, ..hall.command(1, group("aisle")) };
    assert_eq!(hall.send(command), Receipt::Command { command: id(1), agents: 3, open: 2 });
    for _ in 0..3 {
        hall.now = hall.now.plus_ms(1_000);
        hall.settle();
    }
    assert_eq!((hall.waiting("r2").len(), hall.waiting("r3").len()), (1, 1));
}

#[derive(Clone, Debug)]
enum Event {
    /// A robot comes, or names its groups anew.
    Joins {
        robot: usize,
        groups: u8,
    },
    /// A robot goes, and is forgotten or not.
    Leaves {
        robot: usize,
        removed: bool,
    },
    Snapshot,
}

fn event() -> impl Strategy<Value = Event> {
    let robot = 0..ROBOTS.len();
    prop_oneof![
        4 => (robot.clone(), 0..8_u8).prop_map(|(robot, groups)| Event::Joins { robot, groups }),
        2 => (robot, any::<bool>()).prop_map(|(robot, removed)| Event::Leaves { robot, removed }),
        1 => Just(Event::Snapshot),
    ]
}

/// The agents of a command that is sent at this moment.
fn resolved(hall: &mut Hall, nth_command: usize, target: Target) -> BTreeSet<String> {
    let id = nth(nth_command);
    let command = Command { id, ..hall.command(1, target) };
    match hall.told(signed(command)).0 {
        Reply::Done(_) => {
            let view = hall.state.command(&id).unwrap();
            view.deliveries.iter().map(|delivery| delivery.agent.to_string()).collect()
        }
        Reply::Refused(Refusal::Command(CommandRefusal::NoAgents(_))) => BTreeSet::new(),
        Reply::Refused(refusal) => panic!("{refusal}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_group_is_who_said_last_that_it_is_of_it_whatever_went_before(
        events in prop::collection::vec(event(), 1..40),
    ) {
        let mut hall = Hall::new();
        // The groups that each robot named last, as long as it is not forgotten.
        let mut said: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
        let mut sent = 0;
        for event in events {
            match event {
                Event::Joins { robot, groups } => {
                    let chosen = (0..GROUPS.len()).filter(|at| (groups >> at) & 1 == 1);
                    let of: Vec<&str> = chosen.map(|at| GROUPS[at]).collect();
                    let at = u8::try_from(robot).unwrap() + 1;
                    hall.join(ROBOTS[robot], at, journal(at), &of);
                    said.insert(robot, of.into_iter().collect());
                }
                Event::Leaves { robot, removed } => {
                    leave(&mut hall, ROBOTS[robot]);
                    if removed && said.remove(&robot).is_some() {
                        hall.ok(AgentOp::Remove { agent: agent(ROBOTS[robot]) });
                    }
                }
                Event::Snapshot => hall.state = FleetState::from_snapshot(&hall.state.to_snapshot().unwrap()).unwrap(),
            }
            for name in GROUPS {
                sent += 1;
                let of = said.iter().filter(|(_, groups)| groups.contains(name));
                let expected: BTreeSet<String> = of.map(|(robot, _)| ROBOTS[*robot].to_owned()).collect();
                prop_assert_eq!(resolved(&mut hall, sent, group(name)), expected, "{}", name);
            }
            sent += 1;
            let expected: BTreeSet<String> = said.keys().map(|robot| ROBOTS[*robot].to_owned()).collect();
            prop_assert_eq!(resolved(&mut hall, sent, Target::All), expected);
        }
    }
}
