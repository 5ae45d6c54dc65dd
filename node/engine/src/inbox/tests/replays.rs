//! A leader that lies: it delivers again what is over, and names clocks of its own.

use super::*;

/// A node whose agent has done a command, which the shard knows.
fn done() -> Node {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    node.start(1);
    node.sync();
    node.say(1, CommandSaid::Succeeded { result: Vec::new() });
    node.sync();
    assert_eq!(node.reported(), [(1, "succeeded")]);
    assert_eq!(node.durable.len(), 0);
    node.told();
    node
}

#[test]
fn a_command_that_was_begun_is_not_begun_again_whoever_delivers_it() {
    for restarts in [false, true] {
        let mut node = done();
        if restarts {
            node.crash();
            node.take(STREAM, 1);
            // Earlier than the shard's clock was when the operator signed the command.
            node.pulled(5, vec![], vec![]);
        }
        node.pulled(10_000, vec![delivery(2, command(1))], vec![]);
        node.sync();
        node.start(1);
        node.sync();
        let told = node.told();
        assert!(!told.iter().any(|(_, told)| matches!(*told, "offer" | "go")), "{restarts}: {told:?}");
        assert_eq!(node.reported(), [(1, "indeterminate")], "{restarts}: the robot may have done it");
    }
}

#[test]
fn of_two_deliveries_of_one_command_the_second_is_not_begun() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1)), delivery(2, command(1))]);
    node.start(1);
    node.sync();
    node.say(1, CommandSaid::Succeeded { result: Vec::new() });
    node.sync();
    assert_eq!(node.reported(), [(1, "succeeded")]);
    node.told();
    node.start(1);
    node.sync();
    assert_eq!(node.told(), [(1, "indeterminate")]);
    assert_eq!(node.reported(), [(1, "indeterminate")]);
}

#[test]
fn what_was_delivered_under_a_place_that_there_is_not_keeps_no_honest_delivery_away() {
    let mut node = done();
    let nowhere = Delivery { void: Some(VoidCause::Cancelled), ..delivery(u64::MAX, command(9)) };
    node.deliver(vec![nowhere]);
    assert_eq!(node.reported(), [(9, "cancelled")]);
    node.told();
    node.crash();
    node.take(STREAM, 1);
    node.pulled(10_000, vec![], vec![]);
    assert_eq!(node.asked().after.routine, u64::MAX);
    // A later leader has the second command under that number.
    node.back = PerClass { routine: Some(1), urgent: None };
    node.deliver(vec![delivery(2, command(2))]);
    assert_eq!((node.told(), node.head.cursor.routine), (vec![(2, "offer")], 2));
    node.deliver(vec![delivery(3, command(3))]);
    assert_eq!((node.durable.len(), node.asked().after.routine), (2, 3));
}

#[test]
fn an_answer_that_goes_back_brings_nothing_again_that_has_ended_meanwhile() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    node.say(1, CommandSaid::Reject { reason: Reason::truncated("not now") });
    node.sync();
    assert_eq!(node.reported(), [(1, "rejected")]);
    node.told();
    // The node asked the shard before that.
    node.back = PerClass { routine: Some(0), urgent: None };
    node.deliver(vec![delivery(1, command(1))]);
    assert_eq!((node.told(), node.reported()), (vec![], vec![]));
}

#[test]
fn a_clock_that_is_turned_back_makes_no_deadline_later() {
    let mut node = Node::open();
    node.now_ms += 20_000;
    node.pulled(30_000, vec![], vec![]);
    node.now_ms += 1_000;
    node.pulled(5_000, vec![delivery(1, command(1))], vec![]);
    node.pulled(5_000, vec![delivery(2, command(2))], vec![]);
    node.sync();
    assert_eq!(node.reported(), [(1, "expired"), (2, "expired")], "their deadline was at 20 s");
}

#[test]
fn a_clock_that_is_turned_back_in_a_new_era_makes_no_deadline_later_either() {
    let mut node = Node::open();
    let era = at(0).next_era();
    node.now_ms += 20_000;
    node.pulled(era.plus_ms(30_000).raw(), vec![], vec![]);
    node.now_ms += 1_000;
    let late = Command { deadline: era.plus_ms(20_000), ..command(1) };
    node.pulled(era.plus_ms(5_000).raw(), vec![delivery(1, late)], vec![]);
    node.sync();
    assert_eq!(node.reported(), [(1, "expired")]);
}

#[test]
fn what_the_journal_of_another_agent_has_of_the_clock_makes_what_came_before_it_expire() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    let head = JournalHead::new(JournalId::from_bytes([8; 16]));
    let journal = JournalState { clock_floor: at(30_000), ..JournalState::new(head, vec![]) };
    node.handle(InboxEvent::Journal(JournalReport::Opened {
        shard: SHARD,
        agent: "robot-8".parse().unwrap(),
        journal: Box::new(journal),
    }));
    node.start(1);
    node.sync();
    assert_eq!(node.reported(), [(1, "expired")], "its deadline was at 20 s");
}

/// Time passes, and the node asks the shard every ten seconds. The shard's clock is `ahead_ms` ahead of the node's.
fn wait(node: &mut Node, ms: u64, ahead_ms: u64) {
    for _ in 0..ms / 10_000 {
        node.now_ms += 10_000;
        node.inboxes.handle_timeout(node.now_ms);
        node.drain();
        node.pulled(node.now_ms + ahead_ms, vec![], vec![]);
        node.sync();
    }
}

#[test]
fn a_name_is_kept_until_the_clock_has_surely_passed_its_deadline_and_the_floor_outlives_a_restart() {
    let mut node = done();
    assert_eq!(node.begun.values().collect::<Vec<_>>(), [&at(20_000)]);
    // The shard's clock stood at 10 s when the node's own was at 1 s.
    wait(&mut node, 150_000, 9_000);
    assert_eq!(node.begun.len(), 0);
    assert!(node.clock_floor >= at(60_000) && node.clock_floor <= at(node.now_ms + 9_000), "{}", node.clock_floor);
    node.crash();
    node.take(STREAM, 1);
    node.pulled(5, vec![delivery(2, command(1)), delivery(3, command(3))], vec![]);
    node.sync();
    assert_eq!(node.reported(), [(1, "expired"), (3, "expired")], "whether it was begun before or not");
}

#[test]
fn one_answer_from_far_ahead_leaves_nothing_in_the_journal() {
    let mut node = done();
    node.pulled(1 << 39, vec![], vec![]);
    node.sync();
    wait(&mut node, 150_000, 9_000);
    assert!(node.clock_floor <= at(node.now_ms + 9_000), "{}", node.clock_floor);
}

#[test]
fn nothing_more_is_begun_while_no_name_can_be_kept_but_urgent_commands() {
    let mut node = Node::new();
    let many = (0..limits::BEGUN_KEPT_MAX as u64).map(|n| {
        let mut bytes = [0xff; 16];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        (CommandId::from_bytes(bytes), at(1 << 30))
    });
    node.begun = many.collect();
    node.take(STREAM, 1);
    node.pulled(10_000, vec![delivery(1, command(1)), delivery(1, urgent(2))], vec![]);
    node.sync();
    node.told();
    for n in [1, 2] {
        node.start(n);
    }
    node.sync();
    assert_eq!(node.told(), [(1, "ignored"), (2, "go")]);
    // Two of the commands are over. The urgent one is under way, and its id will need a place.
    node.crash();
    node.begun.pop_first();
    node.begun.pop_first();
    node.take(STREAM, 1);
    node.pulled(10_000, vec![], vec![]);
    node.told();
    node.start(1);
    node.sync();
    assert_eq!(node.told(), [(1, "go")]);
}
