use skep_protocol::agent::{AgentOp, Role};
use skep_protocol::entry::{Entry, EntryBody, Op, Request};
use skep_protocol::ids::{NodeId, RequestId, SessionId, TaskId};
use skep_protocol::lease::LeaseTerms;
use skep_protocol::task::{DisconnectPolicy, RetryPolicy, TaskOp, TaskSpec, WaitReason};
use skep_protocol::text::{AgentId, Capability, RoleName, TaskKind, Title};
use skep_protocol::time::LogInstant;

use super::{FleetState, LogPosition, looks};
use crate::FleetLimits;

const AGENTS: u128 = 3_000;

fn task(n: u8, required: &[&str]) -> Op {
    let required = required.iter().map(|name| Capability::new(*name).unwrap()).collect();
    let spec = TaskSpec {
        title: Title::new("a task").unwrap(),
        kind: TaskKind::new("task").unwrap(),
        priority: Default::default(),
        required,
        payload: Vec::new(),
        retry: RetryPolicy { attempts_max: 3, backoff_initial_ms: 100, backoff_max_ms: 1_000 },
        stale_after_ms: 10_000,
        valid_for_ms: None,
        disconnect: DisconnectPolicy::default(),
        place: None,
    };
    Op::Task(TaskOp::Create { task: TaskId::from_bytes([n; 16]), spec: Box::new(spec) })
}

fn attach(n: u128) -> Op {
    let capabilities = [Capability::new(format!("skill-{}", n % 3)).unwrap()].into();
    let role = Role { name: RoleName::new("worker").unwrap(), capabilities, stateful: false, max_concurrent: 1 };
    let (node, session) = (NodeId::from_public_key([1; 32]), SessionId::from_bytes([1; 16]));
    Op::Agent(AgentOp::Attach { agent: agent(n), role, node, session, lease: LeaseTerms::DEFAULT })
}

fn agent(n: u128) -> AgentId {
    AgentId::new(format!("agent-{n}")).unwrap()
}

#[test]
fn why_a_task_waits_is_told_without_a_look_at_each_agent() {
    let mut state = FleetState::new(FleetLimits::default());
    let now = LogInstant::from_raw(1_000);
    let mut index = 0;
    let mut apply = |state: &mut FleetState, op: Op| {
        index += 1;
        let id = RequestId::from_bytes(u128::from(index).to_be_bytes());
        let body = EntryBody::Requests(vec![Request { id, first_sent: now, deadline: now.plus_ms(60_000), op }]);
        state.apply(LogPosition { index, term: 1 }, &Entry { stamp: now, term: 1, body });
    };
    (0..AGENTS).for_each(|n| apply(&mut state, attach(n)));
    for (n, required) in
        [(1, &["skill-1"][..]), (2, &["skill-1", "skill-2"][..]), (3, &["skill-9"][..]), (4, &["skill-1"][..])]
    {
        apply(&mut state, task(n, required));
    }
    let take =
        |n| Op::Task(TaskOp::Claim { agent: agent(1), task: Some(TaskId::from_bytes([n; 16])), attachment: None });
    apply(&mut state, take(4));
    let restored = FleetState::from_snapshot(&state.to_snapshot().unwrap()).unwrap();
    looks::take();
    let all = u32::try_from(AGENTS).unwrap();
    for state in [&state, &restored] {
        let why = |n: u8| state.why_waiting(state.task(&TaskId::from_bytes([n; 16])).unwrap(), now).unwrap();
        assert_eq!(why(1), WaitReason::NobodyReady { capable: all / 3, free: all / 3 - 1 });
        let lacking = ["skill-1", "skill-2"].map(|name| Capability::new(name).unwrap()).to_vec();
        assert_eq!(why(2), WaitReason::NobodyCapable { attached: all, lacking });
        let lacking = vec![Capability::new("skill-9").unwrap()];
        assert_eq!(why(3), WaitReason::NobodyCapable { attached: all, lacking });
    }
    assert_eq!(looks::take(), 2 * 3 * 3, "three kinds of agents");
}
