//! What the shard is told of commands that go on.

use super::*;

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
    wait(&mut node, 5_000);
    assert_eq!(stands(&mut node), [], "nothing new, nothing told");
    assert_eq!(node.told(), [], "progress is not answered");
}

#[test]
fn what_the_shard_did_not_hear_it_is_told_again_and_not_at_once() {
    let mut node = begun();
    node.say(1, progress(500));
    wait(&mut node, 1_000);
    let (key, op) = node.requests.pop_front().expect("the shard is told");
    assert!(matches!(op, Op::ReportDelivery { .. }), "{op:?}");
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
fn no_more_reports_are_under_way_than_are_allowed() {
    let mut node = Node::open();
    let many = u8::try_from(limits::REPORTS_IN_FLIGHT_MAX + 3).unwrap();
    node.deliver((1..=many).map(|n| delivery(n.into(), command(n))).collect());
    wait(&mut node, 1_000);
    assert_eq!(node.requests.len(), limits::REPORTS_IN_FLIGHT_MAX);
    assert!(node.inboxes.poll_timeout().is_none_or(|at_ms| at_ms > node.now_ms), "there is nothing to do until then");
    assert_eq!(stands(&mut node).len(), usize::from(many), "the others follow");
}
