//! Takes Raft frames of peers into the group.

use std::sync::atomic::Ordering;

use openraft::EntryPayload;
use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest};
use skep_protocol::codec::Encoded as _;
use skep_protocol::entry::{self, EntryBody};
use skep_protocol::frame::{FrameKind, Header, RaftAddress};
use skep_protocol::ids::NodeId;
use skep_protocol::mutant::{Mutant, is_on};

use super::continuity::ClockSaid;
use super::{Shard, ShardView};
use crate::net::Who;
use crate::raft::acked::FORGOT;
use crate::raft::elections::Candidacy;
use crate::raft::types::{Entry, LogId, TypeConfig, Vote, decode, encode};
use crate::threads::Errand;

impl Shard {
    /// Answers a Raft frame. The reason as text if this node refuses it.
    pub(crate) async fn raft_frame(&self, who: Who, header: Header, body: &[u8]) -> Result<Vec<u8>, String> {
        let (address, body) = RaftAddress::split(body).map_err(|e| e.to_string())?;
        if address.from != who.raft_id {
            return Err(format!("the frame says it is from {}, and its sender is {}", address.from, who.raft_id));
        }
        let local = self.inner.parts.raft_id();
        if address.to != local {
            return Err(format!(
                "the frame is for {}, an earlier incarnation of this node, which is {local} now; run 'skep shard \
                 add-voter {}' on the leader",
                address.to, self.inner.parts.node
            ));
        }
        let may_vote = is_on(Mutant::RevertedVoterVotes) && matches!(header.kind, FrameKind::Vote | FrameKind::PreVote);
        if self.has_forgotten() && !may_vote {
            return Err(FORGOT.to_owned());
        }
        self.check_fit()?;
        match header.kind {
            FrameKind::Append => self.append(who, header, body).await,
            FrameKind::Vote => {
                let (request, candidacy): (VoteRequest<TypeConfig>, Candidacy) = decode("vote", body).map_err(text)?;
                self.check_candidate(who, &request.vote)?;
                encode(&self.vote(request, candidacy).await?).map_err(text)
            }
            FrameKind::PreVote => {
                let request: VoteRequest<TypeConfig> = decode("pre-vote", body).map_err(text)?;
                self.check_candidate(who, &request.vote)?;
                encode(&self.would_vote(request).await?).map_err(text)
            }
            FrameKind::TransferLeader => {
                let request: TransferLeaderRequest<TypeConfig> = decode("transfer", body).map_err(text)?;
                self.check_vote(who, request.from_leader())?;
                self.check_proven(request.from_leader()).await?;
                encode(&self.raft().handle_transfer_leader(request).await.map_err(|e| e.to_string())?).map_err(text)
            }
            FrameKind::Forgot => {
                let (vote, held): (Vote, LogId) = decode("what was acknowledged", body).map_err(text)?;
                self.check_vote(who, &vote)?;
                self.hear_forgotten(vote, held).await.map(|()| Vec::new())
            }
            _ => Err("it is not a raft frame".to_owned()),
        }
    }

    /// Takes the entries of a leader, or none.
    async fn append(&self, who: Who, header: Header, body: &[u8]) -> Result<Vec<u8>, String> {
        let request: AppendEntriesRequest<TypeConfig> = decode("append", body).map_err(text)?;
        self.check_vote(who, &request.vote)?;
        self.check_proven(&request.vote).await?;
        self.check_entries(who, &request)?;
        // This node does not write again what it has: a leader that does not know yet how far this node is sends some
        // entries again.
        let held = self.raft().metrics().borrow_watched().last_log_index;
        let mut news = request.entries.iter().filter(|entry| Some(entry.log_id.index) > held);
        if self.inner.parts.store.is_exhausted() && !news.all(makes_a_leader) {
            return Err("the disk of this node is nearly full; free some space".to_owned());
        }
        let committed = request.leader_commit.map(|id| id.index);
        let response = self.raft().append_entries(request).await.map_err(|e| e.to_string())?;
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            self.hear(who, header);
            self.note_leader(committed, header.clock.is_some());
        }
        encode(&response).map_err(text)
    }

    /// Notes an accepted frame of the leader. The node takes the clock from no other node.
    pub(super) fn hear(&self, who: Who, header: Header) {
        self.heard_leader();
        let Some(clock) = header.clock else { return };
        if !self.inner.clock.is_possible(clock) {
            return self.doubt_clock(who.node, clock);
        }
        self.inner.contradicted_ms.store(0, Ordering::Relaxed);
        if !self.inner.clock.hear(clock) {
            self.learn_clock(who.node);
        }
    }

    /// Takes a leader's word that this node acknowledged an entry to it which this node lacks.
    async fn hear_forgotten(&self, vote: Vote, held: LogId) -> Result<(), String> {
        let known = self.raft().with_raft_state(|state| (*state.vote_ref(), state.log_ids.last().copied())).await;
        let (own, last) = known.map_err(|e| e.to_string())?;
        // Members acknowledge nothing to a candidate.
        if own != vote || !vote.committed {
            return Err(format!("this node follows {own}, and not {vote}"));
        }
        if last >= Some(held) {
            return Err(format!("this node holds entry {}", held.index));
        }
        self.stand_aside(held.index).await;
        Ok(())
    }

    /// Takes no further part: another node may have counted on what this node forgot, and on a vote that this node does
    /// not know of.
    async fn stand_aside(&self, held: u64) {
        if self.inner.forgot.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::error!(shard = %self.id(), acknowledged = held, "{FORGOT}");
        // The rest of the node looks for the leader elsewhere.
        self.inner.view.send_modify(|view| *view = ShardView { term: view.term, ..ShardView::default() });
        let (store, shard) = (self.inner.parts.store.clone(), self.id());
        let note = move || store.marks().note_forgotten(shard).map_err(std::io::Error::other);
        let noted = self.inner.parts.threads.offload(Errand::Files, note).await;
        if let Err(error) = noted.flatten() {
            // After a restart a leader to which this node acknowledged the entry tells it again.
            tracing::error!(%shard, %error, "this node could not write down that it forgot entries");
        }
    }

    /// Asks the leader for its clock, unless a question is under way. If the leader does not answer, its next frame
    /// comes soon.
    pub(super) fn learn_clock(&self, leader: NodeId) {
        let Some(asked_at) = self.inner.clock.ask() else { return };
        let shard = self.clone();
        tokio::spawn(async move {
            let clock = match shard.inner.parts.ask_clock(leader, shard.id()).await {
                ClockSaid::Clock(clock) => Some(clock),
                ClockSaid::None | ClockSaid::Nothing => None,
            };
            shard.inner.clock.answered(clock, asked_at);
        });
    }
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

/// Whether an entry only makes a leader ready. Such an entry is as small as a vote. Where all disks are full, no leader
/// could refuse work without it.
fn makes_a_leader(entry: &Entry) -> bool {
    match &entry.payload {
        EntryPayload::Blank => true,
        EntryPayload::Normal(bytes) => entry::Entry::decode(&bytes.0).is_ok_and(|entry| {
            matches!(entry.body, EntryBody::ClockLost | EntryBody::Rules(_) | EntryBody::Founding(_))
        }),
        EntryPayload::Membership(_) => false,
    }
}
