//! Requests, on the way to the leader of a shard: those that end work on streams of their own, apart from those that
//! can wait.

use std::sync::Arc;

use skep_protocol::agent::AgentOp;
use skep_protocol::attempt::AttemptTarget;
use skep_protocol::codec::Encoded as _;
use skep_protocol::command::CommandOp;
use skep_protocol::entry::{Op, Request};
use skep_protocol::frame::{FrameKind, Proposal, ProposalReply};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::leader::LeaderHint;
use skep_protocol::limits;
use skep_protocol::operator::OperatorOp;
use skep_protocol::outcome::ProposeOutcome;
use skep_protocol::site::SiteKey;
use skep_protocol::task::TaskOp;
use skep_protocol::text::AgentId;

use super::{Asked, Call, written};
use crate::net::{Action, CallError, Class, Peers};
use crate::shard::{ENTRY_PATIENCE, NodeParts, Shard};
use crate::shards::Shards;

pub(super) const PROPOSE: Call =
    Call::new(FrameKind::Propose, Class::Propose, |shards, asked| Box::pin(answer(shards, asked)));
pub(super) const END: Call = Call::new(FrameKind::End, Class::End, |shards, asked| Box::pin(answer(shards, asked)));

/// Proposes requests that travel together, at this node or another one, which leads the shard or is thought to; what
/// became of each.
pub(crate) async fn attempt(
    shards: &Shards,
    shard: ShardId,
    target: AttemptTarget,
    requests: Vec<Request>,
) -> Vec<ProposeOutcome> {
    match target {
        AttemptTarget::Node(node) => ask(&shards.parts, node, shard, requests).await,
        AttemptTarget::Local => match shards.shard(shard) {
            Some(shard) => shard.propose(requests).await,
            None => vec![ProposeOutcome::NoSuchShard; requests.len()],
        },
    }
}

async fn ask(parts: &NodeParts, node: NodeId, shard: ShardId, requests: Vec<Request>) -> Vec<ProposeOutcome> {
    let count = requests.len();
    let call = if Proposal::is_reserved_for(&requests) { END } else { PROPOSE };
    let body = match (Proposal { requests }).encode() {
        Ok(body) => body,
        Err(_) => return vec![ProposeOutcome::Overloaded { retry_after_ms: 20 }; count],
    };
    match parts.call(call, node, shard, &body, parts.round_patience() + ENTRY_PATIENCE).await {
        Ok(answer) => match ProposalReply::decode(&answer) {
            Ok(reply) if reply.outcomes.len() == count => reply.outcomes,
            Ok(_) | Err(_) => vec![ProposeOutcome::Unknown; count],
        },
        Err(CallError::NotSent(_) | CallError::Refused(_)) => {
            vec![ProposeOutcome::NotLeader(LeaderHint::default()); count]
        }
        Err(CallError::Lost(_) | CallError::Timeout(_)) => vec![ProposeOutcome::Unknown; count],
    }
}

/// What becomes of requests that another node proposes.
async fn answer(shards: Arc<Shards>, asked: Asked) -> Result<Vec<u8>, String> {
    let Proposal { requests } = asked.read()?;
    if requests.len() > limits::REQUESTS_PER_ENTRY_MAX {
        return Err(format!("{} requests are too many for one proposal", requests.len()));
    }
    let outcomes = match shards.shard(asked.header.shard) {
        Some(shard) => propose_for(asked.who.node, (&shards.parts.peers, &shard), requests).await,
        None => vec![no_replica(&shards, asked.header.shard); requests.len()],
    };
    written(&ProposalReply { outcomes: say_voters_once(outcomes) })
}

/// The answer to a request for a shard of which this node has no replica.
fn no_replica(shards: &Shards, shard: ShardId) -> ProposeOutcome {
    let hint = shards.hearsay(shard);
    if hint == LeaderHint::default() { ProposeOutcome::NoSuchShard } else { ProposeOutcome::NotLeader(hint) }
}

/// Proposes what a node may ask for. What is not its own to say is not proposed, and holds up nothing that came with
/// it.
async fn propose_for(node: NodeId, (peers, shard): (&Peers, &Shard), requests: Vec<Request>) -> Vec<ProposeOutcome> {
    let may_say = |op: &Op| is_its_own(node, op, shard) && is_certified(node, op, peers);
    let may: Vec<bool> = requests.iter().map(|request| may_say(&request.op)).collect();
    let allowed = requests.into_iter().zip(&may).filter(|(_, may)| **may);
    let allowed: Vec<Request> = allowed.map(|(request, _)| request).collect();
    let mut outcomes = if allowed.is_empty() { Vec::new() } else { shard.propose(allowed).await }.into_iter();
    let next = |may: bool| {
        // This replica may be behind: whoever leads later may know better.
        if may {
            outcomes.next().unwrap_or(ProposeOutcome::Unknown)
        } else {
            ProposeOutcome::NotLeader(LeaderHint::default())
        }
    };
    may.into_iter().map(next).collect()
}

/// One of the outcomes names the voters: the same list behind each of hundreds would fill a thin link.
fn say_voters_once(outcomes: Vec<ProposeOutcome>) -> Vec<ProposeOutcome> {
    let mut said = false;
    let once = |outcome| match outcome {
        ProposeOutcome::NotLeader(hint) if std::mem::replace(&mut said, true) => {
            ProposeOutcome::NotLeader(hint.without_voters())
        }
        outcome => outcome,
    };
    outcomes.into_iter().map(once).collect()
}

/// A node attaches and detaches agents of its own only, opens inboxes for them, and says what became of what it had. Any
/// node may pass on the rest, as far as that is asked here: a robot's software finishes a task through whichever node it
/// reaches, and operators sign what they ask.
fn is_its_own(node: NodeId, op: &Op, shard: &Shard) -> bool {
    match op {
        Op::Agent(AgentOp::Attach { node: of, .. }) => *of == node,
        Op::Agent(AgentOp::Detach { agent, .. }) => shard.serves(agent).is_none_or(|serves| serves == node),
        Op::Command(CommandOp::End { ended }) => shard.may_report(ended.command, &ended.agent, node),
        Op::Command(CommandOp::Report { report }) => shard.may_report(report.command, &report.agent, node),
        Op::Command(CommandOp::OpenInbox { agent, .. }) => shard.serves(agent) == Some(node),
        // What is sealed says itself whose it is. One that is too large is none, and comes into no log.
        Op::Site(op) => op.is_within_bounds() && op.said_by().is_none_or(|member| member == SiteKey::from(node)),
        Op::Agent(AgentOp::Register { .. } | AgentOp::Remove { .. })
        | Op::Command(CommandOp::Send { .. } | CommandOp::Control { .. })
        | Op::Operator(OperatorOp::Grant { .. } | OperatorOp::ReplaceFirst { .. })
        | Op::Task(
            TaskOp::Create { .. }
            | TaskOp::Claim { .. }
            | TaskOp::Report { .. }
            | TaskOp::Complete { .. }
            | TaskOp::Fail { .. }
            | TaskOp::Cancel { .. }
            | TaskOp::Requeue { .. }
            | TaskOp::Settle { .. }
            | TaskOp::Release { .. },
        ) => true,
    }
}

/// At a site a node speaks for the agents that its certificate names. What an operator signed anybody may bring.
fn is_certified(node: NodeId, op: &Op, peers: &Peers) -> bool {
    match op {
        Op::Agent(op) => peers.may(node, of_agents(op), Some(op.agent())),
        Op::Task(op) => match of_tasks(op) {
            Some(agent) => peers.may(node, Action::Serve, Some(agent)),
            None => peers.may(node, Action::Change, None),
        },
        Op::Command(CommandOp::OpenInbox { agent, .. }) => peers.may(node, Action::Serve, Some(agent)),
        Op::Command(CommandOp::Report { report }) => peers.may(node, Action::Serve, Some(&report.agent)),
        Op::Command(CommandOp::End { ended }) => peers.may(node, Action::Serve, Some(&ended.agent)),
        Op::Command(CommandOp::Send { .. } | CommandOp::Control { .. }) | Op::Operator(_) => true,
        // Sealed, or of the member itself: that was asked before.
        Op::Site(_) => true,
    }
}

fn of_agents(op: &AgentOp) -> Action {
    match op {
        AgentOp::Attach { .. } => Action::Attach,
        AgentOp::Detach { .. } => Action::Serve,
        AgentOp::Register { .. } | AgentOp::Remove { .. } => Action::Administer,
    }
}

/// The agent that is said to do something.
fn of_tasks(op: &TaskOp) -> Option<&AgentId> {
    match op {
        TaskOp::Claim { agent, .. } => Some(agent),
        TaskOp::Report { claim, .. }
        | TaskOp::Complete { claim, .. }
        | TaskOp::Fail { claim, .. }
        | TaskOp::Release { claim } => Some(&claim.agent),
        TaskOp::Create { .. } | TaskOp::Cancel { .. } | TaskOp::Requeue { .. } | TaskOp::Settle { .. } => None,
    }
}
