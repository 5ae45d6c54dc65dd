//! Bytes on disk and wire: golden per version, round trips, and rubbish.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use proptest::prelude::*;
use skep_protocol::agent::{AgentOp, Role};
use skep_protocol::change::{Change, ChangeKind, ChangeSet};
use skep_protocol::codec::{CodecError, Encoded};
use skep_protocol::command::{
    Command, CommandClass, CommandControl, CommandOp, CommandOutcome, ControlKind, DeliverySeq, EndedDelivery, Steps,
    Target,
};
use skep_protocol::entry::{Decision, Entry, EntryBody, Op, Request};
use skep_protocol::fleet::{FleetLimits, FleetVersions, Rules};
use skep_protocol::frame::{
    HEADER_BYTES, Header, Hello, Lineages, MemberAddresses, Proposal, ProposalReply, RaftAddress,
};
use skep_protocol::heartbeat::{
    AgentClaims, AgentHeartbeat, AgentRenewal, ClaimsUpdate, Heartbeat, HeartbeatAnswer, HeartbeatReply, Renewal,
};
use skep_protocol::history::{HistoryEdge, Missing};
use skep_protocol::ids::{
    AttachmentId, ClaimEpoch, CommandId, Genesis, Incarnation, NodeId, RequestId, SessionId, ShardId, TaskId,
};
use skep_protocol::leader::{LeaderHint, Voters};
use skep_protocol::lease::LeaseTerms;
use skep_protocol::limits;
use skep_protocol::outcome::{ProposeOutcome, Receipt, Reply};
use skep_protocol::position::Position;
use skep_protocol::query::{Answer, AsOf, Query, QueryAnswer, QueryReply};
use skep_protocol::recovery::Lineage;
use skep_protocol::refusal::Refusal;
use skep_protocol::signing::{OperatorSecret, Place};
use skep_protocol::task::{
    Claim, DisconnectPolicy, Priority, Reconcile, RetryPolicy, TaskChange, TaskOp, TaskRefusal, TaskSpec, TaskStatus,
};
use skep_protocol::telemetry::{Envelope, Publication, SignedEnvelope, TopicPath};
use skep_protocol::text::{AgentId, Capability, ContentType, NodeName, Reason, SiteName, TaskKind, Title, TraceParent};
use skep_protocol::time::LogInstant;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn spec() -> TaskSpec {
    TaskSpec {
        title: Title::new("t").unwrap(),
        kind: TaskKind::new("k").unwrap(),
        priority: Priority::High,
        required: [Capability::new("c").unwrap()].into(),
        payload: vec![9],
        retry: RetryPolicy { attempts_max: 3, backoff_initial_ms: 4, backoff_max_ms: 5 },
        stale_after_ms: 6,
        valid_for_ms: Some(7),
        disconnect: DisconnectPolicy { lost_after_ms: 8, replace: true, reconcile: Reconcile::KeepOriginal },
        place: Some(Position { x_mm: 1, y_mm: -1 }),
    }
}

fn request(op: Op) -> Request {
    let first_sent = LogInstant::from_raw(1);
    Request { id: RequestId::from_bytes([0xaa; 16]), first_sent, deadline: first_sent.plus_ms(1), op }
}

fn entry() -> Entry {
    let op = Op::Task(TaskOp::Create { task: TaskId::from_bytes([0xbb; 16]), spec: Box::new(spec()) });
    Entry { stamp: LogInstant::from_raw(2), term: 3, body: EntryBody::Requests(vec![request(op)]) }
}

fn rules(version: u32) -> EntryBody {
    EntryBody::Rules(Box::new(Rules { version, limits: FleetLimits::default() }))
}

fn hello() -> Hello {
    Hello {
        frame_version_min: 1,
        frame_version_max: 1,
        fleet: FleetVersions { min: 1, max: 2 },
        incarnation: Incarnation([0xcc; 16]),
        process: 5,
        name: NodeName::new("n").unwrap(),
        site: SiteName::new("s").unwrap(),
        shards: vec![lineage()],
    }
}

fn lineage() -> Lineage {
    Lineage { shard: ShardId(1), genesis: Genesis::from_bytes([0xee; 16]), past: vec![Genesis::from_bytes([0xff; 16])] }
}

fn change_set() -> ChangeSet {
    let what = ChangeKind::Task {
        task: TaskId::from_bytes([0xbb; 16]),
        change: TaskChange::Claimed { by: AgentId::new("a").unwrap(), epoch: ClaimEpoch(1), attempt: 1 },
    };
    let change = Change { at: LogInstant::from_raw(2), request: Some(RequestId::from_bytes([0xaa; 16])), what };
    ChangeSet { index: 4, term: 3, changes: vec![change] }
}

fn addresses() -> MemberAddresses {
    MemberAddresses { known: vec![(NodeId::from_public_key([0xdd; 32]), ([192, 0, 2, 1], 7_341).into())] }
}

fn outcome() -> ProposalReply {
    let receipt = Receipt::Task {
        task: TaskId::from_bytes([0xbb; 16]),
        status: TaskStatus::Claimed,
        epoch: ClaimEpoch(1),
        attempts: 1,
    };
    let applied = ProposeOutcome::Applied { index: 4, stamp: LogInstant::from_raw(2), reply: Reply::Done(receipt) };
    let refused = Reply::Refused(Refusal::Task(TaskRefusal::NoSuchTask(TaskId::from_bytes([0xbb; 16]))));
    let refused = ProposeOutcome::Applied { index: 5, stamp: LogInstant::from_raw(2), reply: refused };
    ProposalReply { outcomes: vec![applied, refused, ProposeOutcome::Unknown, ProposeOutcome::NotLeader(hint())] }
}

fn answer() -> QueryAnswer {
    let as_of = AsOf { index: 4, stamp: LogInstant::from_raw(2), clock: None, linearizable: true, age_ms: Some(0) };
    let edge = HistoryEdge { begins: 2, begins_at: None, missing: Some(Missing { from: 5, end: 9, lost: true }) };
    let answer = Answer::Changes { sets: vec![change_set()], next: 5, skip: 0, edge };
    QueryAnswer { result: Ok(QueryReply { as_of, answer }) }
}

fn envelope() -> Envelope {
    let (topic, source) = (TopicPath::new("s/g/k").unwrap(), AgentId::new("a").unwrap());
    let publication = Publication { topic, source, content_type: ContentType::default(), payload: vec![9] };
    Envelope { sender: NodeId::from_public_key([0xdd; 32]), process: 1, sequence: 2, publication }
}

fn signed_envelope() -> SignedEnvelope {
    SignedEnvelope { envelope: vec![7], signature: vec![8; 2] }
}

fn heartbeat() -> Heartbeat {
    let (agent, attachment) = (AgentId::new("a").unwrap(), AttachmentId(9));
    Heartbeat { agents: vec![AgentHeartbeat { agent, attachment, credit_limit: 2, place: None, renew: true }] }
}

fn hint() -> LeaderHint {
    let leader = NodeId::from_public_key([0xdd; 32]);
    LeaderHint { leader: Some(leader), term: 3, voters: Voters::of([leader]) }
}

fn heartbeat_answer() -> HeartbeatAnswer {
    let (agent, attachment) = (AgentId::new("a").unwrap(), AttachmentId(9));
    let agents = vec![AgentRenewal { agent, attachment, renewal: Renewal::Confirmed }];
    HeartbeatAnswer { result: Ok(HeartbeatReply { agents, lead: hint() }) }
}

fn claims_update() -> ClaimsUpdate {
    let held = vec![(TaskId::from_bytes([0xbb; 16]), ClaimEpoch(1))];
    let (agent, attachment) = (AgentId::new("a").unwrap(), AttachmentId(9));
    ClaimsUpdate { as_of: 4, agents: vec![AgentClaims { agent, attachment, assigned: 1, held, tasks: Vec::new() }] }
}

/// A change of any of these bytes needs a new version: the old ones are on disks and on the wire.
#[test]
fn golden_bytes_of_each_version() {
    let b16 = "bb".repeat(16);
    let a16 = "aa".repeat(16);
    let d32 = "dd".repeat(32);
    let lineages = format!("0101{}01{}", "ee".repeat(16), "ff".repeat(16));
    let golden = [
        ("entry", hex(&entry().encode().unwrap()), GOLDEN_ENTRY.replace("{a}", &a16).replace("{b}", &b16)),
        ("hello", hex(&hello().encode().unwrap()), GOLDEN_HELLO.replace("{c}", &"cc".repeat(16)) + &lineages),
        ("shards of a node", hex(&Lineages { shards: vec![lineage()] }.encode().unwrap()), "01".to_owned() + &lineages),
        ("addresses of members", hex(&addresses().encode().unwrap()), format!("0101{d32}00c0000201ad39")),
        ("changes", hex(&change_set().encode().unwrap()), GOLDEN_CHANGES.replace("{a}", &a16).replace("{b}", &b16)),
        ("proposal reply", hex(&outcome().encode().unwrap()), GOLDEN_OUTCOME.replace("{b}", &b16).replace("{d}", &d32)),
        ("heartbeat", hex(&heartbeat().encode().unwrap()), "0101016109020001".to_owned()),
        (
            "heartbeat answer",
            hex(&heartbeat_answer().encode().unwrap()),
            "01000101610900".to_owned() + &GOLDEN_HINT.replace("{d}", &d32),
        ),
        ("word of a leader", hex(&hint().encode().unwrap()), "01".to_owned() + &GOLDEN_HINT.replace("{d}", &d32)),
        (
            "claims update",
            hex(&claims_update().encode().unwrap()),
            format!("010401016109 0101{b16}0100").replace(' ', ""),
        ),
        ("envelope", hex(&envelope().encode().unwrap()), format!("01{}010205732f672f6b0161000109", "dd".repeat(32))),
        ("signed envelope", hex(&signed_envelope().encode().unwrap()), "010107020808".to_owned()),
        ("query", hex(&Query::Task(TaskId::from_bytes([0xbb; 16])).encode().unwrap()), format!("0300{b16}")),
    ];
    for (what, found, expected) in golden {
        assert_eq!(found, expected, "{what}");
    }
}

const GOLDEN_ENTRY: &str = "0402030001{a}01020000{b}0174016b020101630109030405060107080101010201";
const GOLDEN_HELLO: &str = "0301010102{c}05016e0173";
const GOLDEN_CHANGES: &str = "040403010201{a}00{b}0101610101";
const GOLDEN_HINT: &str = "01{d}0301{d}";
const GOLDEN_OUTCOME: &str = "04040004020000{b}010101000502010100{b}050101{d}0301{d}";

fn survives<T: Encoded + PartialEq + std::fmt::Debug>(value: &T) {
    let bytes = value.encode().unwrap();
    assert_eq!(&T::decode(&bytes).unwrap(), value);
    assert_eq!(T::decode(&[]).unwrap_err(), CodecError::Empty { what: T::WHAT });
    let mut newer = bytes.clone();
    newer[0] = T::VERSION + 1;
    assert!(matches!(T::decode(&newer), Err(CodecError::Version { .. })));
    for length in 1..bytes.len() {
        assert!(T::decode(&bytes[..length]).is_err(), "{} cut to {length}", T::WHAT);
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(T::decode(&longer), Err(CodecError::Malformed { .. })));
}

#[test]
fn every_encoding_survives_and_refuses_what_is_cut_longer_or_newer() {
    survives(&entry());
    survives(&Entry { body: rules(2), ..entry() });
    survives(&hello());
    survives(&Lineages { shards: vec![lineage()] });
    survives(&addresses());
    survives(&change_set());
    survives(&outcome());
    survives(&answer());
    survives(&heartbeat());
    survives(&heartbeat_answer());
    survives(&hint());
    survives(&claims_update());
    survives(&envelope());
    survives(&signed_envelope());
    survives(&Query::History { task: TaskId::from_bytes([1; 16]), after_index: Some(3), limit: 9 });
    survives(&Proposal { requests: vec![request(Op::Agent(AgentOp::Remove { agent: AgentId::new("a").unwrap() }))] });
}

/// As many shards as a node says, each recovered as often as a replica remembers.
#[test]
fn a_hello_has_room_for_all_that_a_node_says_in_it() {
    let genesis = Genesis::from_bytes([0xee; 16]);
    let lineage = |n: usize| Lineage { shard: ShardId(u32::MAX - n as u32), genesis, past: vec![genesis; 4] };
    let shards: Vec<Lineage> = (0..limits::HELLO_SHARDS_MAX).map(lineage).collect();
    let (name, site) = (NodeName::new("n".repeat(64)).unwrap(), SiteName::new("s".repeat(64)).unwrap());
    let full = Hello { process: u64::MAX, name, site, shards: shards.clone(), ..hello() };
    assert_eq!(Hello::decode(&full.encode().unwrap()), Ok(full));
    assert!(Lineages { shards }.encode().is_ok());
}

#[test]
fn a_word_of_where_members_are_has_room_for_all_that_a_node_tells() {
    let known = (NodeId::from_public_key([0xff; 32]), ([u16::MAX; 8], u16::MAX).into());
    let full = MemberAddresses { known: vec![known; limits::MEMBER_ADDRESSES_TOLD_MAX] };
    assert_eq!(MemberAddresses::decode(&full.encode().unwrap()), Ok(full));
}

#[test]
fn what_is_over_its_limit_is_refused_both_ways() {
    let mut large = entry();
    let EntryBody::Requests(requests) = &mut large.body else { unreachable!() };
    let Op::Task(TaskOp::Create { spec, .. }) = &mut requests[0].op else { unreachable!() };
    spec.payload = vec![0; Entry::BYTES_MAX];
    assert!(matches!(large.encode(), Err(CodecError::TooLarge { .. })));
    assert!(matches!(Entry::decode(&vec![1; Entry::BYTES_MAX + 1]), Err(CodecError::TooLarge { .. })));
}

/// Stands for a character that a terminal obeys, until the test puts that there.
const PLACE: &str = "zqz";

fn of_operators() -> [Op; 3] {
    let by = OperatorSecret::from_seed(&[1; 32]);
    let place = Place { site: "s".parse().unwrap(), shard: ShardId(1), genesis: Genesis::from_bytes([6; 16]) };
    let command = Command {
        place: place.clone(),
        id: CommandId::from_bytes([7; 16]),
        target: Target::All,
        verb: "goto".parse().unwrap(),
        content_type: "".parse().unwrap(),
        args: bytes::Bytes::new(),
        deadline: LogInstant::from_raw(9),
        class: CommandClass::Routine,
        idempotent: false,
        supersedes: None,
        parent: None,
        trace: TraceParent::default(),
        waves: None,
        operator: by.key(),
    };
    let trace = format!("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-{PLACE}").parse().unwrap();
    let traced = Command { trace, ..command.clone() }.sign(&by).unwrap();
    let typed = Command { content_type: PLACE.parse().unwrap(), ..command }.sign(&by).unwrap();
    let (id, reason) = (CommandId::from_bytes([7; 16]), PLACE.parse().unwrap());
    let control = CommandControl { place, command: id, what: ControlKind::Cancel, reason, operator: by.key() };
    [
        Op::Command(CommandOp::Send { command: Box::new(traced) }),
        Op::Command(CommandOp::Send { command: Box::new(typed) }),
        Op::Command(CommandOp::Control { control: Box::new(control.sign(&by).unwrap()) }),
    ]
}

fn of_clients() -> [Op; 6] {
    let task = TaskId::from_bytes([0xbb; 16]);
    let claim = Claim { task, agent: "a".parse().unwrap(), epoch: ClaimEpoch(1) };
    let ended = EndedDelivery {
        agent: "a".parse().unwrap(),
        command: CommandId::from_bytes([7; 16]),
        seq: DeliverySeq::default(),
        outcome: CommandOutcome::Failed { reason: PLACE.parse().unwrap() },
        steps: Steps::default(),
    };
    let role = Role { capabilities: [Capability::new(PLACE).unwrap()].into(), ..Role::unregistered() };
    [
        Op::Task(TaskOp::Create { task, spec: Box::new(TaskSpec { title: PLACE.parse().unwrap(), ..spec() }) }),
        Op::Task(TaskOp::Cancel { task, reason: PLACE.parse().unwrap() }),
        Op::Task(TaskOp::Report { claim, permille: 1, note: PLACE.parse().unwrap(), checkpoint: None }),
        Op::Command(CommandOp::End { ended: Box::new(ended) }),
        Op::Agent(AgentOp::Register { agent: "a".parse().unwrap(), role }),
        Op::Agent(AgentOp::Remove { agent: PLACE.parse().unwrap() }),
    ]
}

/// A leader can propose bytes that no node ever let in. They are no entry, so that no node stores them.
#[test]
fn an_entry_with_text_that_a_terminal_obeys_is_no_entry() {
    for op in of_operators().into_iter().chain(of_clients()) {
        let what = format!("{op:?}");
        let entry = Entry { stamp: LogInstant::from_raw(2), term: 3, body: EntryBody::Requests(vec![request(op)]) };
        let good = entry.encode().unwrap();
        assert_eq!(Entry::decode(&good).unwrap(), entry);
        let at = good.windows(PLACE.len()).position(|part| part == PLACE.as_bytes()).unwrap();
        for control in [0x1b, 0x00, 0x07, b'\r', 0x7f] {
            let mut bad = good.clone();
            bad[at + 1] = control;
            assert!(matches!(Entry::decode(&bad), Err(CodecError::Malformed { .. })), "{control:#x} in {what}");
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    let agent = "[a-z0-9._-]{1,64}".prop_map(|text| AgentId::new(text).unwrap());
    let task = any::<[u8; 16]>().prop_map(TaskId::from_bytes);
    let reason = "\\PC{0,100}".prop_map(|text| Reason::truncated(&text));
    let claim = (task.clone(), agent.clone(), any::<u64>()).prop_map(|(task, agent, epoch)| Claim {
        task,
        agent,
        epoch: ClaimEpoch(epoch),
    });
    prop_oneof![
        (task.clone(), prop::collection::vec(any::<u8>(), 0..300), any::<Option<u64>>()).prop_map(
            |(task, payload, valid_for_ms)| {
                Op::Task(TaskOp::Create { task, spec: Box::new(TaskSpec { payload, valid_for_ms, ..spec() }) })
            }
        ),
        (agent.clone(), prop::option::of(task.clone()), any::<Option<u64>>()).prop_map(|(agent, task, attachment)| {
            Op::Task(TaskOp::Claim { agent, task, attachment: attachment.map(AttachmentId) })
        }),
        (agent.clone(), any::<[u8; 32]>(), any::<[u8; 16]>(), any::<u64>()).prop_map(
            |(agent, node, session, ttl_ms)| {
                Op::Agent(AgentOp::Attach {
                    agent,
                    role: Role::unregistered(),
                    node: NodeId::from_public_key(node),
                    session: SessionId::from_bytes(session),
                    lease: LeaseTerms { ttl_ms },
                })
            }
        ),
        (agent.clone(), any::<u64>())
            .prop_map(|(agent, id)| Op::Agent(AgentOp::Detach { agent, attachment: AttachmentId(id) })),
        (claim.clone(), any::<u16>(), reason.clone(), any::<Option<Vec<u8>>>()).prop_map(
            |(claim, permille, note, checkpoint)| Op::Task(TaskOp::Report { claim, permille, note, checkpoint })
        ),
        (claim.clone(), prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(claim, result)| Op::Task(TaskOp::Complete { claim, result })),
        (claim, reason.clone(), any::<bool>()).prop_map(|(claim, reason, retryable)| Op::Task(TaskOp::Fail {
            claim,
            reason,
            retryable
        })),
        (task.clone(), reason.clone()).prop_map(|(task, reason)| Op::Task(TaskOp::Cancel { task, reason })),
        (task.clone(), reason.clone()).prop_map(|(task, reason)| Op::Task(TaskOp::Requeue { task, reason })),
        (task, any::<bool>(), reason).prop_map(|(task, again, reason)| Op::Task(TaskOp::Settle {
            task,
            again,
            reason
        })),
        agent.prop_map(|agent| Op::Agent(AgentOp::Register { agent, role: Role::unregistered() })),
    ]
}

fn body() -> impl Strategy<Value = EntryBody> {
    let request = (any::<[u8; 16]>(), any::<u64>(), any::<u64>(), op()).prop_map(|(id, first, deadline, op)| Request {
        id: RequestId::from_bytes(id),
        first_sent: LogInstant::from_raw(first),
        deadline: LogInstant::from_raw(deadline),
        op,
    });
    let decision = (any::<[u8; 16]>(), any::<Option<u64>>()).prop_map(|(task, epoch)| match epoch {
        Some(epoch) => Decision::ExpireClaim { task: TaskId::from_bytes(task), epoch: ClaimEpoch(epoch) },
        None => Decision::ExpireTask { task: TaskId::from_bytes(task) },
    });
    prop_oneof![
        prop::collection::vec(request, 0..5).prop_map(EntryBody::Requests),
        prop::collection::vec(decision, 0..5).prop_map(EntryBody::Decisions),
        Just(EntryBody::ClockLost),
        any::<u32>().prop_map(rules),
    ]
}

proptest! {
    #[test]
    fn any_entry_survives_its_encoding(stamp in any::<u64>(), term in any::<u64>(), body in body()) {
        let entry = Entry { stamp: LogInstant::from_raw(stamp), term, body };
        prop_assert_eq!(Entry::decode(&entry.encode().unwrap()).unwrap(), entry);
    }

    #[test]
    fn rubbish_is_refused_and_never_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        version in 1u8..=3,
    ) {
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        let _ = Entry::decode(&bytes);
        let _ = ChangeSet::decode(&bytes);
        let _ = Hello::decode(&bytes);
        let _ = Lineages::decode(&bytes);
        let _ = MemberAddresses::decode(&bytes);
        let _ = Proposal::decode(&bytes);
        let _ = ProposalReply::decode(&bytes);
        let _ = Query::decode(&bytes);
        let _ = QueryAnswer::decode(&bytes);
        let _ = Heartbeat::decode(&bytes);
        let _ = HeartbeatAnswer::decode(&bytes);
        let _ = ClaimsUpdate::decode(&bytes);
        let _ = LeaderHint::decode(&bytes);
        let _ = Envelope::decode(&bytes);
        let _ = SignedEnvelope::decode(&bytes);
        let _ = RaftAddress::split(&bytes);
        if let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
            let _ = Header::decode(header);
        }
    }

    #[test]
    fn a_flipped_bit_is_refused_or_read_as_something_else_and_never_a_panic(at in 0usize..200, bit in 0u8..8) {
        let mut bytes = entry().encode().unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert_ne!(Entry::decode(&bytes).ok(), Some(entry()));
    }
}
