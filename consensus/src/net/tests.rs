//! Two endpoints in one process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use skep_admission::SiteHandle;
use skep_config::PeerConfig;
use skep_protocol::codec::Encoded as _;
use skep_protocol::fault::ShardFault;
use skep_protocol::fleet::FLEET_VERSIONS;
use skep_protocol::frame::{FRAME_VERSION, FrameKind, Header, Hello, Lineages};
use skep_protocol::ids::{Genesis, Incarnation, NodeId, ShardId};
use skep_protocol::limits;
use skep_protocol::recovery::Lineage;
use skep_protocol::text::{NodeName, SiteName};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;

use super::calls::frame;
use super::serve::Answer;
use super::{AnswerRoom, CallError, Class, ControlPlane, Dispatch, Judgement, Peers, Setup, Waits, Who};
use crate::clock::Clocks;
use crate::identity::Identity;
use crate::threads::{Threads, control_runtime, work_runtime};

/// Longest wait for an answer within one machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Answers by the runtime that it answers on.
struct Whereabouts;

impl Dispatch for Whereabouts {
    fn call(&self, _who: Who, _header: Header, _body: Bytes, _room: AnswerRoom) -> Answer {
        Box::pin(async { Ok(Handle::current().id().to_string().into_bytes()) })
    }
}

/// Lives, and does not get round to answering.
struct Busy;

impl Dispatch for Busy {
    fn call(&self, _who: Who, _header: Header, _body: Bytes, _room: AnswerRoom) -> Answer {
        Box::pin(std::future::pending())
    }
}

/// Answers its first call with more than a frame may hold.
#[derive(Default)]
struct TooMuch(AtomicBool);

impl Dispatch for TooMuch {
    fn call(&self, _who: Who, _header: Header, _body: Bytes, _room: AnswerRoom) -> Answer {
        let bytes = if self.0.swap(true, Ordering::Relaxed) { 1 } else { limits::FRAME_BYTES_MAX + 1 };
        Box::pin(async move { Ok(vec![0; bytes]) })
    }
}

/// Takes no entries from anybody.
struct Picky;

impl Dispatch for Picky {
    fn admit(&self, _who: Who, header: Header) -> Judgement {
        let admits = header.kind != FrameKind::Append;
        Box::pin(std::future::ready(if admits { Ok(()) } else { Err("not from you".to_owned()) }))
    }

    fn call(&self, _who: Who, header: Header, _body: Bytes, _room: AnswerRoom) -> Answer {
        assert_ne!(header.kind, FrameKind::Append, "what is not admitted is not dispatched");
        Box::pin(async { Ok(vec![1]) })
    }
}

/// Answers pulls never, and says that their answers may be large.
struct Sleepy;

impl Dispatch for Sleepy {
    fn large_answer(&self, header: Header, _body: &[u8]) -> Option<(usize, Waits)> {
        (header.kind == FrameKind::Pull).then_some((limits::PULL_BYTES_SOFT_MAX, Waits::ForEnd))
    }

    fn call(&self, _who: Who, header: Header, _body: Bytes, _room: AnswerRoom) -> Answer {
        match header.kind {
            FrameKind::Pull => Box::pin(std::future::pending()),
            _ => Box::pin(async { Ok(vec![1]) }),
        }
    }
}

/// Never reads a stream that begins with a question.
struct Deaf;

impl Dispatch for Deaf {
    fn admit(&self, _who: Who, header: Header) -> Judgement {
        match header.kind {
            FrameKind::Query => Box::pin(std::future::pending()),
            _ => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn call(&self, _who: Who, _header: Header, _body: Bytes, _room: AnswerRoom) -> Answer {
        Box::pin(async { Ok(vec![1]) })
    }
}

/// Says which shards it has replicas of.
struct Says(Vec<Lineage>);

impl Dispatch for Says {
    fn call(&self, _who: Who, header: Header, _body: Bytes, _room: AnswerRoom) -> Answer {
        let said = match header.kind {
            FrameKind::Lineages => Lineages { shards: self.0.clone() }.encode().unwrap(),
            _ => vec![1],
        };
        Box::pin(async move { Ok(said) })
    }
}

pub(super) struct Node {
    pub(super) peers: Peers,
    pub(super) plane: ControlPlane,
    threads: Threads,
    pub(super) work: Runtime,
    stop: oneshot::Sender<()>,
    control: std::thread::JoinHandle<()>,
}

pub(super) fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32]).unwrap()
}

fn start(seed: u8, other: PeerConfig) -> Node {
    start_as(seed, u64::from(seed), other)
}

fn start_as(seed: u8, process: u64, other: PeerConfig) -> Node {
    start_that(seed, process, other, Arc::new(Whereabouts))
}

fn start_that(seed: u8, process: u64, other: PeerConfig, dispatch: Arc<dyn Dispatch>) -> Node {
    start_with(seed, process, other, dispatch, Vec::new())
}

/// One that has replicas of these shards.
fn start_of(seed: u8, other: PeerConfig, shards: Vec<Lineage>) -> Node {
    let says = Says(shards.clone());
    start_with(seed, u64::from(seed), other, Arc::new(says), shards)
}

fn start_with(seed: u8, process: u64, other: PeerConfig, dispatch: Arc<dyn Dispatch>, shards: Vec<Lineage>) -> Node {
    start_at((seed, process), vec![other], dispatch, shards, None)
}

/// One that knows of others, and is of a site if it knows one.
pub(super) fn start_at(
    (seed, process): (u8, u64),
    peers: Vec<PeerConfig>,
    dispatch: Arc<dyn Dispatch>,
    shards: Vec<Lineage>,
    site: Option<SiteHandle>,
) -> Node {
    let (control, work) = (control_runtime().unwrap(), work_runtime().unwrap());
    let threads = Threads::new(control.handle().clone(), work.handle().clone());
    let hello = Hello {
        frame_version_min: FRAME_VERSION,
        frame_version_max: FRAME_VERSION,
        fleet: FLEET_VERSIONS,
        incarnation: Incarnation([seed; 16]),
        process,
        name: NodeName::new("node").unwrap(),
        site: SiteName::new("site").unwrap(),
        shards: Vec::new(),
    };
    let setup = Setup {
        identity: identity(seed),
        hello,
        listen: ([127, 0, 0, 1], 0).into(),
        peers,
        site,
        idle_timeout: Duration::from_secs(10),
        clocks: Clocks::default(),
        threads: threads.clone(),
        class_of: crate::rpc::class_of,
    };
    let peers = ControlPlane::peers(&setup);
    peers.have(shards);
    let plane = ControlPlane::start(setup, peers.clone(), dispatch, None).unwrap();
    let (stop, stopped) = oneshot::channel();
    let control = std::thread::spawn(move || {
        let _ = control.block_on(stopped);
    });
    Node { peers, plane, threads, work, stop, control }
}

pub(super) fn stop(node: Node) {
    drop((node.stop, node.plane, node.peers));
    node.control.join().unwrap();
    drop(node.work);
}

async fn connected(from: &Node, to: NodeId) {
    let mut changes = from.peers.changes();
    while from.peers.connected(to).is_none() {
        changes.changed().await.unwrap();
    }
}

pub(super) fn peer(seed: u8, control: Option<SocketAddr>) -> PeerConfig {
    PeerConfig { id: identity(seed).node(), name: None, control, mesh: None, voter: false }
}

/// Waits until it is so.
pub(super) fn until(node: &Node, is_so: impl Fn() -> bool) {
    node.work.block_on(async {
        let so = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, so).await.unwrap();
    });
}

/// Whom a node knows to share an identity: none is itself.
fn shared(node: &Node) -> Vec<Option<NodeId>> {
    let reports = node.peers.shared_identities();
    assert!(reports.iter().all(|report| report.fault == ShardFault::IdentityShared));
    reports.into_iter().map(|report| report.node).collect()
}

/// hashicorp/consul#13037
#[test]
fn of_two_processes_under_one_identity_the_first_stays_while_it_lives() {
    let (one, two) = (identity(1).node(), identity(2).node());
    let asked = start(2, peer(1, None));
    let first = start_as(1, 11, peer(2, asked.plane.local_address()));
    let connected = |to: &Node, node| to.peers.connected(node).map(|peer| peer.hello.process);
    until(&asked, || connected(&asked, one) == Some(11));
    let second = start_as(1, 22, peer(2, asked.plane.local_address()));
    until(&second, || shared(&second) == [None] && shared(&asked) == [Some(one)]);
    assert_eq!(connected(&second, two), None);
    assert_eq!(connected(&asked, one), Some(11), "it was there first");
    assert_eq!(connected(&first, two), Some(2));
    // Without a word: its connection is not known to be dead.
    stop(first);
    until(&asked, || connected(&asked, one) == Some(22));
    stop(second);
    stop(asked);
}

/// hashicorp/consul#13037
#[test]
fn a_process_that_is_heard_and_has_not_answered_yet_is_neither_replaced_nor_said_to_be_two() {
    let one = identity(1).node();
    let asked = start(2, peer(1, None));
    let to = || peer(2, asked.plane.local_address());
    let first = start_that(1, 11, to(), Arc::new(Busy));
    let connected = || asked.peers.connected(one).map(|peer| peer.hello.process);
    until(&asked, || connected() == Some(11));
    let second = start_as(1, 22, to());
    let refused = || second.peers.views().iter().filter_map(|view| view.last_error.clone()).collect::<String>();
    until(&second, || refused().contains("has not answered yet"));
    assert_eq!(connected(), Some(11), "it lives");
    assert_eq!((shared(&asked), shared(&second)), (vec![], vec![]));
    // Once it is heard no more it is dead.
    stop(first);
    until(&asked, || connected() == Some(22));
    stop(second);
    stop(asked);
}

/// The first shard, of a genesis and of those that it had before.
fn lineage(genesis: u8, past: &[u8]) -> Lineage {
    let of = |n: u8| Genesis::from_bytes([n; 16]);
    Lineage { shard: ShardId::FIRST, genesis: of(genesis), past: past.iter().copied().map(of).collect() }
}

/// Whom a node knows to be of another shard.
fn strays(node: &Node) -> Vec<Option<NodeId>> {
    let reports = node.peers.strays();
    assert!(reports.iter().all(|report| report.fault == ShardFault::AnotherShard));
    reports.into_iter().map(|report| report.node).collect()
}

#[test]
fn nodes_of_two_shards_of_one_number_do_not_speak_of_it_and_stay_connected_for_all_others() {
    let (one, two) = (identity(1).node(), identity(2).node());
    let second = ShardId(2);
    let of_second = || Lineage { shard: second, ..lineage(5, &[]) };
    let asked = start_of(2, peer(1, None), vec![lineage(6, &[]), of_second()]);
    let asking = start_of(1, peer(2, asked.plane.local_address()), vec![lineage(7, &[]), of_second()]);
    until(&asking, || strays(&asked) == [Some(one)] && strays(&asking) == [Some(two)]);
    until(&asking, || asked.peers.connected(one).is_some() && asking.peers.connected(two).is_some());
    // Both know which shards these are, and say the same.
    let details = [&asked, &asking].map(|node| node.peers.strays().remove(0).detail);
    assert_eq!(details[0], details[1]);
    assert!(details[0].contains("genesis 0606") && details[0].contains("genesis 0707"), "{details:?}");
    for (node, other) in [(&asked, one), (&asking, two)] {
        let call = |kind, shard| {
            let call = node.peers.call(other, Class::Urgent, kind, shard, b"", PATIENCE);
            node.work.block_on(call)
        };
        for kind in [FrameKind::Beat, FrameKind::Append, FrameKind::Query, FrameKind::Clock, FrameKind::Leads] {
            let of_it = call(kind, ShardId::FIRST);
            assert!(matches!(&of_it, Err(CallError::NotSent(why)) if *why == details[0]), "{kind:?}: {of_it:?}");
            assert!(node.peers.check_shard(other, ShardId::FIRST).is_err(), "it would be heard");
            assert_eq!(call(kind, second).unwrap().as_ref(), [1], "{kind:?} of a shard that both have");
        }
        assert!(node.peers.check_shard(other, second).is_ok() && node.peers.check_shard(other, ShardId(3)).is_ok());
    }
    // As one does whose data directory was moved away.
    asked.peers.have(vec![of_second()]);
    asking.peers.note_shards(two, &[of_second()]);
    assert_eq!((strays(&asked), strays(&asking)), (vec![], vec![]));
    assert!(asking.peers.check_shard(two, ShardId::FIRST).is_ok());
    stop(asking);
    stop(asked);
}

#[test]
fn a_node_without_a_shard_or_with_one_as_it_was_before_a_recovery_is_let_in() {
    let cases = [
        (vec![], vec![lineage(6, &[])]),
        (vec![lineage(6, &[])], vec![]),
        (vec![lineage(6, &[])], vec![lineage(8, &[6, 7])]),
        (vec![lineage(8, &[6, 7])], vec![lineage(7, &[6])]),
    ];
    for (ones, others) in cases {
        let asked = start_of(2, peer(1, None), ones);
        let asking = start_of(1, peer(2, asked.plane.local_address()), others);
        until(&asking, || asking.peers.connected(identity(2).node()).is_some());
        assert_eq!((strays(&asked), strays(&asking)), (vec![], vec![]));
        stop(asking);
        stop(asked);
    }
}

#[test]
fn what_a_node_is_counts_when_it_comes_to_know_it_and_not_only_when_it_connects() {
    let (one, two) = (identity(1).node(), identity(2).node());
    let connected =
        |asked: &Node, asking: &Node| asking.peers.connected(two).is_some() && asked.peers.connected(one).is_some();
    // The other one said what it is when it connected.
    let asked = start_of(2, peer(1, None), vec![lineage(6, &[])]);
    let asking = start_of(1, peer(2, asked.plane.local_address()), Vec::new());
    until(&asking, || connected(&asked, &asking));
    assert!(asking.peers.have(vec![lineage(7, &[])]) && !asking.peers.have(vec![lineage(7, &[])]));
    assert_eq!(strays(&asking), [Some(two)]);
    stop(asking);
    stop(asked);
    // Neither knew then. One tells and asks, and both know.
    let asked = start_that(2, 2, peer(1, None), Arc::new(Says(vec![lineage(6, &[])])));
    let asking = start_of(1, peer(2, asked.plane.local_address()), Vec::new());
    until(&asking, || connected(&asked, &asking));
    assert!(asking.peers.have(vec![lineage(7, &[])]));
    assert!(strays(&asking).is_empty());
    asking.work.block_on(asking.peers.ask_all(PATIENCE));
    assert_eq!(strays(&asking), [Some(two)]);
    assert!(connected(&asked, &asking));
    stop(asking);
    stop(asked);
}

#[test]
fn raft_is_answered_on_the_control_thread_and_everything_else_beside_it() {
    let asked = start(2, peer(1, None));
    let asks = start(1, peer(2, asked.plane.local_address()));
    let to = identity(2).node();
    let (control, work) = (asked.threads.control().id().to_string(), asked.threads.work().id().to_string());
    let calls = [
        (Class::Urgent, FrameKind::Vote, &control),
        (Class::Urgent, FrameKind::Beat, &control),
        (Class::Append, FrameKind::Append, &control),
        (Class::Agents, FrameKind::Pull, &work),
        (Class::End, FrameKind::End, &work),
        (Class::Propose, FrameKind::Propose, &work),
        (Class::Query, FrameKind::Query, &work),
        // Frames on streams of other classes.
        (Class::Urgent, FrameKind::Query, &work),
        (Class::Query, FrameKind::Vote, &control),
    ];
    asks.work.block_on(async {
        tokio::time::timeout(PATIENCE, connected(&asks, to)).await.unwrap();
        for (class, kind, answered_on) in calls {
            let answer = asks.peers.call(to, class, kind, ShardId::FIRST, b"", PATIENCE).await.unwrap();
            assert_eq!(answer, answered_on.as_bytes(), "{class:?} {kind:?}");
        }
    });
    stop(asks);
    stop(asked);
}

#[test]
fn a_call_that_is_refused_by_its_header_is_not_kept_and_its_stream_goes_on() {
    let two = identity(2).node();
    let asked = start_that(2, 2, peer(1, None), Arc::new(Picky));
    let asking = start(1, peer(2, asked.plane.local_address()));
    until(&asking, || asking.peers.connected(two).is_some());
    let call = |kind, body: &[u8]| {
        let call = asking.peers.call(two, Class::Append, kind, ShardId::FIRST, body, PATIENCE);
        asking.work.block_on(call)
    };
    for _ in 0..20 {
        let refused = call(FrameKind::Append, &vec![7; limits::ENTRY_BYTES_MAX]);
        assert!(matches!(&refused, Err(CallError::Refused(why)) if why == "not from you"), "{refused:?}");
        assert_eq!(call(FrameKind::Vote, b"").unwrap().as_ref(), [1]);
    }
    stop(asking);
    stop(asked);
}

#[test]
fn a_renewal_is_answered_before_all_pulls_that_wait_for_room_on_its_stream() {
    let two = identity(2).node();
    let asked = start_that(2, 2, peer(1, None), Arc::new(Sleepy));
    let asking = start(1, peer(2, asked.plane.local_address()));
    until(&asking, || asking.peers.connected(two).is_some());
    let call = |kind| asking.peers.call(two, Class::Agents, kind, ShardId::FIRST, b"", PATIENCE);
    // One more than there is room for.
    let count = limits::LARGE_ANSWER_BYTES_PER_PEER_MAX / limits::PULL_BYTES_SOFT_MAX + 1;
    asking.work.block_on(async {
        assert_eq!(call(FrameKind::Heartbeat).await.unwrap().as_ref(), [1], "the stream is there");
        let pulls = futures::future::join_all((0..count).map(|_| call(FrameKind::Pull)));
        tokio::select! {
            biased;
            ended = pulls => panic!("{ended:?}"),
            answer = call(FrameKind::Heartbeat) => assert_eq!(answer.unwrap().as_ref(), [1]),
        }
    });
    stop(asking);
    stop(asked);
}

/// Fills a stream that begins with a question, and counts the bytes that found room.
async fn fill(connection: quinn::Connection, filled: Arc<AtomicUsize>) {
    let Ok((mut send, _receive)) = connection.open_bi().await else { return };
    let mut some = frame(FrameKind::Query, ShardId::FIRST, None, 1, &[0]);
    while let Ok(bytes) = send.write(&some).await {
        filled.fetch_add(bytes, Ordering::Relaxed);
        some.resize(64 * 1024, 0);
    }
}

#[test]
fn streams_that_are_never_read_keep_neither_votes_nor_the_largest_frames_waiting() {
    let two = identity(2).node();
    let asked = start_that(2, 2, peer(1, None), Arc::new(Deaf));
    let asking = start(1, peer(2, asked.plane.local_address()));
    until(&asking, || asking.peers.connected(two).is_some());
    let connection = asking.peers.connected(two).and_then(|peer| peer.link.connection().cloned()).unwrap();
    let filled = <[Arc<AtomicUsize>; 2]>::default();
    for filled in &filled {
        asking.work.spawn(fill(connection.clone(), Arc::clone(filled)));
    }
    until(&asking, || filled.iter().all(|bytes| bytes.load(Ordering::Relaxed) >= limits::STREAM_BYTES_UNREAD_MAX));
    let calls = [
        (Class::Urgent, FrameKind::Vote, Vec::new()),
        (Class::Agents, FrameKind::Claims, vec![0; limits::FRAME_BYTES_MAX]),
        (Class::Urgent, FrameKind::Beat, Vec::new()),
    ];
    for (class, kind, body) in calls {
        let answer = asking.work.block_on(asking.peers.call(two, class, kind, ShardId::FIRST, &body, PATIENCE));
        assert_eq!(answer.unwrap().as_ref(), [1], "{kind:?}");
    }
    drop(connection);
    stop(asking);
    stop(asked);
}

#[test]
fn after_an_answer_that_is_no_frame_calls_go_over_another_stream() {
    let two = identity(2).node();
    let asked = start_that(2, 2, peer(1, None), Arc::new(TooMuch::default()));
    let asking = start(1, peer(2, asked.plane.local_address()));
    until(&asking, || asking.peers.connected(two).is_some());
    let call = || {
        let call = asking.peers.call(two, Class::Query, FrameKind::Query, ShardId::FIRST, &[], PATIENCE);
        asking.work.block_on(call)
    };
    let lost = call();
    assert!(matches!(lost, Err(CallError::Lost(_))), "{lost:?}");
    assert_eq!(call().unwrap().as_ref(), [0], "the next one is answered");
    stop(asking);
    stop(asked);
}
