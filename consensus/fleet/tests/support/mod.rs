//! A shard in a test: applies one request an entry, with ids and times of its own.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod directory;
pub mod hall;

use skep_fleet::{
    Applied, FleetLimits, FleetState, HeartbeatKey, LogPosition, Orchestrator, OrchestratorConfig, OrchestratorEffect,
    OrchestratorEvent,
};
use skep_protocol::agent::{AgentOp, Role};
use skep_protocol::entry::{Decision, Entry, EntryBody, Op, Request};
use skep_protocol::heartbeat::{AgentHeartbeat, Heartbeat};
use skep_protocol::ids::{AttachmentId, ClaimEpoch, NodeId, RequestId, SessionId, TaskId};
use skep_protocol::lease::LeaseTerms;
use skep_protocol::outcome::{Receipt, Reply};
use skep_protocol::refusal::Refusal;
use skep_protocol::task::{Claim, DisconnectPolicy, RetryPolicy, Task, TaskOp, TaskSpec, TaskStatus};
use skep_protocol::text::{AgentId, Capability, Reason, RoleName, TaskKind, Title};
use skep_protocol::time::LogInstant;

pub struct Shard {
    pub state: FleetState,
    pub now: LogInstant,
    pub term: u64,
    pub index: u64,
    next_id: u128,
}

pub fn task_id(n: u8) -> TaskId {
    TaskId::from_bytes([n; 16])
}

pub fn agent(name: &str) -> AgentId {
    AgentId::new(name).unwrap()
}

pub fn reason(text: &str) -> Reason {
    Reason::new(text).unwrap()
}

pub fn capability(name: &str) -> Capability {
    Capability::new(name).unwrap()
}

pub fn spec() -> TaskSpec {
    TaskSpec {
        title: Title::new("a task").unwrap(),
        kind: TaskKind::new("task").unwrap(),
        priority: Default::default(),
        required: Default::default(),
        payload: Vec::new(),
        retry: RetryPolicy { attempts_max: 3, backoff_initial_ms: 100, backoff_max_ms: 1_000 },
        stale_after_ms: 10_000,
        valid_for_ms: None,
        disconnect: DisconnectPolicy::default(),
        place: None,
    }
}

pub fn create(n: u8, spec: TaskSpec) -> Op {
    Op::Task(TaskOp::Create { task: task_id(n), spec: Box::new(spec) })
}

pub fn take(n: u8, by: &str) -> Op {
    Op::Task(TaskOp::Claim { agent: agent(by), task: Some(task_id(n)), attachment: None })
}

pub fn take_any(by: &str) -> Op {
    Op::Task(TaskOp::Claim { agent: agent(by), task: None, attachment: None })
}

pub fn claim(n: u8, by: &str, epoch: u64) -> Claim {
    Claim { task: task_id(n), agent: agent(by), epoch: ClaimEpoch(epoch) }
}

pub fn complete(n: u8, by: &str, epoch: u64) -> Op {
    Op::Task(TaskOp::Complete { claim: claim(n, by, epoch), result: vec![n] })
}

pub fn node(n: u8) -> NodeId {
    NodeId::from_public_key([n; 32])
}

pub const LEASE: LeaseTerms = LeaseTerms { ttl_ms: 5_000 };

pub fn role(capabilities: &[&str], max_concurrent: u32) -> Role {
    let capabilities = capabilities.iter().map(|name| capability(name)).collect();
    Role { name: RoleName::new("worker").unwrap(), capabilities, stateful: false, max_concurrent }
}

pub fn attach(name: &str, at: u8, session: u8) -> Op {
    attach_as(name, at, session, role(&[], 1))
}

pub fn attach_as(name: &str, at: u8, session: u8, role: Role) -> Op {
    let session = SessionId::from_bytes([session; 16]);
    Op::Agent(AgentOp::Attach { agent: agent(name), role, node: node(at), session, lease: LEASE })
}

pub fn fail(n: u8, by: &str, epoch: u64) -> Op {
    Op::Task(TaskOp::Fail { claim: claim(n, by, epoch), reason: reason("broken"), retryable: true })
}

impl Shard {
    pub fn new() -> Self {
        Self::with_limits(FleetLimits::default())
    }

    pub fn with_limits(limits: FleetLimits) -> Self {
        let now = LogInstant::from_raw(1_000);
        Self { state: FleetState::new(limits), now, term: 1, index: 0, next_id: 1 }
    }

    pub fn apply(&mut self, body: EntryBody) -> Applied {
        let entry = Entry { stamp: self.now, term: self.term, body };
        self.apply_entry(&entry)
    }

    pub fn apply_entry(&mut self, entry: &Entry) -> Applied {
        self.index += 1;
        let position = LogPosition { index: self.index, term: self.term };
        self.state.apply(position, entry)
    }

    pub fn request(&mut self, op: impl Into<Op>) -> Request {
        self.next_id += 1;
        let id = RequestId::from_bytes(self.next_id.to_be_bytes());
        Request { id, first_sent: self.now, deadline: self.now.plus_ms(60_000), op: op.into() }
    }

    pub fn send(&mut self, request: &Request) -> Reply {
        let mut applied = self.apply(EntryBody::Requests(vec![request.clone()]));
        assert_eq!(applied.replies.len(), 1);
        applied.replies.remove(0)
    }

    pub fn ask(&mut self, op: impl Into<Op>) -> Reply {
        let request = self.request(op);
        self.send(&request)
    }

    pub fn ok(&mut self, op: impl Into<Op>) -> Receipt {
        match self.ask(op) {
            Reply::Done(receipt) => receipt,
            Reply::Refused(refusal) => panic!("refused: {refusal}"),
        }
    }

    pub fn refused(&mut self, op: impl Into<Op>) -> Refusal {
        match self.ask(op) {
            Reply::Refused(refusal) => refusal,
            Reply::Done(receipt) => panic!("done: {receipt:?}"),
        }
    }

    pub fn attached(&mut self, op: impl Into<Op>) -> AttachmentId {
        match self.ok(op) {
            Receipt::Attached { attachment, .. } => attachment,
            other => panic!("{other:?}"),
        }
    }

    pub fn decide(&mut self, decision: Decision) -> Applied {
        self.apply(EntryBody::Decisions(vec![decision]))
    }

    pub fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    pub fn task(&self, n: u8) -> &Task {
        self.state.task(&task_id(n)).expect("the task is there")
    }

    pub fn status(&self, n: u8) -> TaskStatus {
        self.task(n).state.status()
    }
}

/// An orchestrator, driven as the leader of the shard drives it.
pub struct Lead {
    pub orchestrator: Orchestrator,
    next_key: u64,
}

impl Lead {
    pub fn new(shard: &Shard) -> Self {
        Self::with(shard, OrchestratorConfig::default())
    }

    pub fn with(shard: &Shard, config: OrchestratorConfig) -> Self {
        Self { orchestrator: Orchestrator::new(config, &shard.state, shard.now), next_key: 0 }
    }

    pub fn tell(&mut self, shard: &Shard, event: OrchestratorEvent) -> Vec<OrchestratorEffect> {
        self.orchestrator.handle(event, &shard.state, shard.now);
        self.effects()
    }

    pub fn effects(&mut self) -> Vec<OrchestratorEffect> {
        std::iter::from_fn(|| self.orchestrator.poll_effect()).collect()
    }

    /// The orchestrator's proposals at this moment. Nothing is carried out.
    pub fn proposals(&mut self, shard: &Shard) -> Vec<Decision> {
        self.orchestrator.handle_timeout(&shard.state, shard.now);
        proposals(self.effects())
    }

    /// Applies the orchestrator's proposals until there are none; returns its other effects.
    pub fn settle(&mut self, shard: &mut Shard) -> Vec<OrchestratorEffect> {
        self.orchestrator.handle_timeout(&shard.state, shard.now);
        self.carry_out(shard)
    }

    pub fn carry_out(&mut self, shard: &mut Shard) -> Vec<OrchestratorEffect> {
        let mut others = Vec::new();
        while let Some(effect) = self.orchestrator.poll_effect() {
            match effect {
                OrchestratorEffect::Propose(decisions) => {
                    shard.apply(EntryBody::Decisions(decisions));
                    let ended = OrchestratorEvent::ProposalEnded { applied: true };
                    self.orchestrator.handle(ended, &shard.state, shard.now);
                }
                other => others.push(other),
            }
        }
        others
    }

    /// Looks at the entries that were applied, and carries out what follows.
    pub fn applied(&mut self, shard: &mut Shard) -> Vec<OrchestratorEffect> {
        self.orchestrator.handle(OrchestratorEvent::Applied, &shard.state, shard.now);
        self.carry_out(shard)
    }

    /// Hands on a node's heartbeat about its agents.
    pub fn heartbeat(&mut self, shard: &Shard, at: u8, agents: Vec<AgentHeartbeat>) -> HeartbeatKey {
        self.next_key += 1;
        let key = HeartbeatKey(self.next_key);
        let event = OrchestratorEvent::Heartbeat { key, node: node(at), heartbeat: Heartbeat { agents } };
        self.orchestrator.handle(event, &shard.state, shard.now);
        key
    }
}

pub fn proposals(effects: Vec<OrchestratorEffect>) -> Vec<Decision> {
    let decisions = |effect| match effect {
        OrchestratorEffect::Propose(decisions) => decisions,
        _ => Vec::new(),
    };
    effects.into_iter().flat_map(decisions).collect()
}

/// An agent that wants this many tasks in all, and asks for a renewal.
pub fn says(name: &str, attachment: AttachmentId, credit_limit: u64) -> AgentHeartbeat {
    AgentHeartbeat { agent: agent(name), attachment, credit_limit, place: None, renew: true }
}
