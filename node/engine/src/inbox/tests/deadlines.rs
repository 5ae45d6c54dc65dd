//! Deadlines, and what the node says of commands that may have begun.

use super::*;

#[test]
fn nothing_is_started_after_its_deadline_however_long_the_node_slept() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1)), delivery(2, command(2))]);
    node.told();
    // The clock was at 10 s when the node asked; the node has heard nothing since.
    node.now_ms += 10_000;
    node.start(1);
    node.sync();
    assert_eq!(node.told(), [(1, "void"), (1, "expired"), (2, "offer")]);
    node.inboxes.handle_timeout(node.now_ms);
    node.drain();
    node.sync();
    assert_eq!(node.told(), [(2, "void"), (2, "expired")]);
    assert_eq!(node.reported(), [(1, "expired"), (2, "expired")]);
}

#[test]
fn nobody_is_told_how_long_it_is_until_an_era_that_the_clock_has_not_reached() {
    let mut node = Node::open();
    let of_next_era = Command { deadline: at(20_000).next_era(), ..command(1) };
    node.deliver(vec![delivery(1, of_next_era)]);
    assert_eq!(node.told(), [(1, "offer")]);
    node.start(1);
    node.sync();
    assert_eq!(node.told(), [(1, "ignored")]);
}

#[test]
fn an_answer_that_was_long_under_way_makes_no_deadline_later() {
    // The first answer of the shard, which no earlier knowledge makes any better.
    let mut node = Node { lease: Some(LEASE), ..Node::new() };
    node.take(STREAM, 1);
    // The node asked at 10 s of the shard's clock, and heard 11 s later.
    node.now_ms += 11_000;
    node.deliver(vec![delivery(1, command(1))]);
    assert_eq!(node.reported(), [(1, "expired")]);
}

#[test]
fn the_last_look_is_after_the_intent_is_durable() {
    // Late by then, or called off.
    for late in [true, false] {
        let mut node = Node::open();
        node.deliver(vec![delivery(1, command(1))]);
        node.told();
        node.start(1);
        if late {
            node.now_ms += 10_000;
        } else {
            node.pulled(10_000, vec![], vec![(1, VoidCause::Cancelled)]);
        }
        assert!(node.sync_one());
        let ended = if late { "expired" } else { "cancelled" };
        assert_eq!(node.told(), [], "its end is not written down yet");
        node.sync();
        assert_eq!(node.told(), [(1, ended)]);
        assert_eq!(node.reported(), [(1, ended)]);
    }
}

#[test]
fn a_node_that_dies_before_an_end_is_durable_leaves_no_command_open_for_ever() {
    // Late by then, or called off while the intent is on its way to the disk.
    for late in [true, false] {
        let mut node = Node::open();
        node.deliver(vec![delivery(1, command(1))]);
        node.told();
        node.start(1);
        if late {
            node.now_ms += 10_000;
        } else {
            node.pulled(10_000, vec![], vec![(1, VoidCause::Cancelled)]);
        }
        // The intent is on the disk, and the end is not: it dies with the node.
        assert!(node.sync_one());
        let forgets = node.told().contains(&(1, "void"));
        node.crash();
        node.take(STREAM, 1);
        node.pulled(10_000, vec![], vec![]);
        // Software that was told nothing asks again, and ends a command that it is told is too late. It does not speak
        // of a command that it was told to forget.
        if !forgets {
            node.say(1, CommandSaid::Start { stamp: 77 });
            assert_eq!(node.told(), [(1, "go")]);
            node.say(1, CommandSaid::Failed { reason: Reason::truncated("too late") });
        }
        node.sync();
        assert_eq!(node.reported(), [(1, "failed")]);
        node.deliver(vec![delivery(2, command(2))]);
        assert!(node.told().contains(&(2, "offer")), "its class goes on");
    }
}

#[test]
fn the_time_to_go_counts_from_the_softwares_own_stamp() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    node.now_ms += 4_000;
    node.start(1);
    node.now_ms += 1_000;
    node.sync();
    let go = node.told.iter().find_map(|(_, told)| match told {
        CommandTold::Go { stamp, within_ms, .. } => Some((*stamp, *within_ms)),
        _ => None,
    });
    // Ten seconds from when the node asked the leader, less four seconds and a thousandth of them.
    assert_eq!(go, Some((77, 5_996)));
}

#[test]
fn a_question_that_crosses_its_answer_gets_the_same_answer_and_nothing_that_may_have_begun_expires() {
    let go = |node: &Node| match node.told.last() {
        Some((_, CommandTold::Go { stamp, within_ms, .. })) => (*stamp, *within_ms),
        other => panic!("{other:?}"),
    };
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    node.start(1);
    node.sync();
    let first = go(&node);
    // The command is late, and called off: it may be under way.
    node.now_ms += 20_000;
    node.pulled(30_000, vec![], vec![(1, VoidCause::Expired)]);
    node.say(1, CommandSaid::Start { stamp: 99 });
    node.sync();
    assert_eq!(go(&node), first);
    assert_eq!(node.reported(), []);
    // After a crash of the node the word is lost: the node tells the software that no time is left.
    node.crash();
    node.take(STREAM, 1);
    node.pulled(30_000, vec![], vec![]);
    node.say(1, CommandSaid::Start { stamp: 99 });
    node.sync();
    assert_eq!(go(&node), (99, 0));
    node.say(1, CommandSaid::Failed { reason: Reason::truncated("too late") });
    node.sync();
    assert_eq!(node.reported(), [(1, "failed")]);
}

#[test]
fn what_an_earlier_run_may_have_begun_and_may_be_done_again_is_in_doubt_if_it_is_not() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, Command { idempotent: true, ..command(1) })]);
    node.start(1);
    node.sync();
    node.take(StreamKey(2), 2);
    node.pulled(30_000, vec![], vec![]);
    node.now_ms += 20_000;
    node.inboxes.handle_timeout(node.now_ms);
    node.drain();
    node.sync();
    assert_eq!(node.reported(), [(1, "indeterminate")]);
}
