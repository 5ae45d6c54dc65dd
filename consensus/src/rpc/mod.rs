//! Calls between nodes: a file for each, with both of its sides.
//!
//! Such a file says on which streams its call goes, how long an answer is waited for, how question and answer are
//! written and read, and what a node answers that has no replica. What its frames are called on the wire, whom they
//! concern and how large they may be is one row of the table in `skep_protocol::frame`, and its file is named in one
//! line of [`call_of`]. What is decided for a call is decided by the shard.
//!
//! **Who asks.** What a node wants of the leader of a shard, wherever that is, is an [`attempt`]. What a replica asks
//! of another node is a method of [`NodeParts`], in the file of its call: shards are below this room and name nothing in it.
//! openraft asks by itself (`raft/network.rs`, `net/snapshots.rs`), and so does a connection that says and hears who is
//! there, who is out and where others are (`net/strays.rs`, `net/twins.rs`, `net/news.rs`, `net/members.rs`): of these calls the
//! answering side is here.

mod addresses;
mod beat;
mod claims;
mod clock;
mod heartbeat;
mod leads;
mod lineages;
mod proof;
mod propose;
mod pull;
mod query;
mod raft;
mod renew;
mod site_news;
mod snapshot;
mod twin;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skep_protocol::attempt::{AttemptTarget, Outcome, Work};
use skep_protocol::codec::{CodecError, Encoded};
use skep_protocol::frame::{FrameKind, Header};
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::outcome::ProposeOutcome;

use crate::net::{Answer, AnswerRoom, CallError, Class, Dispatch, Judgement, Waits, Who};
use crate::shard::NodeParts;
use crate::shards::Shards;

pub(crate) use propose::attempt as propose;

/// A kind of calls.
#[derive(Clone, Copy)]
struct Call {
    kind: FrameKind,
    /// The streams on which it goes.
    class: Class,
    /// Judges who calls, beyond what holds for all calls. The reason as text if the call is not read.
    admits: fn(&Shards, NodeId, ShardId) -> Result<(), String>,
    /// How many bytes its answer may have, if it may be large and room for it is taken before it is made, and what it
    /// waits for.
    large_answer: fn(&[u8]) -> Option<(usize, Waits)>,
    /// Answers it. The reason as text if there is no answer.
    answer: fn(Arc<Shards>, Asked) -> Answer,
}

impl Call {
    /// One that is judged as all are, with answers that are not large.
    const fn new(kind: FrameKind, class: Class, answer: fn(Arc<Shards>, Asked) -> Answer) -> Self {
        Self { kind, class, admits: of_anybody, large_answer: of_few_bytes, answer }
    }

    /// What begins no call.
    const fn none(kind: FrameKind) -> Self {
        Self::new(kind, Class::Urgent, |_, _| Box::pin(async { Err("it is not a call".to_owned()) }))
    }
}

fn of_anybody(_: &Shards, _: NodeId, _: ShardId) -> Result<(), String> {
    Ok(())
}

fn of_few_bytes(_: &[u8]) -> Option<(usize, Waits)> {
    None
}

/// The calls by their frames.
fn call_of(kind: FrameKind) -> Call {
    match kind {
        FrameKind::Append => raft::APPEND,
        FrameKind::Vote => raft::VOTE,
        FrameKind::PreVote => raft::PRE_VOTE,
        FrameKind::TransferLeader => raft::TRANSFER_LEADER,
        FrameKind::Forgot => raft::FORGOT,
        FrameKind::Proof => proof::PROOF,
        FrameKind::SnapshotHead => snapshot::HEAD,
        FrameKind::SnapshotChunk => snapshot::CHUNK,
        FrameKind::SnapshotInstall => snapshot::INSTALL,
        FrameKind::Propose => propose::PROPOSE,
        FrameKind::End => propose::END,
        FrameKind::Query => query::QUERY,
        FrameKind::Heartbeat => heartbeat::HEARTBEAT,
        FrameKind::Pull => pull::PULL,
        FrameKind::Claims => claims::CLAIMS,
        FrameKind::Clock => clock::CLOCK,
        FrameKind::Leads => leads::LEADS,
        FrameKind::Beat => beat::BEAT,
        FrameKind::Twin => twin::TWIN,
        FrameKind::Lineages => lineages::LINEAGES,
        FrameKind::SiteNews => site_news::SITE_NEWS,
        FrameKind::Addresses => addresses::ADDRESSES,
        FrameKind::Renew => renew::RENEW,
        FrameKind::Hello
        | FrameKind::Trust
        | FrameKind::Knock
        | FrameKind::Join
        | FrameKind::Reply
        | FrameKind::Refused => Call::none(kind),
    }
}

/// The class of the streams on which calls of a kind go.
pub(crate) fn class_of(kind: FrameKind) -> Class {
    call_of(kind).class
}

/// Tries a piece of work that is for the leader of a shard: at this node, or at another one that is thought to lead.
pub(crate) async fn attempt(shards: &Shards, shard: ShardId, target: AttemptTarget, work: Work) -> Outcome {
    match work {
        Work::Request(request) => {
            let outcome = propose::attempt(shards, shard, target, vec![request]).await.pop();
            Outcome::Propose(outcome.unwrap_or(ProposeOutcome::Unknown))
        }
        Work::Query(query) => Outcome::Query(query::attempt(shards, shard, target, query).await),
        Work::Heartbeat(heartbeat) => Outcome::Heartbeat(heartbeat::attempt(shards, shard, target, heartbeat).await),
        Work::Pull(pull) => Outcome::Pull(pull::attempt(shards, shard, target, pull).await.map(Box::new)),
    }
}

impl NodeParts {
    /// Calls another node on behalf of this one, on the caller's thread: a task of its own elsewhere would cost each
    /// call two more turns of threads. Its answer is waited for so long at least.
    async fn call(
        &self,
        call: Call,
        node: NodeId,
        shard: ShardId,
        body: &[u8],
        least: Duration,
    ) -> Result<Bytes, CallError> {
        self.peers.call(node, call.class, call.kind, shard, body, least).await
    }

    /// The patience with a call that a node answers by itself.
    fn patience(&self) -> Duration {
        Duration::from_millis(self.config.rpc_timeout_ms)
    }
}

/// A call as it came.
struct Asked {
    who: Who,
    header: Header,
    body: Bytes,
    /// For an answer that waits until there is something to tell.
    room: AnswerRoom,
}

fn as_text(error: CodecError) -> String {
    error.to_string()
}

impl Asked {
    /// What it asks.
    fn read<T: Encoded>(&self) -> Result<T, String> {
        T::decode(&self.body).map_err(as_text)
    }
}

/// An answer as it is written.
fn written<T: Encoded>(answer: &T) -> Result<Vec<u8>, String> {
    answer.encode().map_err(as_text)
}

/// Judges a call by its header: nothing of a shard is heard from a peer of another one with its number, a group's own
/// frames are voters', and the call itself says whom else it takes nothing from.
async fn judge(shards: &Arc<Shards>, who: Who, header: Header) -> Result<(), String> {
    if header.kind.is_of_shard() {
        shards.parts.peers.check_shard(who.node, header.shard)?;
    }
    if header.kind.is_of_voters() {
        shards.check_voter(who.node, header.kind, header.shard).await?;
    }
    (call_of(header.kind).admits)(shards, who.node, header.shard)
}

impl Dispatch for Arc<Shards> {
    fn admit(&self, who: Who, header: Header) -> Judgement {
        let shards = Self::clone(self);
        Box::pin(async move { judge(&shards, who, header).await })
    }

    fn large_answer(&self, header: Header, body: &[u8]) -> Option<(usize, Waits)> {
        (call_of(header.kind).large_answer)(body)
    }

    fn call(&self, who: Who, header: Header, body: Bytes, room: AnswerRoom) -> Answer {
        (call_of(header.kind).answer)(Self::clone(self), Asked { who, header, body, room })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of all kinds of frames.
    fn kinds() -> Vec<(u8, FrameKind)> {
        let kind = FrameKind::Beat;
        let header = Header { kind, shard: ShardId::FIRST, clock: None, call: 1, body_bytes: 0 }.encode();
        let kinds = (0..=u8::MAX).filter_map(|number| {
            let mut header = header;
            header[3] = number;
            Header::decode(&header).ok().map(|header| (number, header.kind))
        });
        kinds.collect()
    }

    #[test]
    fn each_kind_of_frames_is_sent_and_answered_by_one_call() {
        for (_, kind) in kinds() {
            assert_eq!(call_of(kind).kind, kind);
        }
    }

    #[test]
    fn a_call_goes_on_the_streams_of_its_class() {
        let of = |class: Class| -> Vec<u8> {
            kinds().into_iter().filter(|(_, kind)| class_of(*kind) == class).map(|(number, _)| number).collect()
        };
        assert_eq!(of(Class::Urgent), [1, 3, 4, 5, 12, 16, 17, 19, 21, 32, 36, 37, 64, 65]);
        assert_eq!(of(Class::Append), [2]);
        assert_eq!(of(Class::Agents), [10, 11, 13, 14]);
        assert_eq!((of(Class::End), of(Class::Propose)), (vec![15], vec![8]));
        assert_eq!(of(Class::Query), [9, 20, 33, 34, 35]);
        assert_eq!(of(Class::Snapshot), [6, 7, 18]);
    }
}
