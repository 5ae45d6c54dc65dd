//! Classes of commands: an urgent command waits for no routine one.

use super::*;

/// The leader answers, and says of which classes there is more.
fn answer(
    node: &mut Node,
    deliveries: Vec<Delivery>,
    voids: Vec<(CommandClass, u64, VoidCause)>,
    more: PerClass<bool>,
) {
    let (key, _) = node.pull.take().expect("the shard is asked");
    let back = PerClass::default();
    let agents = vec![PulledFor { agent: agent(), home: HOME, open: true, deliveries, voids, seen: 5, more, back }];
    let (root, authority) = (root(), AuthorityNews::default());
    node.settle(key, Settled::Pulled(Box::new(Pulled { clock: at(10_000), root, agents, authority })));
    node.sync();
}

/// A node that has as many routine commands as it takes, none of them begun.
fn full() -> Node {
    let mut node = Node::open();
    let routine = (1..=limits::INBOX_MAX as u8).map(|n| delivery(n.into(), command(n))).collect();
    node.deliver(routine);
    assert_eq!(node.told(), [(1, "offer")]);
    node
}

#[test]
fn an_urgent_command_behind_more_routine_ones_than_there_is_room_for_is_offered_at_once() {
    let mut node = full();
    let room = PerClass { routine: 0, urgent: limits::INBOX_URGENT_MAX as u32 };
    assert_eq!(node.asked().room, room, "routine ones take no room of urgent ones");
    let more = PerClass { routine: true, urgent: false };
    answer(&mut node, vec![delivery(1, urgent(200))], vec![], more);
    assert_eq!(node.told(), [(200, "offer")], "whatever routine one has its turn");
    let PullFor { after, room, seen, .. } = node.asked();
    assert_eq!(after, PerClass { routine: limits::INBOX_MAX as u64, urgent: 1 });
    assert_eq!((room.routine, room.urgent), (0, limits::INBOX_URGENT_MAX as u32 - 1));
    assert_eq!(seen, 5, "what there is no room for is not asked for again and again");
}

#[test]
fn each_class_is_asked_for_again_once_there_is_room_in_it() {
    let mut node = full();
    let urgents = (1..=limits::INBOX_URGENT_MAX as u8).map(|n| delivery(n.into(), urgent(100 + n))).collect();
    answer(&mut node, urgents, vec![], PerClass { routine: true, urgent: true });
    assert_eq!((node.asked().room, node.asked().seen), (PerClass::default(), 0), "some came, there may be more");
    answer(&mut node, vec![], vec![], PerClass { routine: true, urgent: true });
    assert_eq!(node.asked().seen, 5);
    node.say(101, CommandSaid::Reject { reason: Reason::truncated("no") });
    assert_eq!((node.asked().room, node.asked().seen), (PerClass { routine: 0, urgent: 1 }, 0));
}

#[test]
fn the_same_place_of_two_classes_is_that_of_two_commands() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, urgent(2)), delivery(1, command(1))]);
    assert_eq!(node.told().len(), 2);
    assert_eq!(node.durable.len(), 2);
    answer(&mut node, vec![], vec![(CommandClass::Urgent, 1, VoidCause::Cancelled)], PerClass::default());
    assert_eq!(node.told(), [(2, "void"), (2, "cancelled")]);
    assert_eq!(node.reported(), [(2, "cancelled")]);
    // After a crash each sequence goes on where it stood.
    node.crash();
    node.take(STREAM, 2);
    node.deliver(vec![delivery(1, urgent(2)), delivery(1, command(1)), delivery(2, urgent(3))]);
    assert_eq!(node.told(), [(1, "offer"), (3, "offer")]);
}
