use skep_protocol::entry::{Charter, Entry, EntryBody, Founding, Op, Recovered, Request};
use skep_protocol::fleet::{FLEET_VERSIONS, FleetLimits, Rules};
use skep_protocol::ids::{Genesis, RaftId, RequestId, ShardId};
use skep_protocol::operator::OperatorOp;
use skep_protocol::operator::{FirstOperator, FirstReplacement, OperatorGrant};
use skep_protocol::outcome::Reply;
use skep_protocol::recovery::ShardRecovery;
use skep_protocol::refusal::Refusal;
use skep_protocol::signing::{OperatorKey, OperatorSecret, Place};
use skep_protocol::time::LogInstant;

use crate::state::{Applied, FleetState, LogPosition, looks};

const FIRST: u16 = 1;
const KEYS: u64 = 12;

fn secret(n: u16) -> OperatorSecret {
    let mut seed = [0; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    OperatorSecret::from_seed(&seed)
}

/// A shard, and a replica that began with a snapshot of it.
struct History {
    state: FleetState,
    copy: FleetState,
    now: LogInstant,
    index: u64,
}

impl History {
    fn new(limits: FleetLimits) -> Self {
        let mut history =
            Self { state: FleetState::empty(), copy: FleetState::empty(), now: LogInstant::from_raw(1_000), index: 0 };
        let place = Place { site: "hall".parse().unwrap(), shard: ShardId(1), genesis: Genesis::from_bytes([0; 16]) };
        let first =
            FirstOperator { place: place.clone(), operator: secret(FIRST).key(), name: "first".parse().unwrap() };
        let charter = Charter { place, first: Some(first.sign(&secret(FIRST)).unwrap()), root: None };
        let rules = Rules { version: FLEET_VERSIONS.max, limits };
        history.apply(EntryBody::Founding(Box::new(Founding { rules, charter })));
        history
    }

    fn position(&mut self) -> LogPosition {
        self.index += 1;
        LogPosition { index: self.index, term: 1 }
    }

    fn apply(&mut self, body: EntryBody) -> Applied {
        let (position, entry) = (self.position(), Entry { stamp: self.now, term: 1, body });
        self.copy.apply(position, &entry);
        let applied = self.state.apply(position, &entry);
        self.now = self.state.clock();
        applied
    }

    fn ask(&mut self, op: Op) -> Reply {
        let id = RequestId::from_bytes(u128::from(self.index).to_be_bytes());
        let request = Request { id, first_sent: self.now, deadline: self.now.plus_ms(60_000), op };
        self.apply(EntryBody::Requests(vec![request])).replies.remove(0)
    }

    fn place(&self) -> Place {
        self.state.place().cloned().unwrap()
    }

    /// The next statement about an operator.
    fn next(&self, of: u16) -> OperatorGrant {
        let key = secret(of).key();
        let known = self.state.operators().find(|grant| grant.operator == key).map(|grant| grant.serial);
        let serial = known.unwrap_or(self.state.serial_floor()) + 1;
        let grant = OperatorGrant::of_first(self.place(), key, "somebody".parse().unwrap());
        OperatorGrant { serial, admin_depth: 0, ..grant }
    }

    fn grant(&mut self, grant: OperatorGrant, by: u16) -> Reply {
        self.ask(Op::Operator(OperatorOp::Grant { grant: Box::new(grant.sign(&secret(by)).unwrap()) }))
    }

    /// Number of the first operator's key.
    fn first(&self) -> u16 {
        let first: OperatorKey = self.state.first_operator().unwrap().operator;
        (FIRST..).find(|n| secret(*n).key() == first).unwrap()
    }

    fn replace_first(&mut self, to: u16) -> Reply {
        let (old, known) = (self.first(), self.state.first_operator().unwrap());
        let (place, name) = (self.place(), "next".parse().unwrap());
        let (new, serial) = (secret(to).key(), known.replaced + 1);
        let stated = FirstReplacement { place, old: known.operator, new, name, serial };
        self.ask(Op::Operator(OperatorOp::ReplaceFirst { replacement: Box::new(stated.sign(&secret(old)).unwrap()) }))
    }

    /// The shard goes on as another group.
    fn recover(&mut self) {
        let (last_index, members) = (self.index, self.position());
        self.state.skip(members);
        self.copy.skip(members);
        let (by, genesis) = (self.first(), Genesis::from_bytes(u128::from(self.index).to_be_bytes()));
        let stated = ShardRecovery { place: self.place(), by: secret(by).key(), genesis, last_index };
        let statement = stated.sign(&secret(by)).unwrap();
        self.apply(EntryBody::Recovered(Box::new(Recovered { statement, former: vec![RaftId(3)] })));
        assert_eq!(self.place().genesis, genesis);
    }

    fn check(&self, at: &str) {
        assert_eq!(self.copy.digest(), self.state.digest(), "{at}");
        for state in [&self.state, &self.copy] {
            let mut operators = state.operators.clone();
            assert_eq!(operators.counted(self.now), operators.recounted(self.now), "left: kept; right: counted; {at}");
        }
    }
}

/// A generator of random numbers: SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn key(&mut self) -> u16 {
        FIRST + self.below(KEYS) as u16
    }
}

fn step(history: &mut History, chance: &mut Chance) -> Option<Reply> {
    history.now = history.now.plus_ms(chance.below(200));
    match chance.below(60) {
        0 => return Some(history.replace_first(chance.key())),
        1 => history.recover(),
        2..=4 => history.copy = FleetState::from_snapshot(&history.state.to_snapshot().unwrap()).unwrap(),
        _ => {
            let by = if chance.below(2) == 0 { history.first() } else { chance.key() };
            let until = (chance.below(8) > 0).then(|| history.now.plus_ms(chance.below(4_000)));
            let (admin_depth, revoked) = (chance.below(4) as u32, chance.below(4) == 0);
            let grant = OperatorGrant { admin_depth, revoked, until, ..history.next(chance.key()) };
            return Some(history.grant(grant, by));
        }
    }
    None
}

#[test]
fn what_is_counted_of_operators_is_what_a_walk_over_all_of_them_finds_also_after_a_snapshot() {
    let limits = FleetLimits {
        operators_max: 6,
        revoked_operators_max: 2,
        operator_places_of_first: 1,
        operator_branch_max: 3,
        authority_chain_max: 3,
        ..FleetLimits::default()
    };
    let (mut forgotten, mut full) = (0, 0);
    for seed in 0..40 {
        let (mut history, mut chance) = (History::new(limits), Chance(seed));
        for n in 0..150 {
            let reply = step(&mut history, &mut chance);
            full += usize::from(matches!(reply, Some(Reply::Refused(Refusal::Full { .. }))));
            history.check(&format!("seed {seed}, step {n}"));
        }
        forgotten += history.state.dropped().operators;
    }
    assert!(forgotten > 0 && full > 0, "{forgotten} forgotten, {full} refused");
}

#[test]
fn a_grant_to_somebody_new_looks_at_few_operators_however_many_there_are() {
    let limits = FleetLimits {
        operators_max: 304,
        revoked_operators_max: 0,
        operator_places_of_first: 0,
        ..FleetLimits::default()
    };
    let mut history = History::new(limits);
    let done = |reply: Reply| assert!(matches!(reply, Reply::Done(_)), "{reply:?}");
    for admin in 2..=4 {
        let grant = OperatorGrant { admin_depth: 1, ..history.next(admin) };
        done(history.grant(grant, FIRST));
    }
    let until = Some(history.now.plus_ms(10_000));
    for n in 0..300 {
        let grant = OperatorGrant { until, ..history.next(10 + n) };
        looks::take();
        done(history.grant(grant, 2 + n % 3));
        // Counted here and in the copy.
        let looked = looks::take();
        assert!(looked <= 2 * 8, "{looked} looks at {n} operators");
    }
    let late = history.next(1_000);
    let refused = history.grant(late, 2);
    assert!(matches!(refused, Reply::Refused(Refusal::Full { .. })), "{refused:?}");
    history.now = history.now.plus_ms(20_000);
    let late = history.next(1_000);
    looks::take();
    done(history.grant(late, 2));
    let looked = looks::take();
    assert!(looked <= 2 * 8, "{looked} looks to forget one of 300");
    assert_eq!(history.state.dropped().operators, 1);
}
