use skep_protocol::agent::{Grant, Role};
use skep_protocol::heartbeat::{AgentClaims, AgentRenewal, ClaimsUpdate};
use skep_protocol::ids::{ClaimEpoch, SessionId};
use skep_protocol::refusal::Refusal;
use skep_protocol::task::{DisconnectPolicy, Priority, RetryPolicy, Task, TaskSpec, TaskState};
use skep_protocol::text::{TaskKind, Title};
use skep_protocol::time::LogInstant;

use super::*;

const SHARD: ShardId = ShardId(1);
const STREAM: StreamKey = StreamKey(5);
const ATTACHMENT: AttachmentId = AttachmentId(40);
const CONFIG: EngineConfig = EngineConfig {
    no_quorum_after_ms: 3_000,
    retry_ms_min: 10,
    retry_ms_max: 350,
    attempt_timeout_ms: 1_000,
    lease: LeaseTerms { ttl_ms: 5_000 },
    heartbeat_ms: 1_000,
};

fn agent() -> AgentId {
    AgentId::new("r1").unwrap()
}

fn wish(session: u8) -> AttachWish {
    let session = SessionId::from_bytes([session; 16]);
    AttachWish { shard: SHARD, agent: agent(), role: Role::unregistered(), session, lease: None }
}

/// The machine, and what it asked for last.
struct Node {
    agents: Agents,
    last: AgentsPurpose,
    now_ms: u64,
    assigned: u64,
}

impl Node {
    fn new() -> Self {
        let node = NodeId::from_public_key([1; 32]);
        Self { agents: Agents::new(node, CONFIG), last: AgentsPurpose::Attachment(STREAM), now_ms: 0, assigned: 0 }
    }

    fn handle(&mut self, event: AgentEvent) -> Vec<AgentsWant> {
        self.agents.handle(event, self.now_ms);
        self.wants()
    }

    fn pass(&mut self, ms: u64) -> Vec<AgentsWant> {
        self.now_ms += ms;
        self.agents.handle_timeout(self.now_ms);
        self.wants()
    }

    fn settle(&mut self, settled: Settled) -> Vec<AgentsWant> {
        self.agents.answered(self.last, settled, self.now_ms);
        self.wants()
    }

    fn wants(&mut self) -> Vec<AgentsWant> {
        let mut wants = Vec::new();
        while let Some(want) = self.agents.poll_want() {
            if let AgentsWant::Ask(ask) = &want {
                self.last = ask.purpose;
            }
            wants.push(want);
        }
        wants
    }

    fn attached(receipt: AttachmentId) -> Settled {
        let receipt = Receipt::Attached { agent: agent(), attachment: receipt, lease: CONFIG.lease };
        Settled::Done { index: 1, stamp: LogInstant::ZERO, receipt }
    }

    /// A node with one agent that is attached and has said nothing else.
    fn with_agent() -> Self {
        let mut node = Self::new();
        node.handle(AgentEvent::Opened { stream: STREAM, wish: wish(1) });
        node.settle(Self::attached(ATTACHMENT));
        node.settle(Settled::Heard(HeartbeatReply::default()));
        node
    }

    fn keep_alive(&mut self, stamp: u64) -> Vec<AgentsWant> {
        self.handle(AgentEvent::Said { stream: STREAM, said: AgentSaid::KeepAlive { stamp, place: None } })
    }

    fn renew(&mut self, renewal: Renewal) -> Vec<AgentsWant> {
        let agents = vec![AgentRenewal { agent: agent(), attachment: ATTACHMENT, renewal }];
        self.settle(Settled::Heard(HeartbeatReply { agents, ..HeartbeatReply::default() }))
    }

    fn update(&mut self, as_of: u64, claims: Vec<Task>) -> Vec<AgentsWant> {
        let held = claims.iter().map(|task| (task.id, task.epoch)).collect();
        self.assigned = self.assigned.max(claims.len() as u64);
        let assigned = self.assigned;
        let claims = AgentClaims { agent: agent(), attachment: ATTACHMENT, assigned, held, tasks: claims };
        let update = ClaimsUpdate { as_of, agents: vec![claims] };
        self.handle(AgentEvent::Update { key: UpdateKey(as_of), shard: SHARD, update })
    }
}

const RENEWED: Usable = Usable { stamp: 1_000, usable_ms: 4_500 };

fn grant(task: Task) -> AgentTold {
    AgentTold::Grant(Box::new(Grant { task, spends_credit: true, lease: None }))
}

fn task(n: u8, epoch: u64) -> Task {
    let spec = TaskSpec {
        title: Title::new("t").unwrap(),
        kind: TaskKind::new("k").unwrap(),
        priority: Priority::Normal,
        required: BTreeSet::new(),
        payload: Vec::new(),
        retry: RetryPolicy::default(),
        stale_after_ms: 1,
        valid_for_ms: None,
        disconnect: DisconnectPolicy::default(),
        place: None,
    };
    Task {
        id: TaskId::from_bytes([n; 16]),
        spec: spec.into(),
        state: TaskState::Claimed {
            by: agent(),
            since: LogInstant::ZERO,
            stale_at: LogInstant::ZERO,
            assigned: Some(ATTACHMENT),
        },
        seq: 0,
        epoch: ClaimEpoch(epoch),
        attempts: 1,
        created_at: LogInstant::ZERO,
        updated_at: LogInstant::ZERO,
        expires_at: None,
        progress: None,
        fenced_until: LogInstant::ZERO,
        checkpoint: None,
        failures: Vec::new(),
    }
}

fn heartbeats(wants: &[AgentsWant]) -> Vec<AgentHeartbeat> {
    let said = |want: &AgentsWant| match want {
        AgentsWant::Ask(Ask { work: Asked::Heartbeat(heartbeat), .. }) => Some(heartbeat.agents.clone()),
        _ => None,
    };
    wants.iter().filter_map(said).flatten().collect()
}

fn told(wants: &[AgentsWant]) -> Vec<AgentTold> {
    let message = |want: &AgentsWant| match want {
        AgentsWant::Tell { message, .. } => Some(message.clone()),
        _ => None,
    };
    wants.iter().filter_map(message).collect()
}

#[test]
fn an_agent_is_attached_by_the_log_before_anything_is_said_of_it() {
    let mut node = Node::new();
    let wants = node.handle(AgentEvent::Opened { stream: STREAM, wish: wish(1) });
    assert!(matches!(
        wants.as_slice(),
        [AgentsWant::Ask(Ask { work: Asked::Op(Op::Agent(AgentOp::Attach { .. })), .. })]
    ));
    assert!(node.keep_alive(7).is_empty());
    assert!(node.handle(AgentEvent::Said { stream: STREAM, said: AgentSaid::Credits(2) }).is_empty());
    let wants = node.settle(Node::attached(ATTACHMENT));
    assert!(matches!(told(&wants).as_slice(), [AgentTold::Attached { attachment: ATTACHMENT, .. }]));
    let [said] = heartbeats(&wants).try_into().unwrap();
    assert_eq!((said.credit_limit, said.renew), (2, true));
}

#[test]
fn a_lease_is_counted_from_the_stamp_that_was_known_when_it_was_asked_for() {
    let mut node = Node::with_agent();
    assert!(heartbeats(&node.keep_alive(1_000))[0].renew);
    assert!(node.keep_alive(1_700).is_empty(), "a later keep-alive does not belong to the renewal under way");
    let told = told(&node.renew(Renewal::Confirmed));
    assert_eq!(told, [AgentTold::Lease(RENEWED)]);
}

#[test]
fn an_agent_that_says_nothing_is_not_renewed() {
    let mut node = Node::with_agent();
    node.keep_alive(1_000);
    node.renew(Renewal::Confirmed);
    let said = heartbeats(&node.pass(1_000));
    assert!(!said[0].renew, "there was no keep-alive since the last renewal");
    node.settle(Settled::Heard(HeartbeatReply::default()));
    node.keep_alive(2_000);
    assert!(heartbeats(&node.pass(1_000))[0].renew);
}

#[test]
fn a_renewal_that_was_not_heard_is_asked_for_again() {
    let mut node = Node::with_agent();
    node.keep_alive(1_000);
    assert!(node.settle(Settled::NotDone(NotDone::NoQuorum)).is_empty(), "not at once: at the next turn");
    let said = heartbeats(&node.pass(1_000));
    assert!(said[0].renew);
    assert_eq!(told(&node.renew(Renewal::Confirmed)), [AgentTold::Lease(RENEWED)]);
}

/// The heartbeats under way: when each is answered, its purpose, and whether it asks for a renewal.
type UnderWay = VecDeque<(u64, AgentsPurpose, bool)>;

/// Takes note of a heartbeat that was sent and of a lease that was renewed; until when it may be used.
fn follow(node: &Node, wants: &[AgentsWant], answered_ms: u64, under_way: &mut UnderWay) -> Option<u64> {
    under_way.extend(heartbeats(wants).iter().map(|said| (answered_ms, node.last, said.renew)));
    let until = |message: AgentTold| match message {
        AgentTold::Lease(Usable { stamp, usable_ms }) => Some(stamp + usable_ms),
        _ => None,
    };
    told(wants).into_iter().filter_map(until).last()
}

#[test]
fn a_holder_keeps_its_lease_however_slow_the_link_to_the_leader_is() {
    for round_trip_ms in [0, 30, 200, 600, 1_200] {
        let mut node = Node::with_agent();
        let (mut under_way, mut usable_until) = (UnderWay::new(), None);
        for now_ms in (0..60_000).step_by(5) {
            node.now_ms = now_ms;
            // The way to the leader, and its round of a quorum.
            let answered_ms = now_ms + 2 * round_trip_ms;
            if now_ms % (CONFIG.lease.ttl_ms / 8) == 0 {
                let wants = node.keep_alive(now_ms);
                usable_until = follow(&node, &wants, answered_ms, &mut under_way).max(usable_until);
            }
            let wants = node.pass(0);
            usable_until = follow(&node, &wants, answered_ms, &mut under_way).max(usable_until);
            while let Some((_, purpose, renew)) = under_way.pop_front_if(|(at, ..)| *at <= now_ms) {
                let renewal = AgentRenewal { agent: agent(), attachment: ATTACHMENT, renewal: Renewal::Confirmed };
                let agents = if renew { vec![renewal] } else { Vec::new() };
                let heard = Settled::Heard(HeartbeatReply { agents, ..HeartbeatReply::default() });
                node.agents.answered(purpose, heard, now_ms);
                let wants = node.wants();
                usable_until = follow(&node, &wants, answered_ms, &mut under_way).max(usable_until);
            }
            assert!(under_way.len() <= HEARTBEATS_UNDER_WAY_MAX);
            assert!(usable_until.is_none_or(|until| now_ms < until), "{round_trip_ms} ms: it ends at {now_ms} ms");
        }
        assert!(usable_until.is_some(), "{round_trip_ms} ms");
    }
}

#[test]
fn the_answers_to_two_heartbeats_may_overtake_each_other() {
    let mut node = Node::with_agent();
    node.keep_alive(1_000);
    let first = node.last;
    node.keep_alive(2_000);
    assert!(heartbeats(&node.pass(1_000))[0].renew, "it does not wait for the answer to the first");
    let later = Usable { stamp: 2_000, ..RENEWED };
    assert_eq!(told(&node.renew(Renewal::Confirmed)), [AgentTold::Lease(later)]);
    node.last = first;
    assert!(told(&node.renew(Renewal::Confirmed)).is_empty(), "a lease is not taken back");
}

#[test]
fn credits_go_out_at_once_and_add_up_while_a_heartbeat_is_under_way() {
    let mut node = Node::with_agent();
    let give = |node: &mut Node| node.handle(AgentEvent::Said { stream: STREAM, said: AgentSaid::Credits(1) });
    assert_eq!(heartbeats(&give(&mut node))[0].credit_limit, 1);
    assert!(give(&mut node).is_empty());
    assert!(give(&mut node).is_empty());
    let wants = node.settle(Settled::Heard(HeartbeatReply::default()));
    assert_eq!(heartbeats(&wants)[0].credit_limit, 3);
}

#[test]
fn a_grant_is_told_once_and_its_end_too() {
    let mut node = Node::with_agent();
    let granted = node.update(10, vec![task(1, 1)]);
    let holds = AgentTold::Holds(vec![(task(1, 1).id, ClaimEpoch(1))]);
    assert_eq!(told(&granted), [holds, grant(task(1, 1))]);
    assert!(told(&node.update(10, vec![task(1, 1)])).is_empty(), "told before");
    assert!(told(&node.update(9, Vec::new())).is_empty(), "an update that was overtaken says nothing");
    let lost = AgentTold::Lost { task: task(1, 1).id, epoch: ClaimEpoch(1) };
    assert_eq!(told(&node.update(12, vec![task(1, 2)])), [lost, grant(task(1, 2))]);
}

#[test]
fn an_update_that_overtakes_the_answer_to_the_attach_is_asked_for_again() {
    let mut node = Node::new();
    node.handle(AgentEvent::Opened { stream: STREAM, wish: wish(1) });
    let wants = node.update(3, vec![task(1, 1)]);
    assert_eq!(wants, [AgentsWant::Noted { key: UpdateKey(3), noted: false }]);
    node.settle(Node::attached(ATTACHMENT));
    let wants = node.update(3, vec![task(1, 1)]);
    assert!(wants.contains(&AgentsWant::Noted { key: UpdateKey(3), noted: true }));
    assert!(matches!(told(&wants).as_slice(), [AgentTold::Holds(_), AgentTold::Grant(_)]));
}

#[test]
fn an_attach_of_which_nothing_is_known_is_asked_for_again() {
    let mut node = Node::new();
    node.handle(AgentEvent::Opened { stream: STREAM, wish: wish(1) });
    let wants = node.settle(Settled::Unknown);
    let asks =
        matches!(wants.as_slice(), [AgentsWant::Ask(Ask { work: Asked::Op(Op::Agent(AgentOp::Attach { .. })), .. })]);
    assert!(asks, "never a false no");
}

#[test]
fn heartbeats_are_frequent_enough_for_the_shortest_lease() {
    let mut node = Node::new();
    let wish = AttachWish { lease: Some(LeaseTerms { ttl_ms: 500 }), ..wish(1) };
    node.handle(AgentEvent::Opened { stream: STREAM, wish });
    let receipt = Receipt::Attached { agent: agent(), attachment: ATTACHMENT, lease: LeaseTerms { ttl_ms: 500 } };
    node.settle(Settled::Done { index: 1, stamp: LogInstant::ZERO, receipt });
    assert_eq!(node.agents.poll_timeout(), Some(100));
}

#[test]
fn an_attachment_that_has_ended_ends_the_stream() {
    let mut node = Node::with_agent();
    node.keep_alive(1);
    let told = told(&node.renew(Renewal::NotAttached));
    assert!(matches!(
        told.as_slice(),
        [AgentTold::Ended(Some(NotDone::Refused(Refusal::Agent(AgentRefusal::NotAttached { .. }))))]
    ));
    assert!(node.pass(1_000).is_empty(), "nothing more is said of it");
}

#[test]
fn a_second_stream_of_the_same_run_takes_over_and_one_of_another_run_does_not() {
    let mut node = Node::with_agent();
    let wants = node.handle(AgentEvent::Opened { stream: StreamKey(6), wish: wish(2) });
    assert!(told(&wants).is_empty(), "the shard decides");
    let refusal = Refusal::Agent(AgentRefusal::Elsewhere {
        agent: agent(),
        node: NodeId::from_public_key([1; 32]),
        lease_ms: 5_000,
    });
    let wants = node.settle(Settled::NotDone(NotDone::Refused(refusal)));
    assert!(matches!(
        wants.as_slice(),
        [AgentsWant::Tell { stream: StreamKey(6), message: AgentTold::Ended(Some(_)) }]
    ));
    let wants = node.handle(AgentEvent::Opened { stream: StreamKey(7), wish: wish(1) });
    assert!(wants.contains(&AgentsWant::Tell { stream: STREAM, message: AgentTold::Ended(None) }));
}

#[test]
fn an_agent_that_detaches_is_given_up_in_the_log_and_not_renewed_meanwhile() {
    let mut node = Node::with_agent();
    node.keep_alive(8);
    node.renew(Renewal::Confirmed);
    let wants = node.handle(AgentEvent::Said { stream: STREAM, said: AgentSaid::Detach });
    let [AgentsWant::Ask(Ask { work: Asked::Op(op), .. })] = wants.as_slice() else { panic!("{wants:?}") };
    assert!(matches!(op, Op::Agent(AgentOp::Detach { attachment: ATTACHMENT, .. })));
    let detach = node.last;
    node.keep_alive(9);
    assert!(!heartbeats(&node.pass(1_000))[0].renew, "it lives, and gives its lease up");
    let receipt = Receipt::Agent(agent());
    let done = Settled::Done { index: 2, stamp: LogInstant::ZERO, receipt };
    node.agents.answered(detach, done, node.now_ms);
    assert_eq!(told(&node.wants()), [AgentTold::Ended(None)]);
}

#[test]
fn more_agents_than_the_limit_are_refused() {
    let mut node = Node::new();
    for n in 0..limits::AGENTS_PER_NODE_MAX as u64 {
        let wish = AttachWish { agent: AgentId::new(format!("a{n}")).unwrap(), ..wish(1) };
        node.handle(AgentEvent::Opened { stream: StreamKey(n), wish });
    }
    let wish = AttachWish { agent: AgentId::new("last").unwrap(), ..wish(1) };
    let wants = node.handle(AgentEvent::Opened { stream: StreamKey(999_999), wish });
    assert!(matches!(told(&wants).as_slice(), [AgentTold::Ended(Some(NotDone::Overloaded { .. }))]));
}

#[test]
fn a_credit_whose_task_ended_before_it_was_heard_of_is_given_again_once() {
    let mut node = Node::with_agent();
    node.handle(AgentEvent::Said { stream: STREAM, said: AgentSaid::Credits(1) });
    node.settle(Settled::Heard(HeartbeatReply::default()));
    node.assigned = 1;
    assert_eq!(heartbeats(&node.update(10, Vec::new()))[0].credit_limit, 2);
    node.settle(Settled::Heard(HeartbeatReply::default()));
    assert!(heartbeats(&node.update(11, Vec::new())).is_empty());
    node.assigned = 2;
    assert!(heartbeats(&node.update(12, vec![task(1, 1)])).is_empty(), "this one is heard of");
    assert!(heartbeats(&node.update(13, Vec::new())).is_empty(), "and its end is no news of credits");
}

#[test]
fn a_grant_says_how_much_of_the_lease_is_left() {
    let mut node = Node::with_agent();
    node.keep_alive(1_000);
    node.renew(Renewal::Confirmed);
    let told = told(&node.update(10, vec![task(1, 1)]));
    let [AgentTold::Holds(_), AgentTold::Grant(grant)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(grant.lease, Some(RENEWED));
}

#[test]
fn what_is_held_from_an_earlier_attachment_spends_no_credit_of_this_one() {
    let mut node = Node::with_agent();
    node.handle(AgentEvent::Said { stream: STREAM, said: AgentSaid::Credits(1) });
    node.settle(Settled::Heard(HeartbeatReply::default()));
    let mut held = task(1, 1);
    let earlier = Some(AttachmentId(ATTACHMENT.0 - 1));
    held.state =
        TaskState::Claimed { by: agent(), since: LogInstant::ZERO, stale_at: LogInstant::ZERO, assigned: earlier };
    let claims = |assigned, tasks: Vec<Task>| {
        let held = vec![(TaskId::from_bytes([1; 16]), ClaimEpoch(1))];
        AgentClaims { agent: agent(), attachment: ATTACHMENT, assigned, held, tasks }
    };
    let mut update = |as_of, claims| {
        let update = ClaimsUpdate { as_of, agents: vec![claims] };
        node.handle(AgentEvent::Update { key: UpdateKey(as_of), shard: SHARD, update })
    };
    let wants = update(10, claims(0, vec![held]));
    assert!(told(&wants).iter().any(|m| matches!(m, AgentTold::Grant(grant) if !grant.spends_credit)), "{wants:?}");
    // A task that is assigned now and ends before it is heard of gives its credit back.
    assert_eq!(heartbeats(&update(11, claims(1, Vec::new())))[0].credit_limit, 2);
}

#[test]
fn a_heartbeat_has_twice_the_time_that_the_one_before_it_took_and_never_more_than_the_lease() {
    let patience = |wants: &[AgentsWant]| {
        let said = |want: &AgentsWant| match want {
            AgentsWant::Ask(Ask { work: Asked::Heartbeat(_), patience_ms, .. }) => Some(*patience_ms),
            _ => None,
        };
        wants.iter().find_map(said)
    };
    let mut node = Node::with_agent();
    assert_eq!(patience(&node.keep_alive(1_000)), Some(2_000));
    for (takes_ms, next_ms) in [(2_000, 4_000), (1_700, 3_400), (4_000, 5_000), (10, 2_000)] {
        node.now_ms += takes_ms;
        node.settle(Settled::NotDone(NotDone::NoQuorum));
        assert_eq!(patience(&node.pass(1_000)), Some(next_ms), "after one of {takes_ms} ms");
    }
}
