//! Two endpoints in one process.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skep_config::PeerConfig;
use skep_protocol::fleet::FLEET_VERSIONS;
use skep_protocol::frame::{FRAME_VERSION, FrameKind, Header, Hello};
use skep_protocol::ids::{Incarnation, NodeId, ShardId};
use skep_protocol::text::{NodeName, SiteName};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;

use super::serve::Answer;
use super::{Class, ControlPlane, Dispatch, Peers, Setup, Who};
use crate::clock::Clocks;
use crate::identity::Identity;
use crate::threads::{Threads, control_runtime, work_runtime};

/// Longest wait for an answer within one machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers by the runtime that it answers on.
struct Whereabouts;

impl Dispatch for Whereabouts {
    fn call(&self, _who: Who, _header: Header, _body: Bytes) -> Answer {
        Box::pin(async { Ok(Handle::current().id().to_string().into_bytes()) })
    }
}

struct Node {
    peers: Peers,
    plane: ControlPlane,
    threads: Threads,
    work: Runtime,
    stop: oneshot::Sender<()>,
    control: std::thread::JoinHandle<()>,
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32]).unwrap()
}

fn start(seed: u8, other: PeerConfig) -> Node {
    let (control, work) = (control_runtime().unwrap(), work_runtime().unwrap());
    let threads = Threads::new(control.handle().clone(), work.handle().clone());
    let hello = Hello {
        frame_version_min: FRAME_VERSION,
        frame_version_max: FRAME_VERSION,
        fleet: FLEET_VERSIONS,
        incarnation: Incarnation([seed; 16]),
        process: u64::from(seed),
        name: NodeName::new("node").unwrap(),
        site: SiteName::new("site").unwrap(),
    };
    let setup = Setup {
        identity: identity(seed),
        hello,
        listen: ([127, 0, 0, 1], 0).into(),
        peers: vec![other],
        idle_timeout: Duration::from_secs(10),
        clocks: Clocks::default(),
        threads: threads.clone(),
    };
    let peers = ControlPlane::peers(&setup);
    let plane = ControlPlane::start(setup, peers.clone(), Arc::new(Whereabouts)).unwrap();
    let (stop, stopped) = oneshot::channel();
    let control = std::thread::spawn(move || {
        let _ = control.block_on(stopped);
    });
    Node { peers, plane, threads, work, stop, control }
}

fn stop(node: Node) {
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

#[test]
fn raft_is_answered_on_the_control_thread_and_everything_else_beside_it() {
    let peer = |seed, control| PeerConfig { id: identity(seed).node(), name: None, control, mesh: None };
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
