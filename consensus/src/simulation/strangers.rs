//! Peers that are listed and vote nowhere, and voters that say what cannot be: Raft goes on as if they had said nothing.

use std::time::Duration;

use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde::Serialize;
use skep_protocol::agent::{AgentOp, Role as AgentRole};
use skep_protocol::attempt::AttemptTarget;
use skep_protocol::ballot::{Election, LeaderProof, Voter, VoterSet};
use skep_protocol::codec::Encoded as _;
use skep_protocol::entry::{Charter, EntryBody, Founding, Op, Request};
use skep_protocol::fleet::{FleetLimits, Rules};
use skep_protocol::frame::{FrameKind, RaftAddress, SnapshotId};
use skep_protocol::ids::{Genesis, NodeId, RequestId, ShardId, TaskId};
use skep_protocol::outcome::{ProposeOutcome, Reply};
use skep_protocol::query::Query;
use skep_protocol::recovery::Lineage;
use skep_protocol::signing::Place;
use skep_protocol::task::TaskOp;
use skep_protocol::time::LogInstant;
use skep_protocol::{entry, limits};
use skep_trust::Role;

use super::site::{Nodes, Process, SHARD, charter, key};
use super::watch::Watch;
use super::workload::{are_equal, check_acknowledged, create_one};
use super::{answers, leader, run, step, within};
use crate::net::{CallError, Class, hall};
use crate::raft::elections::UNPROVEN;
use crate::raft::types::{Entry, EntryBytes, LogId, SnapshotMeta, TypeConfig, Vote, encode};
use crate::shard::Shard;

/// Longest wait for what must come, in virtual time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait of a caller.
const CALL: Duration = Duration::from_secs(5);

fn shard(nodes: &Nodes, at: usize) -> Option<Shard> {
    nodes.all[at].process.as_ref().and_then(Process::shard)
}

/// A shard of the first three of so many nodes, who alone are marked as voters.
async fn three_marked(count: usize, watch: &Watch) -> (Nodes, Vec<NodeId>) {
    let mut nodes = Nodes::new(count, 7, watch.clone());
    nodes.marked = 3;
    for at in 0..count {
        nodes.start(at).await;
    }
    nodes.fabric.connect();
    let ids: Vec<_> = nodes.all[..3].iter().map(|node| node.id).collect();
    let first = nodes.all[0].process.clone().unwrap();
    first.shards.open(SHARD).await.unwrap().initialize(&ids, charter()).await.unwrap();
    assert!(within(&mut nodes, PATIENCE, |nodes| !nodes.ready().is_empty() && are_equal(nodes, &ids)).await);
    (nodes, ids)
}

/// A vote of the sender's own, as if a quorum had granted it.
fn vote(from: &Process, term: u64) -> Vote {
    let leader_id = openraft::impls::leader_id_std::LeaderId { term, voted_for: from.raft_id() };
    Vote { leader_id, committed: true }
}

/// What a process says to another one in a frame of Raft; why it was refused, if it was.
async fn say<T: Serialize>(
    from: &Process,
    to: &Process,
    kind: FrameKind,
    shard: ShardId,
    body: &T,
) -> Result<(), String> {
    say_bytes(from, to, kind, shard, &addressed(from, to, &encode(body).unwrap())).await
}

fn addressed(from: &Process, to: &Process, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    RaftAddress { from: from.raft_id(), to: to.raft_id() }.write(&mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

async fn say_bytes(from: &Process, to: &Process, kind: FrameKind, shard: ShardId, bytes: &[u8]) -> Result<(), String> {
    let call = from.shards.parts.peers.call(to.shards.parts.node, Class::Urgent, kind, shard, bytes, CALL);
    match call.await {
        Ok(_) => Ok(()),
        Err(CallError::Refused(why)) => Err(why),
        Err(error) => panic!("{kind:?}: {error}"),
    }
}

fn append(from: &Process, term: u64, entries: Vec<Entry>) -> AppendEntriesRequest<TypeConfig> {
    let vote = vote(from, term);
    AppendEntriesRequest { vote, prev_log_id: None, entries, leader_commit: None }
}

fn terms(nodes: &Nodes) -> Vec<u64> {
    (0..3).filter_map(|at| shard(nodes, at)).map(|shard| shard.status().term).collect()
}

/// A listed peer without a vote says to each voter that it leads, in a term after which there is none and in the next one.
async fn speak_as_a_stranger(watch: Watch) {
    let (mut nodes, ids) = three_marked(4, &watch).await;
    let stranger = nodes.all[3].process.clone().unwrap();
    let (before, opened) = (terms(&nodes), nodes.all[0].process.as_ref().unwrap().shards.all().len());
    for term in [u64::MAX, before[0] + 1] {
        for at in 0..3 {
            let voter = nodes.all[at].process.clone().unwrap();
            let mut asks = VoteRequest::<TypeConfig>::new(vote(&stranger, term), None);
            asks.leadership_transfer = true;
            let head = (vote(&stranger, term), SnapshotMeta::default());
            let forgot = (vote(&stranger, term), LogId { leader_id: term.into(), index: 9 });
            for shard in [SHARD, ShardId(9)] {
                let append = append(&stranger, term, Vec::new());
                let said = [
                    say(&stranger, &voter, FrameKind::Append, shard, &append).await,
                    say(&stranger, &voter, FrameKind::Vote, shard, &asks).await,
                    say(&stranger, &voter, FrameKind::PreVote, shard, &asks).await,
                    say(&stranger, &voter, FrameKind::Beat, shard, &vote(&stranger, term)).await,
                    say(&stranger, &voter, FrameKind::Forgot, shard, &forgot).await,
                    say(&stranger, &voter, FrameKind::SnapshotHead, shard, &head).await,
                    say(&stranger, &voter, FrameKind::Clock, shard, &()).await,
                    // Refused by their headers, whatever they hold.
                    say(&stranger, &voter, FrameKind::TransferLeader, shard, &()).await,
                    say(&stranger, &voter, FrameKind::Proof, shard, &()).await,
                    say(&stranger, &voter, FrameKind::SnapshotChunk, shard, &()).await,
                    say(&stranger, &voter, FrameKind::SnapshotInstall, shard, &()).await,
                ];
                for (n, said) in said.into_iter().enumerate() {
                    assert!(said.as_ref().is_err_and(|why| why.contains("is no voter")), "{n}: {said:?}");
                }
            }
            assert_eq!(voter.shards.all().len(), opened, "a group was opened for somebody who has no part in it");
        }
    }
    assert_eq!(terms(&nodes), before);
    assert!(answers(&mut nodes, PATIENCE).await);
    assert_eq!(terms(&nodes), before, "nobody had to be elected anew");
    check_acknowledged(&nodes, &ids);
}

#[test]
fn a_peer_that_votes_nowhere_has_no_part_in_raft() {
    let outcome = run(speak_as_a_stranger);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// An entry as no node lets it in: with a reason that a terminal obeys.
fn obeyed() -> Vec<u8> {
    let op = Op::Task(TaskOp::Cancel { task: TaskId::from_bytes([1; 16]), reason: "zqz".parse().unwrap() });
    let at = LogInstant::from_raw(1);
    let request = Request { id: RequestId::from_bytes([2; 16]), first_sent: at, deadline: at, op };
    let entry = entry::Entry { stamp: at, term: 1, body: EntryBody::Requests(vec![request]) };
    let mut bytes = entry.encode().unwrap();
    let place = bytes.windows(3).position(|part| part == b"zqz").unwrap();
    bytes[place + 1] = 0x1b;
    bytes
}

/// A first entry of another shard.
fn of_another_shard(term: u64) -> Vec<u8> {
    let charter = Charter { place: Place { shard: ShardId(9), ..charter().place }, first: None, root: None };
    let rules = Rules { version: 1, limits: FleetLimits::default() };
    let body = EntryBody::Founding(Box::new(Founding { rules, charter }));
    entry::Entry { stamp: LogInstant::from_raw(1), term, body }.encode().unwrap()
}

fn voter(nodes: &Nodes, at: usize) -> Voter {
    let incarnation = nodes.all[at].process.as_ref().unwrap().shards.parts.incarnation;
    Voter { node: nodes.all[at].id, incarnation }
}

/// That these voted for a process, each signed by a key: in an election by those voters.
fn proof(nodes: &Nodes, candidate: &Process, term: u64, voters: &[usize], voted: &[(usize, usize)]) -> LeaderProof {
    let voters = VoterSet::of([voters.iter().map(|at| voter(nodes, *at)).collect()]).unwrap();
    let (candidate, genesis) = (candidate.raft_id(), Some(charter().place.genesis));
    let election = Election { shard: SHARD, genesis, term, candidate, voters: voters.digest() };
    let ballots = voted.iter().map(|(at, by)| key(*by).vote(&election, voter(nodes, *at).raft_id()));
    LeaderProof::new(&election, voters, ballots)
}

/// What becomes of a proof that a process shows to another one.
async fn show(from: &Process, to: &Process, proof: &LeaderProof) -> Result<(), String> {
    say_bytes(from, to, FrameKind::Proof, SHARD, &addressed(from, to, &proof.encode().unwrap())).await
}

/// A voter whose key was stolen, and for which all have voted: what cannot have come about is not written down, also if
/// it says so.
async fn speak_as_a_voter(watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut nodes, ids) = three_marked(3, &watch).await;
    let (_, leading) = leader(&mut nodes).await;
    create_one(&leading, &mut rng, &watch).await;
    let leads = nodes.ready()[0].0;
    let (liar, victim) = ((leads + 1) % 3, (leads + 2) % 3);
    let [liar, victim] = [liar, victim].map(|at| nodes.all[at].process.clone().unwrap());
    let before = terms(&nodes);
    let last = victim.shard().unwrap().status().last_log;
    let next = before[0] + 1;
    let elected = proof(&nodes, &liar, next, &[0, 1, 2], &[(0, 0), (1, 1), (2, 2)]);
    assert_eq!(show(&liar, &victim, &elected).await, Ok(()));
    let of_term = |term: u64, bytes: Vec<u8>| Entry {
        log_id: LogId { leader_id: term.into(), index: 0 },
        payload: openraft::EntryPayload::Normal(EntryBytes(bytes.into())),
    };
    let forged = |bytes| of_term(next, bytes);
    let endless = append(&liar, u64::MAX, Vec::new());
    let unreadable = append(&liar, next, vec![forged(vec![99, 1, 2, 3])]);
    let obeyed = append(&liar, next, vec![forged(obeyed())]);
    let of_later = append(&liar, next, vec![of_term(next + 1, Vec::new())]);
    let of_another = append(&liar, next, vec![forged(of_another_shard(next))]);
    for (append, why) in [
        (endless, "cannot have come about"),
        (unreadable, "not understood"),
        (obeyed, "not understood"),
        (of_later, "later term"),
        (of_another, "first one of shard 9"),
    ] {
        let said = say(&liar, &victim, FrameKind::Append, SHARD, &append).await;
        assert!(said.as_ref().is_err_and(|said| said.contains(why)), "{why}: {said:?}");
    }
    assert_eq!((terms(&nodes), victim.shard().unwrap().status().last_log), (before, last));
    create_one(&leading, &mut rng, &watch).await;
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await);
    check_acknowledged(&nodes, &ids);
}

#[test]
fn what_a_voter_cannot_have_come_to_is_not_taken_from_it() {
    let outcome = run(speak_as_a_voter);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

fn is_refused(said: &Result<(), String>, why: &str) {
    assert!(said.as_ref().is_err_and(|said| said.contains(why)), "{why}: {said:?}");
}

/// Whatever a leader sends, in a term for which nobody has elected this one.
async fn say_as_a_leader(thief: &Process, victim: &Process, term: u64) {
    let led = vote(thief, term);
    let said = say(thief, victim, FrameKind::Append, SHARD, &append(thief, term, Vec::new())).await;
    is_refused(&said, UNPROVEN);
    let mut offered = Vec::new();
    SnapshotId { bytes: 9, digest: 7 }.write(&mut offered);
    offered.extend(addressed(thief, victim, &encode(&(led, SnapshotMeta::default())).unwrap()));
    for kind in [FrameKind::SnapshotHead, FrameKind::SnapshotInstall] {
        is_refused(&say_bytes(thief, victim, kind, SHARD, &offered).await, UNPROVEN);
    }
    let hands_over = TransferLeaderRequest::<TypeConfig>::new(led, victim.raft_id(), None);
    is_refused(&say(thief, victim, FrameKind::TransferLeader, SHARD, &hands_over).await, UNPROVEN);
    // A vote that is granted as it is asked for would make a leader of it, too.
    let mut asks = VoteRequest::<TypeConfig>::new(led, None);
    asks.leadership_transfer = true;
    let (no_genesis, voters) = (0_u8, [0_u8; 32]);
    is_refused(&say(thief, victim, FrameKind::Vote, SHARD, &(&asks, no_genesis, voters)).await, "elected already");
    is_refused(&say(thief, victim, FrameKind::PreVote, SHARD, &asks).await, "elected already");
    // What is no leader's is not a leader's entries either.
    let uncommitted =
        AppendEntriesRequest { vote: Vote { committed: false, ..led }, ..append(thief, term, Vec::new()) };
    is_refused(&say(thief, victim, FrameKind::Append, SHARD, &uncommitted).await, UNPROVEN);
}

/// A voter whose key was stolen, and the key of a robot: neither makes a leader of it.
async fn lead_without_an_election(watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut nodes, ids) = three_marked(4, &watch).await;
    let (_, leading) = leader(&mut nodes).await;
    create_one(&leading, &mut rng, &watch).await;
    let leads = nodes.ready()[0].0;
    let (stolen, meets) = ((leads + 1) % 3, (leads + 2) % 3);
    let [thief, victim] = [stolen, meets].map(|at| nodes.all[at].process.clone().unwrap());
    let before = terms(&nodes);
    let term = before[0] + 1;
    say_as_a_leader(&thief, &victim, term).await;
    let (all, own) = ([0, 1, 2], (stolen, stolen));
    for (shown, why) in [
        (proof(&nodes, &thief, term, &all, &[own]), "are a quorum"),
        (proof(&nodes, &thief, term, &all, &[own, (meets, stolen)]), "did not sign"),
        (proof(&nodes, &thief, term, &[stolen], &[own]), "does not know"),
        (proof(&nodes, &thief, term, &[stolen, 3], &[own, (3, 3)]), "does not know"),
        (proof(&nodes, &victim, term, &all, &[(meets, meets), (leads, leads)]), "speaks for"),
    ] {
        is_refused(&show(&thief, &victim, &shown).await, why);
    }
    say_as_a_leader(&thief, &victim, term).await;
    assert_eq!(terms(&nodes), before, "somebody follows it");
    create_one(&leading, &mut rng, &watch).await;
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await);
    check_acknowledged(&nodes, &ids);
    // What a quorum has signed is another matter.
    let elected = proof(&nodes, &thief, term, &all, &[own, (leads, leads)]);
    assert_eq!(show(&thief, &victim, &elected).await, Ok(()));
}

#[test]
fn a_stolen_voter_that_won_no_election_leads_nobody() {
    let outcome = run(lead_without_an_election);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// Somebody with a voter's key has given the leader a replica of a shard that nobody uses, and a robot one of another genesis.
async fn speak_as_one_of_another_shard(watch: Watch) {
    let (mut nodes, _) = three_marked(4, &watch).await;
    let (id, _) = leader(&mut nodes).await;
    let leads = nodes.all.iter().find(|node| node.id == id).and_then(|node| node.process.clone()).unwrap();
    let robot = nodes.all[3].process.clone().unwrap();
    let unused = ShardId(99);
    for (process, genesis) in [(&leads, 1), (&robot, 2)] {
        let planted = Lineage { shard: unused, genesis: Genesis::from_bytes([genesis; 16]), past: Vec::new() };
        let own = process.shards.lineages().into_iter().chain([planted]).collect();
        assert!(process.shards.parts.peers.have(own));
    }
    // The leader hears what the robot has, and does not say what it has itself: it judges by its own.
    let told = robot.shards.parts.peers.ask_shards(id, CALL).await.unwrap();
    assert!(told.iter().all(|lineage| lineage.shard == SHARD), "{told:?}");
    let counts = Query::Counts.encode().unwrap();
    let ask = async |kind, shard| robot.shards.parts.peers.call(id, Class::Query, kind, shard, &counts, CALL).await;
    for kind in [FrameKind::Query, FrameKind::Pull, FrameKind::Leads, FrameKind::Append, FrameKind::Clock] {
        let refused = ask(kind, unused).await;
        let says = |why: &str| why.contains("genesis 0101") && why.contains("genesis 0202");
        assert!(matches!(&refused, Err(CallError::Refused(why)) if says(why.as_str())), "{kind:?}: {refused:?}");
    }
    let reports = leads.shards.parts.peers.strays();
    assert!(matches!(&reports[..], [report] if report.node == Some(nodes.all[3].id)), "{reports:?}");
    // Of all other shards they speak as before.
    assert!(ask(FrameKind::Query, SHARD).await.is_ok());
    assert!(robot.shards.parts.peers.ask_shards(id, CALL).await.is_some());
    assert!(robot.shards.parts.peers.connected(id).is_some());
}

#[test]
fn a_shard_that_is_two_parts_its_nodes_over_that_one_alone() {
    let outcome = run(speak_as_one_of_another_shard);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// A voter is made while another one is away, and leads when that one comes back. Nobody has it marked.
async fn come_back_to_a_leader_that_is_not_known(watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut nodes, mut ids) = three_marked(4, &watch).await;
    let away =
        nodes.all.iter().position(|node| nodes.ready().iter().all(|(at, _)| nodes.all[*at].id != node.id)).unwrap();
    nodes.kill(away);
    let (_, leading) = leader(&mut nodes).await;
    let added = nodes.all[3].id;
    assert_eq!(leading.add_voter(added).await, Ok(()));
    let leads = |nodes: &Nodes| nodes.ready().iter().any(|(at, _)| *at == 3);
    // It may be refused once: whoever is asked may not follow yet.
    for _ in 0..10 {
        let (_, leading) = leader(&mut nodes).await;
        if leads(&nodes) || leading.transfer_leader(Some(added)).await.is_ok() {
            break;
        }
    }
    assert!(within(&mut nodes, PATIENCE, leads).await, "it does not take the lead");
    nodes.start(away).await;
    ids.push(added);
    create_one(&shard(&nodes, 3).unwrap(), &mut rng, &watch).await;
    assert!(
        within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await,
        "it does not follow who it was not told of"
    );
    step(&mut nodes).await;
    check_acknowledged(&nodes, &ids);
}

#[test]
fn a_voter_that_was_away_follows_one_that_was_made_meanwhile() {
    let outcome = run(come_back_to_a_leader_that_is_not_known);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// A shard of the first three of four nodes of a site, whose certificates say that they vote, and that the last is a robot's. No file
/// says anything of them.
async fn three_certified(watch: &Watch) -> (Nodes, Vec<NodeId>) {
    let mut nodes = Nodes::new(4, 7, watch.clone());
    nodes.marked = 0;
    let role = |at| if at < 3 { Role::Voter } else { Role::Robot };
    nodes.sites = nodes.all.iter().enumerate().map(|(at, node)| hall::member(node.id, &[role(at)])).collect();
    for at in 0..4 {
        nodes.start(at).await;
    }
    nodes.fabric.connect();
    let ids: Vec<_> = nodes.all[..3].iter().map(|node| node.id).collect();
    let first = nodes.all[0].process.clone().unwrap();
    let shard = first.shards.open(SHARD).await.unwrap();
    let with_robot = shard.initialize(&[ids[0], nodes.all[3].id], charter()).await;
    assert!(matches!(with_robot, Err(crate::MembershipError::Voters(_))), "{with_robot:?}");
    shard.initialize(&ids, charter()).await.unwrap();
    assert!(within(&mut nodes, PATIENCE, |nodes| !nodes.ready().is_empty() && are_equal(nodes, &ids)).await);
    (nodes, ids)
}

/// A robot's node of a site says that it leads. Then a voter is revoked that goes on as if nothing had happened.
async fn speak_without_a_certificate_for_it(watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut nodes, ids) = three_certified(&watch).await;
    let robot = nodes.all[3].process.clone().unwrap();
    let before = terms(&nodes);
    for at in 0..3 {
        let voter = nodes.all[at].process.clone().unwrap();
        let said = say(&robot, &voter, FrameKind::Beat, SHARD, &vote(&robot, before[0] + 1)).await;
        assert!(said.as_ref().is_err_and(|why| why.contains("is no voter")), "{said:?}");
    }
    let (leads, leading) = nodes.ready().pop().unwrap();
    // It speaks for its own agent only, which is called as it is.
    let now = leading.clock().now().unwrap();
    let [own, of_a_voter] = [nodes.all[3].id, ids[0]].map(hall::name);
    let asked = [(own.clone(), true), (format!("{own}/arm"), true), (of_a_voter, false)];
    for (n, (agent, may)) in asked.into_iter().enumerate() {
        let op = AgentOp::Register { agent: agent.parse().unwrap(), role: AgentRole::unregistered() };
        let id = RequestId::from_bytes([n as u8; 16]);
        let request = Request { id, first_sent: now, deadline: now.plus_ms(60_000), op: op.into() };
        let said = crate::rpc::propose(&robot.shards, SHARD, AttemptTarget::Node(ids[leads]), vec![request]).await;
        let is_done = matches!(&said[..], [ProposeOutcome::Applied { reply: Reply::Done(_), .. }]);
        assert_eq!(is_done, may, "{agent}: {said:?}");
    }
    let gone = (leads + 1) % 3;
    let others: Vec<NodeId> = ids.iter().copied().filter(|node| *node != ids[gone]).collect();
    nodes.sites[leads].learn(&hall::out(&[ids[gone]])).unwrap();
    // The leader tells the others.
    let is_alone = |nodes: &Nodes| {
        let process = nodes.all[gone].process.as_ref();
        process.is_some_and(|process| process.shards.parts.peers.present().is_empty())
    };
    assert!(within(&mut nodes, PATIENCE, is_alone).await, "it is served still");
    assert!(create_one(&leading, &mut rng, &watch).await.is_some(), "the others go on");
    for _ in 0..200 {
        step(&mut nodes).await;
    }
    assert!(is_alone(&nodes) && are_equal(&nodes, &others));
    assert_eq!(leading.status().term, before[0], "nobody was elected anew for it");
    check_acknowledged(&nodes, &others);
}

#[test]
fn at_a_site_raft_is_taken_from_those_whose_certificates_say_so_and_from_nobody_who_is_out() {
    let outcome = run(speak_without_a_certificate_for_it);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// How long nothing is written, so that the last stamp is old.
const QUIET: Duration = Duration::from_secs(150);

async fn be_quiet(nodes: &mut Nodes) {
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < QUIET {
        step(nodes).await;
    }
}

/// Whether a voter's clock is as far as the leader's, give or take a second.
fn agrees(shard: &Shard, leading: &Shard) -> bool {
    let (own, led) = (shard.clock().now(), leading.clock().now());
    own.zip(led).is_some_and(|(own, led)| led.since_ms(own) < 1_000 && own.since_ms(led) < 1_000)
}

/// The machine of a voter stood still, and its boot clock with it: what the leader's clock shows cannot be, as far as it knows.
async fn stand_still(watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut nodes, ids) = three_marked(3, &watch).await;
    let (_, leading) = leader(&mut nodes).await;
    create_one(&leading, &mut rng, &watch).await;
    be_quiet(&mut nodes).await;
    let (leads, leading) = nodes.ready().pop().unwrap();
    let victim = shard(&nodes, (leads + 1) % 3).unwrap();
    victim.clock().begin(LogInstant::from_raw(1));
    assert!(!agrees(&victim, &leading), "it is at the last stamp");
    let learned = within(&mut nodes, PATIENCE, |_| agrees(&victim, &leading));
    assert!(learned.await, "nobody bears the leader out");
    create_one(&leading, &mut rng, &watch).await;
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await);
    check_acknowledged(&nodes, &ids);
}

#[test]
fn a_voter_whose_machine_stood_still_is_told_so_by_another_voter_and_goes_on() {
    let outcome = run(stand_still);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// The machines of all others stood still together: they contradict the leader, and each other's word is as old as their own.
async fn stand_still_together(watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut nodes, ids) = three_marked(3, &watch).await;
    let (_, leading) = leader(&mut nodes).await;
    create_one(&leading, &mut rng, &watch).await;
    be_quiet(&mut nodes).await;
    let (leads, _) = nodes.ready().pop().unwrap();
    for at in [(leads + 1) % 3, (leads + 2) % 3] {
        shard(&nodes, at).unwrap().clock().begin(LogInstant::from_raw(1));
    }
    let patience = PATIENCE + Duration::from_millis(limits::CLOCK_CONTRADICTED_MS_MAX);
    let agree = within(&mut nodes, patience, |nodes| {
        let leading = nodes.ready().pop().map(|(_, shard)| shard);
        leading.is_some_and(|leading| (0..3).filter_map(|at| shard(nodes, at)).all(|shard| agrees(&shard, &leading)))
    });
    assert!(agree.await, "nobody takes entries any more");
    let (_, leading) = leader(&mut nodes).await;
    assert!(create_one(&leading, &mut rng, &watch).await.is_some());
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await);
    check_acknowledged(&nodes, &ids);
}

#[test]
fn voters_whose_machines_stood_still_together_take_the_leaders_clock_after_a_while() {
    let outcome = run(stand_still_together);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// A leader whose clock is ahead of what can be: the others contradict it, and expire nothing for it.
async fn be_ahead(watch: Watch) {
    let mut rng = SmallRng::seed_from_u64(7);
    let (mut nodes, _) = three_marked(3, &watch).await;
    let (_, leading) = leader(&mut nodes).await;
    create_one(&leading, &mut rng, &watch).await;
    let (leads, leading) = nodes.ready().pop().unwrap();
    let know = within(&mut nodes, PATIENCE, |nodes| {
        (0..3).filter_map(|at| shard(nodes, at)).all(|shard| agrees(&shard, &leading))
    });
    assert!(know.await, "whoever knows no clock contradicts nobody");
    let others = [(leads + 1) % 3, (leads + 2) % 3];
    let before = leading.clock().now().unwrap();
    leading.clock().begin(before.plus_ms(3_600_000));
    // They hold out for as long as they contradict it.
    let resistance = Duration::from_millis(limits::CLOCK_CONTRADICTED_MS_MAX / 2);
    let forged = tokio::time::timeout(resistance, create_one(&leading, &mut rng, &watch)).await;
    assert_eq!(forged.ok().flatten(), None, "the others took a stamp that cannot be");
    for at in others {
        let now = shard(&nodes, at).unwrap().clock().now().unwrap();
        assert!(now.since_ms(before) < 600_000, "node {at} is at {now}");
    }
    nodes.kill(leads);
    let (_, leading) = leader(&mut nodes).await;
    assert!(create_one(&leading, &mut rng, &watch).await.is_some(), "they go on by their own clocks");
    let ids = others.map(|at| nodes.all[at].id);
    assert!(within(&mut nodes, PATIENCE, |nodes| are_equal(nodes, &ids)).await);
    check_acknowledged(&nodes, &ids);
}

#[test]
fn a_leader_whose_clock_is_ahead_of_what_can_be_moves_nobody_elses() {
    let outcome = run(be_ahead);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}
