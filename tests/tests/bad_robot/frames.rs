//! Each kind of frame of the control plane: as a lie, out of order, too large, too often, never ended, its answer never read.

use skep_client::{AttachedAgent, Read, TaskSpec, TaskStatus};
use skep_protocol::codec::Encoded as _;
use skep_protocol::frame::{FrameKind, HEADER_BYTES, ProposalReply};
use skep_protocol::ids::ShardId;
use skep_protocol::limits;
use skep_protocol::outcome::ProposeOutcome;
use skep_protocol::text::AgentId;
use skep_protocol::time::LogInstant;
use skep_tests::Site;
use skep_tests::hall::attach;
use skep_tests::rogue::{Line, OF_VOTERS, Rogue, frame, stamped};

use super::beside::Beside;
use super::{connect, find, rogue, site_with};

/// Streams that it keeps: all that it gets but one.
const STREAMS: usize = limits::STREAMS_PER_PEER_MAX as usize - 1;
/// Calls of each kind: as many as a node has under way for one stream, and some more.
const CALLS: u64 = 500;

fn robot() -> AgentId {
    AgentId::new("r1").unwrap()
}

/// What a lie of each kind is answered.
fn is_judged(kind: FrameKind, said: &Result<Vec<u8>, String>) -> bool {
    let refused = |reason: &str| said.as_ref().is_err_and(|why| why.contains(reason));
    match kind {
        kind if OF_VOTERS.contains(&kind) => refused("no voter"),
        FrameKind::Claims => refused("not known to lead"),
        FrameKind::Leads => refused("does not know that the sender votes"),
        FrameKind::Hello
        | FrameKind::Trust
        | FrameKind::Knock
        | FrameKind::Join
        | FrameKind::Reply
        | FrameKind::Refused => refused("not a call"),
        FrameKind::Pull | FrameKind::SiteNews | FrameKind::Renew => said.is_err(),
        FrameKind::Propose | FrameKind::End => {
            let reply = said.as_ref().ok().and_then(|body| ProposalReply::decode(body).ok());
            let not_its = |outcome: &ProposeOutcome| matches!(outcome, ProposeOutcome::NotLeader(_));
            reply.is_some_and(|reply| reply.outcomes.iter().all(not_its))
        }
        // They are answered, and what they ask for is not done: see below.
        _ => true,
    }
}

/// The agent is still its own node's: work that there is, and that its software did not ask for, is not its.
async fn is_still_served(site: &Site, mut agent: AttachedAgent) {
    let client = site.net.nodes[1].client();
    // What there was before waits for its software to ask, too.
    assert_eq!(client.shard_status().await.unwrap().claimed, 0);
    let created =
        client.create_task(TaskSpec { title: "for whoever asks".into(), ..TaskSpec::default() }).await.unwrap();
    let task = client.task(&created.task_id, Read::Linearizable).await.unwrap().task.unwrap();
    assert_eq!(task.status(), TaskStatus::Pending);
    // Behind what was created to see that the site works.
    loop {
        let work = tokio::time::timeout(std::time::Duration::from_secs(60), agent.next_task()).await;
        let work = work.expect("it is given work").expect("it goes on");
        let is_this = work.task.id == created.task_id;
        work.complete(Vec::new()).await.unwrap();
        if is_this {
            return;
        }
    }
}

async fn tell_lies(rogue: &Rogue, line: &Line, clock: Option<LogInstant>) {
    for kind in FrameKind::ALL.iter().copied() {
        let body = line.lie(kind, rogue.node, &robot());
        let said = line.exchange(&stamped(clock, kind, ShardId::FIRST, 1, body.len(), &body)).await;
        assert!(is_judged(kind, &said), "{kind:?}, clock {clock:?}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_it_says_in_any_frame_nobody_believes_it() {
    let rogue = rogue(70);
    let site = site_with(&rogue, 3).await;
    let (agent, _offers) = attach(&site.net.nodes[0].client(), "r1", &[]).await;
    let beside = Beside::of(&site).await;
    let before = site.net.nodes[0].client().clock().await.unwrap().clock;
    for at in 0..3 {
        let line = connect(&rogue, &site, at).await;
        // As one that leads would, with a clock of long ago, and with one that there can never be.
        for clock in [None, Some(LogInstant::from_raw(1)), Some(LogInstant::from_raw(u64::MAX))] {
            tell_lies(&rogue, &line, clock).await;
        }
    }
    beside.is_unnoticed(&site, "lies in each frame").await;
    let after = site.net.nodes[0].client().clock().await.unwrap().clock;
    assert_eq!(LogInstant::from_raw(after).era(), LogInstant::from_raw(before).era());
    assert!(after >= before);
    is_still_served(&site, agent).await;
}

/// A frame of a kind that there is not.
fn of_no_kind() -> Vec<u8> {
    let mut bytes = frame(FrameKind::Vote, ShardId::FIRST, 1, 0, &[]);
    bytes[3] = 99;
    bytes
}

async fn out_of_order(rogue: &Rogue, site: &Site, kind: FrameKind) {
    let (node, address) = find(site, 1);
    if kind != FrameKind::Hello {
        let why = rogue.say_first(node, address, &frame(kind, ShardId::FIRST, 1, 0, &[])).await.unwrap();
        assert!(why.contains("hello"), "{kind:?}: {why}");
    }
    // More than there can be, and a frame whose stream ends in its midst, end the connection.
    let line = connect(rogue, site, 1).await;
    let too_large = line.announce(kind, ShardId::FIRST, kind.body_bytes_max() + 1, &[]).await;
    assert!(too_large.as_ref().is_err_and(|why| why.contains("ended")), "{kind:?}: {too_large:?}");
    let line = connect(rogue, site, 1).await;
    line.cut_short(&frame(kind, ShardId::FIRST, 1, kind.body_bytes_max(), &[7; 100])).await;
    site.net.wait_for("the end of the connection", async || line.has_ended().then_some(())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_is_none_or_comes_at_a_wrong_time_ends_its_connection_and_nothing_else() {
    let rogue = rogue(71);
    let site = site_with(&rogue, 3).await;
    let beside = Beside::of(&site).await;
    for kind in FrameKind::ALL.iter().copied() {
        out_of_order(&rogue, &site, kind).await;
    }
    let line = connect(&rogue, &site, 1).await;
    let unknown = line.exchange(&of_no_kind()).await;
    assert!(unknown.as_ref().is_err_and(|why| why.contains("ended")), "{unknown:?}");
    let line = connect(&rogue, &site, 1).await;
    let rubbish = line.exchange(&[0xff; HEADER_BYTES]).await;
    assert!(rubbish.as_ref().is_err_and(|why| why.contains("ended")), "{rubbish:?}");
    // Pieces of a snapshot without a head are a voter's, or nobody's.
    let line = connect(&rogue, &site, 1).await;
    for kind in [FrameKind::SnapshotInstall, FrameKind::SnapshotChunk, FrameKind::SnapshotHead] {
        let said = line.call(kind, ShardId(9), &line.lie(kind, rogue.node, &robot())).await;
        assert!(said.is_err(), "{kind:?}: {said:?}");
    }
    beside.is_unnoticed(&site, "frames out of order and too large").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_without_end_of_any_kind_take_so_much_of_a_node_and_no_more() {
    let rogue = rogue(72);
    let site = site_with(&rogue, 3).await;
    let victim = site.net.leader().await.unwrap();
    let beside = Beside::of(&site).await;
    for kind in FrameKind::ALL.iter().copied() {
        let line = connect(&rogue, &site, victim).await;
        let held = line.never_ended(kind, ShardId::FIRST, STREAMS).await;
        beside.is_bounded(&site, &format!("{kind:?}, never ended on {} streams", held.count()));
        drop((held, line));

        let line = connect(&rogue, &site, victim).await;
        let body = line.lie(kind, rogue.node, &robot());
        let held = line.never_read(kind, &body, (STREAMS, CALLS)).await;
        beside.is_bounded(&site, &format!("{kind:?}, never read on {} streams", held.count()));
        drop((held, line));

        let line = connect(&rogue, &site, victim).await;
        let answered = line.many(kind, CALLS, &body).await;
        beside.is_bounded(&site, &format!("{kind:?}, {CALLS} at once, {answered} of them answered"));
    }
    beside.works(&site, "after frames without end").await;
}
