//! Commands on real nodes: signed, delivered, started once, reported.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use skep_client::{AgentOptions, AttachedAgent, Client, CommandId, NotStarted, OperatorSecret, Read, Role};
use skep_tests::hall::{Hall, Starts, attach, obey, signed};

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");
const SEED: [u8; 32] = [7; 32];
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Waits until every command has ended; returns the outcome of each.
async fn outcomes(client: &Client, ids: &[CommandId]) -> Vec<String> {
    let mut outcomes = Vec::new();
    for id in ids {
        let ended = async {
            loop {
                if let Ok(reply) = client.command(*id, Read::Linearizable).await {
                    let view = reply.command.unwrap();
                    if view.open == 0 {
                        return view.deliveries[0].outcome.clone();
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        outcomes.push(tokio::time::timeout(Duration::from_secs(120), ended).await.expect("it ends"));
    }
    outcomes
}

const LIFE: [&str; 7] = ["accepted", "released", "received", "taken", "started", "finished", "ended"];

/// What a node tells of a command; checks that every line has the trace.
async fn life(client: &Client, id: &str, trace: &str) -> Vec<String> {
    let mut events = client.watch_commands(Some(id.parse().unwrap()), "", Some(1)).await.unwrap();
    let mut kinds = Vec::new();
    while kinds.last().is_none_or(|kind| kind != "ended") {
        let event = tokio::time::timeout(Duration::from_secs(60), events.message()).await;
        let event = event.expect("it is told").unwrap().unwrap();
        assert_eq!(event.traceparent, trace);
        assert!(event.index > 0 && event.term > 0 && event.at > 0, "{event:?}");
        kinds.push(event.kind);
    }
    kinds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_robot_does_what_it_is_told_and_the_operator_sees_how_it_went() {
    let hall = Hall::up(NODE, 4, 3).await;
    // Node 3 does not vote; the operator speaks to another node.
    let (_agent, offers) = attach(&hall.client(3), "robot-7", &["aisle-5"]).await;
    let starts = Starts::default();
    let robot = tokio::spawn(obey(offers, Arc::clone(&starts), |args| args));
    let goto = ["--to", "robot-7", "--verb", "goto", "--arg", "x:=3", "--arg", "place=dock"];
    let sent = hall.send(1, &[&goto[..], &["--wait", "--traceparent", TRACE]].concat()).json();
    assert_eq!((&sent["open"], &sent["agents"]), (&Value::from(0), &Value::from(1)));
    let delivery = &sent["deliveries"][0];
    assert_eq!((&delivery["outcome"], &delivery["seq"]), (&"succeeded".into(), &"1.1".into()), "{sent}");
    assert_eq!(delivery["result"], r#"{"place":"dock","x":3}"#);
    for step in ["released_ms", "received_ms", "accepted_ms", "started_ms", "finished_ms", "ended_ms"] {
        assert!(delivery[step].is_u64(), "{step} of {sent}");
    }
    assert_eq!(delivery["node"], hall.site.net.nodes[3].id);
    assert_eq!(life(&hall.client(2), sent["command"].as_str().unwrap(), TRACE).await, LIFE);
    // A command goes to a group; a command under any other key is refused.
    let group = hall.send(0, &["--group", "aisle-5", "--verb", "look", "--wait"]).json();
    assert_eq!(group["deliveries"][0]["outcome"], "succeeded");
    let other = hall.key.with_file_name("other.key");
    hall.site.skep(0, &["key", "new", "--key", other.to_str().unwrap()]);
    let args = ["command", "send", "--key", other.to_str().unwrap(), "--to", "robot-7", "--verb", "goto"];
    let refused = hall.site.skep(0, &args);
    assert_eq!(refused.code(), Some(5), "{}", refused.error());
    let unknown = hall.send(0, &["--to", "robot-8", "--verb", "goto"]);
    assert_eq!(unknown.code(), Some(3), "{}", unknown.error());
    let nobody = hall.send(0, &["--group", "roof", "--verb", "goto"]);
    assert_eq!(nobody.code(), Some(3), "{}", nobody.error());
    let never = hall.send(0, &["--to", "robot-7", "--verb", "goto", "--valid-for", "0s"]);
    assert_eq!(never.code(), Some(2), "{}", never.error());
    let all = hall.send(0, &["--all", "--verb", "goto"]);
    assert_eq!(all.code(), Some(2), "all of them wants a word more: {}", all.error());
    let id = sent["command"].as_str().unwrap();
    let shown = hall.site.skep(2, &["command", "show", id]);
    assert!(shown.text().contains("succeeded") && shown.text().contains("goto"), "{}", shown.text());
    let listed = hall.site.skep(2, &["command", "list", "-o", "json"]).json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert!(starts.lock().unwrap().values().all(|count| *count == 1));
    robot.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_for_a_robot_that_is_away_waits_or_expires_and_one_that_is_called_off_is_not_started() {
    let hall = Hall::up(NODE, 4, 3).await;
    let client = hall.client(3);
    let (agent, offers) = attach(&client, "r1", &[]).await;
    drop(offers);
    agent.detach().await;
    // The robot is known and not attached.
    let late = hall.send(0, &["--to", "r1", "--verb", "goto", "--valid-for", "1s", "--wait"]);
    assert_eq!(late.code(), Some(1), "{}", late.error());
    let late: Value = serde_json::from_str(&late.text()).unwrap();
    assert_eq!(late["deliveries"][0]["outcome"], "expired");
    let waits = hall.send(0, &["--to", "r1", "--verb", "goto", "--valid-for", "10min"]).json();
    let off = hall.send(0, &["--to", "r1", "--verb", "goto", "--valid-for", "10min"]).json();
    let (waits, off) = (waits["command"].as_str().unwrap(), off["command"].as_str().unwrap());
    let key = hall.key.to_str().unwrap();
    hall.site.skep(1, &["command", "cancel", off, "--key", key, "-o", "json"]).json();
    let (_agent, mut offers) = attach(&client, "r1", &[]).await;
    let offer = tokio::time::timeout(Duration::from_secs(60), offers.next()).await.unwrap().unwrap();
    assert_eq!(uuid::Uuid::from_slice(&offer.command.id).unwrap().to_string(), waits);
    // A robot does not start a command that is cancelled while it is offered.
    hall.site.skep(1, &["command", "cancel", waits, "--key", key, "-o", "json"]).json();
    let id: CommandId = waits.parse().unwrap();
    assert_eq!(outcomes(&client, &[id]).await, ["cancelled"]);
    assert_eq!(offer.start().await.err(), Some(NotStarted::Void("cancelled".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_is_started_once_whoever_is_killed_meanwhile() {
    let mut hall = Hall::up(NODE, 4, 3).await;
    let operator = OperatorSecret::from_seed(&SEED).key().to_string();
    let key = hall.key.to_str().unwrap();
    hall.site.skep(0, &["operator", "add", &operator, "--name", "test", "--key", key, "-o", "json"]).json();
    let (_agent, offers) = attach(&hall.client(3), "r1", &[]).await;
    let starts = Starts::default();
    let robot = tokio::spawn(obey(offers, Arc::clone(&starts), |args| args));
    let client = hall.client(1);
    let mut ids = Vec::new();
    for n in 0..60 {
        match n {
            // The first voter dies, which usually leads, and then the robot's own node.
            10 => hall.site.net.kill(0),
            20 => hall.site.net.start(0).unwrap(),
            30 => hall.site.net.kill(3),
            40 => hall.site.net.start(3).unwrap(),
            _ => {}
        }
        let command = signed(&client, &OperatorSecret::from_seed(&SEED), "r1", 120_000, Vec::new()).await;
        // The outcome is unknown, or the request failed for a moment: the operator sends the same command again.
        let sent = async { while client.send_command(&command).await.is_err() {} };
        tokio::time::timeout(Duration::from_secs(120), sent).await.expect("it is accepted in the end");
        ids.push(command.id);
    }
    let ended = outcomes(&client, &ids).await;
    let starts = starts.lock().unwrap();
    assert!(starts.values().all(|count| *count == 1), "{starts:?}");
    // The software outlived its node, so that it could say how each command ended.
    for (id, outcome) in ids.iter().zip(&ended) {
        assert_eq!(outcome, "succeeded", "{id}");
        assert_eq!(starts.get(id.as_bytes().as_slice()), Some(&1));
    }
    robot.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_failed_for_good_is_a_dead_letter_until_it_is_redriven_or_discarded() {
    let hall = Hall::up(NODE, 3, 3).await;
    let client = hall.client(2);
    let key = hall.key.to_str().unwrap();
    let (agent, offers) = attach(&client, "r1", &[]).await;
    drop(offers);
    agent.detach().await;
    let goto = ["--to", "r1", "--verb", "goto", "--arg", "x=3", "--valid-for", "5s", "--wait"];
    let sent = hall.send(0, &goto);
    assert!(sent.text().contains("expired"), "no robot is there: {} {}", sent.text(), sent.error());
    let made = hall.site.skep(0, &["task", "create", "fetch", "-o", "json"]).json();
    let task = made["task"].as_str().unwrap().to_owned();
    hall.site.skep(0, &["task", "claim", &task]);
    hall.site.skep(0, &["task", "fail", &task, "--reason", "broken", "--permanent"]);
    let letters = |expected: usize| {
        let listed = hall.site.skep(1, &["deadletter", "list", "-o", "json"]).json();
        assert_eq!(listed.as_array().unwrap().len(), expected, "{listed:#}");
        listed
    };
    let listed = letters(2);
    assert_eq!((&listed[0]["kind"], &listed[0]["why"]), (&"task".into(), &"broken".into()));
    assert_eq!((&listed[1]["kind"], &listed[1]["target"]), (&"command".into(), &"r1".into()));
    let command = listed[1]["id"].as_str().unwrap();
    let shown = hall.site.skep(1, &["deadletter", "show", command]);
    assert!(shown.text().contains("expired"), "{}", shown.text());
    // The robot is attached from here on, and the command that is sent anew names the dead letter that it came from.
    let (_agent, offers) = attach(&client, "r1", &[]).await;
    let robot = tokio::spawn(obey(offers, Starts::default(), |args| args));
    let redriven = hall.site.skep(1, &["deadletter", "redrive", command, "--key", key, "--valid-for", "1min"]);
    assert_eq!(redriven.code(), Some(0), "{}", redriven.error());
    letters(1);
    let again = hall.site.skep(1, &["deadletter", "redrive", command, "--key", key]);
    assert_eq!(again.code(), Some(1), "once: {}", again.text());
    let ids: Vec<CommandId> = client
        .commands(&[], 10, Read::Linearizable)
        .await
        .unwrap()
        .commands
        .iter()
        .filter(|view| view.command.as_ref().is_some_and(|of| !of.parent.is_empty()))
        .map(|view| uuid::Uuid::from_slice(&view.command.as_ref().unwrap().id).unwrap().to_string().parse().unwrap())
        .collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(outcomes(&client, &ids).await, ["succeeded"]);
    hall.site.skep(1, &["deadletter", "discard", &task]);
    letters(0);
    let gone = hall.site.skep(1, &["deadletter", "redrive", "0198f0c2-1111-7000-8000-000000000001", "--key", key]);
    assert_eq!(gone.code(), Some(3), "{}", gone.error());
    assert!(gone.error().contains("the shard does not hold it any more"), "{}", gone.error());
    let again = hall.site.skep(1, &["deadletter", "discard", &task]);
    assert_eq!(again.code(), Some(1), "{}", again.error());
    robot.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_sent_again_is_started_once_and_one_that_comes_too_late_is_unknown() {
    let hall = Hall::up(NODE, 1, 1).await;
    let (_agent, offers) = attach(&hall.client(0), "r1", &[]).await;
    let starts = Starts::default();
    let robot = tokio::spawn(obey(offers, Arc::clone(&starts), |args| args));
    let made = hall.site.skep(0, &["command", "id", "--valid-for", "1h", "-o", "json"]).json();
    let name = made["id"].as_str().unwrap().to_owned();
    let send = |more: &[&str]| hall.send(0, &[&["--to", "r1", "--verb", "goto", "--wait"][..], more].concat());
    // The command's id says until when it is valid, whatever validity the same line asks for.
    for more in [&[][..], &["--valid-for", "5min"], &["--traceparent", TRACE]] {
        let sent = send(&[&["--id", &name][..], more].concat());
        assert_eq!((sent.code(), &sent.json()["deliveries"][0]["outcome"]), (Some(0), &"succeeded".into()), "{more:?}");
    }
    assert_eq!(starts.lock().unwrap().values().copied().collect::<Vec<_>>(), [1]);
    let other = send(&["--id", &name, "--arg", "x:=1"]);
    assert_eq!(other.code(), Some(1), "it is another command: {}", other.error());
    // An id alone has no bound in time: once the shard has forgotten it, it would be the id of a new command.
    let (id, _) = name.split_once('@').unwrap();
    let unbounded = send(&["--id", id]);
    assert_eq!(unbounded.code(), Some(2), "{}", unbounded.error());
    assert!(unbounded.error().contains("UUID@DEADLINE"), "{}", unbounded.error());
    let clock = hall.site.skep(0, &["shard", "status", "-o", "json"]).json()["clock"].as_u64().unwrap();
    let late = send(&["--id", &format!("0198f0c2-1111-7000-8000-000000000001@{clock}")]);
    assert_eq!(late.code(), Some(6), "it may have been done, and forgotten: {}", late.error());
    let told: Value = serde_json::from_str(&late.error()).unwrap();
    assert_eq!((&told["error"]["retryable"], &told["error"]["again"]), (&false.into(), &Value::Null), "{told}");
    assert!(told["error"]["message"].as_str().unwrap().contains("command watch 0198f0c2"), "{told}");
    assert_eq!(starts.lock().unwrap().len(), 1);
    robot.abort();
}

/// How far a command has come when a node is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Sending,
    Offered,
    AsksToStart,
    Goes,
    SaysHowItEnded,
    Recorded,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_whichever_step_a_node_is_killed_a_command_is_started_once_and_its_outcome_known() {
    let mut hall = Hall::up(NODE, 4, 3).await;
    let operator = OperatorSecret::from_seed(&SEED).key().to_string();
    let key = hall.key.to_str().unwrap();
    hall.site.skep(0, &["operator", "add", &operator, "--name", "test", "--key", key, "-o", "json"]).json();
    let (_agent, mut offers) = attach(&hall.client(3), "r1", &[]).await;
    let client = hall.client(1);
    let steps = [Step::Sending, Step::Offered, Step::AsksToStart, Step::Goes, Step::SaysHowItEnded, Step::Recorded];
    for step in steps {
        for of_robot in [false, true] {
            let victim = if of_robot { 3 } else { hall.site.net.leader().await.unwrap() };
            let mut strike = |now: Step| {
                if now == step {
                    hall.site.net.kill(victim);
                    hall.site.net.start(victim).unwrap();
                }
            };
            let command = signed(&client, &OperatorSecret::from_seed(&SEED), "r1", 120_000, Vec::new()).await;
            let (id, sender) = (command.id, client.clone());
            let sending = tokio::spawn(async move { while sender.send_command(&command).await.is_err() {} });
            tokio::task::yield_now().await;
            strike(Step::Sending);
            within(sending, "it is accepted").await.unwrap();
            let offer = within(offers.next(), "it is offered").await.unwrap();
            assert_eq!(offer.command.id, id.as_bytes());
            strike(Step::Offered);
            let starting = tokio::spawn(offer.start());
            tokio::task::yield_now().await;
            strike(Step::AsksToStart);
            let running = within(starting, "it may start").await.unwrap();
            let running = running.unwrap_or_else(|why| panic!("{step:?}, the robot's node {of_robot}: {why}"));
            strike(Step::Goes);
            let ending = tokio::spawn(running.succeed(b"there".to_vec()));
            tokio::task::yield_now().await;
            strike(Step::SaysHowItEnded);
            within(ending, "its outcome is written down").await.unwrap().unwrap();
            strike(Step::Recorded);
            let ended = outcomes(&client, &[id]).await;
            assert_eq!(ended, ["succeeded"], "{step:?}, the robot's node: {of_robot}");
        }
    }
    // No command was offered a second time: the next offer is of the next command.
    let next = signed(&client, &OperatorSecret::from_seed(&SEED), "r1", 120_000, Vec::new()).await;
    within(async { while client.send_command(&next).await.is_err() {} }, "it is accepted").await;
    let offer = within(offers.next(), "it is offered").await.unwrap();
    assert_eq!(offer.command.id, next.id.as_bytes());
}

/// Waits for something that comes, however long this machine takes.
async fn within<T>(what: impl Future<Output = T>, expected: &str) -> T {
    tokio::time::timeout(Duration::from_secs(120), what).await.expect(expected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn software_that_died_while_it_did_something_leaves_it_in_doubt_until_an_operator_says() {
    let hall = Hall::up(NODE, 3, 3).await;
    let client = hall.client(2);
    let (agent, mut offers) = attach(&client, "r1", &[]).await;
    let sent = hall.send(0, &["--to", "r1", "--verb", "goto", "--valid-for", "2min"]).json();
    let offer = tokio::time::timeout(Duration::from_secs(60), offers.next()).await.unwrap().unwrap();
    let running = offer.start().await.unwrap();
    running.check().unwrap();
    running.progress(400, "at the gate");
    let id: CommandId = sent["command"].as_str().unwrap().parse().unwrap();
    let mut events = client.watch_commands(Some(id), "r1", Some(1)).await.unwrap();
    let mut told = Vec::new();
    while told.last().is_none_or(|kind| kind != "progressed") {
        let event = within(events.message(), "it is told how far it has come").await.unwrap().unwrap();
        assert!(event.kind != "progressed" || (event.permille, event.detail.as_str()) == (400, "at the gate"));
        told.push(event.kind);
    }
    assert_eq!(told, ["accepted", "released", "received", "taken", "started", "progressed"]);
    let shown = hall.site.skep(1, &["command", "show", &id.to_string(), "-o", "json"]).json();
    let open = &shown["deliveries"][0];
    assert_eq!(
        (&open["outcome"], &open["percent"], &open["note"]),
        (&"open".into(), &40.0.into(), &"at the gate".into())
    );
    assert!(open["started_ms"].is_u64(), "{open}");
    // The software is gone without a word.
    drop(agent);
    std::mem::forget(running);
    drop(offers);
    let role = Role { name: "robot".into(), max_concurrent: Some(1), ..Role::default() };
    let mut again = AttachedAgent::attach(&client, AgentOptions::new("r1", role), None).await.unwrap();
    let _offers = again.take_commands(&[]).unwrap();
    assert_eq!(outcomes(&client, &[id]).await, ["indeterminate"]);
    let (id, key) = (id.to_string(), hall.key.to_str().unwrap());
    let resolve = ["command", "resolve", &id, "--agent", "r1", "--done", "--reason", "seen it", "--key", key];
    assert_eq!(hall.site.skep(1, &resolve).code(), Some(0));
    let shown = hall.site.skep(1, &["command", "show", &id, "-o", "json"]).json();
    assert_eq!(shown["deliveries"][0]["outcome"], "succeeded");
    let again = hall.site.skep(1, &resolve);
    assert_eq!(again.code(), Some(1), "once: {}", again.error());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_under_way_when_a_robots_node_died_and_its_software_forgot_it_ends_and_keeps_its_class_from_nothing() {
    let mut hall = Hall::up(NODE, 4, 3).await;
    let client = hall.client(3);
    let (agent, mut offers) = attach(&client, "r1", &[]).await;
    let sent = hall.send(0, &["--to", "r1", "--verb", "goto", "--valid-for", "2min", "--urgent"]).json();
    let begun: CommandId = sent["command"].as_str().unwrap().parse().unwrap();
    let offer = within(offers.next(), "it is offered").await.unwrap();
    let running = within(offer.start(), "it may start").await.unwrap();
    hall.site.net.kill(3);
    // The software goes with the node, without a word.
    drop(agent);
    std::mem::forget(running);
    drop(offers);
    hall.site.net.start(3).unwrap();
    let (_agent, offers) = attach(&client, "r1", &[]).await;
    let starts = Starts::default();
    let robot = tokio::spawn(obey(offers, Arc::clone(&starts), |args| args));
    assert_eq!(outcomes(&client, &[begun]).await, ["indeterminate"], "no operator had to say so");
    let stop = hall.send(1, &["--to", "r1", "--verb", "stop", "--valid-for", "2min", "--urgent"]).json();
    let stop: CommandId = stop["command"].as_str().unwrap().parse().unwrap();
    assert_eq!(outcomes(&client, &[stop]).await, ["succeeded"]);
    let starts = starts.lock().unwrap().clone();
    let once = BTreeMap::from([(stop.as_bytes().to_vec(), 1)]);
    assert_eq!(starts, once, "what was begun is not begun again");
    robot.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_takes_longer_than_anybody_would_wait_without_a_word_is_done() {
    let hall = Hall::up(NODE, 4, 3).await;
    let (_agent, mut offers) = attach(&hall.client(3), "r1", &[]).await;
    let robot = tokio::spawn(async move {
        let running = within(offers.next(), "it is offered").await.unwrap().start().await.unwrap();
        // The robot's work takes longer than the shard waits without a word: only reports of progress keep the command
        // from being in doubt.
        tokio::time::sleep(Duration::from_millis(2_000 + skep_protocol::limits::DOUBT_AFTER_MS + 6_000)).await;
        running.succeed(b"there".to_vec()).await
    });
    let send = ["--to", "r1", "--verb", "goto", "--valid-for", "2s", "--wait"];
    let sent = tokio::task::block_in_place(|| hall.send(0, &send));
    assert_eq!(sent.code(), Some(0), "{}", sent.error());
    assert_eq!(sent.json()["deliveries"][0]["outcome"], "succeeded");
    robot.await.unwrap().unwrap();
}
