//! Nodes that ask for the commands of their agents: a deposed leader hands out none.

use std::collections::BTreeSet;
use std::time::Duration;

use skep_protocol::agent::{AgentOp, Role};
use skep_protocol::command::{Command, CommandClass, CommandOp, PerClass, Target};
use skep_protocol::entry::{Op, Request};
use skep_protocol::ids::{CommandId, JournalId, NodeId, RequestId, SessionId};
use skep_protocol::lease::LeaseTerms;
use skep_protocol::outcome::{ProposeOutcome, Receipt, Reply};
use skep_protocol::pull::{Pull, PullFailure, PullFor, Pulled};
use skep_protocol::text::{AgentId, TraceParent};

use super::site::{Nodes, charter, operator};
use super::watch::Watch;
use super::{leader, run, three_of, within};
use crate::net::AnswerRoom;
use crate::shard::Shard;

/// Longest wait until another node leads, in virtual time.
const PATIENCE: Duration = Duration::from_secs(20);
/// The lease of the robot, and how long its command is valid, in milliseconds: longer than the whole test takes.
const VALID_MS: u64 = 60_000;

fn robot() -> AgentId {
    "robot".parse().unwrap()
}

/// Commits an operation through the leader.
async fn commit(nodes: &mut Nodes, shard: &Shard, op: impl Into<Op>) -> Receipt {
    let first_sent = shard.clock().now().unwrap();
    let id = RequestId::from_bytes(nodes.random());
    let request = Request { id, first_sent, deadline: first_sent.plus_ms(VALID_MS), op: op.into() };
    match shard.propose(vec![request]).await.pop() {
        Some(ProposeOutcome::Applied { reply: Reply::Done(receipt), .. }) => receipt,
        other => panic!("{other:?}"),
    }
}

/// A node begins to serve the robot; returns what it asks for with a new journal.
async fn serve(nodes: &mut Nodes, shard: &Shard, node: NodeId) -> Pull {
    let (role, session, lease) =
        (Role::unregistered(), SessionId::from_bytes([1; 16]), LeaseTerms { ttl_ms: VALID_MS });
    let attached = commit(nodes, shard, AgentOp::Attach { agent: robot(), role, node, session, lease }).await;
    let Receipt::Attached { attachment, .. } = attached else { panic!("{attached:?}") };
    let journal = JournalId::from_bytes([1; 16]);
    let op = CommandOp::OpenInbox { agent: robot(), attachment, journal, groups: BTreeSet::new() };
    let opened = commit(nodes, shard, op).await;
    let Receipt::Inbox { home, .. } = opened else { panic!("{opened:?}") };
    let (after, room) = (PerClass::default(), PerClass { routine: 8, urgent: 8 });
    let asked = PullFor { agent: robot(), attachment, journal, home, after, seen: 0, room };
    Pull { agents: vec![asked], wait_ms: 0, replaced: 0, authority: 0 }
}

/// Sends the robot a command.
async fn send(nodes: &mut Nodes, shard: &Shard, id: CommandId) {
    let command = Command {
        place: charter().place,
        id,
        target: Target::Agent(robot()),
        verb: "goto".parse().unwrap(),
        content_type: "text/plain".parse().unwrap(),
        args: vec![1].into(),
        deadline: shard.clock().now().unwrap().plus_ms(VALID_MS),
        class: CommandClass::Routine,
        idempotent: false,
        supersedes: None,
        parent: None,
        trace: TraceParent::new("").unwrap(),
        waves: None,
        operator: operator().key(),
    };
    let command = Box::new(command.sign(&operator()).unwrap());
    commit(nodes, shard, CommandOp::Send { command }).await;
}

fn commands(pulled: &Result<Pulled, PullFailure>) -> Vec<CommandId> {
    let agents = pulled.iter().flat_map(|pulled| &pulled.agents);
    agents.flat_map(|agent| &agent.deliveries).map(|delivery| delivery.command.id).collect()
}

/// The leader and the node of the robot are on one side, the other voters on the other.
async fn cut_off_with_its_robots(watch: Watch, is_ahead: bool) {
    let (mut nodes, voters) = three_of(4, &watch).await;
    let (id, deposed) = leader(&mut nodes).await;
    let (node, command) = (nodes.all[3].id, CommandId::from_bytes([7; 16]));
    let mut pull = serve(&mut nodes, &deposed, node).await;
    if is_ahead {
        (pull.agents[0].after.routine, pull.agents[0].seen) = (u64::MAX, u64::MAX);
    }
    send(&mut nodes, &deposed, command).await;
    assert_eq!(commands(&deposed.pull(node, &pull, &AnswerRoom::default()).await), [command]);
    let others = voters.iter().copied().filter(|voter| *voter != id);
    let across = others.flat_map(|other| [id, node].map(|here| [(here, other), (other, here)]));
    nodes.fabric.cut(across.flatten());
    // A quorum acknowledged the leader a moment ago, and the others may elect another one while the answer is on its
    // way.
    assert!(deposed.view().borrow().ready, "it must believe that it leads");
    let pulled = deposed.pull(node, &pull, &AnswerRoom::default()).await;
    assert!(matches!(pulled, Err(PullFailure::NotLeader(_))), "no other voter was asked: {pulled:?}");
    let leads = |nodes: &Nodes| nodes.ready().iter().any(|(at, _)| nodes.all[*at].id != id);
    assert!(within(&mut nodes, PATIENCE, leads).await, "two of three elect no leader");
    let ready = nodes.ready();
    let (_, next) = ready.iter().find(|(at, _)| nodes.all[*at].id != id).unwrap();
    assert_eq!(commands(&next.pull(node, &pull, &AnswerRoom::default()).await), [command]);
    let pulled = deposed.pull(node, &pull, &AnswerRoom::default()).await;
    assert!(matches!(pulled, Err(PullFailure::NotLeader(_))), "another one leads: {pulled:?}");
}

#[test]
fn a_leader_that_is_cut_off_hands_out_no_command_to_a_node_that_knows_nothing_yet() {
    let outcome = run(|watch| cut_off_with_its_robots(watch, false));
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}

#[test]
fn a_leader_that_is_cut_off_has_no_node_go_back_that_is_ahead_of_it() {
    let outcome = run(|watch| cut_off_with_its_robots(watch, true));
    assert_eq!(outcome.violation, None, "{:#?}", outcome.story);
}
