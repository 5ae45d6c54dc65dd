//! Commands on disk and wire: golden bytes, since signatures are made of them, and round trips.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Debug;
use std::sync::Arc;

use skep_protocol::authority::{Allowed, OperatorGrant, OperatorKey, OperatorSecret};
use skep_protocol::codec::Encoded;
use skep_protocol::command::*;
use skep_protocol::ids::{AttachmentId, CommandId, HomeEpoch, JournalId, ShardId};
use skep_protocol::journal::{JournalEntry, JournalHead, JournalPhase, JournalRecord, JournalStep, JournalWrite};
use skep_protocol::pull::{Pull, PullAnswer, PullFor, Pulled, PulledFor};
use skep_protocol::time::LogInstant;

fn secret() -> OperatorSecret {
    OperatorSecret::from_seed(&[1; 32])
}

fn command() -> Command {
    Command {
        site: "s".parse().unwrap(),
        shard: ShardId(1),
        id: CommandId::from_bytes([0xbb; 16]),
        target: Target::Group("g".parse().unwrap()),
        verb: "v".parse().unwrap(),
        content_type: "t".parse().unwrap(),
        args: vec![9],
        deadline: LogInstant::from_raw(300),
        class: CommandClass::Urgent,
        idempotent: true,
        supersedes: Some(CommandId::from_bytes([0xaa; 16])),
        parent: None,
        trace: "p".parse().unwrap(),
        waves: Some(Waves { agents: 5, every_ms: 100 }),
        operator: OperatorKey::from_bytes([0xcc; 32]),
    }
}

fn order() -> CommandOrder {
    CommandOrder {
        site: "s".parse().unwrap(),
        shard: ShardId(1),
        command: CommandId::from_bytes([0xbb; 16]),
        what: OrderKind::Resolve { agent: "r".parse().unwrap(), done: true },
        reason: "w".parse().unwrap(),
        operator: OperatorKey::from_bytes([0xcc; 32]),
    }
}

fn grant() -> OperatorGrant {
    let first = OperatorGrant::of_first(
        "s".parse().unwrap(),
        ShardId(1),
        OperatorKey::from_bytes([0xcc; 32]),
        "n".parse().unwrap(),
    );
    let targets = Allowed::These([Target::Agent("r".parse().unwrap())].into());
    OperatorGrant { serial: 2, targets, per_minute: Some(60), ..first }
}

fn signed() -> SignedCommand {
    Command { waves: None, supersedes: None, ..command() }.sign(&secret()).unwrap()
}

fn pull() -> Pull {
    let asked = PullFor {
        agent: "r".parse().unwrap(),
        attachment: AttachmentId(7),
        journal: JournalId::from_bytes([0xdd; 16]),
        home: HomeEpoch(2),
        after: PerClass { routine: 3, urgent: 8 },
        seen: 4,
        room: PerClass { routine: 5, urgent: 9 },
    };
    Pull { agents: vec![asked], wait_ms: 6 }
}

fn answer() -> PullAnswer {
    let delivery =
        Delivery { seq: 1, command: Arc::new(signed()), authority: Arc::default(), void: Some(VoidCause::Cancelled) };
    let of = PulledFor {
        agent: "r".parse().unwrap(),
        home: HomeEpoch(2),
        open: true,
        deliveries: vec![delivery],
        voids: vec![(CommandClass::Urgent, 1, VoidCause::Expired)],
        seen: 9,
        more: PerClass { routine: false, urgent: true },
    };
    PullAnswer { result: Ok(Pulled { clock: LogInstant::from_raw(5), first: None, agents: vec![of] }) }
}

fn entry() -> JournalEntry {
    let outcome = CommandOutcome::Succeeded { result: vec![8] };
    let steps = Steps { received: Some(LogInstant::from_raw(4)), ..Steps::default() };
    let seq = DeliverySeq { home: HomeEpoch(2), class: CommandClass::Urgent, n: 1 };
    JournalEntry {
        seq,
        command: Arc::new(signed()),
        steps,
        phase: JournalPhase::Ended { outcome },
        begun_before: false,
    }
}

fn record() -> JournalRecord {
    let cursor = PerClass { routine: 1, urgent: 3 };
    let head = JournalHead { home: HomeEpoch(2), cursor, ..JournalHead::new(JournalId::from_bytes([0xdd; 16])) };
    let writes = vec![JournalWrite::Head(head), JournalWrite::Put(entry()), JournalWrite::Remove(entry().seq)];
    JournalRecord { shard: ShardId(1), agent: "r".parse().unwrap(), writes }
}

fn step_record() -> JournalRecord {
    let JournalEntry { seq, steps, phase, .. } = entry();
    let step = JournalStep { seq, steps, phase, begun_before: true };
    let writes = vec![JournalWrite::Step(step), JournalWrite::Forget];
    JournalRecord { shard: ShardId(1), agent: "r".parse().unwrap(), writes }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden<T: Encoded + PartialEq + Debug>(value: &T, expected: &str) {
    let bytes = value.encode().unwrap();
    assert_eq!(hex(&bytes), expected, "{}", T::WHAT);
    assert_eq!(T::decode(&bytes).as_ref(), Ok(value));
}

#[test]
fn golden_bytes_of_version_1() {
    golden(&command(), GOLDEN_COMMAND);
    golden(&order(), GOLDEN_ORDER);
    golden(&grant(), GOLDEN_GRANT);
    golden(&pull(), GOLDEN_PULL);
    golden(&answer(), GOLDEN_ANSWER);
    golden(&record(), GOLDEN_RECORD);
    golden(&step_record(), GOLDEN_STEP_RECORD);
}

const GOLDEN_COMMAND: &str = "01017301bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb010167017601740109ac02010101aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa000170010564cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";
const GOLDEN_ORDER: &str = "01017301bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb020172010177cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";
const GOLDEN_GRANT: &str =
    "01017301cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc016e0200010100017201013c0100";
const GOLDEN_PULL: &str = "0101017207dddddddddddddddddddddddddddddddd02030804050906";
const GOLDEN_ANSWER: &str = "0100050001017202010101017301bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb010167017601740109ac02010100000170008a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5ca15df64dbaa0ef0b89749d521ddf66a8b92ac8581436d73beca3c06f254dc56cd2a72775dccaa9dfba469d70c71a63d5ac3feb7a664d59817136c0ea2710fa0a00010101010100090001";
const GOLDEN_RECORD: &str = "010101720300dddddddddddddddddddddddddddddddd0201030001020101017301bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb010167017601740109ac02010100000170008a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5ca15df64dbaa0ef0b89749d521ddf66a8b92ac8581436d73beca3c06f254dc56cd2a72775dccaa9dfba469d70c71a63d5ac3feb7a664d59817136c0ea2710fa0a0104000000020001080002020101";
const GOLDEN_STEP_RECORD: &str = "0101017202030201010104000000020001080104";
