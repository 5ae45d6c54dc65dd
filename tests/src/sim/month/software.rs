//! Agents that come, work for some hours and go, each under an id of its own, and customers that order steadily.

use std::collections::BTreeSet;

use rand::RngExt as _;
use skep_engine::{AgentEvent, Event as EngineEvent, StreamKey};
use skep_protocol::agent::Role;
use skep_protocol::attach::{AgentSaid, AgentTold, AttachWish};
use skep_protocol::command::{Command, CommandClass, CommandOp, Target};
use skep_protocol::entry::Op;
use skep_protocol::ids::{CommandId, SessionId, TaskId};
use skep_protocol::offer::{CommandSaid, CommandTold};
use skep_protocol::signing::{Signature, Signed};
use skep_protocol::task::{Claim, DisconnectPolicy, Priority, RetryPolicy, TaskOp, TaskSpec};
use skep_protocol::text::{AgentId, ContentType, GroupName, RoleName, TaskKind, Title, TraceParent, Verb};
use skep_protocol::time::LogInstant;

use super::agents::{Session, Step};
use super::site::{LEASE, NODES, Site, Waits};
use super::{DAY_MS, MINUTE_MS};
use crate::sim::clerk::sealed;
use crate::sim::names::{SHARD, operator, place};

/// How long an agent stays, in milliseconds.
const STAYS_MS: std::ops::RangeInclusive<u64> = 60 * MINUTE_MS..=180 * MINUTE_MS;
/// Wait before a busy agent that would like to go looks again, in milliseconds, and how often it looks: then it goes in
/// any case.
const GOES_AGAIN_MS: u64 = 5 * MINUTE_MS;
const GOES_AGAIN_MAX: u32 = 12;
/// One agent in this many ends without a word in the midst of a command, with all its other work.
const DIES_ONE_IN: u32 = 20;
/// How long a task and a command take, in milliseconds; meanwhile the agent reports progress to the shard every few
/// seconds.
const TASK_MS: std::ops::RangeInclusive<u64> = MINUTE_MS..=8 * MINUTE_MS;
const COMMAND_MS: std::ops::RangeInclusive<u64> = 1_000..=6_000;
/// How long a command is valid, in milliseconds; and one command in how many is for all agents.
const VALID_MS: u64 = 30 * MINUTE_MS;
const GROUP_ONE_IN: u32 = 500;
/// When an agent says again what was ignored, in milliseconds.
const AGAIN_MS: u64 = MINUTE_MS;
/// Bytes of a payload, of arguments and of a result.
const PAYLOAD_BYTES: usize = 64;

/// The time between two events of which there are `per_day` a day, in milliseconds.
fn every_ms(per_day: u64) -> u64 {
    DAY_MS / per_day.max(1)
}

#[allow(clippy::expect_used, reason = "a constant within its limits")]
fn everybody() -> GroupName {
    GroupName::new("everybody").expect("a name")
}

impl Site {
    pub(super) fn begin(&mut self) {
        self.step_after(0, Step::Comes);
        self.step_after(30 * MINUTE_MS, Step::Orders);
        self.step_after(40 * MINUTE_MS, Step::Commands);
    }

    pub(super) fn on_step(&mut self, step: Step) {
        match step {
            Step::Comes => self.come(),
            Step::KeepsAlive { session } => self.keep_alive(session),
            Step::Goes { session, time } => self.go(session, time),
            Step::HasDone { session, claim } => self.has_done(session, claim),
            Step::Begins { session, command } => self.say(session, command, |stamp| CommandSaid::Start { stamp }),
            Step::HasObeyed { session, command } => {
                let result = vec![1; PAYLOAD_BYTES];
                self.say(session, command, |_| CommandSaid::Succeeded { result });
            }
            Step::Orders => self.order(),
            Step::Commands => self.command(),
        }
    }

    #[allow(clippy::expect_used, reason = "constants within their limits")]
    fn come(&mut self) {
        self.step_after(every_ms(self.options.sessions_per_day), Step::Comes);
        self.came += 1;
        let (number, node) = (self.came, self.rng.random_range(0..NODES));
        let agent = AgentId::new(format!("agent-{number}")).expect("an id");
        let role = Role { name: RoleName::new("robot").expect("a role"), ..Role::unregistered() };
        let session = SessionId::from_bytes(self.rng.random());
        let wish = AttachWish { shard: SHARD, agent: agent.clone(), role, session, lease: Some(LEASE) };
        let (tasks, commands) = (BTreeSet::new(), BTreeSet::new());
        let (attached, going, dies) = (false, false, false);
        self.sessions.insert(number, Session { agent, node, attached, going, dies, tasks, commands });
        let stays_ms = self.rng.random_range(STAYS_MS);
        self.step_after(stays_ms, Step::Goes { session: number, time: 0 });
        self.tell_node(node, EngineEvent::Agent(AgentEvent::Opened { stream: StreamKey(number), wish }));
        self.keep_alive(number);
    }

    fn keep_alive(&mut self, session: u64) {
        let Some(node) = self.sessions.get(&session).map(|known| known.node) else { return };
        let (stream, stamp) = (StreamKey(session), self.now);
        self.tell_node(
            node,
            EngineEvent::Agent(AgentEvent::Said { stream, said: AgentSaid::KeepAlive { stamp, place: None } }),
        );
        self.step_after(LEASE.ttl_ms / 5, Step::KeepsAlive { session });
    }

    fn go(&mut self, session: u64, time: u32) {
        let dies = self.rng.random_ratio(1, DIES_ONE_IN);
        let Some(known) = self.sessions.get_mut(&session) else { return };
        let (stream, node) = (StreamKey(session), known.node);
        if time == 0 && dies {
            known.dies = true;
            return;
        }
        known.going = true;
        let busy = !known.tasks.is_empty() || !known.commands.is_empty();
        if busy && time < GOES_AGAIN_MAX {
            return self.step_after(GOES_AGAIN_MS, Step::Goes { session, time: time + 1 });
        }
        self.tell_node(node, EngineEvent::Agent(AgentEvent::Said { stream, said: AgentSaid::Detach }));
    }

    pub(super) fn on_told(&mut self, stream: StreamKey, message: AgentTold) {
        let session = stream.0;
        let Some(known) = self.sessions.get_mut(&session) else { return };
        match message {
            AgentTold::Attached { .. } => {
                known.attached = true;
                let (node, groups, in_hand) = (known.node, [everybody()].into(), BTreeSet::new());
                self.take_another(session);
                let takes = AgentEvent::Said { stream, said: AgentSaid::TakesCommands { groups, in_hand } };
                self.tell_node(node, EngineEvent::Agent(takes));
            }
            AgentTold::Grant(grant) => {
                known.tasks.insert(grant.task.id);
                let claim = Claim { task: grant.task.id, agent: known.agent.clone(), epoch: grant.task.epoch };
                let takes_ms = self.rng.random_range(TASK_MS);
                self.step_after(takes_ms, Step::HasDone { session, claim });
            }
            AgentTold::Lost { task, .. } => _ = known.tasks.remove(&task),
            AgentTold::Holds(_) | AgentTold::Lease(_) => {}
            AgentTold::Command(command, told) => self.on_command_told(session, command, &told),
            AgentTold::Ended(_) => _ = self.sessions.remove(&session),
        }
    }

    /// An agent takes one more task, unless it is about to go.
    pub(super) fn take_another(&mut self, session: u64) {
        let known = self.sessions.get(&session).filter(|known| !known.going);
        let Some(node) = known.map(|known| known.node) else { return };
        let credit = AgentEvent::Said { stream: StreamKey(session), said: AgentSaid::Credits(1) };
        self.tell_node(node, EngineEvent::Agent(credit));
    }

    fn has_done(&mut self, session: u64, claim: Claim) {
        let Some(known) = self.sessions.get_mut(&session) else { return };
        let node = known.node;
        // A task that the agent has lost meanwhile belongs to another agent.
        if known.tasks.remove(&claim.task) {
            let result = vec![1; PAYLOAD_BYTES];
            self.request(node, Op::Task(TaskOp::Complete { claim, result }), Waits::Session(session));
        } else {
            self.take_another(session);
        }
    }

    fn on_command_told(&mut self, session: u64, command: CommandId, told: &CommandTold) {
        let Some(known) = self.sessions.get_mut(&session) else { return };
        match told {
            CommandTold::Offer(_) => {
                known.commands.insert(command);
                self.step_after(1_000, Step::Begins { session, command });
            }
            CommandTold::Go { .. } if known.dies => {
                let (stream, node) = (StreamKey(session), known.node);
                self.sessions.remove(&session);
                self.tell_node(node, EngineEvent::Agent(AgentEvent::Said { stream, said: AgentSaid::Closed }));
            }
            CommandTold::Go { .. } => {
                let takes_ms = self.rng.random_range(COMMAND_MS);
                self.step_after(takes_ms, Step::HasObeyed { session, command });
            }
            CommandTold::Ignored => self.step_after(AGAIN_MS, Step::Begins { session, command }),
            CommandTold::Void(_) | CommandTold::Interrupted | CommandTold::Recorded(_) | CommandTold::Unknown => {
                known.commands.remove(&command);
            }
        }
    }

    /// Reports on a command that an agent has.
    fn say(&mut self, session: u64, command: CommandId, what: impl FnOnce(u64) -> CommandSaid) {
        let known = self.sessions.get(&session).filter(|known| known.commands.contains(&command));
        let Some(node) = known.map(|known| known.node) else { return };
        let (stream, said) = (StreamKey(session), what(self.now));
        self.tell_node(node, EngineEvent::Agent(AgentEvent::Said { stream, said: AgentSaid::Command(command, said) }));
    }

    #[allow(clippy::expect_used, reason = "constants within their limits")]
    fn order(&mut self) {
        if self.closing {
            return;
        }
        self.step_after(every_ms(self.options.tasks_per_day), Step::Orders);
        let spec = TaskSpec {
            title: Title::new("order").expect("a title"),
            kind: TaskKind::new("transport").expect("a kind"),
            priority: Priority::Normal,
            required: BTreeSet::new(),
            payload: vec![1; PAYLOAD_BYTES],
            retry: RetryPolicy { attempts_max: 1_000, ..RetryPolicy::default() },
            stale_after_ms: TaskSpec::STALE_AFTER_MS_DEFAULT,
            valid_for_ms: None,
            disconnect: DisconnectPolicy::default(),
            place: None,
        };
        let (task, node) = (TaskId::from_bytes(self.rng.random()), self.rng.random_range(0..NODES));
        self.request(node, Op::Task(TaskOp::Create { task, spec: Box::new(spec) }), Waits::Nobody);
    }

    #[allow(clippy::expect_used, reason = "constants within their limits")]
    fn command(&mut self) {
        if self.closing {
            return;
        }
        self.step_after(every_ms(self.options.commands_per_day), Step::Commands);
        let here: Vec<&AgentId> =
            self.sessions.values().filter(|known| known.attached).map(|known| &known.agent).collect();
        if here.is_empty() {
            return;
        }
        let one = here[self.rng.random_range(0..here.len())].clone();
        let all = self.rng.random_ratio(1, GROUP_ONE_IN);
        let command = Command {
            place: place(),
            id: CommandId::from_bytes(self.rng.random()),
            target: if all { Target::Group(everybody()) } else { Target::Agent(one) },
            verb: Verb::new("goto").expect("a verb"),
            content_type: ContentType::new("").expect("a type"),
            args: vec![1; PAYLOAD_BYTES].into(),
            // The code below seals this with the clock.
            deadline: LogInstant::from_raw(VALID_MS),
            class: CommandClass::Routine,
            idempotent: false,
            supersedes: None,
            parent: None,
            trace: TraceParent::new("").expect("a trace"),
            waves: None,
            operator: operator().key(),
        };
        let signature = Signature::from_bytes(&[0; 64]);
        let op = Op::Command(CommandOp::Send {
            command: Box::new(Signed::under(&command, signature).expect("within its limit")),
        });
        let (op, node) = (sealed(op, self.clock()), self.rng.random_range(0..NODES));
        self.request(node, op, Waits::Nobody);
    }
}
