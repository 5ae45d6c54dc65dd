//! Pages of lists: bounded by bytes, whole in the end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use skep_protocol::command::*;
use skep_protocol::limits;
use support::hall::*;
use support::*;

#[test]
fn a_command_for_many_is_told_in_pages_that_are_whole_together() {
    // etcd-io/etcd#14809
    let robots: Vec<String> = (0..9).map(|n| format!("r{n}")).collect();
    let names: Vec<&str> = robots.iter().map(String::as_str).collect();
    let mut hall = Hall::with(&names);
    let command = hall.command(1, Target::Group("aisle".parse().unwrap()));
    hall.send(command);
    let whole = hall.state.command(&id(1)).unwrap();
    assert_eq!(whole.deliveries.len(), robots.len());
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let (view, next) = hall.state.command_page(&id(1), after.as_ref(), 2_100).unwrap();
        assert_eq!((view.agents, view.open), (whole.agents, whole.open), "every page tells of the whole command");
        assert!(!view.deliveries.is_empty() && view.deliveries.len() < robots.len());
        seen.extend(view.deliveries);
        (after, pages) = (next, pages + 1);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, whole.deliveries);
    assert!(pages > 2, "{pages}");
    let (one, next) = hall.state.command_page(&id(1), None, 1).unwrap();
    assert_eq!((one.deliveries.len(), next), (1, Some(agent("r0"))), "a page has one at least");
}

#[test]
fn the_answer_to_whoever_waits_for_an_end_takes_no_more_than_is_reckoned() {
    let robots: Vec<String> = (0..100).map(|n| format!("{n:0>64}")).collect();
    let names: Vec<&str> = robots.iter().map(String::as_str).collect();
    for result in [0, 400, limits::ARGS_BYTES_MAX] {
        let mut hall = Hall::with(&names);
        let args = vec![7; limits::ARGS_BYTES_MAX].into();
        let command = Command { args, ..hall.command(1, Target::Group("aisle".parse().unwrap())) };
        hall.send(command);
        for name in &names {
            let ended = hall.ended(name, 1, (1, 1), CommandOutcome::Succeeded { result: vec![7; result] });
            hall.ok(ended);
        }
        let soft_max = limits::COMMAND_END_BYTES_SOFT_MAX as u64;
        let (view, next) = hall.state.command_page(&id(1), None, soft_max).unwrap();
        assert!(view.open == 0 && next.is_some(), "{result}: there are more than fit");
        let bytes = postcard::to_stdvec(&view).unwrap().len();
        assert!(bytes + 1_024 <= limits::COMMAND_END_ANSWER_BYTES_MAX, "{result}: {bytes}");
    }
}

#[test]
fn operators_are_listed_from_after_any_of_them() {
    let mut hall = Hall::new();
    for n in 2..7 {
        hall.ok(state_grant(grant(n, 1), 1));
    }
    let all: Vec<_> = hall.state.operators().map(|grant| grant.operator).collect();
    assert!(all.len() == 6 && all.is_sorted());
    for (at, operator) in all.iter().enumerate() {
        let rest: Vec<_> = hall.state.operators_after(Some(*operator)).map(|grant| grant.operator).collect();
        assert_eq!(rest, all[at + 1..]);
    }
}
