//! Commands on disk and wire: golden bytes, and round trips. `statements.rs` tests what operators sign.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::Debug;
use std::sync::Arc;

use skep_protocol::codec::Encoded;
use skep_protocol::command::*;
use skep_protocol::ids::{AttachmentId, CommandId, Genesis, HomeEpoch, JournalId, ShardId};
use skep_protocol::journal::{JournalEntry, JournalHead, JournalPhase, JournalRecord, JournalStep, JournalWrite};
use skep_protocol::operator::{AuthorityNews, KnownFirst, Root};
use skep_protocol::pull::{Delivery, Pull, PullAnswer, PullFor, Pulled, PulledFor};
use skep_protocol::signing::{OperatorKey, OperatorSecret, Place};
use skep_protocol::time::LogInstant;

fn secret() -> OperatorSecret {
    OperatorSecret::from_seed(&[1; 32])
}

fn operator() -> OperatorKey {
    OperatorKey::from_bytes([0xcc; 32])
}

fn genesis() -> Genesis {
    Genesis::from_bytes([0xee; 16])
}

fn command() -> Command {
    Command {
        place: Place { site: "s".parse().unwrap(), shard: ShardId(1), genesis: genesis() },
        id: CommandId::from_bytes([0xbb; 16]),
        target: Target::Group("g".parse().unwrap()),
        verb: "v".parse().unwrap(),
        content_type: "t".parse().unwrap(),
        args: vec![9].into(),
        deadline: LogInstant::from_raw(300),
        class: CommandClass::Urgent,
        idempotent: true,
        supersedes: None,
        parent: None,
        trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap(),
        waves: None,
        operator: secret().key(),
    }
}

fn signed() -> SignedCommand {
    command().sign(&secret()).unwrap()
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
    Pull { agents: vec![asked], wait_ms: 6, replaced: 3, authority: 4 }
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
        back: PerClass { routine: None, urgent: Some(2) },
    };
    let root = Root { genesis: genesis(), first: Some(operator()), replaced: Vec::new(), past: Vec::new() };
    let authority = AuthorityNews { chains: Vec::new(), up_to: 9 };
    PullAnswer { result: Ok(Pulled { clock: LogInstant::from_raw(5), root: Some(root), agents: vec![of], authority }) }
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
    let (genesis, first) = (Some(genesis()), Some(KnownFirst { operator: operator(), replaced: 1 }));
    let head = JournalHead::new(JournalId::from_bytes([0xdd; 16]));
    let head = JournalHead { home: HomeEpoch(2), cursor, genesis, first, ..head };
    let writes = vec![JournalWrite::Head(head), JournalWrite::Put(entry()), JournalWrite::Remove(entry().seq)];
    JournalRecord { shard: ShardId(1), agent: "r".parse().unwrap(), writes }
}

fn step_record() -> JournalRecord {
    let JournalEntry { seq, steps, phase, .. } = entry();
    let step = JournalStep { seq, steps, phase, begun_before: true };
    let stated = JournalWrite::Stated { operator: operator(), serial: 7 };
    let begun = JournalWrite::Begun { command: command().id, deadline: command().deadline };
    let floor = JournalWrite::ClockFloor(LogInstant::from_raw(5));
    let writes = vec![JournalWrite::Step(step), JournalWrite::Forget, stated, begun, floor];
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
    golden(&pull(), GOLDEN_PULL);
    golden(&answer(), GOLDEN_ANSWER);
    golden(&record(), GOLDEN_RECORD);
    golden(&step_record(), GOLDEN_STEP_RECORD);
}

const GOLDEN_PULL: &str = "0101017207dddddddddddddddddddddddddddddddd020308040509060304";
const GOLDEN_ANSWER: &str = "01000501eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee01cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc00000101720201010199010a10eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee120173180122208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c2a10bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb32031201673a01764201744a010950ac02580160017a3730302d30616637363531393136636434336464383434386562323131633830333139632d623761643662373136393230333333312d3031b975076123b04c3418a76d5cab5751f44bc64897006263b07f2cac961f4df1958c675c858c516cee32c2ccea12f128fe5a1051d2ed911a9e64279c1bcef7110e000101010101000900010001020009";
const GOLDEN_RECORD: &str = "010101720300dddddddddddddddddddddddddddddddd02010301eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee01cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc010102010199010a10eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee120173180122208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c2a10bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb32031201673a01764201744a010950ac02580160017a3730302d30616637363531393136636434336464383434386562323131633830333139632d623761643662373136393230333333312d3031b975076123b04c3418a76d5cab5751f44bc64897006263b07f2cac961f4df1958c675c858c516cee32c2ccea12f128fe5a1051d2ed911a9e64279c1bcef7110e0104000000020001080002020101";
const GOLDEN_STEP_RECORD: &str = "010101720503020101010400000002000108010405cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc0706bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbac020705";
