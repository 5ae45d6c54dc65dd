use std::time::Duration;

use super::*;
use skep_config::PeerConfig;
use skep_protocol::telemetry::Publication;
use skep_protocol::text::{AgentId, ContentType, SiteName};

fn identity(seed: u8) -> NodeId {
    let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
    node_id(&key.public().to_peer_id()).unwrap()
}

fn peer(id: NodeId, mesh: Option<String>) -> PeerConfig {
    PeerConfig { id, name: None, control: None, mesh, voter: false }
}

fn start_heard(seed: u8, peers: Vec<PeerConfig>) -> (Mesh, mpsc::Receiver<Envelope>) {
    let site = SiteName::new("s").unwrap();
    let config = MeshConfig { listen: "127.0.0.1:0".parse().unwrap(), mdns: false, site, peers };
    Mesh::start([seed; 32], &config, None).unwrap()
}

fn start(seed: u8, peers: Vec<PeerConfig>) -> Mesh {
    start_heard(seed, peers).0
}

/// The addresses of a mesh, once both transports listen.
async fn addresses(mesh: &Mesh) -> Vec<String> {
    let mut view = mesh.handle().view();
    view.wait_for(|view| view.listening.len() == 2).await.unwrap().listening.clone()
}

async fn until_up(mesh: &Mesh, node: NodeId) {
    until_up_at(&mesh.handle(), node).await;
}

async fn until_up_at(mesh: &MeshHandle, node: NodeId) {
    mesh.view().wait_for(|view| view.up.contains(&node)).await.unwrap();
}

/// databendlabs/databend#4341
#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_protocol_the_setting_and_the_reason() {
    let quic = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (taken, over) in [(quic.local_addr().unwrap(), "QUIC"), (tcp.local_addr().unwrap(), "TCP")] {
        let refused = Mesh::start([1; 32], &config(&taken.to_string(), peer(identity(2), None)), None);
        let why = refused.map(drop).unwrap_err().to_string();
        let parts = [format!("the mesh cannot listen on {taken} over {over}: "), "in use".into(), "mesh.listen".into()];
        assert!(parts.iter().all(|part| why.contains(part)), "{why}");
    }
}

#[tokio::test]
async fn listed_peers_connect_over_quic_and_tcp_and_reconnect() {
    for transport in ["quic-v1", "tcp"] {
        let (a, b) = (identity(1), identity(2));
        let first = start(1, vec![peer(b, None)]);
        let address = addresses(&first).await.into_iter().find(|at| at.contains(transport)).unwrap();
        let second = start(2, vec![peer(a, Some(address.clone()))]);
        until_up(&second, a).await;
        until_up(&first, b).await;
        second.stop().await;
        first.handle().view().wait_for(|view| view.up.is_empty()).await.unwrap();
        let second = start(2, vec![peer(a, Some(address))]);
        until_up(&first, b).await;
        second.stop().await;
    }
}

#[tokio::test]
async fn a_peer_that_is_not_listed_is_not_connected() {
    let (a, listed) = (identity(1), identity(2));
    let first = start(1, vec![peer(listed, None)]);
    let address = addresses(&first).await.remove(0);
    let stranger = start(3, vec![peer(a, Some(address.clone()))]);
    let friend = start(2, vec![peer(a, Some(address))]);
    until_up(&first, listed).await;
    // The stranger has dialled before or beside the friend, and is told so.
    let mut view = stranger.handle().view();
    view.wait_for(|view| view.errors.contains_key(&a)).await.unwrap();
    assert!(!first.handle().view().borrow().up.contains(&identity(3)));
    friend.stop().await;
}

#[tokio::test]
async fn a_node_given_one_seed_address_finds_the_others() {
    let ids: Vec<NodeId> = (1..=5).map(identity).collect();
    let known = |addresses: &[Option<String>]| {
        ids.iter().zip(addresses).map(|(id, address)| peer(*id, address.clone())).collect::<Vec<_>>()
    };
    let seed = start(1, known(&[None, None, None, None, None]));
    let address = addresses(&seed).await.remove(0);
    let nodes: Vec<Mesh> = (2..=5).map(|n| start(n, known(&[Some(address.clone()), None, None, None, None]))).collect();
    for (n, node) in nodes.iter().enumerate() {
        for other in ids.iter().filter(|id| **id != ids[n + 1]) {
            until_up(node, *other).await;
        }
    }
}

fn publication(text: &str) -> Publication {
    let (topic, source) = (TopicPath::new("s/robots/pose").unwrap(), AgentId::new("r1").unwrap());
    Publication { topic, source, content_type: ContentType::default(), payload: text.as_bytes().to_vec() }
}

#[tokio::test]
async fn a_publication_reaches_those_who_subscribe_and_nobody_else() {
    let (a, b, c) = (identity(1), identity(2), identity(3));
    let (middle, mut heard_by_middle) = start_heard(2, vec![peer(a, None), peer(c, None)]);
    let address = addresses(&middle).await.remove(0);
    let (left, mut heard_by_left) = start_heard(1, vec![peer(b, Some(address.clone())), peer(c, None)]);
    let (right, mut heard_by_right) = start_heard(3, vec![peer(b, Some(address)), peer(a, None)]);
    for mesh in [&middle, &right] {
        mesh.handle().subscribe(TopicPath::new("s/robots/pose").unwrap());
    }
    // Gossip is best effort: what a node says before the subscription has travelled is lost.
    let heard = async {
        loop {
            left.handle().publish(publication("here"));
            let wait = Duration::from_millis(100);
            if let Ok(Some(envelope)) = tokio::time::timeout(wait, heard_by_right.recv()).await {
                return envelope;
            }
        }
    };
    let envelope = tokio::time::timeout(Duration::from_secs(60), heard).await.unwrap();
    assert_eq!((envelope.sender, envelope.publication), (a, publication("here")));
    assert_eq!(heard_by_middle.recv().await.unwrap().sender, a);
    assert!(heard_by_left.try_recv().is_err(), "who does not subscribe hears nothing");
}

/// An address on which no node listens yet.
fn free_address() -> String {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}

fn quic(listen: &str) -> String {
    let (ip, port) = listen.split_once(':').unwrap();
    format!("/ip4/{ip}/udp/{port}/quic-v1")
}

fn config(listen: &str, other: PeerConfig) -> MeshConfig {
    let site = SiteName::new("s").unwrap();
    MeshConfig { listen: listen.parse().unwrap(), mdns: false, site, peers: vec![other] }
}

/// Waits until the listener hears something that was said after this call.
async fn until_heard(speaker: &MeshHandle, listener: &mut mpsc::Receiver<Envelope>, text: &str) {
    let heard = async {
        loop {
            speaker.publish(publication(text));
            let wait = Duration::from_millis(100);
            if let Ok(Some(envelope)) = tokio::time::timeout(wait, listener.recv()).await
                && envelope.publication == publication(text)
            {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), heard).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_dial_each_other_at_once_do_not_forget_what_is_subscribed_to() {
    for round in 0..6 {
        let (a, b) = (identity(1), identity(2));
        let listen = [free_address(), free_address()];
        let of = |at: usize, other: NodeId| config(&listen[at], peer(other, Some(quic(&listen[1 - at]))));
        let (speaker, _said) = Mesh::start([1; 32], &of(0, b), None).unwrap();
        let (listener, mut heard) = Mesh::start([2; 32], &of(1, a), None).unwrap();
        until_up(&listener, a).await;
        let topic = TopicPath::new("s/robots/pose").unwrap();
        // Subscriptions and their ends follow each other while the second connection is made.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(2_500) {
            listener.handle().subscribe(topic.clone());
            tokio::task::yield_now().await;
            listener.handle().unsubscribe(&topic);
            tokio::task::yield_now().await;
        }
        listener.handle().subscribe(topic.clone());
        until_heard(&speaker.handle(), &mut heard, &format!("round {round}")).await;
        speaker.stop().await;
        listener.stop().await;
    }
}

/// A node that can die as a process does: at once, and without a word to any peer.
struct Process {
    mesh: MeshHandle,
    heard: mpsc::Receiver<Envelope>,
    dies: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Process {
    async fn start(seed: u8, config: MeshConfig) -> Self {
        let (running, started) = oneshot::channel();
        let (dies, killed) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mesh = runtime.block_on(async move {
                let (mesh, heard) = Mesh::start([seed; 32], &config, None).unwrap();
                let _ = running.send((mesh.handle(), heard));
                let _ = killed.await;
                mesh
            });
            // Its tasks and sockets end without being asked.
            drop(runtime);
            drop(mesh);
        });
        let (mesh, heard) = started.await.unwrap();
        Self { mesh, heard, dies, thread }
    }

    fn kill(self) {
        drop(self.dies);
        self.thread.join().unwrap();
    }
}

/// One node stays, the other dies and comes again; `stays_dials` says which of them dialled before.
async fn dies_and_comes_again([stays, dies]: [u8; 2], stays_dials: bool) {
    let listen = [free_address(), free_address()];
    let address_if = |known: bool, at: usize| known.then(|| quic(&listen[at]));
    let (stays_at, dies_at) = (identity(stays), identity(dies));
    let of_stays = config(&listen[0], peer(dies_at, address_if(stays_dials, 1)));
    let of_dies = config(&listen[1], peer(stays_at, address_if(!stays_dials, 0)));
    // The new process is told of the other node, so it dials, whichever dialled before.
    let of_again = config(&listen[1], peer(stays_at, address_if(true, 0)));
    let topic = TopicPath::new("s/robots/pose").unwrap();
    let (stayed, mut heard) = Mesh::start([stays; 32], &of_stays, None).unwrap();
    let stayed_too = stayed.handle();
    stayed_too.subscribe(topic.clone());
    let mut before = Process::start(dies, of_dies).await;
    before.mesh.subscribe(topic.clone());
    until_up_at(&before.mesh, stays_at).await;
    until_heard(&stayed_too, &mut before.heard, "before").await;
    let made = stayed_too.view().borrow().made;
    before.kill();
    let mut again = Process::start(dies, of_again).await;
    again.mesh.subscribe(topic);
    // The node drops what is left of the dead process at once, and does not wait until that has been silent for long.
    let mut view = stayed_too.view();
    let replaced = view.wait_for(|view| view.replaced > 0);
    drop(tokio::time::timeout(Duration::from_secs(60), replaced).await.unwrap().unwrap());
    until_heard(&stayed_too, &mut again.heard, "again").await;
    until_heard(&again.mesh, &mut heard, "and back").await;
    let (seen, seen_again) = (stayed_too.view().borrow().clone(), again.mesh.view().borrow().clone());
    assert!(seen.up.contains(&dies_at) && seen_again.up.contains(&stays_at));
    // The new process makes one connection, and two more come if the node that stayed dialled beside it.
    assert!(seen.made - made <= 3 && seen_again.made <= 3, "{seen:?} {seen_again:?}");
    assert!(seen.replaced <= 3 && seen_again.replaced <= 3, "{seen:?} {seen_again:?}");
    again.kill();
    stayed.stop().await;
}

/// libp2p/rust-libp2p#5097
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_died_without_a_word_and_came_back_is_heard_at_once() {
    for pair in [[1, 2], [2, 1]] {
        for stays_dials in [true, false] {
            println!("{pair:?}, {}", if stays_dials { "who stays dials first" } else { "who dies dials first" });
            dies_and_comes_again(pair, stays_dials).await;
        }
    }
}

/// A listed peer that says what it likes, as fast as it can, until it is told to stop.
async fn flood(seed: u8, config: MeshConfig, mut stop: oneshot::Receiver<()>) {
    let key = Keypair::ed25519_from_bytes([seed; 32]).unwrap();
    let gate = Arc::new(Gate::new(mpsc::channel(1).0, Arc::default()));
    let mut swarm = transport::swarm(key, &config, u64::from(seed), gate, None).unwrap();
    for peer in &config.peers {
        let id = peer_id(peer.id).unwrap();
        swarm.behaviour_mut().door.know(id, None);
        swarm.dial(peer.mesh.as_ref().unwrap().parse::<Multiaddr>().unwrap()).unwrap();
    }
    let topic = TopicPath::new("s/robots/pose").unwrap();
    let mut n = 0_u64;
    loop {
        tokio::select! {
            _ = &mut stop => return,
            _ = swarm.select_next_some() => {}
            () = tokio::task::yield_now() => {}
        }
        // Its own gossip remembers what it has said, too.
        if n > 200_000 {
            continue;
        }
        // No node subscribes yet, or its own queue is full: the flood goes on.
        let said = swarm.behaviour_mut().gossip().publish(&topic, [&n.to_be_bytes()[..], &[7; 100]].concat());
        n += u64::from(said.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_peer_that_sends_rubbish_without_end_keeps_nobody_from_being_heard() {
    let (liar, honest) = (identity(3), identity(1));
    let (listener, mut heard) = start_heard(2, vec![peer(liar, None), peer(honest, None)]);
    let address = addresses(&listener).await.remove(0);
    listener.handle().subscribe(TopicPath::new("s/robots/pose").unwrap());
    let to_listener = || config("127.0.0.1:0", peer(identity(2), Some(address.clone())));
    let (stop, stopped) = oneshot::channel();
    let flooding = tokio::spawn(flood(3, to_listener(), stopped));
    until_up(&listener, liar).await;
    let (speaker, _said) = Mesh::start([1; 32], &to_listener(), None).unwrap();
    let counted = async {
        while listener.handle().dropped().counts().1 == 0 {
            until_heard(&speaker.handle(), &mut heard, "beside the rubbish").await;
        }
        until_heard(&speaker.handle(), &mut heard, "and after some of it").await;
    };
    tokio::time::timeout(Duration::from_secs(120), counted).await.unwrap();
    drop(stop);
    flooding.await.unwrap();
}
