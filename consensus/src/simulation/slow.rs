//! Disks that take many seconds for what they write: what waits for them, and what does not.

use std::time::Duration;

use skep_protocol::entry::Op;
use skep_protocol::frame::{FrameKind, Header, RaftAddress};
use skep_protocol::heartbeat::{AgentHeartbeat, Heartbeat, Renewal};
use skep_protocol::ids::AttachmentId;
use skep_protocol::limits;
use skep_protocol::outcome::ProposeOutcome;
use skep_protocol::query::{Query, QueryFailure};
use skep_protocol::task::TaskOp;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::links::create;
use super::site::{Nodes, Process, SHARD};
use super::watch::Watch;
use super::{answers, leader, run, step, three, within, workload};
use crate::net::Who;
use crate::raft::types::{Vote, decode, encode};
use crate::shard::Shard;

/// Longest wait for what must come, in virtual time.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a slow disk takes for a batch, in milliseconds: longer than any caller waits for an entry, and than a
/// second try would take.
const SLOW_MS: u64 = 20_000;
/// The longest that a read may take that waits for no disk: a few heartbeats and their way.
const READ_MAX: Duration = Duration::from_secs(1);

fn shard(nodes: &Nodes, at: usize) -> Option<Shard> {
    nodes.all[at].process.as_ref().and_then(Process::shard)
}

fn last_log(shard: &Shard) -> u64 {
    shard.status().last_log.expect("it has a log")
}

fn slow_down(nodes: &Nodes, ms: u64) {
    (0..nodes.all.len()).for_each(|at| nodes.slow_down(at, ms));
}

/// Lets time pass.
async fn pass(nodes: &mut Nodes, time: Duration) {
    within(nodes, time, |_| false).await;
}

/// Starts to create a task beside everything else.
fn begin(nodes: &mut Nodes, shard: &Shard) -> JoinHandle<Vec<ProposeOutcome>> {
    let request = workload::create_task(shard, nodes.random(), 64).expect("a leader knows the clock");
    let shard = shard.clone();
    tokio::spawn(async move { shard.propose(vec![request]).await })
}

async fn assert_applied(written: JoinHandle<Vec<ProposeOutcome>>) {
    let outcomes = written.await.expect("it ends");
    assert!(matches!(outcomes[..], [ProposeOutcome::Applied { .. }]), "{outcomes:?}");
}

/// A read and a renewal, while an entry is on its way to disks that take this long.
async fn read_while_writing(slow_ms: u64, watch: Watch) {
    let (mut nodes, _) = three(&watch).await;
    leader(&mut nodes).await;
    create(&mut nodes, &watch, 64).await;
    let (id, leading) = leader(&mut nodes).await;
    slow_down(&nodes, slow_ms);
    let written = begin(&mut nodes, &leading);
    // By then the entry is at every disk.
    step(&mut nodes).await;
    for _ in 0..3 {
        let begun = Instant::now();
        let read = leading.query_linearizable(Query::Counts).await;
        assert!(read.is_ok() && begun.elapsed() < READ_MAX, "{read:?} after {:?}", begun.elapsed());
    }
    assert!(!written.is_finished(), "nothing was on its way");
    // For an agent without a node a quorum answers that, once everything that was written before is applied.
    let (agent, attachment) = ("nobody".parse().expect("a name"), AttachmentId(1));
    let said = AgentHeartbeat { agent, attachment, credit_limit: 0, place: None, renew: true };
    let heard = leading.heartbeat(id, Heartbeat { agents: vec![said] }).await.expect("it leads");
    assert_eq!(heard.agents.iter().map(|said| said.renewal).collect::<Vec<_>>(), [Renewal::NotAttached]);
    assert_applied(written).await;
}

#[test]
fn reads_wait_for_no_disk_and_what_is_written_is_waited_for() {
    for slow_ms in [3_000, 10_000, SLOW_MS] {
        let outcome = run(|watch| read_while_writing(slow_ms, watch));
        assert_eq!(outcome.violation, None, "{slow_ms} ms; {:#?}", outcome.story);
    }
}

/// Whether a node says that it follows another one whose heartbeat has come.
fn follows(follower: &Process, leader: &Process, vote: &Vote) -> bool {
    let (from, to) = (leader.raft_id(), follower.raft_id());
    let mut body = Vec::new();
    RaftAddress { from, to }.write(&mut body);
    body.extend_from_slice(&encode(vote).expect("it encodes"));
    let header = Header { kind: FrameKind::Beat, shard: SHARD, clock: None, call: 1, body_bytes: body.len() as u32 };
    let who = Who { node: leader.shards.parts.node, raft_id: from };
    let answer = follower.shard().expect("it is open").answer_beat(who, header, &body);
    answer.expect("it is answered").first().is_some_and(|byte| byte & 1 == 1)
}

/// Gives the store of a node a vote for another one, as openraft does, which says nothing of it before it is written.
fn promise(voter: &Process, vote: Vote, to: &Process) {
    let mut next = vote;
    (next.leader_id.term, next.leader_id.voted_for, next.committed) = (vote.leader_id.term + 1, to.raft_id(), false);
    let bytes = encode(&next).expect("it encodes").into();
    voter.shards.parts.store.save_vote(SHARD, bytes, || {}).expect("it is open");
}

/// A voter, and then the leader itself, is writing down a vote for another one.
async fn promise_votes(watch: Watch) {
    let (mut nodes, ids) = three(&watch).await;
    let (id, leading) = leader(&mut nodes).await;
    create(&mut nodes, &watch, 64).await;
    pass(&mut nodes, Duration::from_secs(1)).await;
    let process = |at: usize| nodes.all[at % 3].process.clone().expect("it runs");
    let at = ids.iter().position(|other| *other == id).expect("it is one of them");
    let (leads, voter, other) = (process(at), process(at + 1), process(at + 2));
    let said = voter.shards.parts.store.vote(SHARD).expect("it has voted");
    let vote: Vote = decode("vote", &said).expect("it decodes");
    assert!(follows(&voter, &leads, &vote));
    promise(&voter, vote, &other);
    assert!(!follows(&voter, &leads, &vote), "its vote may elect another one any moment");
    // Only heartbeats could confirm a read at this point, and one voter still follows.
    slow_down(&nodes, SLOW_MS);
    drop(begin(&mut nodes, &leading));
    step(&mut nodes).await;
    assert!(leading.query_linearizable(Query::Counts).await.is_ok());
    promise(&leads, vote, &other);
    let read = leading.query_linearizable(Query::Counts).await;
    assert_eq!(read.unwrap_err(), QueryFailure::NoQuorum);
}

#[test]
fn nobody_follows_a_leader_while_it_writes_down_a_vote_for_another() {
    let outcome = run(promise_votes);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// More than one entry holds is proposed one after another, before the first is written.
async fn flood(watch: Watch) {
    let (mut nodes, _) = three(&watch).await;
    leader(&mut nodes).await;
    create(&mut nodes, &watch, 64).await;
    let (_, leading) = leader(&mut nodes).await;
    slow_down(&nodes, SLOW_MS);
    let before = last_log(&leading);
    let mut all = Vec::new();
    for _ in 0..3 * limits::ENTRIES_IN_FLIGHT_MAX {
        all.push(begin(&mut nodes, &leading));
        pass(&mut nodes, Duration::from_secs(1)).await;
    }
    let entries = last_log(&leading) - before;
    assert!(entries <= limits::ENTRIES_IN_FLIGHT_MAX as u64, "{entries} entries are under way");
    for written in all {
        assert_applied(written).await;
    }
}

#[test]
fn requests_wait_for_those_before_them_and_are_not_piled_up_in_the_log() {
    let outcome = run(flood);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// A task expires soon, and the entry that says so takes long.
async fn end_a_task(watch: Watch) {
    let (mut nodes, _) = three(&watch).await;
    let (_, leading) = leader(&mut nodes).await;
    let mut request = workload::create_task(&leading, nodes.random(), 64).expect("a leader knows the clock");
    if let Op::Task(TaskOp::Create { spec, .. }) = &mut request.op {
        spec.valid_for_ms = Some(2_000);
    }
    let outcomes = leading.propose(vec![request]).await;
    assert!(matches!(outcomes[..], [ProposeOutcome::Applied { .. }]), "{outcomes:?}");
    slow_down(&nodes, SLOW_MS);
    let before = last_log(&leading);
    let ended = |shard: &Shard| shard.status().counts.pending == 0;
    pass(&mut nodes, Duration::from_millis(SLOW_MS)).await;
    assert_eq!((ended(&leading), last_log(&leading) - before), (false, 1), "it is said once, and not written yet");
    let is_over = within(&mut nodes, PATIENCE, |_| ended(&leading)).await;
    assert_eq!((is_over, last_log(&leading) - before), (true, 1), "what it is said by has come");
}

#[test]
fn what_the_orchestrator_decides_is_written_once_however_long_that_takes() {
    let outcome = run(end_a_task);
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

/// How long each frame takes one way while a leader asks the voters for the clock, in milliseconds: long enough for the
/// test to see it.
const ASKED_MS: u64 = 100;

/// No node knows the clock. The next leader has to say so in the log, and by then disks are slow.
async fn begin_to_lead(slow_ms: u64, watch: Watch) {
    let (mut nodes, _) = three(&watch).await;
    leader(&mut nodes).await;
    pass(&mut nodes, Duration::from_secs(2)).await;
    (0..3).for_each(|at| nodes.cut_power(at));
    for at in 0..3 {
        nodes.start(at).await;
    }
    nodes.fabric.set_quality(0, (ASKED_MS, ASKED_MS));
    let before = nodes.fabric.sent(FrameKind::Clock);
    let asks = |nodes: &Nodes| nodes.fabric.sent(FrameKind::Clock) > before;
    assert!(within(&mut nodes, PATIENCE, asks).await, "no voter is elected");
    slow_down(&nodes, slow_ms);
    nodes.fabric.set_quality(0, (0, 2));
    let elected = |at: &usize| shard(&nodes, *at).is_some_and(|shard| shard.leads_term().is_some());
    let at = (0..3).find(elected).expect("only a leader asks for the clock");
    let leading = shard(&nodes, at).expect("it leads");
    let first = last_log(&leading);
    let is_ready = |nodes: &Nodes| nodes.ready().iter().any(|(other, _)| *other == at);
    assert!(within(&mut nodes, PATIENCE, is_ready).await, "no voter is ever ready to lead");
    assert_eq!(last_log(&leading) - first, 1, "it says once that the clock is lost");
    assert!(answers(&mut nodes, PATIENCE).await, "no read is answered");
    create(&mut nodes, &watch, 64).await;
}

#[test]
fn a_leader_gets_ready_however_long_its_first_entries_take() {
    for slow_ms in [10_000, SLOW_MS] {
        let outcome = run(|watch| begin_to_lead(slow_ms, watch));
        assert_eq!(outcome.violation, None, "{slow_ms} ms; {:#?}", outcome.story);
    }
}
