use std::collections::BTreeSet;

use skep_protocol::agent::{AgentOp, Role};
use skep_protocol::attach::AttachWish;
use skep_protocol::entry::{Op, Request};
use skep_protocol::heartbeat::{AgentRenewal, HeartbeatReply, Renewal};
use skep_protocol::ids::{AttachmentId, ClaimEpoch, RequestId, SessionId, TaskId};
use skep_protocol::leader::LeaderHint;
use skep_protocol::lease::LeaseTerms;
use skep_protocol::limits;
use skep_protocol::outcome::{NotDone, ProposeOutcome, Receipt, Reply};
use skep_protocol::query::Query;
use skep_protocol::refusal::{Refusal, RequestRefusal};
use skep_protocol::settled::Settled;
use skep_protocol::task::{TaskRefusal, TaskStatus};
use skep_protocol::telemetry::{Envelope, Publication, TopicPath};
use skep_protocol::text::{AgentId, ContentType};
use skep_protocol::time::LogInstant;

use super::*;
use crate::connectivity::Permission;
use crate::event::{AttemptTarget, Outcome};
use crate::key::{StreamKey, SubscriberKey};
use crate::topics::TopicEffect;

mod leaders;

const SHARD: ShardId = ShardId(1);
const KEY: WorkKey = WorkKey(7);
const CONFIG: EngineConfig = EngineConfig {
    no_quorum_after_ms: 3_000,
    retry_ms_min: 10,
    retry_ms_max: 350,
    attempt_timeout_ms: 1_000,
    lease: LeaseTerms { ttl_ms: 5_000 },
    heartbeat_ms: 1_000,
};

fn node(n: u8) -> NodeId {
    NodeId::from_public_key([n; 32])
}

fn request() -> Request {
    let op = Op::Agent(AgentOp::Remove { agent: AgentId::new("a").unwrap() });
    let first_sent = LogInstant::from_raw(5);
    Request { id: RequestId::from_bytes([9; 16]), first_sent, deadline: first_sent.plus_ms(60_000), op }
}

fn engine() -> Engine {
    let marked = [node(2), node(3)].into();
    let mut engine = Engine::new(node(1), SiteName::new("s").unwrap(), CONFIG).believing(marked);
    engine.handle(Event::Peers { up: [node(2), node(3)].into() }, 0);
    engine
}

fn submit(engine: &mut Engine, now_ms: u64) {
    let work = Work::Request(request());
    engine.handle(Event::Submit { key: KEY, shard: SHARD, work, patience_ms: 5_000 }, now_ms);
}

/// A word of the first term that names no voters.
fn hint(leader: Option<NodeId>) -> LeaderHint {
    LeaderHint { leader, term: 1, ..LeaderHint::default() }
}

fn leader(engine: &mut Engine, leader: Option<NodeId>, now_ms: u64) {
    let ready = leader == Some(node(1));
    engine.handle(Event::Leader { shard: SHARD, hint: hint(leader), ready }, now_ms);
}

fn outcome(engine: &mut Engine, attempt: u32, outcome: ProposeOutcome, now_ms: u64) {
    engine.handle(Event::Outcome { key: KEY, attempt, outcome: Outcome::Propose(outcome) }, now_ms);
}

fn effects(engine: &mut Engine) -> Vec<Effect> {
    std::iter::from_fn(|| engine.poll_effect()).collect()
}

/// The targets of the attempts among the effects. Every one carries the same request.
fn attempts(effects: &[Effect]) -> Vec<AttemptTarget> {
    let target = |effect: &Effect| match effect {
        Effect::Attempt { target, work, .. } => {
            assert_eq!(*work, Work::Request(request()), "a retry repeats the request byte for byte");
            Some(*target)
        }
        _ => None,
    };
    effects.iter().filter_map(target).collect()
}

fn answer(effects: &[Effect]) -> Option<Settled> {
    let mut answers = effects.iter().filter_map(|effect| match effect {
        Effect::Answer { key: KEY, settled } => Some(settled.clone()),
        _ => None,
    });
    let answer = answers.next();
    assert_eq!(answers.next(), None, "one answer only");
    answer
}

fn done() -> ProposeOutcome {
    let receipt = Receipt::Task {
        task: TaskId::from_bytes([9; 16]),
        status: TaskStatus::Pending,
        epoch: ClaimEpoch(0),
        attempts: 0,
    };
    ProposeOutcome::Applied { index: 4, stamp: LogInstant::from_raw(6), reply: Reply::Done(receipt) }
}

fn refused(refusal: Refusal) -> ProposeOutcome {
    ProposeOutcome::Applied { index: 4, stamp: LogInstant::from_raw(6), reply: Reply::Refused(refusal) }
}

/// Lets time pass until the engine answers.
fn run_out(engine: &mut Engine, mut now_ms: u64) -> (Settled, u64) {
    for _ in 0..10_000 {
        if let Some(settled) = answer(&effects(engine)) {
            return (settled, now_ms);
        }
        now_ms = engine.poll_timeout().expect("work that is not answered has a timer").max(now_ms);
        engine.handle_timeout(now_ms);
    }
    panic!("no answer");
}

#[test]
fn work_goes_to_the_leader_wherever_it_is() {
    let mut engine = engine();
    leader(&mut engine, Some(node(2)), 0);
    submit(&mut engine, 1);
    assert_eq!(attempts(&effects(&mut engine)), [AttemptTarget::Node(node(2))]);
    outcome(&mut engine, 1, ProposeOutcome::NotLeader(hint(Some(node(1)))), 2);
    assert_eq!(attempts(&effects(&mut engine)), [AttemptTarget::Local]);
    outcome(&mut engine, 2, done(), 3);
    assert!(matches!(answer(&effects(&mut engine)), Some(Settled::Done { index: 4, .. })));
    assert_eq!(engine.poll_timeout(), None, "nothing is left behind");
}

#[test]
fn a_new_leader_is_tried_at_once() {
    let mut engine = engine();
    leader(&mut engine, None, 0);
    submit(&mut engine, 0);
    assert_eq!(attempts(&effects(&mut engine)).len(), 1, "a peer may know more");
    outcome(&mut engine, 1, ProposeOutcome::NotLeader(hint(None)), 1);
    assert_eq!(attempts(&effects(&mut engine)), []);
    leader(&mut engine, Some(node(3)), 2);
    assert_eq!(attempts(&effects(&mut engine)), [AttemptTarget::Node(node(3))]);
}

#[test]
fn work_under_way_at_a_deposed_leader_moves_to_the_new_one_and_stays_in_doubt() {
    let mut engine = engine();
    leader(&mut engine, Some(node(2)), 0);
    submit(&mut engine, 0);
    effects(&mut engine);
    leader(&mut engine, Some(node(3)), 400);
    assert_eq!(attempts(&effects(&mut engine)), [AttemptTarget::Node(node(3))]);
    let expired = Refusal::Request(RequestRefusal::Expired { deadline: LogInstant::ZERO, now: LogInstant::ZERO });
    outcome(&mut engine, 2, refused(expired), 401);
    assert_eq!(answer(&effects(&mut engine)), Some(Settled::Unknown));
}

#[test]
fn without_a_quorum_the_answer_is_no_quorum_and_never_ok() {
    let mut engine = engine();
    leader(&mut engine, None, 0);
    engine.handle(Event::Peers { up: BTreeSet::new() }, 0);
    submit(&mut engine, 10);
    let (settled, now_ms) = run_out(&mut engine, 10);
    assert_eq!(settled, Settled::NotDone(NotDone::NoQuorum));
    assert_eq!(engine.connectivity(SHARD), Connectivity::Isolated);
    submit(&mut engine, now_ms);
    assert_eq!(answer(&effects(&mut engine)), Some(Settled::NotDone(NotDone::NoQuorum)), "at once from then on");
}

#[test]
fn an_attempt_that_may_have_been_carried_out_is_never_reported_as_not_done() {
    let mut engine = engine();
    leader(&mut engine, Some(node(2)), 0);
    submit(&mut engine, 0);
    effects(&mut engine);
    outcome(&mut engine, 1, ProposeOutcome::Unknown, 5);
    engine.handle(Event::Peers { up: BTreeSet::new() }, 6);
    leader(&mut engine, None, 6);
    let (settled, _) = run_out(&mut engine, 6);
    assert_eq!(settled, Settled::Unknown);
}

#[test]
fn an_attempt_without_an_answer_counts_as_perhaps_carried_out() {
    let mut engine = engine();
    leader(&mut engine, Some(node(2)), 0);
    submit(&mut engine, 0);
    let (settled, now_ms) = run_out(&mut engine, 0);
    assert_eq!(settled, Settled::Unknown);
    assert_eq!(now_ms, 5_000, "no sender waits longer than it wants to");
}

#[test]
fn doubt_is_sticky_under_a_refusal_that_is_silent_about_earlier_attempts() {
    let now = LogInstant::from_raw(99);
    let expired = Refusal::Request(RequestRefusal::Expired { deadline: LogInstant::from_raw(5), now });
    let exists = Refusal::Task(TaskRefusal::Exists(TaskId::from_bytes([9; 16])));
    for (in_doubt, refusal, expected) in [
        (true, expired.clone(), Settled::Unknown),
        (false, expired.clone(), Settled::NotDone(NotDone::Refused(expired))),
        (true, exists.clone(), Settled::NotDone(NotDone::Refused(exists))),
    ] {
        let mut engine = engine();
        leader(&mut engine, Some(node(2)), 0);
        submit(&mut engine, 0);
        let first = if in_doubt { ProposeOutcome::Unknown } else { ProposeOutcome::NotLeader(hint(None)) };
        outcome(&mut engine, 1, first, 1);
        engine.handle_timeout(500);
        outcome(&mut engine, 2, refused(refusal), 501);
        assert_eq!(answer(&effects(&mut engine)), Some(expected));
    }
}

#[test]
fn a_late_success_of_an_earlier_attempt_settles_the_work() {
    let mut engine = engine();
    leader(&mut engine, Some(node(2)), 0);
    submit(&mut engine, 0);
    engine.handle_timeout(1_000);
    assert_eq!(attempts(&effects(&mut engine)).len(), 2);
    outcome(&mut engine, 1, done(), 1_001);
    assert!(matches!(answer(&effects(&mut engine)), Some(Settled::Done { .. })));
}

#[test]
fn a_node_that_is_no_member_finds_the_leader_again_and_again() {
    let mut engine = engine();
    submit(&mut engine, 0);
    assert_eq!(attempts(&effects(&mut engine)).len(), 1, "any peer may know");
    outcome(&mut engine, 1, ProposeOutcome::NotLeader(hint(Some(node(3)))), 1);
    assert_eq!(attempts(&effects(&mut engine)), [AttemptTarget::Node(node(3))]);
    outcome(&mut engine, 2, done(), 2);
    effects(&mut engine);
    // Long after: the leader is still known, so it is asked at once.
    engine.handle_timeout(60_000);
    submit(&mut engine, 60_000);
    assert_eq!(attempts(&effects(&mut engine)), [AttemptTarget::Node(node(3))]);
    // It was deposed and knows nobody: the others are asked, however long nobody is known to lead.
    outcome(&mut engine, 1, ProposeOutcome::NotLeader(hint(None)), 60_001);
    engine.handle_timeout(60_400);
    assert_eq!(attempts(&effects(&mut engine)).len(), 1);
    outcome(&mut engine, 2, ProposeOutcome::NoSuchShard, 60_401);
    engine.handle_timeout(64_000);
    assert_eq!(attempts(&effects(&mut engine)).len(), 1, "it does not give up while there are peers");
    outcome(&mut engine, 3, ProposeOutcome::NotLeader(hint(Some(node(3)))), 64_001);
    assert_eq!(attempts(&effects(&mut engine)), [AttemptTarget::Node(node(3))]);
}

#[test]
fn a_member_that_was_removed_becomes_a_client_of_the_shard() {
    let mut engine = engine();
    leader(&mut engine, Some(node(1)), 0);
    engine.handle(Event::NotMember { shard: SHARD }, 10);
    engine.handle_timeout(10_000);
    effects(&mut engine);
    submit(&mut engine, 10_000);
    outcome(&mut engine, 1, ProposeOutcome::NotLeader(hint(Some(node(3)))), 10_001);
    assert_eq!(attempts(&effects(&mut engine)).last(), Some(&AttemptTarget::Node(node(3))));
}

#[test]
fn abandoned_work_leaves_nothing_behind() {
    let mut engine = engine();
    leader(&mut engine, Some(node(2)), 0);
    submit(&mut engine, 0);
    effects(&mut engine);
    engine.handle(Event::Abandon { key: KEY }, 1);
    outcome(&mut engine, 1, done(), 2);
    assert_eq!(effects(&mut engine), []);
    assert_eq!(engine.poll_timeout(), None);
}

#[test]
fn an_answer_that_is_ready_is_not_told_to_a_caller_that_has_gone() {
    let mut router = Router::new(node(1), CONFIG);
    let refused = WorkKey(limits::ROUTED_REQUESTS_MAX as u64);
    for key in (0..=refused.0).map(WorkKey) {
        let work = Work::Query(Query::Counts);
        router.handle(Event::Submit { key, shard: SHARD, work, patience_ms: 5_000 }, 0);
    }
    router.handle(Event::Abandon { key: refused }, 0);
    let mut effects = std::iter::from_fn(|| router.poll_effect());
    assert!(!effects.any(|effect| matches!(effect, Effect::Answer { key, .. } if key == refused)));
}

#[test]
fn more_work_than_the_limit_is_refused_with_a_time_to_come_back() {
    let mut engine = engine();
    leader(&mut engine, Some(node(2)), 0);
    for key in 0..limits::ROUTED_REQUESTS_MAX as u64 {
        let work = Work::Query(Query::Counts);
        engine.handle(Event::Submit { key: WorkKey(1_000 + key), shard: SHARD, work, patience_ms: 5_000 }, 0);
    }
    effects(&mut engine);
    submit(&mut engine, 0);
    assert_eq!(answer(&effects(&mut engine)), Some(Settled::NotDone(NotDone::Overloaded { retry_after_ms: 350 })));
}

#[test]
fn connectivity_is_connected_then_no_quorum_then_isolated() {
    let mut engine = engine();
    leader(&mut engine, Some(node(2)), 0);
    assert_eq!(engine.connectivity(SHARD), Connectivity::Connected);
    leader(&mut engine, None, 100);
    engine.handle_timeout(3_099);
    assert_eq!(engine.connectivity(SHARD), Connectivity::Connected, "a short silence is no loss");
    engine.handle_timeout(3_100);
    assert_eq!(engine.connectivity(SHARD), Connectivity::NoQuorum);
    assert!(!engine.connectivity(SHARD).permits(Permission::Write));
    assert!(engine.connectivity(SHARD).permits(Permission::BestEffort));
    engine.handle(Event::Peers { up: BTreeSet::new() }, 3_200);
    assert_eq!(engine.connectivity(SHARD), Connectivity::Isolated);
    assert!(engine.connectivity(SHARD).permits(Permission::StaleRead));
    engine.handle(Event::Peers { up: [node(2)].into() }, 3_300);
    leader(&mut engine, Some(node(2)), 3_300);
    assert_eq!(engine.connectivity(SHARD), Connectivity::Connected);
}

/// Has the leader renew whatever it is asked to.
fn renew_all(engine: &mut Engine, now_ms: u64) {
    for effect in effects(engine) {
        let Effect::Attempt { key, attempt, work: Work::Heartbeat(heartbeat), .. } = effect else { continue };
        let renewed = heartbeat.agents.into_iter().map(|said| AgentRenewal {
            agent: said.agent,
            attachment: said.attachment,
            renewal: Renewal::Confirmed,
        });
        let reply = HeartbeatReply { agents: renewed.collect(), ..HeartbeatReply::default() };
        engine.handle(Event::Outcome { key, attempt, outcome: Outcome::Heartbeat(Ok(reply)) }, now_ms);
    }
}

/// An engine to which an agent is attached, under a lease that was renewed at 0 ms.
fn serving(agent: &AgentId) -> Engine {
    let (mut engine, stream) = (engine(), StreamKey(5));
    leader(&mut engine, Some(node(2)), 0);
    let session = SessionId::from_bytes([1; 16]);
    let wish = AttachWish { shard: SHARD, agent: agent.clone(), role: Role::unregistered(), session, lease: None };
    engine.handle(Event::Agent(AgentEvent::Opened { stream, wish }), 0);
    let asked = |effect: Effect| if let Effect::Request { key, .. } = effect { Some(key) } else { None };
    let key = effects(&mut engine).into_iter().find_map(asked).unwrap();
    let receipt = Receipt::Attached { agent: agent.clone(), attachment: AttachmentId(40), lease: CONFIG.lease };
    let settled = Settled::Done { index: 1, stamp: LogInstant::ZERO, receipt };
    engine.handle(Event::Settled { key, settled }, 0);
    engine
        .handle(Event::Agent(AgentEvent::Said { stream, said: AgentSaid::KeepAlive { stamp: 1_000, place: None } }), 0);
    renew_all(&mut engine, 0);
    renew_all(&mut engine, 0);
    engine
}

#[test]
fn no_other_node_speaks_for_an_agent_that_this_one_serves() {
    let (served, other) = (AgentId::new("r1").unwrap(), AgentId::new("r2").unwrap());
    let mut engine = serving(&served);
    let topic = TopicPath::new("s/robots/pose").unwrap();
    let subscribed = TopicEvent::Subscribed { subscriber: SubscriberKey(1), topics: vec![topic.clone()] };
    engine.handle(Event::Topic(subscribed), 0);
    effects(&mut engine);
    let mut sequence = 0;
    let mut says = |engine: &mut Engine, source: &AgentId, now_ms: u64| {
        sequence += 1;
        let (topic, source) = (topic.clone(), source.clone());
        let publication = Publication { topic, source, content_type: ContentType::default(), payload: vec![7] };
        let envelope = Envelope { sender: node(3), process: 1, sequence, publication };
        engine.handle(Event::Topic(TopicEvent::Received(envelope)), now_ms);
        effects(engine)
    };
    let refused = TopicEffect::NotIts { sender: node(3), source: served.clone() };
    assert_eq!(says(&mut engine, &served, 100), [Effect::Topic(refused)]);
    let is_told = |effects: Vec<Effect>| matches!(effects[..], [Effect::Topic(TopicEffect::Deliver { .. })]);
    assert!(is_told(says(&mut engine, &other, 100)));
    let over = CONFIG.lease.ttl_ms;
    assert!(is_told(says(&mut engine, &served, over)), "its lease here may be over, and another node may serve it");
}
