//! Tests of recovery on real directories: what goes on, what is over, and what stays where it was.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::impls::leader_id_std::LeaderId;
use openraft::{EntryPayload, Membership};
use skep_fleet::FleetLimits;
use skep_protocol::codec::Encoded as _;
use skep_protocol::entry::{Charter, Entry, EntryBody, Founding, Op, Request};
use skep_protocol::fleet::{FLEET_VERSIONS, Rules};
use skep_protocol::ids::{RequestId, TaskId};
use skep_protocol::operator::FirstOperator;
use skep_protocol::signing::OperatorSecret;
use skep_protocol::task::{DisconnectPolicy, Priority, RetryPolicy, TaskOp, TaskSpec};
use skep_protocol::text::{TaskKind, Title};
use skep_protocol::time::LogInstant;
use skep_store::LogPoint;

use super::*;
use crate::raft::types::{EntryBytes, Member, SnapshotMeta, encode};

const SHARD: ShardId = ShardId(1);
const OTHER: ShardId = ShardId(2);
const THIRD: ShardId = ShardId(3);
const INCARNATION: [u8; 16] = [1; 16];
const CONFIG: StoreConfig =
    StoreConfig { low_water_bytes: 0, segment_bytes: 64 * 1024, history_days: 90, history_bytes: 1 << 30 };

type Payload = EntryPayload<EntryBytes, RaftId, Member>;

fn node(n: u8) -> NodeId {
    NodeId::from_public_key([n; 32])
}

fn operator() -> OperatorSecret {
    OperatorSecret::from_seed(&[1; 32])
}

fn place() -> Place {
    Place { site: "hall".parse().unwrap(), shard: SHARD, genesis: Genesis::from_bytes([6; 16]) }
}

fn task(n: u8) -> TaskId {
    TaskId::from_bytes([n; 16])
}

fn spec() -> TaskSpec {
    TaskSpec {
        title: Title::new("a task").unwrap(),
        kind: TaskKind::new("task").unwrap(),
        priority: Priority::Normal,
        required: BTreeSet::new(),
        payload: Vec::new(),
        retry: RetryPolicy::default(),
        stale_after_ms: 900_000,
        valid_for_ms: None,
        disconnect: DisconnectPolicy::default(),
        place: None,
    }
}

fn member(n: u8, incarnation: [u8; 16]) -> Member {
    Member { node: node(n), incarnation: Incarnation(incarnation), name: None, charter: None }
}

/// The three voters of the lost group; the first of them is the survivor.
fn lost() -> BTreeMap<RaftId, Member> {
    let members = [member(1, INCARNATION), member(2, [2; 16]), member(3, [3; 16])];
    members.into_iter().map(|member| (member.raft_id(), member)).collect()
}

fn members() -> Payload {
    let all = lost();
    EntryPayload::Membership(Membership::new(vec![all.keys().copied().collect()], all).unwrap())
}

fn body(term: u64, body: EntryBody) -> Payload {
    let entry = Entry { stamp: LogInstant::from_raw(1_000), term, body };
    EntryPayload::Normal(EntryBytes(Bytes::from(entry.encode().unwrap())))
}

fn founding() -> EntryBody {
    let stated = FirstOperator { place: place(), operator: operator().key(), name: "first".parse().unwrap() };
    let charter = Charter { place: place(), first: Some(stated.sign(&operator()).unwrap()), root: None };
    let rules = Rules { version: FLEET_VERSIONS.max, limits: FleetLimits::default() };
    EntryBody::Founding(Box::new(Founding { rules, charter }))
}

fn create(n: u8) -> EntryBody {
    let (first_sent, deadline) = (LogInstant::from_raw(1_000), LogInstant::from_raw(60_000));
    let op = Op::Task(TaskOp::Create { task: task(n), spec: Box::new(spec()) });
    EntryBody::Requests(vec![Request { id: RequestId::from_bytes([n; 16]), first_sent, deadline, op }])
}

/// A directory of the survivor: members, a founding entry, and two tasks; the second task is not known to be committed.
/// A voter that lied has put the shard into the highest term of all.
fn directory(data: &Path, more: Vec<(u64, Payload)>) {
    let store = Store::open(data, INCARNATION, store_options(&CONFIG)).unwrap();
    let entries = [(0, members()), (1, EntryPayload::Blank), (1, body(1, founding())), (1, body(1, create(1)))];
    append(&store, SHARD, 0, entries.into_iter().collect());
    store.note_committed(SHARD, LogPoint { index: 3, term: 1 });
    append(&store, SHARD, 4, [(2, body(2, create(2)))].into_iter().chain(more).collect());
    vote(&store, SHARD, u64::MAX);
    append(&store, OTHER, 0, vec![(0, members()), (1, EntryPayload::Blank)]);
    vote(&store, OTHER, 7);
}

fn append(store: &Store, shard: ShardId, from: u64, entries: Vec<(u64, Payload)>) {
    let encoded = |(index, (term, payload)): (u64, (u64, Payload))| {
        (LogPoint { index, term }, Bytes::from(encode(&payload).unwrap()))
    };
    let (done, durable) = std::sync::mpsc::channel();
    let entries = (from..).zip(entries).map(encoded).collect();
    store.append(shard, entries, move || done.send(()).unwrap()).unwrap();
    durable.recv().unwrap();
}

fn vote(store: &Store, shard: ShardId, term: u64) {
    let vote = Vote { leader_id: LeaderId { term, voted_for: member(2, [2; 16]).raft_id() }, committed: true };
    let (done, durable) = std::sync::mpsc::channel();
    let bytes = Bytes::from(encode(&vote).unwrap());
    store.save_vote(shard, bytes, move || done.send(()).unwrap()).unwrap();
    durable.recv().unwrap();
}

fn remains(data: &Path, give_up_from: Option<u64>) -> Result<Remains, RecoverError> {
    Remains::open(data, (node(1), SHARD), Build::default(), &CONFIG, give_up_from)
}

fn signed(remains: &Remains, genesis: u8, by: &OperatorSecret) -> SignedRecovery {
    remains.statement(Genesis::from_bytes([genesis; 16])).sign(by).unwrap()
}

#[test]
fn a_survivor_goes_on_with_all_that_its_log_holds_as_the_only_voter_of_another_group() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    directory(&data, Vec::new());
    let was = remains(&data, None).unwrap();
    let view = was.view();
    assert_eq!((view.last_index, view.end, view.committed, view.term), (4, 4, Some(3), u64::MAX));
    assert_eq!(view.others.iter().map(|lost| lost.node).collect::<BTreeSet<_>>(), [node(2), node(3)].into());
    assert_eq!((view.counts.pending, view.other_shards), (2, vec![OTHER]));
    let word = signed(&was, 7, &operator());
    let now = was.recover(word, [9; 16]).unwrap();
    assert_eq!((now.last_index, now.incarnation, now.history), (4, Incarnation([9; 16]), None));
    assert_eq!(now.term, 2 + limits::RECOVERY_TERMS_AHEAD, "a term after which there is none does not count");

    let (store, last) = (Store::open(&data, [0; 16], store_options(&CONFIG)).unwrap(), LogPoint { index: 4, term: 2 });
    let own = member(1, [9; 16]).raft_id();
    let voted: Vote = decode("vote", &store.vote(SHARD).unwrap()).unwrap();
    assert_eq!((voted.leader_id.term, voted.leader_id.voted_for, voted.committed), (now.term, own, false));
    let point = |index| Some(LogPoint { index, term: now.term });
    assert_eq!(store.ends(SHARD), (point(5), point(6)));
    bring_to_agree(&store, SHARD).unwrap();
    assert_eq!(store.ends(SHARD), (point(5), point(6)), "a start finds nothing to mend");
    let snapshot = store.snapshots().load(SHARD).unwrap().unwrap();
    let meta: SnapshotMeta = decode("snapshot meta", &snapshot.meta).unwrap();
    assert_eq!(meta.last_membership.voter_ids().collect::<Vec<_>>(), [own]);
    let next = replay(&store, SHARD, &Build::default(), 0).unwrap();
    let (state, members) = (next.state, next.members);
    assert_eq!(state.place().map(|place| place.genesis), Some(Genesis::from_bytes([7; 16])));
    assert!(state.task(&task(1)).is_some() && state.task(&task(2)).is_some(), "committed or not");
    assert_eq!(state.clock().era(), 1);
    assert_eq!(state.recovery().map(|word| word.last_index), Some(4));
    assert!(lost().into_keys().all(|former| state.is_former(former) && !members.contains_key(&former)));
    // The history has the effects of each entry, and lacks nothing.
    let standing = store.history().standing(SHARD);
    assert_eq!((standing.next, standing.missing, standing.lost), (6, 0, 0));
    // The earlier directory is kept, and the other shard is as it was.
    let before = Store::open_alone(&now.before, [0; 16], store_options(&CONFIG)).unwrap();
    assert_eq!((before.incarnation(), before.ends(SHARD)), (Incarnation(INCARNATION), (None, Some(last))));
    let other = store.entries(OTHER, 0..9, usize::MAX).unwrap();
    assert_eq!(other.iter().map(|(point, _)| (point.index, point.term)).collect::<Vec<_>>(), [(0, 0), (1, 1)]);
    let voted: Vote = decode("vote", &store.vote(OTHER).unwrap()).unwrap();
    assert_eq!(voted.leader_id.term, 7);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "the directory and the one before it");
}

#[test]
fn nobody_but_the_first_operator_has_a_shard_go_on_and_only_from_what_it_saw() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    directory(&data, Vec::new());
    for n in 0..3 {
        let was = remains(&data, None).unwrap();
        let word = match n {
            0 => signed(&was, 7, &OperatorSecret::from_seed(&[2; 32])),
            1 => ShardRecovery { last_index: 3, ..was.statement(Genesis::from_bytes([7; 16])) }
                .sign(&operator())
                .unwrap(),
            _ => ShardRecovery {
                place: Place { shard: OTHER, ..place() },
                ..was.statement(Genesis::from_bytes([7; 16]))
            }
            .sign(&operator())
            .unwrap(),
        };
        let refused = was.recover(word, [9; 16]);
        assert!(matches!(refused, Err(RecoverError::NotSigned { .. })), "{n}: {refused:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made");
    assert_eq!(remains(&data, None).unwrap().view().genesis, place().genesis);
}

#[test]
fn what_a_recovery_that_was_cut_off_had_half_made_is_removed_by_the_next_one_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    directory(&data, Vec::new());
    let [half, whole, before] = ["recovering-a", "recovering-b", "before-c"].map(|word| beside::named(&data, word));
    beside::begin(&half).unwrap();
    drop(Store::make_alone(&half, [2; 16], store_options(&CONFIG)).unwrap());
    let refused = remains(&half, None).err();
    assert!(matches!(refused, Some(RecoverError::Store(StoreError::HalfMade { .. }))), "it is no node's directory");
    for kept in [&whole, &before] {
        std::fs::create_dir(kept).unwrap();
        std::fs::write(kept.join("FORMAT"), "skep 2").unwrap();
    }
    // A caller that only looks changes nothing.
    let was = remains(&data, None).unwrap();
    assert!(half.exists());
    let word = signed(&was, 7, &operator());
    let now = was.recover(word, [9; 16]).unwrap();
    assert_eq!(now.leftovers, Leftovers { removed: vec![half.clone()], kept: vec![whole.clone()] });
    assert!(!half.exists() && whole.exists() && before.exists() && beside::has_store(&now.before));
    let made = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    assert!(!made.iter().any(|name| name == "HALF-MADE"), "{made:?}");
}

#[test]
fn a_recovery_that_is_cut_off_once_the_directories_have_changed_places_loses_neither() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    directory(&data, Vec::new());
    let was = remains(&data, None).unwrap();
    let word = signed(&was, 7, &operator());
    let now = was.recover(word, [9; 16]).unwrap();
    // This is the moment before the history is taken over, while the old directory has its name.
    let made = beside::named(&data, &format!("{MADE}cut-off"));
    beside::rename(&now.before, &made).unwrap();
    beside::move_history(&data, &made).unwrap();
    assert_eq!(beside::clear(&data, MADE), Leftovers { removed: Vec::new(), kept: vec![made.clone()] });
    let next = remains(&data, None).unwrap();
    assert_eq!((next.view().genesis, next.view().counts.pending), (Genesis::from_bytes([7; 16]), 2));
    let old = Store::open(&made, [0; 16], store_options(&CONFIG)).unwrap();
    assert_eq!(old.incarnation(), Incarnation(INCARNATION));
    assert_eq!(old.ends(SHARD), (None, Some(LogPoint { index: 4, term: 2 })));
}

#[test]
fn an_entry_that_cannot_be_applied_is_given_up_only_if_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let rubbish = EntryPayload::Normal(EntryBytes(Bytes::from_static(b"rubbish")));
    directory(&data, vec![(2, rubbish), (2, body(2, create(3)))]);
    let refused = remains(&data, None).err();
    assert!(matches!(refused, Some(RecoverError::Unread { index: 5, end: 6, .. })), "{refused:?}");
    assert!(matches!(remains(&data, Some(4)).err(), Some(RecoverError::Unread { index: 5, .. })));
    let was = remains(&data, Some(5)).unwrap();
    assert_eq!((was.view().last_index, was.view().end), (4, 6));
    let word = signed(&was, 7, &operator());
    was.recover(word, [9; 16]).unwrap();
    let now = remains(&data, None).unwrap();
    assert_eq!((now.view().genesis, now.view().counts.pending), (Genesis::from_bytes([7; 16]), 2));
    drop(now);
    assert!(matches!(remains(&data, Some(5)).err(), Some(RecoverError::NothingToGiveUp { given: 5 })));
}

#[test]
fn a_directory_in_which_a_node_runs_or_that_holds_nothing_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    assert!(matches!(remains(&data, None).err(), Some(RecoverError::NoReplica { .. })));
    assert!(!data.exists(), "looking makes nothing");
    directory(&data, Vec::new());
    let running = Store::open(&data, [0; 16], store_options(&CONFIG)).unwrap();
    assert!(matches!(remains(&data, None).err(), Some(RecoverError::Store(StoreError::InUse { .. }))));
    drop(running);
    // The other shard of the node never began.
    let other = Remains::open(&data, (node(1), OTHER), Build::default(), &CONFIG, None);
    assert!(matches!(other.err(), Some(RecoverError::NoReplica { shard: OTHER, .. })));
}

#[test]
fn a_shard_is_recovered_again_under_another_incarnation() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    directory(&data, Vec::new());
    let mut terms = Vec::new();
    for n in [7, 8] {
        let was = remains(&data, None).unwrap();
        let word = signed(&was, n, &operator());
        let now = was.recover(word, [n; 16]).unwrap();
        assert_eq!(now.incarnation, Incarnation([n; 16]));
        terms.push(now.term);
    }
    assert!(terms.is_sorted_by(|before, after| before < after), "{terms:?}");
    let now = remains(&data, None).unwrap();
    assert_eq!(now.view().genesis, Genesis::from_bytes([8; 16]));
    assert!(now.replayed.state.is_former(member(1, [7; 16]).raft_id()));
}

#[test]
fn shards_of_one_directory_are_recovered_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    directory(&data, Vec::new());
    // Another shard with the same three voters.
    let place = Place { shard: THIRD, ..place() };
    let stated = FirstOperator { place: place.clone(), operator: operator().key(), name: "first".parse().unwrap() };
    let charter = Charter { place, first: Some(stated.sign(&operator()).unwrap()), root: None };
    let rules = Rules { version: FLEET_VERSIONS.max, limits: FleetLimits::default() };
    let founding = EntryBody::Founding(Box::new(Founding { rules, charter }));
    let store = Store::open(&data, INCARNATION, store_options(&CONFIG)).unwrap();
    append(&store, THIRD, 0, vec![(0, members()), (1, body(1, founding))]);
    vote(&store, THIRD, 1);
    drop(store);
    for (shard, genesis) in [(SHARD, 7), (THIRD, 8)] {
        let was = Remains::open(&data, (node(1), shard), Build::default(), &CONFIG, None).unwrap();
        let word = signed(&was, genesis, &operator());
        let now = was.recover(word, [genesis; 16]).unwrap();
        assert_eq!(now.incarnation, Incarnation([7; 16]), "the one that goes on already keeps its only voter");
    }
    // In this state neither shard can be recovered again by itself: the other one would have no voter.
    let was = remains(&data, None).unwrap();
    let word = signed(&was, 9, &operator());
    let refused = was.recover(word, [9; 16]);
    assert!(matches!(refused, Err(RecoverError::OnlyVoterOf { shard: THIRD })), "{refused:?}");
}

#[test]
fn terms_that_cannot_have_come_about_leave_room_for_those_to_come() {
    let ahead = limits::RECOVERY_TERMS_AHEAD;
    assert_eq!(next_term([3, 9, 4].into_iter()), 9 + ahead);
    assert_eq!(next_term([3, u64::MAX, limits::TERM_MAX].into_iter()), 3 + ahead);
    assert_eq!(next_term([u64::MAX].into_iter()), ahead);
}
