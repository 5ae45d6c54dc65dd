//! The control plane as openraft's network.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use openraft::StorageError;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::type_config::TypeConfigExt as _;
use openraft::{EntryPayload, OptionalSend, RPCTypes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use skep_protocol::ballot::Ballot;
use skep_protocol::frame::{FrameKind, RaftAddress, SnapshotId};
use skep_protocol::ids::{NodeId, RaftId, ShardId};
use skep_protocol::mutant::{Mutant, is_on};

use super::acked::{Acked, FORGOT};
use super::elections::{Elections, UNPROVEN};
use super::pause::{Attempt, Pauses};
use super::saved::{LoadError, SnapshotData};
use super::types::{Entry, LogId, Member, Snapshot, SnapshotMeta, TypeConfig, Vote, decode, encode};
use crate::net::{APPEND_BYTES_MAX, CallError, Class, Entries, Offer, Peers, SnapshotSender};
use crate::shard::is_possible_term;

/// How long a candidate waits for a vote. The voter writes the vote down first, which on a slow disk takes longer than
/// any call should. A candidate that needs the vote sooner does not wait for it, and stands again.
const VOTE_PATIENCE: Duration = Duration::from_secs(15);

/// Makes the connections of one shard's group.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) peers: Peers,
    pub(crate) shard: ShardId,
    pub(crate) local: RaftId,
    pub(crate) rpc_timeout: Duration,
    pub(crate) snapshots: SnapshotSender,
    pub(crate) acked: Acked,
    pub(crate) elections: Elections,
}

/// The calls to one member.
pub(crate) struct Connection {
    network: Network,
    class: Class,
    target: RaftId,
    node: NodeId,
    /// Whether the last entries may be sent again, since the member did not answer.
    sends_again: bool,
    /// The waits that follow if the member does not take the next snapshot either.
    pauses: Pauses,
    /// The snapshot that was last to be sent, and its id by size and digest.
    named: Option<(SnapshotMeta, SnapshotId)>,
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
        let (network, pauses) = (self.clone(), Pauses::default());
        Connection { network, class, target, node: member.node, sends_again: false, pauses, named: None }
    }

    /// Shows a member that this node was elected, if the member has not seen the proof yet. This does not wait for the
    /// answer: the member holds back what comes with the proof until it has it.
    fn show(&self, node: NodeId, target: RaftId, vote: &Vote) {
        let Some(peer) = self.peers.connected(node) else { return };
        let Some(proof) = self.elections.to_show(vote, target, peer.hello.process) else { return };
        let mut body = Vec::with_capacity(RaftAddress::BYTES + proof.len());
        RaftAddress { from: self.local, to: target }.write(&mut body);
        body.extend_from_slice(&proof);
        let network = self.clone();
        tokio::spawn(async move {
            let Self { peers, shard, rpc_timeout, elections, .. } = network;
            let shown = peers.call(node, Class::Urgent, FrameKind::Proof, shard, &body, rpc_timeout).await;
            if let Err(error) = shown {
                // The member refuses the next message, or lets it wait: then this node shows the proof once more.
                elections.hide(target);
                tracing::debug!(%shard, %node, %error, "a member has not taken the proof that this node leads");
            }
        });
    }
}

/// The most that another node's vote can say. A node learns that a leader was elected from that leader alone, which
/// shows the proof.
fn as_said(own: &Vote, answered: Vote) -> Vote {
    if answered == *own { answered } else { Vote { committed: false, ..answered } }
}

/// What a member's vote says to the leader of this vote, which alone knows when it stands for election: nothing if it
/// names that leader in a later term.
fn as_said_to_leader(led: &Vote, answered: Vote) -> Option<Vote> {
    let (own, other) = (&led.leader_id, &answered.leader_id);
    (own.voted_for != other.voted_for || other.term <= own.term).then(|| as_said(led, answered))
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
        self.response(action, answer)
    }

    fn response<Response: DeserializeOwned>(
        &self,
        action: RPCTypes,
        answer: Result<Bytes, CallError>,
    ) -> Result<Response, RPCError<TypeConfig>> {
        let answer = answer.map_err(|e| self.rpc_error(action, e))?;
        decode("raft response", &answer).map_err(|e| RPCError::Network(NetworkError::new(&e)))
    }

    /// Sends entries, or none, and waits until the member has written them.
    async fn append(
        &mut self,
        rpc: &AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.check_incarnation()?;
        self.network.show(self.node, self.target, &rpc.vote);
        let body = self.envelope(rpc)?;
        let entries = match (rpc.entries.is_empty(), self.sends_again) {
            (true, _) => Entries::No,
            (false, false) => Entries::New,
            (false, true) => Entries::Again,
        };
        let Network { peers, shard, rpc_timeout, .. } = &self.network;
        let answer = peers.append(self.node, self.class, *shard, &body, *rpc_timeout, entries).await;
        if entries != Entries::No {
            self.sends_again = answer.is_err();
        }
        self.response(RPCTypes::AppendEntries, answer)
    }

    /// Refuses to send to an earlier incarnation: a node that lost its disk is another member.
    fn check_incarnation(&self) -> Result<(), RPCError<TypeConfig>> {
        match self.network.peers.connected(self.node) {
            Some(peer) if peer.raft_id() != self.target => {
                let gone = CallError::NotSent(format!("{} of {} is an earlier incarnation", self.target, self.node));
                Err(RPCError::Unreachable(Unreachable::new(&gone)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Sends a snapshot once the member is connected. The file is read only then; once its size and digest are known,
    /// it is read only if the member takes it. `moved` tells whether the member took a part.
    async fn send_snapshot(
        &mut self,
        vote: &Vote,
        snapshot: &Snapshot,
        moved: &mut bool,
    ) -> Result<Bytes, StreamingError<TypeConfig>> {
        let sender = self.network.snapshots.clone();
        sender.reach(self.node).await.map_err(|e| self.not_sent(e))?;
        self.check_incarnation()?;
        if self.network.acked.is_forgetful(self.target) {
            return Err(self.forgotten().into());
        }
        self.network.show(self.node, self.target, vote);
        let head = self.envelope(&(vote, &snapshot.meta))?;
        let known = self.named.as_ref().filter(|(meta, _)| *meta == snapshot.meta).map(|(_, id)| *id);
        let (id, read) = match known {
            Some(id) => (id, None),
            None => {
                let (id, data) = self.read(&sender, &snapshot.snapshot).await?;
                self.named = Some((snapshot.meta.clone(), id));
                (id, Some(data))
            }
        };
        let offer = Offer::new(id, &head);
        let mut there = sender.offer(self.node, &offer).await.map_err(|e| self.not_sent(e))?;
        let data = match read {
            Some(data) => data,
            None => {
                let (found, data) = self.read(&sender, &snapshot.snapshot).await?;
                if found != id {
                    self.named = None;
                    return Err(unread(LoadError::Replaced));
                }
                data
            }
        };
        let before = there;
        let sent = sender.send(self.node, &offer, &data, &mut there).await;
        *moved = there > before;
        sent.map_err(|e| self.not_sent(e).into())
    }

    /// Refuses an answer of a term that cannot have come about: openraft would make that vote this node's own.
    fn check_term(&self, own: &Vote, answered: &Vote) -> Result<(), RPCError<TypeConfig>> {
        let (own, term) = (own.leader_id.term, answered.leader_id.term);
        if is_possible_term(own, term) {
            return Ok(());
        }
        let why = format!("{} answers with term {term}, which cannot have come about after {own}", self.node);
        Err(RPCError::Unreachable(Unreachable::from_string(why)))
    }

    /// What a member answers to this node, which leads by a vote. A member that lies would have it lead no more, by a
    /// vote that this node never gave.
    fn said_to_leader(&self, led: &Vote, answered: Vote) -> Result<Vote, RPCError<TypeConfig>> {
        self.check_term(led, &answered)?;
        as_said_to_leader(led, answered).ok_or_else(|| {
            let why = format!("{} answers that this node stands for election in {answered}", self.node);
            RPCError::Unreachable(Unreachable::from_string(why))
        })
    }

    /// Reads a snapshot, and sees which bytes it has.
    async fn read(
        &self,
        sender: &SnapshotSender,
        data: &SnapshotData,
    ) -> Result<(SnapshotId, Bytes), StreamingError<TypeConfig>> {
        let data = data.load().await.map_err(unread)?;
        let id = sender.name(&data).await.map_err(|e| self.not_sent(e))?;
        Ok((id, data))
    }

    fn not_sent(&self, error: CallError) -> RPCError<TypeConfig> {
        self.rpc_error(RPCTypes::InstallSnapshot, error)
    }

    /// The wait after a snapshot was not sent; none if a wait would gain nothing.
    fn pause_after(&mut self, error: &StreamingError<TypeConfig>, moved: bool) -> Option<Duration> {
        if matches!(error, StreamingError::Closed(_) | StreamingError::StorageError(_)) {
            return None;
        }
        let is_there = self.network.peers.connected(self.node).is_some();
        Some(self.pauses.after(match (moved, is_there) {
            (true, _) => Attempt::Moved,
            (false, true) => Attempt::Refused,
            (false, false) => Attempt::Down,
        }))
    }

    /// The error for a member that forgot, the same as for one that is not there: what it acknowledges counts for
    /// nothing.
    fn forgotten(&self) -> RPCError<TypeConfig> {
        RPCError::Unreachable(Unreachable::from_string(format!(
            "{} of {} lacks what it acknowledged",
            self.target, self.node
        )))
    }

    /// Tells a member that it lacks an entry that it acknowledged to the leader with this vote.
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
        // This runs beside the call that showed it, since openraft may drop that call at any time. The next heartbeat
        // tells the member again if need be.
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
            CallError::Refused(ref why) if why == UNPROVEN => {
                self.network.elections.hide(self.target);
                RPCError::Unreachable(Unreachable::new(&error))
            }
            CallError::NotSent(_) | CallError::Refused(_) => RPCError::Unreachable(Unreachable::new(&error)),
            CallError::Lost(_) => RPCError::Network(NetworkError::new(&error)),
        }
    }
}

/// The error for a snapshot that cannot be read.
fn unread(error: LoadError) -> StreamingError<TypeConfig> {
    match error {
        // openraft asks for the snapshot that is there, and sends that one.
        LoadError::Replaced => StreamingError::Network(NetworkError::new(&error)),
        // The group ends, as with any other file that it cannot do without.
        LoadError::Io(_) => {
            let source = TypeConfig::err_from_error(&error);
            StreamingError::StorageError(StorageError::<TypeConfig>::read_snapshot(None, source))
        }
    }
}

/// Leaves out of a request the entries that do not fit into this many bytes, but keeps at least one. Returns how many
/// bytes are left.
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
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let acked = self.network.acked.clone();
        // Heartbeats go on: their answers show that the member was told.
        if self.class != Class::Urgent && acked.is_forgetful(self.target) {
            return Err(self.forgotten());
        }
        let peer = self.network.peers.connected(self.node);
        let (all, bytes) = (rpc.entries.len(), shorten(&mut rpc, peer.as_ref().map(|peer| peer.append_bytes())));
        // Read before the call: the answer is about a later time than this.
        let held = acked.upto(&rpc.vote, self.target);
        let last = rpc.entries.last().map(|entry| entry.log_id).max(rpc.prev_log_id);
        let mut response = self.append(&rpc).await?;
        if let Some(peer) = peer.filter(|_| bytes > 0) {
            peer.appended(bytes);
        }
        if let AppendEntriesResponse::HigherVote(vote) = &mut response {
            *vote = self.said_to_leader(&rpc.vote, *vote)?;
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
        let elections = &self.network.elections;
        let Some(candidacy) = elections.stand(&rpc.vote).await else {
            return Err(RPCError::Unreachable(Unreachable::from_string("this node has stopped standing for election")));
        };
        let request = (&rpc, candidacy);
        let call = self.call(Class::Urgent, FrameKind::Vote, RPCTypes::Vote, &request, deadline);
        let answer: Result<(VoteResponse<TypeConfig>, Option<Ballot>), _> = if is_on(Mutant::VotesCutOff) {
            let timeout = self.network.rpc_timeout;
            let answer = tokio::time::timeout(timeout, call).await;
            answer.unwrap_or_else(|_| Err(self.rpc_error(RPCTypes::Vote, CallError::Timeout(timeout))))
        } else {
            call.await
        };
        let (mut response, ballot) = answer?;
        self.check_term(&rpc.vote, &response.vote)?;
        if response.vote_granted && !elections.collect(&rpc.vote, (self.target, self.node), ballot) {
            let why = format!("{} says that it votes for this node, and has not signed it", self.node);
            return Err(RPCError::Unreachable(Unreachable::from_string(why)));
        }
        response.vote = as_said(&rpc.vote, response.vote);
        Ok(response)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = self.network.rpc_timeout.max(VOTE_PATIENCE);
        let call = self.call(Class::Urgent, FrameKind::PreVote, RPCTypes::Vote, &rpc, deadline);
        let mut response: VoteResponse<TypeConfig> = call.await?;
        self.check_term(&rpc.vote, &response.vote)?;
        response.vote = as_said(&rpc.vote, response.vote);
        Ok(response)
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let deadline = self.network.rpc_timeout;
        self.network.show(self.node, self.target, req.from_leader());
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
        let mut moved = false;
        let mut cancel = std::pin::pin!(cancel);
        let sent = tokio::select! {
            biased;
            closed = &mut cancel => return Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(&vote, &snapshot, &mut moved) => sent,
        };
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                if let Some(pause) = self.pause_after(&error, moved) {
                    tokio::select! {
                        biased;
                        closed = &mut cancel => return Err(StreamingError::Closed(closed)),
                        () = self.network.snapshots.pause(self.node, pause) => {}
                    }
                }
                return Err(error);
            }
        };
        let mut response: SnapshotResponse<TypeConfig> =
            decode("raft response", &answer).map_err(|e| StreamingError::Network(NetworkError::new(&e)))?;
        response.vote = self.said_to_leader(&vote, response.vote)?;
        if response.vote == vote {
            self.network.acked.note(&vote, self.target, last);
        }
        Ok(response)
    }

    fn backoff(&self) -> Option<Backoff> {
        // This finds a peer that comes back within a heartbeat or two; the dialler has its own backoff.
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(100))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use openraft::impls::leader_id_std::LeaderId;
    use skep_config::PeerConfig;
    use skep_protocol::ballot::BallotKey;
    use skep_protocol::ids::Incarnation;
    use skep_store::{Store, StoreOptions, StoredSnapshot};

    use super::super::saved::Saved;
    use super::*;
    use crate::clock::Clocks;
    use crate::net::Sending;
    use crate::threads::Threads;

    const SHARD: ShardId = ShardId::FIRST;
    const PATIENCE: Duration = Duration::from_secs(1);

    /// A snapshot on the disk that a reader finds damaged.
    fn damaged(dir: &std::path::Path, threads: &Threads) -> Snapshot {
        let options = StoreOptions { low_water_bytes: 0, ..StoreOptions::default() };
        let store = Store::open(dir, [3; 16], options).unwrap();
        let (meta, data) = (Bytes::from_static(b"meta"), Bytes::from_static(b"the whole state"));
        store.snapshots().save(SHARD, &StoredSnapshot { index: 3, meta: meta.clone(), data }).unwrap();
        let path = dir.join("snapshots").join(format!("{SHARD}.snap"));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let saved = Saved::new(store, threads.clone(), SHARD, meta);
        Snapshot { meta: SnapshotMeta::default(), snapshot: SnapshotData::Saved(Box::new(saved)) }
    }

    #[test]
    fn nobody_is_said_by_others_to_have_been_elected() {
        let vote = |term, of, committed| Vote { leader_id: LeaderId { term, voted_for: RaftId(of) }, committed };
        let own = vote(7, 1, true);
        assert_eq!(as_said(&own, own), own);
        assert_eq!(as_said(&own, vote(8, 2, true)), vote(8, 2, false), "it shows that itself");
        for committed in [true, false] {
            assert_eq!(as_said_to_leader(&own, vote(8, 1, committed)), None, "least of all the leader that asked");
            assert_eq!(as_said_to_leader(&own, vote(8, 2, committed)), Some(vote(8, 2, false)));
        }
        assert_eq!(as_said_to_leader(&own, own), Some(own));
        assert!(as_said(&own, vote(8, 2, true)) > own, "who leads no more hears of it all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_is_not_read_for_a_member_that_is_not_connected() {
        let (dir, threads) = (tempfile::tempdir().unwrap(), Threads::here());
        let node = |n: u8| NodeId::from_public_key([n; 32]);
        let member = Member { node: node(2), incarnation: Incarnation([2; 16]), name: None, charter: None };
        let other = PeerConfig { id: member.node, name: None, control: None, mesh: None, voter: false };
        let peers = Peers::new(node(1), &[other], Clocks::default());
        let snapshots =
            SnapshotSender::new((peers.clone(), threads.clone()), SHARD, 1 << 20, PATIENCE, Sending::default());
        let (local, acked) = (RaftId(1), Acked::default());
        let elections = Elections::new(SHARD, local, Arc::new(BallotKey::from_seed(&[1; 32])));
        let mut network = Network { peers, shard: SHARD, local, rpc_timeout: PATIENCE, snapshots, acked, elections };
        let mut connection = network.new_snapshot_client(member.raft_id(), &member).await;
        let vote = Vote { leader_id: LeaderId { term: 1, voted_for: local }, committed: true };
        let snapshot = damaged(dir.path(), &threads);
        for _ in 0..10 {
            let option = RPCOption::new(PATIENCE);
            let sent = connection.full_snapshot(vote, snapshot.clone(), std::future::pending(), option).await;
            assert!(matches!(sent, Err(StreamingError::Unreachable(_))), "it was read");
        }
    }
}
