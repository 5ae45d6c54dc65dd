//! Two processes under one identity.
//!
//! A data directory that was copied, such as the image of a card, and runs beside the original is a second process with the
//! same key and incarnation. To a peer it looks like a process that was started again, whose earlier connection is dead
//! without a word. So whoever is connected is asked whether it lives before another process takes its place. One that answers
//! stays, the other one is refused, and all three say so. One that comes from the very address of the one before it has its
//! socket, so that nobody has to be asked. No clock is compared: each start of a process has a number of its own, at random.
//!
//! The answer may be late or lost, on a link of 300 ms or through a queue. One that is heard meanwhile stays too, and the other
//! one is refused without a word of two: what was on its way when a process died is heard as well. All refusals are for now.
//! Who is refused dials again, after 7.5 s at most; and a process that died is heard no more, so that its connection ends, after
//! the idle time of connections at the latest, and there is nobody to be asked.

use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use skep_protocol::fault::{FaultReport, ShardFault};
use skep_protocol::frame::{FrameKind, Hello};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::mutant::{Mutant, is_on};

use super::calls::{CallError, Class};
use super::link::Outgoing;
use super::peers::{Peer, Peers};
use super::twins::Twins;

/// How long whoever is connected has to answer, on a quick link.
const ALIVE_PATIENCE: Duration = Duration::from_secs(1);
/// How long it has on any link: whoever dialled waits for it, and goes after 10 s.
const ALIVE_PATIENCE_MAX: Duration = Duration::from_secs(6);
/// The code with which a connection is closed since another process is there already.
const TWIN: u32 = 4;

/// Ends a question when it is dropped.
struct Asking<'a> {
    peers: &'a Peers,
    node: NodeId,
}

impl<'a> Asking<'a> {
    fn begin(peers: &'a Peers, node: NodeId) -> Option<Self> {
        let is_first = peers.twins().begin_to_ask(node);
        is_first.then(|| Self { peers, node })
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.peers.twins().asked(&self.node);
    }
}

fn in_words(at: SocketAddr) -> String {
    format!("another process runs under this node's identity, at address {at}")
}

impl Peers {
    fn twins(&self) -> MutexGuard<'_, Twins> {
        self.twins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is known that a process of a node, which said hello from an address, may take the place of the one that
    /// is connected, if there is one.
    ///
    /// # Errors
    /// Why it may not: the one that is connected lives, or nobody knows yet.
    pub(super) async fn make_way(&self, node: NodeId, hello: &Hello, from: SocketAddr) -> Result<(), String> {
        let Some(known) = self.connected(node) else { return Ok(()) };
        let may_be_dead = known.hello.process != hello.process && known.link.is_open();
        let Some(at) = known.link.address().filter(|at| may_be_dead && *at != from) else { return Ok(()) };
        if is_on(Mutant::TwinReplaces) {
            return Ok(());
        }
        let Some(_asking) = Asking::begin(self, node) else {
            return Err("another connection of this node is being looked at".to_owned());
        };
        let deadline = known.link.round_trips().late.saturating_mul(4).clamp(ALIVE_PATIENCE, ALIVE_PATIENCE_MAX);
        let heard = known.link.acknowledgements();
        let (kind, body) = (FrameKind::Twin, from.to_string());
        let call =
            Outgoing { class: Class::Urgent, kind, shard: ShardId(0), clock: None, body: body.as_bytes(), deadline };
        // Nobody may answer that a stream is opened, either.
        match tokio::time::timeout(deadline, known.link.call(call)).await {
            Ok(Ok(_) | Err(CallError::Refused(_))) => {}
            Ok(Err(_)) | Err(_) if !known.link.is_open() => return self.unless_replaced(node, hello, &known),
            Ok(Err(CallError::NotSent(why))) => return Err(format!("an earlier process cannot be asked now: {why}")),
            Ok(Err(_)) | Err(_) if known.link.acknowledgements() > heard => {
                return Err("an earlier process was heard a moment ago, and has not answered yet".to_owned());
            }
            Ok(Err(_)) | Err(_) => return self.unless_replaced(node, hello, &known),
        }
        self.note_twin(node, format!("the process at {at} is connected, and another one, at {from}, is refused"));
        Err(in_words(at))
    }

    /// The process that was connected is dead: another one may take its place, unless a third has it by now.
    fn unless_replaced(&self, node: NodeId, hello: &Hello, dead: &Arc<Peer>) -> Result<(), String> {
        let now = self.connected(node).filter(|now| !Arc::ptr_eq(now, dead));
        match now.filter(|now| now.hello.process != hello.process && now.link.is_open()) {
            Some(_) => Err("another process of this node has connected meanwhile".to_owned()),
            None => Ok(()),
        }
    }

    /// Closes a connection of a process that may not take the place of another.
    pub(super) fn refuse_twin(connection: &quinn::Connection, why: &str) {
        connection.close(quinn::VarInt::from_u32(TWIN), why.as_bytes());
    }

    /// Whether a connection has ended since another process runs under this node's identity: then it is known.
    pub(super) fn note_if_refused(&self, connection: &quinn::Connection) {
        let Some(quinn::ConnectionError::ApplicationClosed(close)) = connection.close_reason() else { return };
        let reason = String::from_utf8_lossy(&close.reason);
        let at = reason.rsplit(' ').next().and_then(|at| at.parse::<SocketAddr>().ok());
        if let Some(at) = at.filter(|_| close.error_code == quinn::VarInt::from_u32(TWIN)) {
            self.note_own_twin(at);
        }
    }

    /// Another process was met under this node's identity.
    pub(crate) fn note_own_twin(&self, at: SocketAddr) {
        if self.twins().met_own(in_words(at)) {
            let advice = ShardFault::IdentityShared.advice();
            tracing::error!(%at, advice, "another process runs under this node's identity");
        }
    }

    /// A peer is not known any more.
    pub(super) fn forget_twins(&self, node: NodeId) {
        self.twins().forget(&node);
    }

    fn note_twin(&self, node: NodeId, detail: String) {
        if self.twins().met(node, detail.clone()) {
            let advice = ShardFault::IdentityShared.advice();
            tracing::error!(%node, detail, advice, "two processes run under the identity of a peer");
        }
    }

    /// The identities under which two processes were met of late: this node's own, and those of peers.
    pub(crate) fn shared_identities(&self) -> Vec<FaultReport> {
        self.twins().reports()
    }
}
