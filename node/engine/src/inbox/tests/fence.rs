//! Software whose lease is over starts nothing.

use skep_protocol::offer::GoToken;

use super::*;

/// The word to go that the node gave last.
fn go(node: &Node) -> (u64, u64, GoToken) {
    match node.told.last() {
        Some((_, CommandTold::Go { stamp, within_ms, token })) => (*stamp, *within_ms, *token),
        other => panic!("{other:?}"),
    }
}

fn token(attachment: u64) -> GoToken {
    GoToken { home: HOME, attachment: AttachmentId(attachment) }
}

fn renew(node: &mut Node, stamp: u64, usable_ms: u64) {
    node.handle(InboxEvent::Renewed { stream: STREAM, lease: Usable { stamp, usable_ms } });
}

fn phase(node: &Node) -> (JournalPhase, Steps) {
    let entry = node.durable.values().next().expect("it is in the journal");
    (entry.phase.clone(), entry.steps)
}

#[test]
fn nothing_is_started_by_software_whose_lease_is_over_and_it_is_once_that_is_renewed() {
    // The lease was never renewed, or is over when the software asks at 77 of its own clock.
    for lease in [None, Some(Usable { stamp: 10, usable_ms: 67 })] {
        let mut node = Node::open_under(lease);
        node.deliver(vec![delivery(1, command(1))]);
        node.start(1);
        node.sync();
        assert_eq!(node.told(), [(1, "offer"), (1, "ignored")], "it may ask again");
        assert_eq!(phase(&node).0, JournalPhase::Received);
        assert_eq!(node.reported(), [], "it has not ended");
        renew(&mut node, 50, 4_500);
        node.start(1);
        node.sync();
        assert_eq!(node.told(), [(1, "go")]);
    }
}

#[test]
fn what_nobody_may_start_ends_at_its_deadline() {
    let mut node = Node::open_under(None);
    node.deliver(vec![delivery(1, command(1))]);
    node.start(1);
    node.now_ms += 10_000;
    node.inboxes.handle_timeout(node.now_ms);
    node.drain();
    node.sync();
    assert_eq!(node.reported(), [(1, "expired")]);
}

#[test]
fn the_word_to_go_reaches_neither_beyond_the_lease_nor_beyond_the_deadline() {
    for (usable_ms, within_ms) in [(100, 23), (60_000, 10_000)] {
        let mut node = Node::open_under(Some(Usable { stamp: 0, usable_ms }));
        node.deliver(vec![delivery(1, command(1))]);
        node.start(1);
        node.sync();
        assert_eq!(go(&node), (77, within_ms, token(7)));
    }
}

#[test]
fn a_lease_that_is_renewed_while_the_intent_is_written_counts() {
    let mut node = Node::open_under(Some(Usable { stamp: 0, usable_ms: 100 }));
    node.deliver(vec![delivery(1, command(1))]);
    node.start(1);
    renew(&mut node, 70, 130);
    // A renewal that was longer under way does not cut the lease short.
    renew(&mut node, 60, 130);
    node.sync();
    assert_eq!(go(&node), (77, 123, token(7)));
}

#[test]
fn software_that_is_attached_anew_before_it_hears_go_waits_for_its_new_lease() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    node.start(1);
    node.lease = None;
    node.take(STREAM, 1);
    assert_eq!(node.told(), [(1, "offer"), (1, "ignored"), (1, "offer")]);
    assert_eq!((phase(&node).0, phase(&node).1.started), (JournalPhase::Received, None), "as if it had not asked");
    renew(&mut node, 0, 4_500);
    node.pulled(10_000, vec![], vec![]);
    node.start(1);
    node.sync();
    assert_eq!(node.told(), [(1, "go")]);
}

#[test]
fn what_is_called_off_while_nobody_may_start_it_ends() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    node.start(1);
    node.pulled(10_000, vec![], vec![(1, VoidCause::Cancelled)]);
    // The software that asked is gone by the time that the intent is written down.
    node.handle(InboxEvent::Gone { stream: STREAM });
    node.sync();
    assert_eq!(node.reported(), [(1, "cancelled")]);
}

#[test]
fn software_that_asks_again_is_told_anew_once_the_first_word_is_over() {
    let mut node = Node::open_under(Some(Usable { stamp: 0, usable_ms: 100 }));
    node.deliver(vec![delivery(1, command(1))]);
    node.start(1);
    node.sync();
    assert_eq!(go(&node), (77, 23, token(7)));
    node.say(1, CommandSaid::Start { stamp: 99 });
    assert_eq!(go(&node), (77, 23, token(7)), "the same while it holds");
    node.told();
    node.say(1, CommandSaid::Start { stamp: 100 });
    assert_eq!(node.told(), [(1, "ignored")], "not before its lease is renewed");
    renew(&mut node, 110, 900);
    node.say(1, CommandSaid::Start { stamp: 200 });
    assert_eq!(go(&node), (200, 810, token(7)));
    // Software that was not told before does not begin what was called off.
    node.pulled(10_000, vec![], vec![(1, VoidCause::Cancelled)]);
    renew(&mut node, 1_100, 900);
    node.say(1, CommandSaid::Start { stamp: 1_200 });
    assert_eq!(go(&node), (1_200, 0, token(7)));
}

#[test]
fn the_token_of_a_word_to_go_rises_with_the_attachment_and_with_the_home() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1)), delivery(2, command(2))]);
    node.start(1);
    node.sync();
    let first = go(&node).2;
    node.say(1, CommandSaid::Succeeded { result: vec![] });
    node.sync();
    assert_eq!(node.reported(), [(1, "succeeded")]);
    node.attachment = AttachmentId(8);
    node.take(STREAM, 1);
    node.start(2);
    node.sync();
    let second = go(&node).2;
    assert_eq!((first, second), (token(7), token(8)));
    assert!(first < second && second < GoToken { home: HOME.next(), attachment: AttachmentId(1) });
}
