//! A shard for tests that count how much is looked at.

use skep_protocol::agent::{AgentOp, Role};
use skep_protocol::entry::{Entry, EntryBody, Op, Request};
use skep_protocol::heartbeat::{AgentHeartbeat, Heartbeat};
use skep_protocol::ids::{AttachmentId, NodeId, RequestId, SessionId, TaskId};
use skep_protocol::lease::LeaseTerms;
use skep_protocol::task::{DisconnectPolicy, RetryPolicy, TaskOp, TaskSpec};
use skep_protocol::text::{AgentId, Capability, RoleName, TaskKind, Title};
use skep_protocol::time::LogInstant;

use super::{Event, HeartbeatKey, Orchestrator};
use crate::FleetLimits;
use crate::state::{FleetState, LogPosition};

/// A shard in which each agent has a node of its own.
pub(super) struct Served {
    pub(super) state: FleetState,
    pub(super) now: LogInstant,
    pub(super) attachments: Vec<(AgentId, NodeId, AttachmentId)>,
    index: u64,
}

impl Served {
    pub(super) fn new(agents: u16) -> Self {
        let now = LogInstant::from_raw(1_000);
        let state = FleetState::new(FleetLimits::default());
        let mut served = Self { state, now, attachments: Vec::new(), index: 0 };
        (0..agents).for_each(|n| served.attach(n, n));
        served
    }

    /// Attaches an agent to a node.
    pub(super) fn attach(&mut self, n: u16, at: u16) {
        let agent = AgentId::new(format!("agent-{n}")).unwrap();
        let mut key = [7; 32];
        key[..2].copy_from_slice(&at.to_be_bytes());
        let (node, session) = (NodeId::from_public_key(key), SessionId::from_bytes([1; 16]));
        let (name, capabilities) = (RoleName::new("worker").unwrap(), Default::default());
        let role = Role { name, capabilities, stateful: false, max_concurrent: 4 };
        let lease = LeaseTerms::DEFAULT;
        self.ask(AgentOp::Attach { agent: agent.clone(), role, node, session, lease });
        let attachment = self.state.agent(&agent).unwrap().attachment.unwrap();
        assert_eq!(attachment.node, node);
        self.attachments.push((agent, node, attachment.id));
    }

    /// Ends one of the attachments.
    pub(super) fn detach(&mut self, at: usize) {
        let (agent, _, attachment) = self.attachments[at].clone();
        self.ask(AgentOp::Detach { agent: agent.clone(), attachment });
        assert_eq!(self.state.agent(&agent).unwrap().attachment, None);
    }

    /// Applies a request.
    pub(super) fn ask(&mut self, op: impl Into<Op>) {
        let (now, id) = (self.now, RequestId::from_bytes(u128::from(self.index + 1).to_be_bytes()));
        let request = Request { id, first_sent: now, deadline: now.plus_ms(60_000), op: op.into() };
        self.apply(EntryBody::Requests(vec![request]));
    }

    pub(super) fn apply(&mut self, body: EntryBody) {
        self.index += 1;
        let position = LogPosition { index: self.index, term: 1 };
        self.state.apply(position, &Entry { stamp: self.now, term: 1, body });
    }

    /// Creates a task that requires these capabilities.
    pub(super) fn create(&mut self, n: u16, required: &[&str]) {
        let spec = TaskSpec {
            title: Title::new("a task").unwrap(),
            kind: TaskKind::new("task").unwrap(),
            priority: Default::default(),
            required: required.iter().map(|name| Capability::new(name).unwrap()).collect(),
            payload: Vec::new(),
            retry: RetryPolicy::default(),
            stale_after_ms: 10_000,
            valid_for_ms: None,
            disconnect: DisconnectPolicy::default(),
            place: None,
        };
        self.ask(TaskOp::Create { task: task(n), spec: Box::new(spec) });
    }

    /// The node of an agent says that the agent wants this many tasks in all, and that its position changed.
    pub(super) fn says(&self, orchestrator: &mut Orchestrator, at: usize, credit_limit: u64, x_mm: i64) {
        let (agent, node, attachment) = self.attachments[at].clone();
        let place = Some(skep_protocol::position::Position { x_mm, y_mm: 0 });
        let said = AgentHeartbeat { agent, attachment, credit_limit, place, renew: false };
        let event = Event::Heartbeat { key: HeartbeatKey(0), node, heartbeat: Heartbeat { agents: vec![said] } };
        orchestrator.handle(event, &self.state, self.now);
    }
}

pub(super) fn task(n: u16) -> TaskId {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    TaskId::from_bytes(id)
}
