//! What is on its way in a run: messages between hosts, calls, what robots and nodes tell each other, and all that
//! happens later.

use skep_engine::{StreamKey, WorkKey};
use skep_protocol::attach::{AgentSaid, AgentTold, AttachWish};
use skep_protocol::entry::{Op, Request};
use skep_protocol::heartbeat::{ClaimsUpdate, Heartbeat, HeartbeatFailure, HeartbeatReply};
use skep_protocol::ids::CommandId;
use skep_protocol::leader::LeaderHint;
use skep_protocol::outcome::ProposeOutcome;
use skep_protocol::pull::{Pull, PullFailure, Pulled};
use skep_protocol::query::{Query, QueryFailure, QueryReply};
use skep_protocol::settled::Settled;
use skep_protocol::time::LogInstant;
use skep_testnet::site::station::{Question, Refused};

use super::fabric::Load;
use super::replica::{Ack, Append, Asker, ENTRY_BYTES};

/// About how many bytes a message without entries takes.
const MESSAGE_BYTES: u64 = 200;

/// What hosts send each other.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Append(Box<Append>),
    Ack(Ack),
    /// A voter without a clock asks the leader for it: the voter, its run, and when it asked, on its own clock.
    AskClock {
        from: usize,
        run: u32,
        asked_ms: u64,
    },
    Clock {
        run: u32,
        asked_ms: u64,
        clock: LogInstant,
    },
    Propose {
        asker: Asker,
        request: Box<Request>,
    },
    Proposed {
        asker: Asker,
        outcome: ProposeOutcome,
    },
    Query {
        asker: Asker,
        query: Query,
    },
    Queried {
        asker: Asker,
        reply: Box<Result<QueryReply, QueryFailure>>,
    },
    Heartbeat {
        asker: Asker,
        heartbeat: Heartbeat,
    },
    Heard {
        by: usize,
        asker: Asker,
        result: Result<HeartbeatReply, HeartbeatFailure>,
    },
    /// A leader says that it leads.
    Leads {
        by: usize,
        hint: LeaderHint,
    },
    Claims {
        from: usize,
        term: u64,
        number: u64,
        update: Box<ClaimsUpdate>,
    },
    Noted {
        by: usize,
        term: u64,
        number: u64,
        noted: bool,
    },
    Pull {
        asker: Asker,
        pull: Pull,
    },
    Pulled {
        asker: Asker,
        result: Result<Pulled, PullFailure>,
    },
}

impl Message {
    /// How much the message loads a link.
    pub(super) fn load(&self) -> Load {
        let bytes = match self {
            Self::Append(append) => {
                let snapshot = append.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes.len());
                append.entries.len() as u64 * ENTRY_BYTES + snapshot as u64
            }
            _ => 0,
        };
        Load { bytes: MESSAGE_BYTES + bytes, bulk: bytes > 0 }
    }

    /// Whether the message is an answer that only a leader gives.
    pub(super) fn is_of_leader(&self) -> bool {
        match self {
            Self::Proposed { outcome, .. } => matches!(outcome, ProposeOutcome::Applied { .. }),
            Self::Queried { reply, .. } => reply.is_ok(),
            Self::Heard { result, .. } => result.is_ok(),
            Self::Pulled { result, .. } => result.is_ok(),
            _ => false,
        }
    }
}

/// What a robot's software says to its node.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Open(Box<AttachWish>),
    Word(AgentSaid),
}

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Arrives {
        to: usize,
        message: Message,
    },
    HostWakes {
        host: usize,
    },
    RobotSays {
        host: usize,
        run: u32,
        stream: StreamKey,
        said: Said,
    },
    /// A client calls a node.
    Calls {
        host: usize,
        call: Box<Call>,
        waits: Waits,
    },
    RobotHears {
        robot: usize,
        run: u32,
        stream: StreamKey,
        message: Box<AgentTold>,
    },
    RobotWakes {
        robot: usize,
        run: u32,
    },
    /// A robot acts on its last look at the clock.
    Attempt {
        robot: usize,
        run: u32,
        question: Box<Question>,
    },
    Judged {
        robot: usize,
        run: u32,
        refused: Option<Refused>,
    },
    RobotTold {
        robot: usize,
        run: u32,
        call: u64,
        settled: Box<Settled>,
    },
    /// The disk of a host has done its next job for journals.
    Synced {
        host: usize,
        run: u32,
    },
    /// A robot acts on a command, or has done it.
    Acts {
        robot: usize,
        run: u32,
        command: CommandId,
    },
    /// A robot says again what was ignored.
    SaysAgain {
        robot: usize,
        run: u32,
        command: CommandId,
    },
    /// A run of a robot's software that was followed by another ends for good.
    RobotEnds {
        robot: usize,
    },
    CustomerWakes {
        customer: usize,
    },
    CustomerTold {
        customer: usize,
        call: u64,
        settled: Box<Settled>,
    },
    Begins(usize),
    Ends(usize),
    Look,
}

/// What waits for a piece of work of this host.
#[derive(Clone, Debug)]
pub(super) enum Waits {
    Robot {
        robot: usize,
        run: u32,
        call: u64,
    },
    Customer {
        customer: usize,
        call: u64,
    },
    /// The engine itself.
    Engine(WorkKey),
    /// A caller that needs a clock for a request.
    Clock(Box<Wish>),
}

/// Why a client calls a node.
#[derive(Clone, Debug)]
pub(super) enum Call {
    /// The client makes a new request, whose deadline is this many milliseconds ahead.
    Commit { op: Op, valid_ms: u64 },
    /// The client sends a request again.
    Again(Request),
    /// The client makes a linearizable read.
    Read(Query),
}

/// An operation to be committed, before it has a clock.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) op: Op,
    pub(super) valid_ms: u64,
    pub(super) patience_ms: u64,
    pub(super) waits: Waits,
}

/// The caller: a run of a robot's software, or a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Caller {
    Robot(usize),
    Customer(usize),
}

impl Waits {
    /// The caller, and the number of its call; none if the node itself wants the work.
    pub(super) fn call(&self) -> Option<(Caller, u64)> {
        match *self {
            Self::Robot { robot, call, .. } => Some((Caller::Robot(robot), call)),
            Self::Customer { customer, call } => Some((Caller::Customer(customer), call)),
            Self::Engine(_) | Self::Clock(_) => None,
        }
    }
}
