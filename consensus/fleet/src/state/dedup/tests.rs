//! The memory of request ids, compared with a plain one, and the memory that it takes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use skep_protocol::agent::{AgentOp, Role};
use skep_protocol::entry::Op;
use skep_protocol::ids::{ClaimEpoch, TaskId};
use skep_protocol::limits::DEDUP_AHEAD_PART as AHEAD_PART;
use skep_protocol::outcome::Receipt;
use skep_protocol::task::TaskStatus;
use skep_protocol::text::AgentId;

use super::*;

/// A plain memory of requests, which finds everything by walking.
#[derive(Clone, Debug)]
struct Plain {
    body_hash: u128,
    first_sent: LogInstant,
    deadline: LogInstant,
    reply: Reply,
}

#[derive(Clone, Debug, Default)]
struct Naive {
    by_id: BTreeMap<RequestId, Plain>,
    floor: LogInstant,
}

impl Naive {
    fn forget_expired(&mut self, now: LogInstant) {
        self.by_id.retain(|_, plain| plain.deadline >= now);
    }

    fn recall(&self, request: &Request, body_hash: u64) -> Option<Reply> {
        let plain = self.by_id.get(&request.id)?;
        let same = plain.body_hash == u128::from(body_hash);
        Some(if same { plain.reply.clone() } else { Reply::Refused(RequestRefusal::IdReused.into()) })
    }

    fn ahead(&self, now: LogInstant) -> usize {
        self.by_id.values().filter(|plain| plain.first_sent > now).count()
    }

    fn remember(&mut self, request: &Request, body_hash: u64, reply: &Reply, ids_max: u64) {
        while self.by_id.len() as u64 >= ids_max {
            let first = self.by_id.iter().map(|(id, plain)| (plain.first_sent, *id)).min();
            let Some((first_sent, id)) = first else { break };
            self.by_id.remove(&id);
            self.floor = self.floor.max(first_sent.plus_ms(1));
        }
        let (first_sent, deadline) = (request.first_sent, request.deadline);
        let plain = Plain { body_hash: u128::from(body_hash), first_sent, deadline, reply: reply.clone() };
        self.by_id.insert(request.id, plain);
    }
}

/// An id whose order its first byte decides, so that ids come in any order.
fn id(n: u16) -> RequestId {
    let [high, low] = n.to_be_bytes();
    let mut bytes = [0; 16];
    (bytes[0], bytes[15]) = (low, high);
    RequestId::from_bytes(bytes)
}

fn request(id: RequestId, first_sent: LogInstant, valid_ms: u64) -> Request {
    let role = Role::unregistered();
    let op = Op::Agent(AgentOp::Register { agent: AgentId::new("a").unwrap(), role });
    Request { id, first_sent, deadline: LogInstant::from_raw(first_sent.raw() + valid_ms), op }
}

/// Short answers, and long ones.
fn reply(n: u16) -> Reply {
    match n % 3 {
        0 => Reply::Done(Receipt::NothingToClaim),
        1 => Reply::Done(Receipt::Agent(AgentId::new("a".repeat(usize::from(n % 60) + 1)).unwrap())),
        _ => Reply::Refused(RequestRefusal::Deposed.into()),
    }
}

fn copy(dedup: &Dedup) -> Dedup {
    let mut copy = Dedup::empty(dedup.floor, dedup.now);
    let mut before = LogInstant::ZERO;
    for record in dedup.records() {
        let bytes = postcard::to_stdvec(&record).unwrap();
        let (read, rest) = postcard::take_from_bytes::<Remembered<'_>>(&bytes).unwrap();
        assert!(rest.is_empty() && read == record);
        assert!(copy.restore(&read, &mut before));
    }
    copy
}

#[derive(Clone, Debug)]
enum Step {
    /// A request that was first sent so long before or after the clock, and is valid for so long.
    Ask {
        n: u16,
        sent: i64,
        valid_ms: u64,
    },
    Pass(u64),
    LoseClock,
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => (any::<u16>(), -900..100i64, 0..3_000u64).prop_map(|(n, sent, valid_ms)| Step::Ask { n, sent, valid_ms }),
        // Few ids, so that some come again.
        10 => (0..50u16, -50..10i64, 0..300u64).prop_map(|(n, sent, valid_ms)| Step::Ask { n, sent, valid_ms }),
        10 => (0..20u64).prop_map(Step::Pass),
        1 => (0..2_000u64).prop_map(Step::Pass),
        1 => Just(Step::Restore),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    (prop::collection::vec(step(), 1..1_200), any::<bool>()).prop_map(|(mut steps, lose)| {
        if lose {
            steps.insert(steps.len() / 2, Step::LoseClock);
        }
        steps
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn ids_are_remembered_as_if_everything_were_walked(
        steps in steps(),
        ids_max in prop_oneof![4..20u64, 300..900u64],
    ) {
        let (mut dedup, mut naive) = (Dedup::default(), Naive::default());
        let mut now = LogInstant::from_raw(1_000);
        for step in steps {
            match step {
                Step::Ask { n, sent, valid_ms } => {
                    let sent = LogInstant::from_raw(now.raw().saturating_add_signed(sent));
                    let request = request(id(n), sent, valid_ms);
                    dedup.forget_expired(now);
                    naive.forget_expired(now);
                    let body_hash = u64::from(n % 7);
                    let known = dedup.recall(&request, body_hash);
                    prop_assert_eq!(&known, &naive.recall(&request, body_hash));
                    let reused = Some(Reply::Refused(RequestRefusal::IdReused.into()));
                    prop_assert!(known.is_none() || dedup.recall(&request, 99) == reused);
                    let is_full_ahead = naive.ahead(now) as u64 >= ids_max / AHEAD_PART;
                    prop_assert_eq!(dedup.is_full_ahead(ids_max, AHEAD_PART), is_full_ahead);
                    // As the state applies it: the shard remembers no other request.
                    let refused = request.deadline < now
                        || request.first_sent < dedup.floor()
                        || (request.first_sent > now && dedup.is_full_ahead(ids_max, AHEAD_PART));
                    if known.is_none() && !refused {
                        dedup.remember(&request, body_hash, &reply(n), ids_max);
                        naive.remember(&request, body_hash, &reply(n), ids_max);
                    }
                    prop_assert!(dedup.floor() <= now.plus_ms(1), "{:?} at {now:?}", dedup.floor());
                }
                Step::Pass(ms) => now = now.plus_ms(ms),
                Step::LoseClock => now = now.next_era(),
                Step::Restore => dedup = copy(&dedup),
            }
            prop_assert_eq!((dedup.len(), dedup.floor()), (naive.by_id.len(), naive.floor));
        }
        dedup.check();
        let ids: Vec<RequestId> = dedup.known.iter().map(|known| known.id).collect();
        prop_assert!(ids.iter().eq(naive.by_id.keys()));
    }
}

/// Bytes that an id takes as an entry of three trees: imbl's, whose leaves hold up to 16 entries, and half of that
/// where keys come in the order of the tree.
fn bytes_in_three_trees() -> usize {
    2 * (size_of::<(RequestId, Plain)>() + 2 * size_of::<(LogInstant, RequestId)>())
}

fn receipt(n: u32) -> Reply {
    let task = TaskId::from_bytes(u128::from(n).to_be_bytes());
    Reply::Done(Receipt::Task { task, status: TaskStatus::Pending, epoch: ClaimEpoch(3), attempts: 1 })
}

const MANY: u32 = 100_000;

#[test]
fn an_id_takes_less_than_a_third_of_what_it_takes_as_an_entry_of_three_trees() {
    // A UUIDv7 begins with milliseconds; what follows is random.
    let of_time = |n: u32| (u128::from(n / 17) << 80) | u128::from(n.wrapping_mul(0x9e37_79b9));
    let random = |n: u32| u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    for (what, make) in [("of time", &of_time as &dyn Fn(u32) -> u128), ("random", &random as &dyn Fn(u32) -> u128)] {
        let mut dedup = Dedup::default();
        for n in 0..MANY {
            let sent = LogInstant::from_raw(u64::from(n / 17));
            dedup.forget_expired(sent);
            let request = request(RequestId::from_bytes(make(n).to_be_bytes()), sent, 60_000);
            dedup.remember(&request, 1, &receipt(n), u64::MAX);
        }
        assert_eq!(dedup.len(), MANY as usize);
        let each = dedup.approximate_bytes() / dedup.len();
        println!("ids {what}: {each} bytes each, {} in three trees", bytes_in_three_trees());
        assert!(each * 3 < bytes_in_three_trees(), "{each} bytes each, and {} before", bytes_in_three_trees());
        // What is left of many ids takes as little for each.
        dedup.forget_expired(LogInstant::from_raw(u64::from(MANY / 17 - 50) + 60_000));
        dedup.check();
        assert!(dedup.len() > 0 && dedup.len() < 1_000, "{}", dedup.len());
        let each = dedup.approximate_bytes() / dedup.len();
        assert!(each < 400, "{each} bytes for each of {}", dedup.len());
        dedup.forget_expired(LogInstant::from_raw(u64::from(MANY) + 60_000));
        assert_eq!((dedup.len(), dedup.approximate_bytes()), (0, 0));
    }
}

#[test]
fn a_snapshot_takes_little_more_of_an_id_than_the_id_and_the_answer() {
    let mut dedup = Dedup::default();
    for n in 0..1_000u32 {
        let bytes = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes();
        dedup.remember(
            &request(RequestId::from_bytes(bytes), LogInstant::from_raw(u64::from(n)), 60_000),
            1,
            &receipt(n),
            u64::MAX,
        );
    }
    let bytes: usize = dedup.records().map(|record| postcard::to_stdvec(&record).unwrap().len()).sum();
    let answer = postcard::to_stdvec(&receipt(1)).unwrap().len();
    assert!(bytes <= 1_000 * (16 + answer + 14), "{bytes} bytes of 1000 ids");
}

#[test]
fn a_clone_stays_as_it_is_while_the_original_goes_on() {
    let mut dedup = Dedup::default();
    let ask = |dedup: &mut Dedup, n: u16| {
        dedup.remember(&request(id(n), LogInstant::from_raw(u64::from(n)), 60_000), 1, &reply(n), 1_000);
    };
    (0..1_000).for_each(|n| ask(&mut dedup, n));
    let clone = dedup.clone();
    let before: Vec<_> = clone.records().map(|record| (record.id, record.answer.to_vec())).collect();
    (1_000..3_000).for_each(|n| ask(&mut dedup, n));
    dedup.check();
    clone.check();
    let after: Vec<_> = clone.records().map(|record| (record.id, record.answer.to_vec())).collect();
    assert_eq!(after, before);
}
