//! Which key proves what, and for which agent.

use skep_protocol::operator::{Authority, FirstReplacement, PastGenesis};
use skep_protocol::recovery::ShardRecovery;

use super::*;

/// A delivery whose command says something else under the same signature.
fn forged(of: Delivery, forge: fn(&mut Command)) -> Delivery {
    let mut command = of.command.statement().clone();
    forge(&mut command);
    let command = Arc::new(Signed::under(&command, *of.command.signature()).unwrap());
    Delivery { command, ..of }
}

#[test]
fn what_nobody_proves_or_means_for_this_agent_is_refused_and_said_so() {
    let mut node = Node::open();
    let forged = forged(delivery(1, command(1)), |command| command.args = b"else".to_vec().into());
    let stranger = OperatorSecret::from_seed(&[5; 32]);
    let of_stranger = command(2).sign(&stranger).unwrap();
    let of_stranger = Delivery { command: Arc::new(of_stranger), ..delivery(2, command(2)) };
    let for_another = delivery(3, Command { target: Target::Agent("r2".parse().unwrap()), ..command(3) });
    let elsewhere = delivery(4, Command { place: Place { site: "other".parse().unwrap(), ..place() }, ..command(4) });
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
    let forged = forged(delivery(2, command(1)), |command| command.deadline = at(99_999));
    node.deliver(vec![delivery(1, command(1)), forged]);
    assert_eq!(node.told(), [(1, "offer"), (1, "rejected")]);
}

#[test]
fn what_an_admin_granted_is_proved_by_what_is_delivered_with_it() {
    let clerk = OperatorSecret::from_seed(&[5; 32]);
    let name = "clerk".parse().unwrap();
    let grant = OperatorGrant { serial: 1, admin_depth: 0, ..OperatorGrant::of_first(place(), clerk.key(), name) };
    let signed = Arc::new(command(1).sign(&clerk).unwrap());
    let proof = |by: &OperatorSecret| Arc::new(vec![Arc::new(grant.clone().sign(by).unwrap())]);
    let mut node = Node::open();
    let proved = Delivery { seq: 1, command: Arc::clone(&signed), authority: proof(&operator()), void: None };
    // An operator of a bad orchestrator's own has no grant.
    let forged = Delivery { seq: 2, authority: proof(&OperatorSecret::from_seed(&[6; 32])), ..proved.clone() };
    node.deliver(vec![proved, forged]);
    assert_eq!(node.told(), [(1, "offer"), (1, "rejected")]);
}

#[test]
fn what_was_signed_for_a_shard_that_began_otherwise_is_refused_whatever_the_leader_says() {
    let mut node = Node::open();
    let genesis = Genesis::from_bytes([7; 16]);
    let of_another = delivery(1, Command { place: Place { genesis, ..place() }, ..command(1) });
    node.root = root().map(|root| Root { genesis, ..root });
    node.deliver(vec![of_another, delivery(2, command(2))]);
    assert_eq!(node.told(), [(2, "offer"), (1, "rejected")]);
    assert_eq!(node.head.genesis, Some(place().genesis));
}

#[test]
fn a_statement_with_a_field_that_changes_what_it_means_and_is_not_known_is_refused() {
    let mut node = Node::open();
    let signed = command(1).sign(&operator()).unwrap();
    let with = |field: &[u8]| {
        let body = [signed.body().as_ref(), field].concat();
        Arc::new(Signed::sign_body(body.into(), &operator()).unwrap())
    };
    // Field 31, and field 32.
    let critical = Delivery { command: with(&[0xf8, 0x01, 1]), ..delivery(1, command(1)) };
    let passed_over = Delivery { command: with(&[0x80, 0x02, 1]), ..delivery(2, command(1)) };
    node.deliver(vec![critical, passed_over]);
    assert_eq!(node.told(), [(1, "offer"), (1, "rejected")]);
    assert_eq!(node.reported(), [(1, "rejected")]);
}

#[test]
fn who_the_first_operator_is_is_told_once_and_changed_by_its_own_word_only() {
    let (new, thief) = (OperatorSecret::from_seed(&[5; 32]), OperatorSecret::from_seed(&[6; 32]));
    let mut node = Node::open();
    let known = |operator: &OperatorSecret, replaced| Some(KnownFirst { operator: operator.key(), replaced });
    assert_eq!(node.head.first, known(&operator(), 0));
    let to = |new: &OperatorSecret, by: &OperatorSecret| {
        let name = "first".parse().unwrap();
        let replacement = FirstReplacement { place: place(), old: by.key(), new: new.key(), name, serial: 1 };
        Arc::new(replacement.sign(by).unwrap())
    };
    // Another first operator from the start, and one to which the first one never gave its role.
    node.root = root().map(|root| Root { first: Some(thief.key()), ..root });
    node.deliver(vec![]);
    node.root = root().map(|root| Root { replaced: vec![to(&thief, &thief)], ..root });
    node.deliver(vec![]);
    assert_eq!(node.head.first, known(&operator(), 0));
    node.root = root().map(|root| Root { replaced: vec![to(&new, &operator())], ..root });
    let of_new = Delivery { command: Arc::new(command(2).sign(&new).unwrap()), ..delivery(2, command(2)) };
    node.deliver(vec![delivery(1, command(1)), of_new]);
    assert_eq!(node.head.first, known(&new, 1));
    assert_eq!(node.told(), [(2, "offer"), (1, "rejected")]);
}

fn clerk() -> OperatorSecret {
    OperatorSecret::from_seed(&[5; 32])
}

/// A statement about the clerk.
fn stated(serial: u64, revoked: bool, by: &OperatorSecret) -> Arc<Authority> {
    let whole = OperatorGrant::of_first(place(), clerk().key(), "clerk".parse().unwrap());
    let grant = OperatorGrant { serial, revoked, admin_depth: 0, ..whole };
    Arc::new(vec![Arc::new(grant.sign(by).unwrap())])
}

/// A command of the clerk's, with the first statement about it.
fn of_clerk(n: u8) -> Delivery {
    let command = Arc::new(command(n).sign(&clerk()).unwrap());
    Delivery { seq: n.into(), command, authority: stated(1, false, &operator()), void: None }
}

#[test]
fn a_shard_that_was_recovered_is_followed_by_the_word_of_its_first_operator_only() {
    let mut node = Node::open();
    let genesis = Genesis::from_bytes([7; 16]);
    let told = |by: &OperatorSecret| {
        let stated = ShardRecovery { place: place(), by: by.key(), genesis, last_index: 9 };
        let past = PastGenesis { replaced: Vec::new(), recovery: Arc::new(stated.sign(by).unwrap()) };
        root().map(|root| Root { genesis, past: vec![past], ..root })
    };
    let anew = |n: u8| delivery(n.into(), Command { place: Place { genesis, ..place() }, ..command(n) });
    node.root = told(&OperatorSecret::from_seed(&[5; 32]));
    node.deliver(vec![anew(1)]);
    assert_eq!((node.told(), node.head.genesis), (vec![(1, "rejected")], Some(place().genesis)));
    node.root = told(&operator());
    node.deliver(vec![anew(2), delivery(3, command(3))]);
    assert_eq!(node.head.genesis, Some(genesis));
    assert_eq!(node.told(), [(2, "offer"), (3, "rejected")], "what was signed before is over");
    // The pinned first operator outlives a crash.
    assert_eq!(node.reported(), [(1, "rejected"), (3, "rejected")]);
    node.crash();
    node.take(STREAM, 1);
    node.root = root();
    node.deliver(vec![anew(4)]);
    assert_eq!(node.head.genesis, Some(genesis));
}

#[test]
fn an_older_statement_about_an_operator_is_believed_no_more_once_a_later_one_was_seen() {
    let thief = OperatorSecret::from_seed(&[6; 32]);
    let mut node = Node::open();
    // A statement of an operator who may not state it.
    node.news = AuthorityNews { chains: vec![stated(7, true, &thief)], up_to: 8 };
    node.deliver(vec![]);
    assert_eq!(node.stated, BTreeMap::new());
    node.news = AuthorityNews { chains: vec![stated(2, true, &operator())], up_to: 9 };
    node.deliver(vec![of_clerk(1)]);
    assert_eq!(node.pull.as_ref().map(|(_, pull)| pull.authority), Some(9));
    assert_eq!((node.told(), node.reported()), (vec![(1, "rejected")], vec![(1, "rejected")]));
    // Nor after a crash, whatever a leader says then.
    node.crash();
    node.take(STREAM, 1);
    assert_eq!(node.pull.as_ref().map(|(_, pull)| pull.authority), Some(0));
    node.deliver(vec![of_clerk(2)]);
    assert_eq!(node.told(), [(2, "rejected")]);
    let again = Delivery { authority: stated(3, false, &operator()), ..of_clerk(3) };
    node.deliver(vec![again]);
    assert_eq!(node.told(), [(3, "offer")]);
    assert_eq!(node.stated, BTreeMap::from([(clerk().key(), 3)]));
}

#[test]
fn what_a_journal_that_is_gone_knew_of_operators_is_written_by_the_next_one_that_believes_as_it_did() {
    let mut node = Node::new();
    // Another journal was there when this one was opened.
    let first = Some(KnownFirst { operator: operator().key(), replaced: 0 });
    let other = JournalHead { genesis: Some(place().genesis), first, ..node.head };
    let mut stated = Serials::default();
    stated.raise(&other, clerk().key(), 2);
    let journal = Box::new(JournalState { stated, ..node.journal() });
    node.inboxes.handle(InboxEvent::Takes(taker(STREAM, 1)), node.now_ms);
    assert!(matches!(node.inboxes.poll_want(), Some(InboxWant::Journal(JournalJob::Open { .. }))));
    node.handle(InboxEvent::Journal(JournalReport::Opened { shard: SHARD, agent: agent(), journal }));
    let (key, _) = node.requests.pop_front().unwrap();
    node.settle(key, Settled::Done { index: 1, stamp: at(1), receipt: Receipt::Inbox { agent: agent(), home: HOME } });
    node.sync();
    assert_eq!(node.stated, BTreeMap::new());
    // The other one is forgotten. Then a leader tells this one whom to believe.
    node.deliver(vec![]);
    assert_eq!(node.stated, BTreeMap::from([(clerk().key(), 2)]));
    node.crash();
    node.take(STREAM, 2);
    node.deliver(vec![of_clerk(1)]);
    assert_eq!(node.told(), [(1, "rejected")]);
}

#[test]
fn a_leader_that_told_of_entries_that_there_are_not_hides_nothing_once_the_next_one_tells() {
    let mut node = Node::open();
    let (key, _) = node.pull.take().unwrap();
    let (seen, more, back) = (u64::MAX, PerClass::default(), PerClass::default());
    let of = PulledFor { agent: agent(), home: HOME, open: true, deliveries: vec![], voids: vec![], seen, more, back };
    let (agents, authority) = (vec![of], AuthorityNews { chains: vec![], up_to: u64::MAX });
    node.settle(key, Settled::Pulled(Box::new(Pulled { clock: at(10_000), root: root(), agents, authority })));
    let asked = |node: &Node| (node.asked().seen, node.pull.as_ref().map(|(_, pull)| pull.authority));
    assert_eq!(asked(&node), (u64::MAX, Some(u64::MAX)), "an honest leader sees that there is no such entry");
    node.news = AuthorityNews { chains: vec![stated(2, true, &operator())], up_to: 9 };
    node.deliver(vec![of_clerk(1), delivery(2, command(2))]);
    assert_eq!(asked(&node), (5, Some(9)));
    assert_eq!(node.told(), [(2, "offer"), (1, "rejected")]);
}

#[test]
fn of_a_shard_that_was_recovered_all_is_asked_for_that_was_stated_since_and_nothing_from_before_is_remembered() {
    let mut node = Node::open();
    node.news = AuthorityNews { chains: vec![stated(2, true, &operator())], up_to: 9 };
    node.deliver(vec![]);
    let asked = |node: &Node| node.pull.as_ref().map(|(_, pull)| pull.authority);
    assert_eq!((asked(&node), node.stated.len()), (Some(9), 1));
    let genesis = Genesis::from_bytes([7; 16]);
    let recovery = ShardRecovery { place: place(), by: operator().key(), genesis, last_index: 9 };
    let past = PastGenesis { replaced: Vec::new(), recovery: Arc::new(recovery.sign(&operator()).unwrap()) };
    node.root = root().map(|root| Root { genesis, past: vec![past], ..root });
    // The replica from which the shard goes on had counted five statements, and more since.
    let nothing = || AuthorityNews { chains: vec![], up_to: 12 };
    node.news = nothing();
    node.deliver(vec![]);
    assert_eq!((asked(&node), node.stated.len()), (Some(0), 0));
    node.news = nothing();
    node.deliver(vec![]);
    assert_eq!(asked(&node), Some(12));
}
