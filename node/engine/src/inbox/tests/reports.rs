//! What the shard is told of commands that go on.

use super::*;
use crate::inbox::one::{LOST_AFTER_MS, LOST_PAST_DEADLINE_MS};

fn progress(permille: u16) -> CommandSaid {
    CommandSaid::Progress { permille, note: Reason::truncated("on the way") }
}

/// So far it had come by each report, in thousandths, and whether it was said to be started.
fn stands(node: &mut Node) -> Vec<(Option<u16>, bool)> {
    assert_eq!(node.reported(), []);
    let stand = |report: DeliveryReport| {
        (report.progress.as_ref().map(|progress| progress.permille), report.steps.started.is_some())
    };
    std::mem::take(&mut node.stands).into_iter().map(stand).collect()
}

/// Time passes, and the node does what is due.
fn wait(node: &mut Node, ms: u64) {
    node.now_ms += ms;
    node.inboxes.handle_timeout(node.now_ms);
    node.drain();
    node.sync();
}

/// A command that its agent has begun.
fn begun() -> Node {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    node.start(1);
    node.sync();
    node.told();
    node
}

#[test]
fn the_shard_is_told_of_a_command_that_goes_on_once_a_second_and_what_was_said_last() {
    let mut node = begun();
    for permille in [100, 200] {
        node.say(1, progress(permille));
    }
    assert_eq!(stands(&mut node), [], "most commands end within a second, and are told of then");
    let at_ms = node.inboxes.poll_timeout().expect("something is due");
    assert_eq!(at_ms, node.now_ms + 1_000);
    wait(&mut node, 1_000);
    assert_eq!(stands(&mut node), [(Some(200), true)]);
    node.say(1, progress(300));
    assert_eq!(stands(&mut node), []);
    wait(&mut node, 1_000);
    assert_eq!(stands(&mut node), [(Some(300), true)]);
    node.say(1, progress(300));
    wait(&mut node, limits::DELIVERY_ALIVE_EVERY_MS - 1);
    assert_eq!(stands(&mut node), [], "nothing new, nothing told");
    wait(&mut node, 1);
    assert_eq!(stands(&mut node), [(Some(300), true)], "it is still under way");
    assert_eq!(node.told(), [], "progress is not answered");
}

#[test]
fn what_the_shard_did_not_hear_it_is_told_again_and_not_at_once() {
    let mut node = begun();
    node.say(1, progress(500));
    wait(&mut node, 1_000);
    let (key, op) = node.requests.pop_front().expect("the shard is told");
    assert!(matches!(op, Op::Command(CommandOp::Report { .. })), "{op:?}");
    node.say(1, progress(600));
    wait(&mut node, 1_000);
    assert_eq!(node.requests, [], "one report at a time");
    assert!(node.inboxes.poll_timeout().is_none_or(|at_ms| at_ms > node.now_ms), "there is nothing to do until then");
    node.settle(key, Settled::Unknown);
    assert_eq!(node.requests, []);
    wait(&mut node, 1_000);
    assert_eq!(stands(&mut node), [(Some(600), true)]);
}

#[test]
fn nothing_is_told_of_what_has_ended_and_nothing_believed_of_what_was_not_started() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    node.told();
    node.say(1, progress(100));
    wait(&mut node, 1_000);
    assert_eq!(stands(&mut node), [(None, false)], "it is here, and waits for its agent");
    node.start(1);
    node.sync();
    node.say(1, progress(900));
    node.say(1, CommandSaid::Failed { reason: Reason::truncated("stuck") });
    node.sync();
    node.say(1, progress(1_000));
    wait(&mut node, 1_000);
    assert_eq!((node.reported(), std::mem::take(&mut node.stands)), (vec![(1, "failed")], vec![]));
    assert_eq!(node.told(), [(1, "go"), (1, "failed")]);
}

#[test]
fn what_begins_after_a_long_wait_and_ends_soon_is_told_of_with_its_outcome_only() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    wait(&mut node, 5_000);
    assert_eq!(stands(&mut node), [(None, false)]);
    node.start(1);
    node.sync();
    wait(&mut node, 999);
    assert_eq!(stands(&mut node), []);
    node.say(1, CommandSaid::Succeeded { result: Vec::new() });
    node.sync();
    assert_eq!((node.reported(), std::mem::take(&mut node.stands)), (vec![(1, "succeeded")], vec![]));
}

#[test]
fn nothing_is_said_to_be_under_way_whose_software_is_gone_or_whose_end_nobody_waits_for() {
    for gone in [true, false] {
        let mut node = begun();
        node.say(1, progress(100));
        node.open = gone;
        wait(&mut node, 1_000);
        assert_eq!(stands(&mut node), [(Some(100), true)]);
        if gone {
            node.handle(InboxEvent::Gone { stream: STREAM });
        } else {
            node.say(1, progress(200));
        }
        for _ in 0..10 {
            wait(&mut node, limits::DELIVERY_ALIVE_EVERY_MS);
            assert_eq!(stands(&mut node), []);
        }
    }
}

#[test]
fn what_was_begun_is_let_go_of_a_day_after_its_software_has_gone_once_the_shard_waits_for_it_no_more() {
    let mut node = begun();
    wait(&mut node, 1_000);
    assert_eq!(stands(&mut node), [(None, true)]);
    node.handle(InboxEvent::Gone { stream: STREAM });
    wait(&mut node, limits::DELIVERY_ALIVE_EVERY_MS);
    stands(&mut node);
    for open in [true, false] {
        node.open = open;
        assert_eq!((node.durable.len(), node.released), (1, 0), "its software may come back");
        wait(&mut node, LOST_AFTER_MS);
        assert_eq!(stands(&mut node), [(None, true)]);
    }
    assert_eq!((node.durable.len(), node.released), (0, 1));
}

#[test]
fn what_was_not_begun_is_let_go_of_too_by_a_node_that_does_not_know_the_time() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    start_without_software(&mut node);
    node.open = false;
    wait(&mut node, 1_000);
    assert_eq!(stands(&mut node), [(None, false)]);
    assert_eq!((node.durable.len(), node.released), (1, 0));
    wait(&mut node, LOST_AFTER_MS);
    assert_eq!(stands(&mut node), [(None, false)]);
    assert_eq!((node.durable.len(), node.released), (0, 1));
}

/// The node is started again, and its agent's software does not come back.
fn start_without_software(node: &mut Node) {
    node.crash();
    let journal = node.journal();
    node.handle(InboxEvent::Journal(JournalReport::Opened {
        shard: SHARD,
        agent: agent(),
        journal: Box::new(journal),
    }));
}

#[test]
fn a_node_that_is_switched_off_each_night_lets_go_of_what_the_shard_says_is_a_week_past_its_deadline() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
    let mut node = begun();
    node.open = false;
    let deadline = at(20_000);
    for day in 1..=7 {
        start_without_software(&mut node);
        node.clock = deadline.plus_ms(day * DAY_MS - 1);
        wait(&mut node, 1_000);
        assert_eq!(stands(&mut node), [(None, true)], "day {day}");
        assert_eq!((node.durable.len(), node.released), (1, 0), "day {day}");
        wait(&mut node, LOST_AFTER_MS / 3);
        assert_eq!(stands(&mut node), []);
    }
    start_without_software(&mut node);
    node.clock = deadline.plus_ms(LOST_PAST_DEADLINE_MS);
    wait(&mut node, 1_000);
    assert_eq!(stands(&mut node), [(None, true)]);
    assert_eq!((node.durable.len(), node.released), (0, 1));
}

#[test]
fn how_long_a_deadline_has_passed_is_counted_from_the_start_of_an_era_that_is_later() {
    let mut node = begun();
    node.open = false;
    for (clock, kept) in [(LOST_PAST_DEADLINE_MS - 1, 1), (LOST_PAST_DEADLINE_MS, 0)] {
        start_without_software(&mut node);
        node.clock = at(20_000).next_era().plus_ms(clock);
        wait(&mut node, 1_000);
        assert_eq!(stands(&mut node), [(None, true)]);
        assert_eq!(node.durable.len(), kept);
    }
}

#[test]
fn what_the_shard_holds_open_or_software_may_end_is_kept_however_late_it_is() {
    for open in [true, false] {
        let mut node = begun();
        (node.open, node.clock) = (open, at(20_000).plus_ms(2 * LOST_PAST_DEADLINE_MS));
        if open {
            start_without_software(&mut node);
        }
        wait(&mut node, 1_000);
        assert_eq!(stands(&mut node), [(None, true)]);
        assert_eq!(node.durable.len(), 1);
    }
}

#[test]
fn what_the_shard_has_forgotten_is_let_go_of_as_soon_as_no_software_is_there() {
    for gone in [false, true] {
        let mut node = begun();
        if gone {
            start_without_software(&mut node);
        }
        wait(&mut node, 1_000);
        let (key, op) = node.requests.pop_front().expect("the shard is told");
        assert!(matches!(op, Op::Command(CommandOp::Report { .. })), "{op:?}");
        node.settle(key, Settled::NotDone(NotDone::Refused(Refusal::Command(CommandRefusal::NoSuchCommand(id(1))))));
        node.sync();
        assert_eq!(node.durable.len(), usize::from(!gone));
    }
}

#[test]
fn software_that_says_too_late_how_it_ended_is_told_that_nobody_hears_it() {
    let mut node = begun();
    (node.open, node.clock) = (false, at(20_000).plus_ms(LOST_PAST_DEADLINE_MS));
    start_without_software(&mut node);
    wait(&mut node, 1_000);
    stands(&mut node);
    assert_eq!(node.durable.len(), 0);
    // The same run of it is back.
    node.take(STREAM, 1);
    node.say(1, CommandSaid::Start { stamp: 99 });
    assert_eq!(node.told(), [(1, "ignored")], "what was not begun may be delivered again");
    node.say(1, CommandSaid::Succeeded { result: Vec::new() });
    node.say(1, CommandSaid::Failed { reason: Reason::truncated("stuck") });
    assert_eq!(node.told(), [(1, "unknown"), (1, "unknown")]);
    assert_eq!(node.reported(), []);
}

#[test]
fn software_that_comes_back_within_a_day_says_how_it_ended_though_the_shard_waits_for_it_no_more() {
    let mut node = begun();
    node.open = false;
    wait(&mut node, 1_000);
    stands(&mut node);
    node.handle(InboxEvent::Gone { stream: STREAM });
    wait(&mut node, LOST_AFTER_MS - 1);
    stands(&mut node);
    node.take(STREAM, 1);
    wait(&mut node, LOST_AFTER_MS);
    stands(&mut node);
    node.say(1, CommandSaid::Succeeded { result: Vec::new() });
    node.sync();
    assert_eq!(node.reported(), [(1, "succeeded")]);
}

/// A node whose journals hold more than may be told of at a time, all of it received a while ago.
fn crowded() -> (Inboxes, usize) {
    let mut inboxes = Inboxes::new(site(), CONFIG);
    let agents = limits::REPORTS_IN_FLIGHT_MAX / limits::INBOX_MAX + 1;
    for of in 0..agents {
        let agent: AgentId = format!("r{of}").parse().unwrap();
        let entry = |n| JournalEntry {
            seq: DeliverySeq { home: HOME, class: CommandClass::Routine, n },
            command: Arc::new(command(1).sign(&operator()).unwrap()),
            steps: Steps { received: Some(at(5)), ..Steps::default() },
            phase: JournalPhase::Received,
            begun_before: false,
        };
        let entries = (1..=limits::INBOX_MAX as u64).map(entry).collect();
        let journal = JournalState::new(JournalHead::new(JournalId::from_bytes([9; 16])), entries);
        inboxes
            .handle(InboxEvent::Journal(JournalReport::Opened { shard: SHARD, agent, journal: Box::new(journal) }), 0);
        check_dues(&inboxes, 0);
    }
    (inboxes, agents * limits::INBOX_MAX)
}

#[test]
fn no_more_reports_are_under_way_than_are_allowed_and_the_others_follow() {
    let (mut inboxes, all) = crowded();
    let (mut under_way, mut told, now_ms) = (VecDeque::new(), 0, 1_000);
    while told < all {
        inboxes.handle_timeout(now_ms);
        while let Some(want) = inboxes.poll_want() {
            if let InboxWant::Ask(ask) = want {
                under_way.push_back(ask.purpose);
            }
        }
        check_dues(&inboxes, now_ms);
        assert!(under_way.len() <= limits::REPORTS_IN_FLIGHT_MAX);
        assert!(told > 0 || under_way.len() == limits::REPORTS_IN_FLIGHT_MAX);
        let first = under_way.pop_front().expect("something is under way until all is told");
        let receipt = Receipt::DeliveryReported { command: id(1), open: true };
        inboxes.answered(first, Settled::Done { index: 1, stamp: at(1), receipt }, now_ms);
        told += 1;
    }
    assert_eq!(inboxes.poll_timeout(), Some(now_ms + LOST_AFTER_MS), "nothing of it is under way at an agent");
}
