//! Agents on real nodes: attached, given work, fenced, and replaced.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use skep_client::{AgentOptions, AgentStatus, Assignment, AttachedAgent, Code, Fenced, Role, TaskSpec};
use skep_tests::Site;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");
/// Short leases, so that a test does not wait long for their ends.
const QUICK: [&str; 2] = ["agents.lease_ttl_ms=1500", "agents.heartbeat_ms=200"];

fn spec(title: &str) -> TaskSpec {
    TaskSpec { title: title.to_owned(), ..TaskSpec::default() }
}

async fn attach(site: &Site, node: usize, name: &str) -> AttachedAgent {
    let role = Role { name: "robot".into(), max_concurrent: Some(1), ..Role::default() };
    AttachedAgent::attach(&site.net.nodes[node].client(), AgentOptions::new(name, role), None).await.unwrap()
}

async fn next(agent: &mut AttachedAgent) -> Assignment {
    tokio::time::timeout(Duration::from_secs(60), agent.next_task()).await.expect("a task comes").expect("it goes on")
}

/// Waits until a renewal makes the lease of a holder last longer.
async fn until_renewed(work: &Assignment) {
    let before = work.check().unwrap().until_ms;
    let renewed = async {
        while work.check().unwrap().until_ms <= before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), renewed).await.expect("the leader renews it");
}

#[tokio::test]
async fn an_agent_that_asks_is_given_work_and_finishes_it_wherever_it_is_attached() {
    let site = Site::up(NODE, 4, 3, &QUICK).await;
    // Node 3 does not vote: it is a client of the shard.
    for node in [0, 1, 3] {
        let mut agent = attach(&site, node, &format!("r{node}")).await;
        let created = site.net.nodes[2].client().create_task(spec("one")).await.unwrap();
        let work = next(&mut agent).await;
        assert_eq!(work.task.id, created.task_id);
        assert!(work.check().is_ok());
        work.progress(500, "half", Some(vec![1])).await.unwrap();
        work.complete(Vec::new()).await.unwrap();
        let why = tokio::time::timeout(Duration::from_secs(60), work.fenced()).await.unwrap();
        assert_eq!(why, Fenced::ClaimLost, "a finished task is not held");
        agent.detach().await;
    }
}

#[tokio::test]
async fn the_work_of_a_node_that_dies_goes_to_another_agent_and_its_holder_is_fenced_before() {
    let mut site = Site::up(NODE, 4, 3, &QUICK).await;
    let mut doomed = attach(&site, 3, "doomed").await;
    site.net.nodes[0].client().create_task(spec("one")).await.unwrap();
    let lost = next(&mut doomed).await;
    lost.progress(250, "", Some(b"stop 1".to_vec())).await.unwrap();
    let mut spare = attach(&site, 0, "spare").await;
    site.net.kill(3);
    let taken = next(&mut spare).await;
    assert!(matches!(lost.check(), Err(Fenced::LeaseEnded { .. })), "{:?}", lost.check());
    assert_eq!(taken.task.id, lost.task.id);
    assert!(taken.epoch() > lost.epoch());
    assert_eq!(taken.task.checkpoint, b"stop 1");
    taken.complete(Vec::new()).await.unwrap();
    // The holder's node is back: the former holder is attached again, and knows that it has nothing.
    site.net.start(3).unwrap();
    let mut status = doomed.status();
    let again = status.wait_for(|status| matches!(status, AgentStatus::Attached { .. }));
    tokio::time::timeout(Duration::from_secs(60), again).await.unwrap().unwrap();
    let why = tokio::time::timeout(Duration::from_secs(60), lost.regained()).await.expect("it is told");
    assert_eq!(why, Err(Fenced::ClaimLost));
    site.net.nodes[1].client().create_task(spec("two")).await.unwrap();
    drop(spare);
    next(&mut doomed).await.complete(Vec::new()).await.unwrap();
}

#[tokio::test]
async fn an_agent_whose_node_restarts_in_time_keeps_its_task_under_the_same_epoch() {
    let mut site = Site::up(NODE, 4, 3, &["agents.lease_ttl_ms=30000"]).await;
    let mut agent = attach(&site, 3, "r1").await;
    site.net.nodes[0].client().create_task(spec("one")).await.unwrap();
    let work = next(&mut agent).await;
    site.net.kill(3);
    site.net.start(3).unwrap();
    work.complete(b"done".to_vec()).await.unwrap();
    let task = site.net.nodes[0].client().task(&work.task.id, Default::default()).await.unwrap().task.unwrap();
    assert_eq!((task.epoch, task.attempts, task.result.as_slice()), (work.epoch(), 1, b"done".as_slice()));
}

#[tokio::test]
async fn an_agent_is_refused_elsewhere_while_its_lease_lives_and_admitted_after() {
    let site = Site::up(NODE, 3, 3, &QUICK).await;
    let first = attach(&site, 0, "r1").await;
    let role = Role { name: "robot".into(), max_concurrent: Some(1), ..Role::default() };
    let hasty = AgentOptions { patience: Duration::ZERO, ..AgentOptions::new("r1", role) };
    let refused = AttachedAgent::attach(&site.net.nodes[1].client(), hasty, None).await.err().unwrap();
    assert_eq!(refused.code(), Some(Code::AgentElsewhere), "{refused}");
    // The agent's software ends without a word.
    drop(first);
    attach(&site, 1, "r1").await;
}

#[tokio::test]
async fn of_two_who_name_a_task_one_has_it_and_the_other_is_told_who() {
    let site = Site::up(NODE, 3, 3, &QUICK).await;
    let (one, two) = (attach(&site, 0, "r1").await, attach(&site, 1, "r2").await);
    let task = site.net.nodes[2].client().create_task(spec("one")).await.unwrap().task_id;
    let (first, second) = tokio::join!(one.claim(&task), two.claim(&task));
    let (won, lost) = match (first, second) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        _ => panic!("exactly one wins"),
    };
    assert_eq!(lost.code(), Some(Code::LostRace), "{lost}");
    assert!(lost.to_string().contains(&won.claim().agent), "{lost}");
    won.complete(Vec::new()).await.unwrap();
}

#[tokio::test]
async fn a_leader_that_dies_takes_no_lease_with_it() {
    let mut site = Site::up(NODE, 4, 3, &["agents.lease_ttl_ms=20000"]).await;
    let mut agent = attach(&site, 3, "r1").await;
    site.net.nodes[0].client().create_task(spec("one")).await.unwrap();
    let work = next(&mut agent).await;
    let leader = site.net.leader().await.unwrap();
    site.net.kill(leader);
    site.net.leader().await.unwrap();
    until_renewed(&work).await;
    let receipt = work.complete(Vec::new()).await.unwrap();
    assert_eq!(receipt.attempts, 1);
}

#[tokio::test]
async fn voters_that_all_restart_at_once_take_no_task_from_a_holder_whose_lease_runs() {
    let mut site = Site::up(NODE, 4, 3, &["agents.lease_ttl_ms=60000"]).await;
    let mut holders = Vec::new();
    // One agent is at a node that goes on, and one at a voter, whose own node restarts with the others.
    for node in [3, 0] {
        let mut agent = attach(&site, node, &format!("r{node}")).await;
        site.net.nodes[1].client().create_task(spec("one")).await.unwrap();
        let work = next(&mut agent).await;
        holders.push((agent, work));
    }
    site.until_clocks_are_left(&[0, 1, 2]).await;
    (0..3).for_each(|at| site.net.kill(at));
    (0..3).for_each(|at| site.net.start(at).unwrap());
    site.net.leader().await.unwrap();
    for (_agent, work) in &holders {
        until_renewed(work).await;
        work.complete(b"done".to_vec()).await.unwrap();
        let task = site.net.nodes[1].client().task(&work.task.id, Default::default()).await.unwrap().task.unwrap();
        assert_eq!((task.epoch, task.attempts, task.result.as_slice()), (work.epoch(), 1, b"done".as_slice()));
    }
}
