//! The control plane as openraft's network.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, OptionalSend, RPCTypes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use skep_protocol::frame::{FrameKind, RaftAddress};
use skep_protocol::ids::{NodeId, RaftId, ShardId};
use skep_protocol::mutant::{Mutant, is_on};

use super::acked::{Acked, FORGOT};
use super::types::{Entry, LogId, Member, Snapshot, TypeConfig, Vote, decode, encode};
use crate::net::{APPEND_BYTES_MAX, CallError, Class, Peers, SnapshotSender};
use crate::shard::is_possible_term;

/// How long a vote is waited for. Its voter writes it down first, which on a slow disk takes longer than any call should;
/// who needs it does not wait for it, and stands again.
const VOTE_PATIENCE: Duration = Duration::from_secs(15);
/// How long a snapshot is not sent again to a member that is connected and does not take it, such as for want of room: for each
/// attempt it is read from the disk. Twice as long after each one more, up to the longest.
const REFUSED_PAUSE_MIN: Duration = Duration::from_millis(200);
/// See [`REFUSED_PAUSE_MIN`].
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Makes the connections of one shard's group.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) peers: Peers,
    pub(crate) shard: ShardId,
    pub(crate) local: RaftId,
    pub(crate) rpc_timeout: Duration,
    pub(crate) snapshots: SnapshotSender,
    pub(crate) acked: Acked,
}

/// Calls one member.
pub(crate) struct Connection {
    network: Network,
    class: Class,
    target: RaftId,
    node: NodeId,
    /// How long to wait if the next snapshot is not taken either.
    pause: Duration,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: RaftId, member: &Member) -> Connection {
        self.connection(Class::Append, target, member)
    }

    async fn new_heartbeat_client(&mut self, target: RaftId, member: &Member) -> Connection {
        self.connection(Class::Urgent, target, member)
    }

    async fn new_snapshot_client(&mut self, target: RaftId, member: &Member) -> Connection {
        self.connection(Class::Snapshot, target, member)
    }
}

impl Network {
    fn connection(&self, class: Class, target: RaftId, member: &Member) -> Connection {
        Connection { network: self.clone(), class, target, node: member.node, pause: REFUSED_PAUSE_MIN }
    }
}

impl Connection {
    fn envelope<T: Serialize>(&self, request: &T) -> Result<Vec<u8>, RPCError<TypeConfig>> {
        let encoded = encode(request).map_err(|e| RPCError::Network(NetworkError::new(&e)))?;
        let mut body = Vec::with_capacity(RaftAddress::BYTES + encoded.len());
        RaftAddress { from: self.network.local, to: self.target }.write(&mut body);
        body.extend_from_slice(&encoded);
        Ok(body)
    }

    async fn call<Request: Serialize, Response: DeserializeOwned>(
        &self,
        class: Class,
        kind: FrameKind,
        action: RPCTypes,
        request: &Request,
        deadline: Duration,
    ) -> Result<Response, RPCError<TypeConfig>> {
        self.check_incarnation()?;
        let body = self.envelope(request)?;
        let answer = self.network.peers.call(self.node, class, kind, self.network.shard, &body, deadline).await;
        let answer = answer.map_err(|e| self.rpc_error(action, e))?;
        decode("raft response", &answer).map_err(|e| RPCError::Network(NetworkError::new(&e)))
    }

    /// A node that lost its disk is another member: nothing is sent to the one that it was.
    fn check_incarnation(&self) -> Result<(), RPCError<TypeConfig>> {
        match self.network.peers.connected(self.node) {
            Some(peer) if peer.raft_id() != self.target => {
                let gone = CallError::NotSent(format!("{} of {} is an earlier incarnation", self.target, self.node));
                Err(RPCError::Unreachable(Unreachable::new(&gone)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Sends a snapshot once the member is connected.
    async fn send_snapshot(&self, head: &[u8], data: &Bytes) -> Result<Bytes, RPCError<TypeConfig>> {
        if self.network.acked.is_forgetful(self.target) {
            return Err(self.forgotten());
        }
        let snapshots = &self.network.snapshots;
        snapshots.reach(self.node).await;
        self.check_incarnation()?;
        let sent = snapshots.send(self.node, head, data).await;
        sent.map_err(|e| self.rpc_error(RPCTypes::InstallSnapshot, e))
    }

    /// What a member answers is not taken over if it cannot have come about: its vote would be this node's.
    fn check_term(&self, own: &Vote, answered: &Vote) -> Result<(), RPCError<TypeConfig>> {
        let (own, term) = (own.leader_id.term, answered.leader_id.term);
        if is_possible_term(own, term) {
            return Ok(());
        }
        let why = format!("{} answers with term {term}, which cannot have come about after {own}", self.node);
        Err(RPCError::Unreachable(Unreachable::from_string(why)))
    }

    /// How long to wait after a snapshot was not taken, if at all: who is not connected was waited for already.
    fn pause_after(&mut self, error: &RPCError<TypeConfig>) -> Option<Duration> {
        let is_there = self.network.peers.connected(self.node).is_some();
        if !is_there || !matches!(error, RPCError::Unreachable(_)) {
            return None;
        }
        let next = (self.pause * 2).min(REFUSED_PAUSE_MAX);
        Some(std::mem::replace(&mut self.pause, next))
    }

    /// As for one that is not there: what it acknowledges counts for nothing.
    fn forgotten(&self) -> RPCError<TypeConfig> {
        RPCError::Unreachable(Unreachable::from_string(format!(
            "{} of {} lacks what it acknowledged",
            self.target, self.node
        )))
    }

    /// Tells a member that it lacks an entry that it acknowledged to the leader of this vote.
    fn tell_forgotten(&self, vote: Vote, held: LogId) {
        if self.network.acked.forgot(self.target) {
            tracing::error!(
                shard = %self.network.shard, node = %self.node, acknowledged = held.index,
                "a member lacks entries that it acknowledged: its disk is an older copy; move its data directory away, \
                 start it, and run 'skep shard add-voter' with its id"
            );
        }
        let Ok(body) = self.envelope(&(vote, held)) else { return };
        let (network, node) = (self.network.clone(), self.node);
        // Beside the call that showed it, which may be given up at any time. The next heartbeat tells it again if need be.
        tokio::spawn(async move {
            let (shard, deadline) = (network.shard, network.rpc_timeout);
            let told = network.peers.call(node, Class::Urgent, FrameKind::Forgot, shard, &body, deadline).await;
            if let Err(error) = told {
                tracing::debug!(%shard, %node, %error, "a member was not told that it lacks what it acknowledged");
            }
        });
    }

    fn rpc_error(&self, action: RPCTypes, error: CallError) -> RPCError<TypeConfig> {
        match error {
            CallError::Timeout(timeout) => {
                RPCError::Timeout(Timeout { action, id: self.network.local, target: self.target, timeout })
            }
            CallError::Refused(ref why) if why == FORGOT => {
                self.network.acked.forgot(self.target);
                self.forgotten()
            }
            CallError::NotSent(_) | CallError::Refused(_) => RPCError::Unreachable(Unreachable::new(&error)),
            CallError::Lost(_) => RPCError::Network(NetworkError::new(&error)),
        }
    }
}

/// Leaves out of a request what does not fit into so many bytes, but never all; how many bytes are left.
fn shorten(rpc: &mut AppendEntriesRequest<TypeConfig>, bytes_max: Option<usize>) -> usize {
    let (mut bytes, mut kept) = (0, 0);
    for entry in &rpc.entries {
        let next = bytes + entry_bytes(entry);
        if kept > 0 && next > bytes_max.unwrap_or(APPEND_BYTES_MAX) {
            break;
        }
        (bytes, kept) = (next, kept + 1);
    }
    rpc.entries.truncate(kept);
    bytes
}

fn entry_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(data) => data.0.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

impl RaftNetworkV2<TypeConfig> for Connection {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let patience = self.network.rpc_timeout;
        let acked = self.network.acked.clone();
        // Heartbeats go on: by their answers it is seen that it was told.
        if self.class != Class::Urgent && acked.is_forgetful(self.target) {
            return Err(self.forgotten());
        }
        let peer = self.network.peers.connected(self.node);
        let (all, bytes) = (rpc.entries.len(), shorten(&mut rpc, peer.as_ref().map(|peer| peer.append_bytes())));
        // Of before the call: what it answers is of later than that.
        let held = acked.upto(&rpc.vote, self.target);
        let last = rpc.entries.last().map(|entry| entry.log_id).max(rpc.prev_log_id);
        let response: AppendEntriesResponse<TypeConfig> =
            self.call(self.class, FrameKind::Append, RPCTypes::AppendEntries, &rpc, patience).await?;
        if let Some(peer) = peer.filter(|_| bytes > 0) {
            peer.appended(bytes);
        }
        if let AppendEntriesResponse::HigherVote(vote) = &response {
            self.check_term(&rpc.vote, vote)?;
        }
        match (&response, held) {
            (AppendEntriesResponse::Success, _) => acked.note(&rpc.vote, self.target, last),
            (AppendEntriesResponse::Conflict, Some(held)) if rpc.prev_log_id <= Some(held) => {
                self.tell_forgotten(rpc.vote, held);
                return Err(self.forgotten());
            }
            _ => {}
        }
        match response {
            AppendEntriesResponse::Success if rpc.entries.len() < all => {
                Ok(AppendEntriesResponse::PartialSuccess(last))
            }
            response => Ok(response),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = self.network.rpc_timeout.max(VOTE_PATIENCE);
        let call = self.call(Class::Urgent, FrameKind::Vote, RPCTypes::Vote, &rpc, deadline);
        if is_on(Mutant::VotesCutOff) {
            let timeout = self.network.rpc_timeout;
            let answer = tokio::time::timeout(timeout, call).await;
            return answer.map_err(|_| self.rpc_error(RPCTypes::Vote, CallError::Timeout(timeout)))?;
        }
        let response: VoteResponse<TypeConfig> = call.await?;
        self.check_term(&rpc.vote, &response.vote)?;
        Ok(response)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = self.network.rpc_timeout.max(VOTE_PATIENCE);
        let call = self.call(Class::Urgent, FrameKind::PreVote, RPCTypes::Vote, &rpc, deadline);
        let response: VoteResponse<TypeConfig> = call.await?;
        self.check_term(&rpc.vote, &response.vote)?;
        Ok(response)
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = self.network.rpc_timeout;
        self.call(Class::Urgent, FrameKind::TransferLeader, RPCTypes::TransferLeader, &req, deadline).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let last = snapshot.meta.last_log_id;
        let head = self.envelope(&(vote, &snapshot.meta))?;
        let mut cancel = std::pin::pin!(cancel);
        let sent = tokio::select! {
            biased;
            closed = &mut cancel => return Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(&head, &snapshot.snapshot) => sent,
        };
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                // It is not kept in memory until it is read again.
                drop(snapshot);
                if let Some(pause) = self.pause_after(&error) {
                    tokio::select! {
                        biased;
                        closed = &mut cancel => return Err(StreamingError::Closed(closed)),
                        () = tokio::time::sleep(pause) => {}
                    }
                }
                return Err(error.into());
            }
        };
        let response: SnapshotResponse<TypeConfig> =
            decode("raft response", &answer).map_err(|e| StreamingError::Network(NetworkError::new(&e)))?;
        self.check_term(&vote, &response.vote)?;
        if response.vote == vote {
            self.network.acked.note(&vote, self.target, last);
        }
        Ok(response)
    }

    fn backoff(&self) -> Option<Backoff> {
        // A peer that comes back is found within a heartbeat or two; the dialler has its own backoff.
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(100))))
    }
}
