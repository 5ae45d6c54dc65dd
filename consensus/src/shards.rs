//! What a node answers its peers, and the shards that it takes part in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use skep_protocol::codec::Encoded;
use skep_protocol::entry::{Op, Request};
use skep_protocol::frame::{FrameKind, Header, Lineages, Proposal, ProposalReply};
use skep_protocol::heartbeat::{ClaimsUpdate, Heartbeat, HeartbeatAnswer, HeartbeatFailure};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::leader::LeaderHint;
use skep_protocol::limits;
use skep_protocol::outcome::ProposeOutcome;
use skep_protocol::pull::{Pull, PullAnswer, PullFailure};
use skep_protocol::query::{Query, QueryAnswer, QueryFailure};
use skep_protocol::recovery::Lineage;
use tokio::sync::watch;

use crate::belief::Belief;
use crate::history_fill::fill_history;
use crate::net::{Admission, Room, Waits, Who};
use crate::shard::{FromLeader, MembershipError, Shard, Site};

/// Everything of a node's control plane but its endpoint.
pub(crate) struct Core {
    pub(crate) site: Site,
    shards: Mutex<BTreeMap<ShardId, Shard>>,
    /// Counts shards that were opened, for those who follow them.
    pub(crate) opened: watch::Sender<usize>,
    opening: tokio::sync::Mutex<()>,
    /// Who last answered a heartbeat of this node's, as only a leader does.
    pub(crate) answered: Mutex<BTreeMap<ShardId, NodeId>>,
    learned: Mutex<BTreeMap<ShardId, Learned>>,
    pub(crate) belief: Belief,
    /// Counts what was learned, for those who follow it.
    pub(crate) taught: watch::Sender<u64>,
    /// Held by whoever fetches history: one shard at a time.
    pub(crate) filling: tokio::sync::Semaphore,
}

/// What this node's engine has learned of a shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Learned {
    /// Who leads and votes, as others say. Nothing of shards that this node is a member of: its own replica knows more.
    pub(crate) hint: LeaderHint,
    /// Whether it has looked for a leader in vain for a while.
    pub(crate) lost: bool,
}

impl Core {
    pub(crate) fn new(site: Site) -> Arc<Self> {
        let belief = Belief::new(site.config.marked_voters());
        Arc::new(Self {
            site,
            belief,
            shards: Mutex::default(),
            opened: watch::channel(0).0,
            opening: tokio::sync::Mutex::default(),
            answered: Mutex::default(),
            learned: Mutex::default(),
            taught: watch::channel(0).0,
            filling: tokio::sync::Semaphore::new(1),
        })
    }

    /// All shards that are open.
    pub(crate) fn shards(&self) -> Vec<Shard> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn shard(&self, id: ShardId) -> Option<Shard> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// What the replicas of this node are, as far as they know.
    pub(crate) fn lineages(&self) -> Vec<Lineage> {
        self.shards().iter().filter_map(Shard::lineage).collect()
    }

    /// Takes note of what the engine has learned of a shard.
    pub(crate) fn learn(&self, id: ShardId, note: impl FnOnce(&mut Learned)) {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        if learned.contains_key(&id) || learned.len() < limits::SHARDS_PER_NODE_MAX {
            let known = learned.entry(id).or_default();
            note(known);
            if known.hint == LeaderHint::default() && !known.lost {
                learned.remove(&id);
            }
            drop(learned);
            self.taught.send_modify(|count| *count += 1);
        }
    }

    /// What the engine has learned of all shards.
    pub(crate) fn learned(&self) -> Vec<(ShardId, Learned)> {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned.iter().map(|(id, known)| (*id, known.clone())).collect()
    }

    /// What the engine has learned of a shard.
    pub(crate) fn learned_of(&self, id: ShardId) -> Option<Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// What this node has learned of a shard of which it has no replica.
    fn hearsay(&self, id: ShardId) -> LeaderHint {
        self.learned_of(id).map(|known| known.hint).unwrap_or_default().elsewhere(self.site.node)
    }

    /// Refuses to make a shard of which this node has heard that it has voters elsewhere: there would be two under one number.
    pub(crate) fn check_unheard(&self, id: ShardId) -> Result<(), MembershipError> {
        let local = self.site.node;
        if self.shard(id).is_some_and(|shard| shard.is_member(local)) {
            return Ok(());
        }
        let LeaderHint { leader, voters, .. } = self.hearsay(id);
        let named = leader.into_iter().chain(voters.iter().copied());
        let others: BTreeSet<NodeId> = named.filter(|node| *node != local).collect();
        if others.is_empty() {
            return Ok(());
        }
        let voters = others.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
        Err(MembershipError::Elsewhere { shard: id, voters })
    }

    /// Opens a shard, if it is not open.
    ///
    /// # Errors
    /// The reason as text.
    pub(crate) async fn open(self: &Arc<Self>, id: ShardId) -> Result<Shard, String> {
        let _one_at_a_time = self.opening.lock().await;
        if let Some(shard) = self.shard(id) {
            return Ok(shard);
        }
        let count = self.shards.lock().unwrap_or_else(PoisonError::into_inner).len();
        if count >= limits::SHARDS_PER_NODE_MAX {
            return Err(format!("this node takes part in {count} shards already"));
        }
        // What openraft spawns stays on the thread of whoever opens the group.
        let opening = Box::pin(Shard::open(id, self.site.clone()));
        let shard = self.site.threads.on_control(opening).await.map_err(|e| e.to_string())??;
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).insert(id, shard.clone());
        self.opened.send_modify(|opened| *opened += 1);
        self.site.threads.work().spawn(fill_history(Arc::clone(self), shard.clone()));
        Ok(shard)
    }
}

/// The largest answer to a query for a page, and to one for changes, in bytes.
const PAGE_ANSWER_BYTES: usize = limits::FRAME_BYTES_MAX / 2;
/// The largest answer to a query for a task: what it is given, what it came to, and what is said of it.
const TASK_ANSWER_BYTES: usize = 4 * limits::PAYLOAD_BYTES_MAX;

/// How many bytes the answer to a call may have, if it may be large, and what it waits for. A pull takes room by itself, once there is
/// something to tell.
fn large_answer(kind: FrameKind, body: &[u8]) -> Option<(usize, Waits)> {
    let of_query = |query: Query| match query {
        Query::Place | Query::Counts => None,
        Query::CommandEnd { .. } => Some((limits::COMMAND_END_ANSWER_BYTES_MAX, Waits::ForEnd)),
        Query::Task(_) => Some((TASK_ANSWER_BYTES, Waits::No)),
        _ => Some((PAGE_ANSWER_BYTES, Waits::No)),
    };
    match kind {
        // One that does not decode is refused in a few words.
        FrameKind::Query => Query::decode(body).ok().and_then(of_query),
        _ => None,
    }
}

impl crate::net::Dispatch for Arc<Core> {
    fn admit(&self, who: Who, header: Header) -> Admission {
        let core = Arc::clone(self);
        Box::pin(async move { core.judge(who, header).await })
    }

    fn large_answer(&self, header: Header, body: &[u8]) -> Option<(usize, Waits)> {
        large_answer(header.kind, body)
    }

    fn call(
        &self,
        who: Who,
        header: Header,
        body: Bytes,
        room: Room,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>> {
        let core = Arc::clone(self);
        Box::pin(async move { core.answer(who, header, body, room).await })
    }
}

impl Core {
    /// Whether a node leads a shard, as far as this one knows: from its own replica, or from who answered it last.
    fn leads(&self, node: NodeId, shard: ShardId) -> bool {
        let own = self.shard(shard).map(|shard| *shard.view().borrow()).filter(|view| view.member);
        if let Some(view) = own {
            return view.leader == Some(node);
        }
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).get(&shard) == Some(&node)
    }

    /// The answer to a request for a shard of which this node has no replica.
    fn no_replica(&self, id: ShardId) -> ProposeOutcome {
        let hint = self.hearsay(id);
        if hint == LeaderHint::default() { ProposeOutcome::NoSuchShard } else { ProposeOutcome::NotLeader(hint) }
    }

    /// Judges a call by its header: nothing of a shard is heard from a peer of another one with its number, a group's own frames
    /// are voters', and what agents hold is told by leaders.
    async fn judge(self: &Arc<Self>, who: Who, header: Header) -> Result<(), String> {
        if header.kind.is_of_shard() {
            self.site.peers.check_shard(who.node, header.shard)?;
        }
        match header.kind {
            kind if kind.is_of_voters() => self.check_voter(who.node, kind, header.shard).await,
            FrameKind::Claims if !self.leads(who.node, header.shard) => {
                Err("the sender is not known to lead the shard; tell it again later".to_owned())
            }
            _ => Ok(()),
        }
    }

    async fn answer(self: &Arc<Self>, who: Who, header: Header, body: Bytes, room: Room) -> Result<Vec<u8>, String> {
        let text = |e: skep_protocol::codec::CodecError| e.to_string();
        match header.kind {
            FrameKind::Beat => {
                let shard = self.shard(header.shard).ok_or("this node has no replica of the shard")?;
                shard.answer_beat(who, header, &body)
            }
            FrameKind::Append
            | FrameKind::Vote
            | FrameKind::PreVote
            | FrameKind::TransferLeader
            | FrameKind::Forgot => self.open(header.shard).await?.raft_frame(who, header, &body).await,
            FrameKind::SnapshotHead => self.open(header.shard).await?.begin_snapshot(who, &body).await,
            FrameKind::SnapshotChunk | FrameKind::SnapshotInstall => {
                let shard = self.shard(header.shard).ok_or("this node has no replica of the shard")?;
                match header.kind {
                    FrameKind::SnapshotChunk => shard.take_chunk(who, &body).await,
                    _ => shard.install_snapshot(who, &body).await,
                }
            }
            FrameKind::Clock => {
                let shard = self.shard(header.shard).ok_or("this node has no replica of the shard")?;
                shard.tell_clock()
            }
            FrameKind::Propose | FrameKind::End => {
                let proposal = Proposal::decode(&body).map_err(text)?;
                let outcomes = self.propose(who.node, header.shard, proposal.requests).await?;
                ProposalReply { outcomes: say_voters_once(outcomes) }.encode().map_err(text)
            }
            FrameKind::Query => {
                let query = Query::decode(&body).map_err(text)?;
                let result = match self.shard(header.shard) {
                    None => Err(QueryFailure::NoReplica(self.hearsay(header.shard))),
                    Some(shard) => shard.query_for(who.node, query).await,
                };
                QueryAnswer { result }.encode().map_err(text)
            }
            FrameKind::Heartbeat => {
                let heartbeat = Heartbeat::decode(&body).map_err(text)?;
                let result = match self.shard(header.shard) {
                    Some(shard) => shard.heartbeat(who.node, heartbeat).await,
                    None => Err(HeartbeatFailure::NotLeader(self.hearsay(header.shard))),
                };
                HeartbeatAnswer { result }.encode().map_err(text)
            }
            FrameKind::Pull => {
                let pull = Pull::decode(&body).map_err(text)?;
                let result = match self.shard(header.shard) {
                    Some(shard) => shard.pull(who.node, &pull, &room).await,
                    None => Err(PullFailure::NotLeader(self.hearsay(header.shard))),
                };
                PullAnswer { result }.encode().map_err(text)
            }
            FrameKind::Leads => {
                let hint = LeaderHint::decode(&body).map_err(text)?;
                if hint.leader != Some(who.node) {
                    return Err("nobody says of another that it leads".to_owned());
                }
                if !self.believes(who.node, header.shard) {
                    return Err("this node does not know that the sender votes; tell it again later".to_owned());
                }
                let said = FromLeader::Leads { shard: header.shard, by: who.node, hint };
                let taken = self.site.updates.try_send(said);
                taken.map(|()| Vec::new()).map_err(|_| "this node is busy; tell it again".to_owned())
            }
            FrameKind::Claims => {
                let update = ClaimsUpdate::decode(&body).map_err(text)?;
                let noted = self.site.note(header.shard, update).await;
                if noted { Ok(Vec::new()) } else { Err("not every agent could be told; tell it again".to_owned()) }
            }
            FrameKind::Twin => {
                let at = std::str::from_utf8(&body).ok().and_then(|at| at.parse::<SocketAddr>().ok());
                self.site.peers.note_own_twin(at.ok_or("it does not say where the other process is")?);
                Ok(Vec::new())
            }
            FrameKind::Lineages => self.tell_lineages(who.node, &body),
            FrameKind::Hello | FrameKind::Reply | FrameKind::Refused => Err("it is not a call".to_owned()),
        }
    }

    /// Says which shards this node has replicas of, to one that says the same of itself.
    fn tell_lineages(&self, node: NodeId, body: &[u8]) -> Result<Vec<u8>, String> {
        // Who says nothing of itself is answered, too.
        if let Ok(said) = Lineages::decode(body) {
            self.site.peers.note_shards(node, &said.shards);
        }
        let shards = self.shards();
        let shards = shards.iter().filter_map(Shard::lineage_in_log).take(limits::HELLO_SHARDS_MAX).collect();
        Lineages { shards }.encode().map_err(|e| e.to_string())
    }

    /// What becomes of requests that another node proposes.
    async fn propose(
        &self,
        node: NodeId,
        shard: ShardId,
        requests: Vec<Request>,
    ) -> Result<Vec<ProposeOutcome>, String> {
        if requests.len() > limits::REQUESTS_PER_ENTRY_MAX {
            return Err(format!("{} requests are too many for one proposal", requests.len()));
        }
        Ok(match self.shard(shard) {
            Some(shard) => propose_for(node, &shard, requests).await,
            None => vec![self.no_replica(shard); requests.len()],
        })
    }
}

/// Proposes what a node may ask for. What is not its own to say is not proposed, and holds up nothing that came with it.
async fn propose_for(node: NodeId, shard: &Shard, requests: Vec<Request>) -> Vec<ProposeOutcome> {
    let may: Vec<bool> = requests.iter().map(|request| may_say(node, &request.op, shard)).collect();
    let allowed = requests.into_iter().zip(&may).filter(|(_, may)| **may);
    let allowed: Vec<Request> = allowed.map(|(request, _)| request).collect();
    let mut outcomes = if allowed.is_empty() { Vec::new() } else { shard.propose(allowed).await }.into_iter();
    let next = |may: bool| {
        // This replica may be behind: whoever leads later may know better.
        if may {
            outcomes.next().unwrap_or(ProposeOutcome::Unknown)
        } else {
            ProposeOutcome::NotLeader(LeaderHint::default())
        }
    };
    may.into_iter().map(next).collect()
}

/// One of the outcomes names the voters: the same list behind each of hundreds would fill a thin link.
fn say_voters_once(outcomes: Vec<ProposeOutcome>) -> Vec<ProposeOutcome> {
    let mut said = false;
    let once = |outcome| match outcome {
        ProposeOutcome::NotLeader(hint) if std::mem::replace(&mut said, true) => {
            ProposeOutcome::NotLeader(hint.without_voters())
        }
        outcome => outcome,
    };
    outcomes.into_iter().map(once).collect()
}

/// A node attaches and detaches agents of its own only, opens inboxes for them, and says what became of what it had.
fn may_say(node: NodeId, op: &Op, shard: &Shard) -> bool {
    match op {
        Op::AttachAgent { node: of, .. } => *of == node,
        Op::DetachAgent { agent, .. } => shard.serves(agent).is_none_or(|serves| serves == node),
        Op::EndDelivery { ended } => shard.may_report(ended.command, &ended.agent, node),
        Op::ReportDelivery { report } => shard.may_report(report.command, &report.agent, node),
        Op::OpenInbox { agent, .. } => shard.serves(agent) == Some(node),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use skep_protocol::ids::{CommandId, TaskId};

    use super::*;

    #[test]
    fn whoever_waits_for_a_command_to_end_is_counted_and_keeps_no_page_waiting() {
        let large = |query: Query| large_answer(FrameKind::Query, &query.encode().unwrap());
        let (command, wait_ms) = (CommandId::from_bytes([1; 16]), 1_000);
        let end = large(Query::CommandEnd { command, wait_ms });
        assert_eq!(end, Some((limits::COMMAND_END_ANSWER_BYTES_MAX, Waits::ForEnd)));
        assert_eq!(large(Query::Command { command, after: None }), Some((PAGE_ANSWER_BYTES, Waits::No)));
        assert_eq!(large(Query::Task(TaskId::from_bytes([1; 16]))), Some((TASK_ANSWER_BYTES, Waits::No)));
        assert_eq!((large(Query::Counts), large_answer(FrameKind::Query, b"rubbish")), (None, None));
        assert_eq!(large_answer(FrameKind::Pull, b""), None, "one that sleeps takes nothing");
    }
}
