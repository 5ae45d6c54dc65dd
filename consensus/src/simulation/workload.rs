//! Clients of a run, and what must hold of their answers.

use std::sync::{Arc, Mutex, PoisonError};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use skep_protocol::entry::{Op, Request};
use skep_protocol::ids::{NodeId, RequestId, TaskId};
use skep_protocol::outcome::{ProposeOutcome, Reply};
use skep_protocol::query::{Answer, Query};
use skep_protocol::task::{DisconnectPolicy, Priority, RetryPolicy, TaskOp, TaskSpec};
use skep_protocol::text::{TaskKind, Title};

use super::site::Nodes;
use super::watch::Watch;
use crate::shard::Shard;

/// The most requests under way at a time.
const UNDER_WAY_MAX: usize = 6;
/// The most times that one request is sent.
const SENDINGS_MAX: u32 = 40;

/// A request whose outcome is unknown.
struct Open {
    request: Request,
    sendings: u32,
}

#[derive(Default)]
struct State {
    open: Vec<Open>,
    under_way: usize,
}

/// Clients that create tasks, and read what was acknowledged.
pub(super) struct Workload {
    rng: SmallRng,
    state: Arc<Mutex<State>>,
    /// Whether clients begin nothing new.
    winding_down: bool,
    /// The last creation, which shows that the shard works again.
    last: Option<TaskId>,
}

fn spec(payload_bytes: usize) -> Option<Box<TaskSpec>> {
    Some(Box::new(TaskSpec {
        title: Title::new("task").ok()?,
        kind: TaskKind::new("task").ok()?,
        priority: Priority::Normal,
        required: Default::default(),
        payload: vec![1; payload_bytes],
        retry: RetryPolicy::default(),
        stale_after_ms: 900_000,
        valid_for_ms: None,
        disconnect: DisconnectPolicy::default(),
        place: None,
    }))
}

impl Workload {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), state: Arc::default(), winding_down: false, last: None }
    }

    /// Sets whether clients begin nothing new but one last creation.
    pub(super) fn wind_down(&mut self, now: bool) {
        self.winding_down |= now;
    }

    /// Begins what clients do at this instant.
    pub(super) fn step(&mut self, nodes: &Nodes) {
        let ready = nodes.ready();
        if ready.is_empty() {
            return;
        }
        // Clients ask any node that believes that it leads, a deposed leader too.
        let (_, shard) = ready[self.rng.random_range(0..ready.len())].clone();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.under_way < UNDER_WAY_MAX {
            let open = match state.open.pop() {
                Some(open) => Some(open),
                None if self.winding_down && self.last.is_some() => None,
                None => {
                    let request = new_request(&mut self.rng, &shard);
                    if let (true, Some(Request { op: Op::Task(TaskOp::Create { task, .. }), .. })) =
                        (self.winding_down, &request)
                    {
                        self.last = Some(*task);
                    }
                    request.map(|request| Open { request, sendings: 0 })
                }
            };
            if let Some(open) = open {
                state.under_way += 1;
                tokio::spawn(create(shard.clone(), open, Arc::clone(&self.state), nodes.watch.clone()));
            }
        }
        drop(state);
        let acknowledged = nodes.watch.acknowledged();
        if !acknowledged.is_empty() && self.rng.random_bool(0.5) {
            // A new task rather than an old one: a stale replica lacks the new ones.
            let at = acknowledged.len() - 1 - self.rng.random_range(0..acknowledged.len().min(3));
            tokio::spawn(read(shard, acknowledged[at], nodes.watch.clone()));
        }
    }

    /// Whether no request is open, and a task was created since everything was mended.
    pub(super) fn is_settled(&self, nodes: &Nodes) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.last.is_some_and(|last| nodes.watch.acknowledged().contains(&last));
        last && state.open.is_empty() && state.under_way == 0
    }
}

pub(super) fn new_request(rng: &mut SmallRng, shard: &Shard) -> Option<Request> {
    create_task(shard, rng.random(), 120)
}

/// A request to create a task with a payload of this many bytes; none while the shard has no clock.
pub(super) fn create_task(shard: &Shard, random: [u8; 16], payload_bytes: usize) -> Option<Request> {
    let first_sent = shard.clock().now()?;
    let op = Op::Task(TaskOp::Create { task: TaskId::from_bytes(random), spec: spec(payload_bytes)? });
    let id = RequestId::from_bytes(random);
    Some(Request { id, first_sent, deadline: first_sent.plus_ms(600_000), op })
}

/// Creates a task; returns its id if that was acknowledged.
pub(super) async fn create_one(shard: &Shard, rng: &mut SmallRng, watch: &Watch) -> Option<TaskId> {
    let request = new_request(rng, shard)?;
    let Op::Task(TaskOp::Create { task, .. }) = request.op else { return None };
    match shard.propose(vec![request]).await.pop() {
        Some(ProposeOutcome::Applied { reply: Reply::Done(_), .. }) => watch.acknowledge(task),
        _ => return None,
    }
    Some(task)
}

async fn create(shard: Shard, mut open: Open, state: Arc<Mutex<State>>, watch: Watch) {
    open.sendings += 1;
    let outcome = shard.propose(vec![open.request.clone()]).await.pop();
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.under_way -= 1;
    match outcome {
        Some(ProposeOutcome::Applied { reply: Reply::Done(_), .. }) => {
            if let Op::Task(TaskOp::Create { task, .. }) = open.request.op {
                watch.acknowledge(task);
            }
        }
        // The deadline of the request has passed by a clock that was lost: the outcome is unknown.
        Some(ProposeOutcome::Applied { reply: Reply::Refused(_), .. }) => {}
        _ if open.sendings < SENDINGS_MAX => state.open.push(open),
        _ => {}
    }
}

/// S9: what was acknowledged before a linearizable read began is in its answer.
async fn read(shard: Shard, task: TaskId, watch: Watch) {
    let Ok(reply) = shard.query_linearizable(Query::Task(task)).await else { return };
    watch.count(|coverage| coverage.reads += 1);
    if matches!(reply.answer, Answer::Task(None)) {
        watch.violate("S9", &format!("task {task} was acknowledged, and a linearizable read does not know it"));
    }
}

fn voters<'a>(nodes: &'a Nodes, voters: &'a [NodeId]) -> impl Iterator<Item = Option<Shard>> + 'a {
    let of = |node: &super::site::Node| node.process.as_ref().and_then(super::site::Process::shard);
    nodes.all.iter().filter(|node| voters.contains(&node.id)).map(of)
}

/// Whether all voters run and have applied the same.
pub(super) fn are_equal(nodes: &Nodes, of: &[NodeId]) -> bool {
    let heads = voters(nodes, of).map(|shard| {
        let status = shard?.status();
        (status.applied == status.last_log).then_some((status.applied, status.digest))
    });
    let heads: Option<Vec<_>> = heads.collect();
    heads.is_some_and(|heads| heads.windows(2).all(|pair| pair[0] == pair[1]))
}

/// S1: every voter holds everything that was acknowledged.
pub(super) fn check_acknowledged(nodes: &Nodes, of: &[NodeId]) {
    for shard in voters(nodes, of).flatten() {
        for task in nodes.watch.acknowledged() {
            if !shard.holds(&task) {
                nodes.watch.violate("S1", &format!("the creation of {task} was acknowledged and is lost"));
            }
        }
    }
}

/// What the nodes are doing, as text.
pub(super) fn describe(nodes: &Nodes) -> String {
    let node = |node: &super::site::Node| {
        let shard = node.process.as_ref().and_then(super::site::Process::shard);
        let status = shard.map(|shard| shard.status());
        match status {
            Some(status) => format!(
                "{} term {} leader {:?} log {:?} applied {:?} fault {:?}",
                status.role, status.term, status.leader, status.last_log, status.applied, status.fault
            ),
            None => format!("down, refuses: {}", node.refuses),
        }
    };
    nodes.all.iter().map(node).collect::<Vec<_>>().join("; ")
}
