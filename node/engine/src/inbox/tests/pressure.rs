//! A journal whose disk is full: the node takes and begins nothing more but what is urgent, and ends what is here.

use skep_protocol::pressure::DiskPressure;

use super::*;

fn press(node: &mut Node, pressure: DiskPressure) {
    node.handle(InboxEvent::Pressure(pressure));
}

/// Room for as many urgent commands as ever, and for none that is routine.
fn only_urgent() -> PerClass<u32> {
    PerClass { routine: 0, urgent: limits::INBOX_URGENT_MAX as u32 }
}

/// Lets urgent commands use all that is set aside for them.
fn use_up(node: &mut Node) {
    node.inboxes.room.take(limits::JOURNAL_URGENT_BYTES_MAX);
}

#[test]
fn a_node_whose_journals_are_nearly_full_takes_no_more_routine_commands_and_ends_those_that_it_has() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1)), delivery(2, command(2))]);
    assert_eq!(node.told(), [(1, "offer")]);
    press(&mut node, DiskPressure::Low);
    // What the node asked for while there was room comes all the same.
    node.deliver(vec![delivery(3, command(3))]);
    assert_eq!(node.asked().room, only_urgent());
    node.start(1);
    node.sync();
    assert_eq!(node.told(), [(1, "go")]);
    node.say(1, CommandSaid::Succeeded { result: vec![] });
    node.sync();
    assert_eq!(node.told(), [(1, "succeeded"), (2, "offer")]);
    assert_eq!(node.reported(), [(1, "succeeded")]);
    assert_eq!(node.asked().room, only_urgent());
    press(&mut node, DiskPressure::None);
    let (routine, urgent) = (limits::INBOX_MAX as u32 - 2, limits::INBOX_URGENT_MAX as u32);
    let PullFor { room, seen, .. } = node.asked();
    assert_eq!((room, seen), (PerClass { routine, urgent }, 0), "what the shard kept is asked for");
}

#[test]
fn a_full_node_that_is_told_that_there_is_more_does_not_ask_again_and_again() {
    let mut node = Node::open();
    press(&mut node, DiskPressure::Low);
    node.pulled(10_000, vec![], vec![]);
    let (key, _) = node.pull.take().expect("the shard is asked");
    let more = PerClass { routine: true, urgent: false };
    let back = PerClass::default();
    let of =
        PulledFor { agent: agent(), home: HOME, open: true, deliveries: vec![], voids: vec![], seen: 7, more, back };
    let authority = AuthorityNews::default();
    let pulled = Pulled { clock: at(10_000), root: root(), agents: vec![of], authority };
    node.settle(key, Settled::Pulled(Box::new(pulled)));
    assert_eq!(node.asked().seen, 7);
}

#[test]
fn nothing_is_begun_while_there_is_room_for_ends_only_and_it_is_once_there_is_more() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    assert_eq!(node.told(), [(1, "offer")]);
    press(&mut node, DiskPressure::Exhausted);
    node.start(1);
    assert_eq!(node.told(), [(1, "ignored")], "it may ask again");
    assert!(node.writes.is_empty(), "no intent takes the room of an end");
    press(&mut node, DiskPressure::Low);
    node.start(1);
    node.sync();
    assert_eq!(node.told(), [(1, "go")]);
}

#[test]
fn what_ends_and_what_is_not_to_be_started_is_written_down_however_full_the_disk_is() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1)), delivery(2, command(2)), delivery(3, command(3))]);
    node.start(1);
    node.sync();
    assert_eq!(node.told(), [(1, "offer"), (1, "go")]);
    press(&mut node, DiskPressure::Exhausted);
    node.pulled(10_000, vec![], vec![(2, VoidCause::Cancelled)]);
    node.sync();
    assert_eq!(node.told(), [(2, "void"), (2, "cancelled")]);
    node.say(1, CommandSaid::Failed { reason: Reason::truncated("blocked") });
    node.sync();
    assert_eq!(node.told(), [(1, "failed"), (3, "offer")]);
    node.say(3, CommandSaid::Reject { reason: Reason::truncated("no") });
    node.sync();
    assert_eq!(node.told(), [(3, "rejected")]);
    assert_eq!(node.reported().len(), 3);
    assert!(node.durable.is_empty(), "and is let go of");
}

#[test]
fn commands_that_are_on_their_way_when_the_last_room_goes_stay_with_the_shard() {
    let mut node = Node::open();
    press(&mut node, DiskPressure::Exhausted);
    let void = |n: u8| Delivery { void: Some(VoidCause::Cancelled), ..delivery(n.into(), command(n)) };
    node.deliver(vec![delivery(1, command(1)), void(2)]);
    assert_eq!((node.told(), node.reported()), (vec![], vec![]), "nor is what comes behind one had before it");
    assert_eq!(node.asked().after.routine, 0);
    // A command that no software may start any more comes, and ends.
    node.deliver(vec![void(1)]);
    assert_eq!(node.told(), [(1, "cancelled")]);
    assert_eq!(node.reported(), [(1, "cancelled")]);
    press(&mut node, DiskPressure::None);
    node.deliver(vec![delivery(2, command(2))]);
    assert_eq!(node.told(), [(2, "offer")]);
}

#[test]
fn a_journal_is_made_once_there_is_room_for_it() {
    let mut node = Node::new();
    press(&mut node, DiskPressure::Exhausted);
    use_up(&mut node);
    node.handle(InboxEvent::Takes(taker(STREAM, 1)));
    assert!(node.requests.is_empty());
    node.start(1);
    assert_eq!(node.told(), [(1, "ignored"), (1, "ignored")], "it may say so again");
    press(&mut node, DiskPressure::Low);
    assert!(matches!(node.requests.pop_front(), Some((_, Op::Command(CommandOp::OpenInbox { .. })))));
}

#[test]
fn a_journal_is_of_no_use_once_it_is_empty_and_its_software_is_gone() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    node.handle(InboxEvent::Gone { stream: STREAM });
    assert_eq!(node.released, 0, "how it ends is to be reported");
    node.now_ms += 10_000;
    node.inboxes.handle_timeout(node.now_ms);
    node.drain();
    node.sync();
    assert_eq!(node.reported(), [(1, "expired")]);
    assert_eq!(node.released, 1);
}

#[test]
fn an_urgent_command_is_asked_for_begun_and_ended_however_full_the_disk_is() {
    for pressure in [DiskPressure::Low, DiskPressure::Exhausted] {
        let mut node = Node::open();
        node.deliver(vec![delivery(1, command(1))]);
        press(&mut node, pressure);
        // The pull that was under way asked for both classes.
        node.pulled(10_000, vec![], vec![]);
        assert_eq!(node.asked().room, only_urgent(), "{pressure:?}");
        node.deliver(vec![delivery(1, urgent(2))]);
        assert_eq!(node.told(), [(1, "offer"), (2, "offer")], "{pressure:?}");
        node.start(2);
        assert_eq!(node.told(), [], "no go before the intent is durable");
        node.sync();
        assert_eq!(node.told(), [(2, "go")], "{pressure:?}");
        node.say(2, CommandSaid::Succeeded { result: vec![] });
        node.sync();
        assert_eq!(node.told(), [(2, "succeeded")]);
        assert_eq!(node.reported(), [(2, "succeeded")]);
        assert_eq!(node.asked().after.urgent, 1);
    }
}

#[test]
fn an_agent_that_comes_while_the_disk_is_full_gets_urgent_commands() {
    let mut node = Node::new();
    press(&mut node, DiskPressure::Exhausted);
    node.take(STREAM, 1);
    assert_eq!(node.asked().room, only_urgent());
    node.deliver(vec![delivery(1, command(1)), delivery(1, urgent(2))]);
    assert_eq!(node.told(), [(2, "offer")]);
    assert_eq!(node.asked().after, PerClass { routine: 0, urgent: 1 });
}

#[test]
fn an_urgent_command_for_which_no_room_is_set_aside_any_more_stays_with_the_shard_until_there_is_some() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, urgent(1))]);
    press(&mut node, DiskPressure::Exhausted);
    use_up(&mut node);
    assert!(!node.inboxes.takes_urgent());
    // One command that was on its way, and one that is here.
    let (key, _) = node.pull.take().expect("the shard is asked");
    let more = PerClass { routine: false, urgent: true };
    let deliveries = vec![delivery(2, urgent(2))];
    let back = PerClass::default();
    let of = PulledFor { agent: agent(), home: HOME, open: true, deliveries, voids: vec![], seen: 7, more, back };
    let authority = AuthorityNews::default();
    let pulled = Pulled { clock: at(10_000), root: root(), agents: vec![of], authority };
    node.settle(key, Settled::Pulled(Box::new(pulled)));
    node.start(1);
    node.sync();
    assert_eq!(node.told(), [(1, "offer"), (1, "ignored")], "it may ask again");
    let PullFor { after, room, seen, .. } = node.asked();
    assert_eq!((after.urgent, room, seen), (1, PerClass::default(), 7), "nor is it asked for again and again");
    press(&mut node, DiskPressure::Low);
    assert_eq!((node.asked().room.urgent, node.asked().seen), (limits::INBOX_URGENT_MAX as u32 - 1, 0));
    node.deliver(vec![delivery(2, urgent(2))]);
    node.start(1);
    node.sync();
    assert_eq!(node.told(), [(1, "go")]);
}

#[test]
fn urgent_commands_take_no_more_of_what_is_set_aside_than_their_share_and_have_it_anew_after_there_was_room() {
    let mut node = Node::open();
    press(&mut node, DiskPressure::Exhausted);
    let large = |n: u8| Command { args: vec![n; limits::ARGS_BYTES_MAX].into(), ..urgent(n) };
    let mut taken = 0;
    for n in 1..=200 {
        node.deliver(vec![delivery(n.into(), large(n))]);
        if node.asked().after.urgent < u64::from(n) {
            break;
        }
        taken += limits::ARGS_BYTES_MAX;
        node.say(n, CommandSaid::Reject { reason: Reason::truncated("no") });
        node.sync();
        assert_eq!(node.reported(), [(n, "rejected")]);
    }
    let share = limits::JOURNAL_URGENT_BYTES_MAX;
    assert!(taken > share / 2 && taken <= share, "{taken} of {share} bytes");
    press(&mut node, DiskPressure::Low);
    press(&mut node, DiskPressure::Exhausted);
    assert!(node.inboxes.takes_urgent());
}
