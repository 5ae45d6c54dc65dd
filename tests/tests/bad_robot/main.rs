//! A robot whose key was stolen, in a working site: the nodes list it, it does not vote, and it does what it likes. The
//! site does not notice.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod beside;
mod deeds;
mod doors;
mod frames;
mod mesh;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use beside::Beside;
use skep_client::TaskSpec;
use skep_protocol::codec::Encoded as _;
use skep_protocol::frame::FrameKind;
use skep_protocol::ids::{NodeId, ShardId};
use skep_protocol::leader::{LeaderHint, Voters};
use skep_protocol::limits;
use skep_protocol::query::Query;
use skep_tests::Site;
use skep_tests::rogue::{Line, OF_VOTERS, Rogue, frame};

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");
/// How much more memory a node may use for the robot than what the robot may make the node hold, in bytes.
const SLACK: u64 = 24 * 1024 * 1024;

/// An address of this machine. Nodes that count by address take each last number for a host of its own.
fn here(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

fn rogue(seed: u64) -> Rogue {
    Rogue::new(seed, here(1)).unwrap()
}

/// A site of this many nodes, of which the first three vote, and all of which list the robot.
async fn site_with(rogue: &Rogue, nodes: usize) -> Site {
    let mut site = Site::create(NODE, nodes, 3, &[]);
    site.net.list(&rogue.node.to_string()).unwrap();
    site.net.up().await.unwrap();
    site
}

/// The id of a node, and the address of its control plane.
fn find(site: &Site, at: usize) -> (NodeId, SocketAddr) {
    let address = site.net.addresses().swap_remove(at);
    (address.node.parse().unwrap(), address.control.parse().unwrap())
}

async fn connect(rogue: &Rogue, site: &Site, at: usize) -> Line {
    let (node, address) = find(site, at);
    rogue.connect(node, address).await.unwrap()
}

async fn create(site: &Site, at: usize, title: &str) {
    let spec = TaskSpec { title: title.into(), ..TaskSpec::default() };
    site.net.nodes[at].client().create_task(spec).await.unwrap();
}

#[tokio::test]
async fn it_says_to_every_voter_that_it_leads_and_the_shard_goes_on_as_it_was() {
    let rogue = rogue(66);
    let mut site = site_with(&rogue, 3).await;
    create(&site, 0, "before").await;
    let leader = site.net.leader().await.unwrap();
    let term = site.net.nodes[leader].client().shard_status().await.unwrap().term;
    for at in 0..3 {
        let line = connect(&rogue, &site, at).await;
        for term in [u64::MAX, term + 1] {
            for kind in OF_VOTERS {
                let said = line.call(kind, ShardId::FIRST, &line.raft(kind, term)).await;
                assert!(said.as_ref().is_err_and(|why| why.contains("no voter")), "{kind:?} {term}: {said:?}");
            }
        }
    }
    create(&site, 1, "meanwhile").await;
    let status = site.net.nodes[leader].client().shard_status().await.unwrap();
    assert_eq!((site.net.leader().await.unwrap(), status.term), (leader, term), "no election was held");
    // The nodes did not write anything of it down, either.
    (0..3).for_each(|at| site.net.kill(at));
    (0..3).for_each(|at| site.net.start(at).unwrap());
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
    create(&site, 2, "after").await;
}

/// The robot has the key of a voter: nodes have it marked as one, and no quorum has elected it.
#[tokio::test]
async fn a_stolen_voter_that_won_no_election_appends_in_its_own_term_and_nobody_follows_it() {
    let thief = rogue(65);
    let mut site = Site::create(NODE, 3, 3, &[]);
    site.net.list_voter(&thief.node.to_string()).unwrap();
    site.net.up().await.unwrap();
    create(&site, 0, "before").await;
    let leader = site.net.leader().await.unwrap();
    let term = site.net.nodes[leader].client().shard_status().await.unwrap().term;
    for at in 0..3 {
        let line = connect(&thief, &site, at).await;
        let appended =
            async || line.call(FrameKind::Append, ShardId::FIRST, &line.raft(FrameKind::Append, term + 1)).await;
        let said = appended().await;
        assert!(said.as_ref().is_err_and(|why| why.contains("has not shown")), "{said:?}");
        let shown = thief.proof(&line, term + 1).unwrap();
        let said = line.call(FrameKind::Proof, ShardId::FIRST, &shown).await;
        assert!(said.as_ref().is_err_and(|why| why.contains("does not know")), "{said:?}");
        let said = appended().await;
        assert!(said.as_ref().is_err_and(|why| why.contains("has not shown")), "{said:?}");
        // A voter that grants a vote as it is asked for would follow the robot, too.
        for kind in [FrameKind::Vote, FrameKind::PreVote] {
            let said = line.call(kind, ShardId::FIRST, &line.raft(kind, term + 1)).await;
            assert!(said.as_ref().is_err_and(|why| why.contains("elected already")), "{kind:?}: {said:?}");
        }
    }
    create(&site, 1, "meanwhile").await;
    let status = site.net.nodes[leader].client().shard_status().await.unwrap();
    assert_eq!((site.net.leader().await.unwrap(), status.term), (leader, term), "a voter followed it");
    // The voters that restart elect one of them, which shows its proof.
    (0..3).for_each(|at| site.net.kill(at));
    (0..3).for_each(|at| site.net.start(at).unwrap());
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
    create(&site, 2, "after").await;
}

#[tokio::test]
async fn it_answers_as_the_leader_would_and_no_node_without_one_asks_it() {
    let rogue = rogue(67);
    let mut site = site_with(&rogue, 4).await;
    create(&site, 3, "before").await;
    let line = connect(&rogue, &site, 3).await;
    (0..3).for_each(|at| site.net.kill(at));
    let voters = Voters::of([rogue.node]);
    let hint = LeaderHint { leader: Some(rogue.node), term: 1 << 30, voters }.encode().unwrap();
    let said = line.call(FrameKind::Leads, ShardId::FIRST, &hint).await;
    assert!(said.is_err(), "{said:?}");
    let created = site.skep(3, &["task", "create", "a lie"]);
    assert_ne!(created.code(), Some(0), "{}", created.text());
    assert!(!line.has_ended(), "it would have been asked on it");
    let heard = line.heard();
    let asks = |kind: &FrameKind| !matches!(kind, FrameKind::Leads | FrameKind::Twin | FrameKind::Lineages);
    assert!(!heard.iter().any(asks), "it was asked: {heard:?}");
    // The robot does not keep the node from finding the leader.
    (0..3).for_each(|at| site.net.start(at).unwrap());
    site.net.leader().await.unwrap();
    create(&site, 3, "after").await;
}

#[tokio::test]
async fn it_sends_more_than_anybody_needs_and_reads_nothing_and_the_memory_of_its_victim_has_a_bound() {
    let rogue = rogue(68);
    let site = site_with(&rogue, 3).await;
    let victim = site.net.leader().await.unwrap();
    for n in 0..20 {
        create(&site, victim, &format!("task {n}")).await;
    }
    let beside = Beside::of(&site).await;
    // The robot opens as many streams as it gets, and sends on each a frame that is almost complete.
    let line = connect(&rogue, &site, victim).await;
    let body = vec![7; FrameKind::Append.body_bytes_max() - 1];
    let mut streams = Vec::new();
    while let Some((mut send, receive)) = line.stream().await {
        send.write_all(&frame(FrameKind::Append, ShardId(9), 1, body.len() + 1, &body)).await.unwrap();
        streams.push((send, receive));
        assert!(streams.len() <= limits::STREAMS_PER_PEER_MAX as usize, "it gets more and more");
    }
    let held = beside.more(&site, victim, &format!("{} streams with frames for others", streams.len()));
    assert!(held < SLACK, "{held} bytes for frames that are not taken from it");
    create(&site, victim, "beside it").await;

    // A frame above the limit ends the connection.
    let line = connect(&rogue, &site, victim).await;
    let too_large = line.announce(FrameKind::Vote, ShardId::FIRST, 1 << 20, &[]).await;
    assert!(too_large.is_err_and(|why| why.contains("ended")), "it is waited for");

    // The robot asks questions and reads no answer.
    let line = connect(&rogue, &site, victim).await;
    let query = Query::Changes { from: 0, skip: 0 }.encode().unwrap();
    let mut streams = Vec::new();
    while let Some((mut send, receive)) = line.stream().await {
        let asked = async {
            for call in 0..2_000 {
                let frame = frame(FrameKind::Query, ShardId::FIRST, call, query.len(), &query);
                if send.write_all(&frame).await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), asked).await;
        streams.push((send, receive));
    }
    let held = beside.more(&site, victim, &format!("{} streams whose answers are never read", streams.len()));
    assert!(held < limits::LARGE_ANSWER_BYTES_PER_PEER_MAX as u64 + 2 * SLACK, "{held} bytes");
    create(&site, (victim + 1) % 3, "beside it").await;
    assert_eq!(site.net.leader().await.unwrap(), victim, "no election was needed");
}
