//! All of its deeds, by turns, for as long as a site is at work.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use skep_protocol::frame::FrameKind;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::limits;
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;

use super::words::rubbish;
use super::{Line, MeshRogue, OF_VOTERS, Rogue, frame, silent_connections, stamped, text, unfinished};

/// How long it keeps a node's streams, places and connections.
const KEEPS: Duration = Duration::from_secs(2);
/// How long one deed may take.
const DEED_MAX: Duration = Duration::from_secs(30);
/// How many calls on one stream: as many as a node has under way, and some more.
const CALLS: u64 = 400;
/// How many handshakes it begins at a time, and how many silent TCP connections.
const HANDSHAKES: u64 = 24;
const CONNECTIONS: usize = 96;
/// How many messages a flood has: less than a node lets one neighbour send in a second or two.
const MESSAGES: u64 = 6_000;
/// How many bytes of rubbish are in one frame, and in one message.
const RUBBISH_BYTES: usize = 3_000;
/// The reason when it is unknown whether what was sent reached its victim.
const GONE: &str = "nothing comes from it any more";
/// The topic on which robots publish their positions.
const TOPIC: &str = "testnet/robots/pose";

/// One of its deeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Say something false in each kind of frame: that it leads, that others' agents are its own.
    Lie,
    /// Send frames of Raft with the clock of a leader, years ahead or none at all.
    WildClock,
    /// Send bodies of each kind that are not valid.
    Rubbish,
    /// Send frames before hello, a second hello, answers to nothing, frames that end in the middle.
    OutOfOrder,
    /// Send a header that announces more than there can be.
    TooLarge,
    /// Send many calls at once, of a kind that is answered and of one that is not.
    TooMany,
    /// Begin frames on all streams that do not end.
    NeverEnded,
    /// Ask for large answers and read none.
    NeverRead,
    /// Connect, show its key, and do not say hello.
    NoHello,
    /// Begin handshakes and do not finish them.
    Unfinished,
    /// Open silent TCP connections to the mesh.
    Silent,
    /// Send rubbish on a topic that every node hears.
    Flood,
    /// Send envelopes about others' robots: under its own name, and under those of other nodes.
    WrongSource,
    /// Send what it heard from others again.
    OldEnvelopes,
}

/// All of its deeds. It lies about the addresses of peers to each node with which it is connected in the mesh.
pub const DEEDS: [Deed; 14] = [
    Deed::Lie,
    Deed::WildClock,
    Deed::Rubbish,
    Deed::OutOfOrder,
    Deed::TooLarge,
    Deed::TooMany,
    Deed::NeverEnded,
    Deed::NeverRead,
    Deed::NoHello,
    Deed::Unfinished,
    Deed::Silent,
    Deed::Flood,
    Deed::WrongSource,
    Deed::OldEnvelopes,
];

impl Deed {
    /// The name of the deed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lie => "lie",
            Self::WildClock => "wild-clock",
            Self::Rubbish => "rubbish",
            Self::OutOfOrder => "out-of-order",
            Self::TooLarge => "too-large",
            Self::TooMany => "too-many",
            Self::NeverEnded => "never-ended",
            Self::NeverRead => "never-read",
            Self::NoHello => "no-hello",
            Self::Unfinished => "unfinished",
            Self::Silent => "silent",
            Self::Flood => "flood",
            Self::WrongSource => "wrong-source",
            Self::OldEnvelopes => "old-envelopes",
        }
    }
}

/// A node, as the robot's victim.
#[derive(Clone, Debug)]
pub struct Victim {
    /// The node's PeerId.
    pub node: NodeId,
    /// The address of its control plane.
    pub control: SocketAddr,
    /// The address of its mesh, as a multiaddress over UDP.
    pub mesh: String,
}

/// A deed that was done.
#[derive(Clone, Debug)]
pub struct Done {
    /// The deed.
    pub deed: Deed,
    /// The PeerId of the victim.
    pub to: NodeId,
    /// How often the deed reached the node; or why it did not this time.
    pub result: Result<u64, String>,
}

/// A robot that does all of its deeds by turns, in another order each time.
pub struct Turns {
    rogue: Rogue,
    mesh: MeshRogue,
    from: IpAddr,
    victims: Vec<Victim>,
    /// The robots of others for which it speaks.
    agents: Vec<AgentId>,
    rng: SmallRng,
    left: Vec<Deed>,
}

/// The TCP address of the mesh at the port of a multiaddress over UDP.
fn tcp_of(mesh: &str, host: IpAddr) -> Option<SocketAddr> {
    let port = mesh.split("/udp/").nth(1)?.split('/').next()?.parse().ok()?;
    Some(SocketAddr::new(host, port))
}

impl Turns {
    /// A robot with the key of a seed, which also decides when it does what to which node; it calls from an address of
    /// this machine.
    ///
    /// # Errors
    /// Why it cannot begin.
    pub fn begin(seed: u64, from: IpAddr, victims: Vec<Victim>, robots: usize) -> Result<Self, String> {
        if victims.is_empty() || robots == 0 {
            return Err("there is nobody to harm".to_owned());
        }
        let nodes: Vec<(NodeId, String)> = victims.iter().map(|victim| (victim.node, victim.mesh.clone())).collect();
        let mesh = MeshRogue::start(seed, from, &nodes, &[TOPIC])?;
        let agents = (0..robots).map(|n| AgentId::new(format!("robot-{n}")).map_err(text));
        Ok(Self {
            rogue: Rogue::new(seed, from)?,
            mesh,
            from,
            victims,
            agents: agents.collect::<Result<_, _>>()?,
            rng: SmallRng::seed_from_u64(seed),
            left: Vec::new(),
        })
    }

    /// Does the next deed.
    pub async fn next_deed(&mut self) -> Done {
        if self.left.is_empty() {
            self.left = DEEDS.to_vec();
            self.left.shuffle(&mut self.rng);
        }
        let deed = self.left.pop().unwrap_or(Deed::Lie);
        let victim = self.victims[self.rng.random_range(0..self.victims.len())].clone();
        let done = tokio::time::timeout(DEED_MAX, self.harm(deed, &victim)).await;
        Done { deed, to: victim.node, result: done.unwrap_or_else(|_| Err("it took too long".to_owned())) }
    }

    async fn harm(&mut self, deed: Deed, victim: &Victim) -> Result<u64, String> {
        match deed {
            Deed::Lie
            | Deed::WildClock
            | Deed::Rubbish
            | Deed::TooLarge
            | Deed::TooMany
            | Deed::NeverEnded
            | Deed::NeverRead => {
                let line = self.rogue.connect(victim.node, victim.control).await?;
                self.harm_on(deed, &line).await
            }
            Deed::OutOfOrder => self.out_of_order(victim).await,
            Deed::NoHello => self.no_hello(victim).await,
            Deed::Unfinished => self.unfinished(victim).await,
            Deed::Silent => {
                let to = tcp_of(&victim.mesh, victim.control.ip()).ok_or("the mesh has no port")?;
                let open = silent_connections(to, CONNECTIONS).await;
                tokio::time::sleep(KEEPS).await;
                Ok(open.len() as u64)
            }
            Deed::Flood => Ok(self.flood().await),
            Deed::WrongSource => self.wrong_source(victim).await,
            Deed::OldEnvelopes => Ok(self.old_envelopes().await),
        }
    }

    fn agent(&mut self) -> AgentId {
        self.agents[self.rng.random_range(0..self.agents.len())].clone()
    }

    /// Does a deed on a connection on which it said hello.
    async fn harm_on(&mut self, deed: Deed, line: &Line) -> Result<u64, String> {
        let (agent, node) = (self.agent(), self.rogue.node);
        let mut count = 0;
        match deed {
            Deed::TooLarge => {
                let kind = self.kind();
                line.reach(&frame(kind, ShardId::FIRST, 1, kind.body_bytes_max() + 1, &[])).await?;
                return Ok(1);
            }
            Deed::TooMany => {
                for kind in [FrameKind::Heartbeat, FrameKind::Vote, FrameKind::Query] {
                    count += line.many(kind, CALLS, &line.lie(kind, node, &agent)).await;
                }
                return Ok(count);
            }
            Deed::NeverEnded | Deed::NeverRead => {
                let (kind, streams) = (self.kind(), limits::STREAMS_PER_PEER_MAX as usize);
                let held = if deed == Deed::NeverEnded {
                    line.never_ended(kind, ShardId::FIRST, streams).await
                } else {
                    let asked = line.lie(FrameKind::Query, node, &agent);
                    line.never_read(FrameKind::Query, &asked, (streams, CALLS)).await
                };
                let is_there = line.is_there_for(KEEPS).await;
                return if is_there { Ok(held.count() as u64) } else { Err(GONE.to_owned()) };
            }
            _ => {}
        }
        for (call, kind) in (0..).zip(FrameKind::ALL.iter().chain(&OF_VOTERS).copied()) {
            let clock = [LogInstant::from_raw(u64::MAX), LogInstant::from_raw(1)][self.rng.random_range(0..2)];
            let body = match deed {
                Deed::Rubbish => rubbish(&mut self.rng, RUBBISH_BYTES),
                _ => line.lie(kind, node, &agent),
            };
            let clock = (deed == Deed::WildClock).then_some(clock);
            match line.reach(&stamped(clock, kind, ShardId::FIRST, call, body.len(), &body)).await {
                Ok(()) => count += 1,
                Err(why) if count == 0 => return Err(why),
                Err(_) => break,
            }
            if line.has_ended() {
                break;
            }
        }
        Ok(count)
    }

    fn kind(&mut self) -> FrameKind {
        FrameKind::ALL[self.rng.random_range(0..FrameKind::ALL.len())]
    }

    async fn out_of_order(&mut self, victim: &Victim) -> Result<u64, String> {
        let (kind, mut count) = (self.kind(), 0);
        if kind != FrameKind::Hello {
            self.rogue.say_first(victim.node, victim.control, &frame(kind, ShardId::FIRST, 1, 0, &[])).await?;
            count += 1;
        }
        let line = self.rogue.connect(victim.node, victim.control).await?;
        let agent = self.agent();
        for kind in [FrameKind::SnapshotChunk, FrameKind::SnapshotInstall, FrameKind::Hello, FrameKind::Reply] {
            let lie = line.lie(kind, self.rogue.node, &agent);
            count += u64::from(line.reach(&frame(kind, ShardId::FIRST, 1, lie.len(), &lie)).await.is_ok());
        }
        let cut_short = frame(kind, ShardId::FIRST, 1, kind.body_bytes_max(), &[7; 100]);
        count += u64::from(line.cut_short(&cut_short).await);
        Ok(count)
    }

    async fn no_hello(&mut self, victim: &Victim) -> Result<u64, String> {
        let mut open = Vec::new();
        for _ in 0..HANDSHAKES {
            open.extend(self.rogue.dial(victim.node, victim.control).await);
        }
        tokio::time::sleep(KEEPS).await;
        Ok(open.len() as u64)
    }

    async fn unfinished(&mut self, victim: &Victim) -> Result<u64, String> {
        let mut begun = Vec::new();
        for _ in 0..HANDSHAKES {
            begun.push(unfinished(self.rng.random(), self.from, victim.node, victim.control).await?);
        }
        tokio::time::sleep(KEEPS).await;
        Ok(begun.iter().filter(|handshake| handshake.was_answered()).count() as u64)
    }

    async fn flood(&mut self) -> u64 {
        let mut said = 0;
        for _ in 0..MESSAGES {
            let message = rubbish(&mut self.rng, 64);
            said += u64::from(self.mesh.say(TOPIC, message).await);
        }
        said
    }

    async fn wrong_source(&mut self, victim: &Victim) -> Result<u64, String> {
        let (agent, mut said) = (self.agent(), 0);
        for sender in [self.mesh.node, victim.node] {
            for _ in 0..100 {
                let envelope = self.mesh.envelope(sender, TOPIC, agent.as_str(), b"elsewhere")?;
                said += u64::from(self.mesh.say(TOPIC, envelope).await);
            }
        }
        Ok(said)
    }

    async fn old_envelopes(&mut self) -> u64 {
        let mut said = 0;
        for (topic, envelope) in self.mesh.heard() {
            said += u64::from(self.mesh.say(&topic, envelope).await);
        }
        said
    }
}
