//! What is proved by whom, and for whom it is meant.

use super::*;

#[test]
fn what_nobody_proves_or_means_for_this_agent_is_refused_and_said_so() {
    let mut node = Node::open();
    let mut forged = delivery(1, command(1));
    Arc::make_mut(&mut forged.command).command.args = b"else".to_vec();
    let stranger = OperatorSecret::from_seed(&[5; 32]);
    let of_stranger = command(2).sign(&stranger).unwrap();
    let of_stranger = Delivery { command: Arc::new(of_stranger), ..delivery(2, command(2)) };
    let for_another = delivery(3, Command { target: Target::Agent("r2".parse().unwrap()), ..command(3) });
    let elsewhere = delivery(4, Command { site: "other".parse().unwrap(), ..command(4) });
    let other_group = delivery(5, Command { target: Target::Group("dock".parse().unwrap()), ..command(5) });
    let late = delivery(6, Command { deadline: at(9_999), ..command(6) });
    let mut void = delivery(7, command(7));
    void.void = Some(VoidCause::Cancelled);
    let own_group = delivery(8, Command { target: Target::Group("aisle".parse().unwrap()), ..command(8) });
    node.deliver(vec![forged, of_stranger, for_another, elsewhere, other_group, late, void, own_group]);
    let rejected = |n| (n, "rejected");
    let expected = [rejected(1), rejected(2), rejected(3), rejected(4), rejected(5), (6, "expired"), (7, "cancelled")];
    assert_eq!(node.reported(), expected);
    assert!(node.told().contains(&(8, "offer")));
}

#[test]
fn a_forged_copy_of_a_command_that_was_verified_is_refused() {
    let mut node = Node::open();
    let mut forged = delivery(2, command(1));
    Arc::make_mut(&mut forged.command).command.deadline = at(99_999);
    node.deliver(vec![delivery(1, command(1)), forged]);
    assert_eq!(node.told(), [(1, "offer"), (1, "rejected")]);
}

#[test]
fn what_an_admin_granted_is_proved_by_what_is_delivered_with_it() {
    let clerk = OperatorSecret::from_seed(&[5; 32]);
    let name = "clerk".parse().unwrap();
    let grant = OperatorGrant { serial: 1, admin: false, ..OperatorGrant::of_first(site(), SHARD, clerk.key(), name) };
    let signed = Arc::new(command(1).sign(&clerk).unwrap());
    let proof = |by: &OperatorSecret| Arc::new(vec![Arc::new(grant.clone().sign(by).unwrap())]);
    let mut node = Node::open();
    let proved = Delivery { seq: 1, command: Arc::clone(&signed), authority: proof(&operator()), void: None };
    // A bad orchestrator's own operator is nobody's.
    let forged = Delivery { seq: 2, authority: proof(&OperatorSecret::from_seed(&[6; 32])), ..proved.clone() };
    node.deliver(vec![proved, forged]);
    assert_eq!(node.told(), [(1, "offer"), (1, "rejected")]);
}

#[test]
fn an_inbox_that_is_older_than_the_first_operator_learns_who_that_is() {
    let mut node = Node::new();
    node.handle(InboxEvent::Takes(taker(STREAM, 1)));
    let (key, _) = node.requests.pop_front().unwrap();
    let receipt = Receipt::Inbox { agent: agent(), home: HOME, first: None };
    node.settle(key, Settled::Done { index: 1, stamp: at(1), receipt });
    node.deliver(vec![delivery(1, command(1))]);
    assert_eq!(node.told(), [(1, "offer")]);
    assert_eq!(node.head.first, Some(operator().key()));
}
