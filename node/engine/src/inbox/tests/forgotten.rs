//! What software began, and whether it still knows of it.

use super::*;

#[test]
fn software_that_outlives_its_node_says_how_it_ended() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1))]);
    node.start(1);
    node.sync();
    node.crash();
    node.take(STREAM, 1);
    assert_eq!(node.told(), [], "the same run of the software goes on");
    node.say(1, CommandSaid::Failed { reason: Reason::truncated("blocked") });
    node.sync();
    assert_eq!(node.told(), [(1, "failed")]);
    assert_eq!(node.reported(), [(1, "failed")]);
}

#[test]
fn what_living_software_has_let_go_of_ends_and_its_class_goes_on() {
    for idempotent in [false, true] {
        let mut node = Node::open();
        node.deliver(vec![delivery(1, Command { idempotent, ..command(1) }), delivery(2, command(2))]);
        node.start(1);
        node.sync();
        assert_eq!(node.told(), [(1, "offer"), (1, "go")]);
        // The same run of the software is attached anew, and knows nothing of what its node believes to be under way.
        node.in_hand = BTreeSet::from([id(2)]);
        node.take(STREAM, 1);
        let told = node.told();
        if idempotent {
            assert_eq!((told, node.reported()), (vec![(1, "offer")], vec![]), "it may be done again");
        } else {
            assert_eq!(told, [(1, "interrupted"), (1, "indeterminate"), (2, "offer")]);
            assert_eq!(node.reported(), [(1, "indeterminate")]);
        }
    }
}

#[test]
fn software_that_lets_go_of_what_it_began_ends_it_as_failed() {
    let mut node = Node::open();
    node.deliver(vec![delivery(1, command(1)), delivery(2, command(2))]);
    node.start(1);
    node.sync();
    node.say(1, CommandSaid::Reject { reason: Reason::truncated("let go") });
    node.sync();
    node.drain();
    assert_eq!(node.reported(), [(1, "failed")]);
    node.start(2);
    node.sync();
    assert!(node.told().contains(&(2, "go")), "the next one is not held up");
}
