//! What public bug reports describe, tried on real processes. Each test names its source.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use skep_client::command::Target;
use skep_client::{
    Allowed, ClientError, Endpoint, Genesis, OperatorGrant, OperatorSecret, Read, RequestName, TaskSpec,
};
use skep_tests::hall::{Hall, attach};
use skep_tests::running::Running;
use skep_tests::{Ran, Site};

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");
/// The exit code of a program whose reader has gone away.
const READER_GONE: i32 = 128 + 13;

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn init(dir: &Path, args: &[&str]) -> Ran {
    Ran::of(Command::new(NODE).arg("init").args(args).arg("--dir").arg(dir).env_clear())
}

/// sharkdp/fd#737
#[tokio::test]
async fn what_goes_on_ends_when_nobody_reads_it_any_more() {
    let site = Site::up(NODE, 1, 1, &[]).await;
    let created = site.skep(0, &["task", "create", "one", "-o", "json"]).json();
    let mut watch = Running::start(site.command(0, &["task", "watch", "--from", "1"]));
    assert!(watch.line().contains(created["task"].as_str().unwrap()));
    // Nothing more happens: the watch notices all the same.
    watch.stop_reading();
    assert_eq!(watch.ended().code(), Some(READER_GONE));
    let mut tail = Running::start(site.command(0, &["topic", "tail", "robots/pose"]));
    tail.stop_reading();
    assert_eq!(tail.ended().code(), Some(READER_GONE));
}

/// sharkdp/fd#737
#[test]
fn output_that_cannot_be_written_is_an_error_of_every_command() {
    let site = Site::create(NODE, 1, 1, &[]);
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    for args in [&["config", "show"][..], &["config", "show", "-o", "jsonl"], &["--help"], &["--version"]] {
        let mut command = Command::new(NODE);
        command.args(args).env("SKEP_DIR", &site.net.nodes[0].dir).stdout(full());
        let ran = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(ran.status.code(), Some(1), "{args:?}");
        let told = String::from_utf8(ran.stderr).unwrap();
        assert!(told.contains("standard output: "), "{args:?}: {told}");
        assert_eq!(told.lines().count(), 1, "in a file it is one line: {told}");
        // With no output to write to, the program reports the failure by its exit code, and not by a panic.
        let mut command = Command::new(NODE);
        command.args(args).env("SKEP_DIR", &site.net.nodes[0].dir).stdout(full()).stderr(full());
        assert_eq!(command.status().unwrap().code(), Some(1), "{args:?}");
    }
}

/// nats-io/nats.net.v1#804
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_survives_its_node_from_the_first_moment_on() {
    let mut site = Site::up(NODE, 3, 3, &[]).await;
    let create = |site: &Site, title: &str| {
        let created = site.skep(0, &["task", "create", title, "-o", "json"]).json();
        created["task"].as_str().unwrap().to_owned()
    };
    site.net.kill(2);
    let mut watch = Running::start(site.command(2, &["task", "watch", "-o", "jsonl"]));
    watch.until_told("no answer for now");
    site.net.start(2).unwrap();
    watch.until_told("following from entry");
    let mut created = vec![create(&site, "while it watches")];
    let told = |watch: &mut Running| {
        let event: Value = serde_json::from_str(&watch.line()).unwrap();
        assert_eq!(event["kind"], "created", "{event}");
        event["task"].as_str().unwrap().to_owned()
    };
    let mut seen = vec![told(&mut watch)];
    site.net.kill(2);
    watch.until_told("no answer for now");
    created.extend(["one", "two"].map(|title| create(&site, title)));
    site.net.start(2).unwrap();
    watch.until_told("following from entry");
    created.push(create(&site, "after all"));
    seen.extend((0..3).map(|_| told(&mut watch)));
    assert_eq!(seen, created, "each once, in order");
    // An error that waiting cannot help ends the watch, with a message.
    let refused = site.skep(0, &["task", "watch", "--feed", "rubbish"]);
    assert_eq!(refused.code(), Some(2), "{}", refused.error());
    let nowhere = site.net.nodes[0].dir.join("nowhere");
    let nobody = Ran::of(Command::new(NODE).args(["task", "watch", "--dir"]).arg(nowhere).env_clear());
    assert_eq!(nobody.code(), Some(2), "{}", nobody.error());
}

/// nats-io/nats.net.v1#804, with all that goes on: commands, topics, and clients that wait for an end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_on_survives_its_node() {
    let mut hall = Hall::up(NODE, 3, 3).await;
    let key = hall.key.to_str().unwrap().to_owned();
    // The robot is known and not attached: its command is open until an operator cancels it.
    let (agent, offers) = attach(&hall.client(0), "r1", &[]).await;
    drop(offers);
    agent.detach().await;
    let on_last = |hall: &Hall, args: &[&str]| Running::start(hall.site.command(2, &[args, &["-o", "jsonl"]].concat()));
    let send = ["command", "send", "--key", &key, "--to", "r1", "--verb", "goto", "--valid-for", "10min", "--wait"];
    let mut waits = on_last(&hall, &send);
    let accepted = async || {
        let listed = hall.site.skep(0, &["command", "list", "-o", "json"]).json();
        Some(listed[0]["command"].as_str()?.to_owned())
    };
    let id = hall.site.net.wait_for("a command that is accepted", accepted).await.unwrap();
    hall.site.net.kill(2);
    waits.until_told("no answer for now");
    let mut watch = on_last(&hall, &["command", "watch"]);
    let mut tail = on_last(&hall, &["topic", "tail", "robots/said"]);
    let say = |hall: &Hall, said: &str| {
        assert_eq!(hall.site.skep(2, &["topic", "publish", "robots/said", said]).code(), Some(0));
    };
    for said in ["one", "two"] {
        watch.until_told("no answer for now");
        tail.until_told("no answer for now");
        hall.site.net.start(2).unwrap();
        watch.until_told("following from entry");
        tail.until_told("there is an answer again");
        say(&hall, said);
        let told: Value = serde_json::from_str(&tail.line()).unwrap();
        assert_eq!(told["payload"], said);
        if said == "one" {
            hall.site.net.kill(2);
        }
    }
    hall.site.skep(0, &["command", "cancel", &id, "--key", &key, "-o", "json"]).json();
    loop {
        let step: Value = serde_json::from_str(&watch.line()).unwrap();
        assert_eq!(step["command"], id.as_str(), "{step}");
        if step["kind"] == "ended" {
            break;
        }
    }
    let shown: Value = serde_json::from_str(&waits.line()).unwrap();
    assert_eq!(shown["deliveries"][0]["outcome"], "cancelled", "{shown}");
    assert_eq!(waits.ended().code(), Some(1));
}

/// etcd-io/etcd#3082
#[test]
fn what_init_left_half_done_is_finished_by_init_and_no_node_for_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("n");
    let run = || Ran::of(Command::new(NODE).args(["run", "--dir"]).arg(&dir).env_clear());
    let made = init(&dir, &["--name", "a", "-o", "json"]).json();
    let (key, config) = (dir.join("node.key"), dir.join("skep.toml"));
    std::fs::remove_file(&config).unwrap();
    let cut = run();
    assert_eq!(cut.code(), Some(2));
    assert!(cut.error().contains("skep init") && cut.error().contains("skep.toml"), "{}", cut.error());
    let again = init(&dir, &["--name", "a", "-o", "json"]).json();
    assert_eq!((&again["node"], &again["incarnation"]), (&made["node"], &made["incarnation"]), "the same node");
    // Neither an empty file nor a missing one is a default.
    std::fs::write(&config, "").unwrap();
    let empty = run();
    assert_eq!(empty.code(), Some(1));
    assert!(empty.error().contains("skep.toml is empty"), "{}", empty.error());
    std::fs::write(&key, "").unwrap();
    std::fs::write(&config, "preset = \"lan\"\n").unwrap();
    assert!(run().error().contains("node.key is not a Skep key"), "{}", run().error());
    std::fs::remove_file(&key).unwrap();
    for ran in [run(), init(&dir, &[])] {
        assert_eq!(ran.code(), Some(1));
        assert!(ran.error().contains("node.key does not"), "they agree: {}", ran.error());
    }
    let site = Site::create(NODE, 1, 1, &[]);
    std::fs::write(site.net.nodes[0].dir.join("token"), "cut").unwrap();
    // A node that serves TCP needs it.
    let refused = site.skep(0, &["run", "--set", "api.listen=127.0.0.1:0"]);
    assert_eq!(refused.code(), Some(1));
    assert!(refused.error().contains("token: "), "{}", refused.error());
}

/// VDA5050/VDA5050#605, and directories that no socket fits into.
#[test]
fn what_would_not_work_later_is_refused_by_init_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let slash = init(&dir.path().join("n"), &["--site", "plant/1"]);
    assert_eq!(slash.code(), Some(2));
    assert!(slash.error().contains("site name holds '/'"), "{}", slash.error());
    let long = init(&dir.path().join("d".repeat(100)), &[]);
    assert_eq!(long.code(), Some(2));
    assert!(long.error().contains("107 bytes"), "{}", long.error());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// ros2/ros2cli#862 is in `commands`; this is openclaw/openclaw#123797
#[tokio::test]
async fn what_a_terminal_would_obey_is_refused_in_titles_and_written_out_elsewhere() {
    let site = Site::up(NODE, 1, 1, &[]).await;
    let refused = site.skep(0, &["task", "create", "a\u{1b}[2Jb"]);
    assert_eq!(refused.code(), Some(2), "{}", refused.error());
    assert!(!refused.error().contains('\u{1b}'), "{:?}", refused.error());
    let task = site.skep(0, &["task", "create", "plain", "-o", "json"]).json()["task"].as_str().unwrap().to_owned();
    site.skep(0, &["task", "claim", &task]);
    let reason = "first line\n\u{1b}[31msecond";
    assert_eq!(site.skep(0, &["task", "fail", &task, "--reason", reason, "--permanent"]).code(), Some(0));
    let listed = site.skep(0, &["deadletter", "list"]);
    assert!(listed.text().contains("first line\\n\\u{1b}[31msecond"), "{:?}", listed.text());
    assert!(!listed.text().contains('\u{1b}') && listed.text().lines().count() == 2, "{:?}", listed.text());
    let kept = site.skep(0, &["deadletter", "list", "-o", "json"]).json();
    assert_eq!(kept[0]["why"], "first line\n\\u{1b}[31msecond", "what software says is taken, written out");
    let task = site.skep(0, &["task", "create", "plain", "-o", "json"]).json()["task"].as_str().unwrap().to_owned();
    let refused = site.skep(0, &["task", "cancel", &task, "--reason", reason]);
    assert!(refused.code() == Some(2) && !refused.error().contains('\u{1b}'), "{:?}", refused.error());
    let listener = site.net.nodes[0].client();
    let _listens = listener.subscribe(&["robots/said"]).await.unwrap();
    let said = "up\u{1b}[2J\nand down";
    assert_eq!(site.skep(0, &["topic", "publish", "robots/said", said]).code(), Some(0));
    let tail = site.skep(0, &["topic", "tail", "robots/said", "--limit", "1"]);
    assert_eq!((tail.text().lines().count(), tail.text().contains('\u{1b}')), (1, false), "{:?}", tail.text());
    let tail = site.skep(0, &["topic", "tail", "robots/said", "--limit", "1", "-o", "json"]);
    assert_eq!(tail.json()["payload"], said);
}

/// hashicorp/nomad#10641
#[tokio::test]
async fn a_request_that_is_sent_again_under_its_name_is_done_once() {
    let mut site = Site::up(NODE, 3, 3, &[]).await;
    let own = "0198f0c2-1111-7000-8000-000000000001";
    let twice: Vec<String> = (0..2)
        .map(|_| {
            site.skep(0, &["task", "create", "once", "--request-id", own, "-o", "json"]).json()["task"].to_string()
        })
        .collect();
    assert_eq!(twice[0], twice[1]);
    let claims: Vec<Ran> = (0..2)
        .map(|_| site.skep(0, &["task", "claim", "--request-id", &own.replace('1', "2"), "-o", "json"]))
        .collect();
    let claimed = |ran: &Ran| (ran.json()["task"].to_string(), ran.json()["epoch"].to_string());
    assert_eq!(claimed(&claims[0]), claimed(&claims[1]), "the same claim, and no other task");
    assert_eq!(site.skep(0, &["task", "create", "x", "--request-id", "rubbish"]).code(), Some(2));
    let leader = site.net.leader().await.unwrap();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    others.iter().for_each(|at| site.net.kill(*at));
    let create = ["task", "create", "in doubt", "-o", "json"];
    let cut_off = site.skep(leader, &create);
    others.iter().for_each(|at| site.net.start(*at).unwrap());
    site.net.leader().await.unwrap();
    let expected = match cut_off.code() {
        // The request did not get far enough to be in doubt.
        Some(4) => 0,
        Some(6) => {
            let told: Value = serde_json::from_str(&cut_off.error()).unwrap();
            let name = told["error"]["request"].as_str().unwrap();
            assert!(told["error"]["message"].as_str().unwrap().contains(&format!("--request-id {name}")), "{told}");
            let again = [&create[..], &["--request-id", name]].concat();
            let tasks: BTreeSet<String> =
                (0..2).map(|_| site.skep(others[0], &again).json()["task"].to_string()).collect();
            assert_eq!(tasks.len(), 1);
            1
        }
        other => panic!("{other:?}: {}", cut_off.error()),
    };
    let listed = site.skep(0, &["task", "list", "-o", "json"]).json();
    let in_doubt = listed.as_array().unwrap().iter().filter(|task| task["title"] == "in doubt").count();
    assert_eq!(in_doubt, expected, "{:?}: {listed:#}", cut_off.code());
}

/// hashicorp/nomad#10641
#[tokio::test]
async fn a_request_that_is_sent_again_too_late_is_unknown_though_it_was_done() {
    let site = Site::up(NODE, 1, 1, &[]).await;
    let client = site.net.nodes[0].client();
    let spec = || TaskSpec { title: "once".into(), ..TaskSpec::default() };
    let clock = client.clock().await.unwrap().clock;
    let name: RequestName = format!("0198f0c2-1111-7000-8000-000000000001@{clock}").parse().unwrap();
    client.under(Some(name), 60_000).await.unwrap().create_task(spec()).await.unwrap();
    // The same request has a deadline that has passed, as if the shard had forgotten it.
    let name = RequestName { id: uuid::Uuid::from_u128(7), ..name };
    let passed = async || (client.clock().await.ok()?.clock > clock + 1).then_some(());
    site.net.wait_for("a clock that goes on", passed).await.unwrap();
    let late = client.under(Some(name), 1).await.unwrap().create_task(spec()).await;
    assert!(matches!(late, Err(ClientError::Unknown { too_late: true, .. })), "{late:?}");
    let listed = site.skep(0, &["task", "list", "-o", "json"]).json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed:#}");
}

/// hashicorp/consul#54
#[tokio::test]
async fn a_stale_list_of_a_leader_that_was_cut_off_says_how_old_it_is() {
    let mut site = Site::up(NODE, 3, 3, &[]).await;
    site.skep(0, &["task", "create", "before", "-o", "json"]).json();
    site.net.until_equal(&[0, 1, 2]).await.unwrap();
    let fresh = site.skep(0, &["task", "list", "-o", "json"]).json();
    assert_eq!(fresh.as_array().unwrap().len(), 1, "a list that is not stale is one");
    let leader = site.net.leader().await.unwrap();
    site.net.kill((leader + 1) % 3);
    site.net.kill((leader + 2) % 3);
    let old = async || {
        let stale = site.skep(leader, &["task", "list", "--stale", "-o", "json"]).json();
        assert_eq!((&stale["as_of"]["linearizable"], &stale["tasks"][0]["title"]), (&false.into(), &"before".into()));
        // The age is none: the node has stopped leading, and has heard of no other leader.
        let age = &stale["as_of"]["age_ms"];
        (age.is_null() || age.as_u64().unwrap() >= 1_500).then_some(())
    };
    site.net.wait_for("an age that rises", old).await.unwrap();
    let shown = site.skep(leader, &["agent", "list", "--stale"]);
    assert!(shown.error().contains("this replica as it is"), "{}", shown.error());
}

/// Whether the user that runs these tests has SIGHUP ignored, as nohup(1) does: then SIGHUP does not end nodes either.
fn hangups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    let ignored = u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 != 0);
    if ignored {
        eprintln!("SIGHUP is ignored here; a node is told to stop by SIGTERM in its place");
    }
    ignored
}

/// thin-edge/thin-edge.io#2738, and a log whose reader went away.
#[tokio::test]
async fn a_log_in_a_file_has_no_escape_codes_and_a_node_needs_nobody_to_read_it() {
    let site = Site::create(NODE, 1, 1, &[]);
    let mut node = Ended(site.command(0, &["run"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    let client = site.net.nodes[0].client();
    site.net.wait_for("a node", async || client.node_status().await.ok()).await.unwrap();
    // The node cannot write anything that it logs from here on.
    drop(node.0.stderr.take());
    let genesis = Genesis::from_bytes(rand::random());
    client.init_shard(vec![site.net.nodes[0].id.clone()], genesis, None).await.unwrap();
    client.create_task(TaskSpec { title: "still here".into(), ..TaskSpec::default() }).await.unwrap();
    drop(node);
    let log = site.net.nodes[0].dir.join("log");
    let mut node = Ended(site.command(0, &["run"]).stderr(File::create(&log).unwrap()).spawn().unwrap());
    let text = async || Some(std::fs::read_to_string(&log).unwrap()).filter(|text| text.contains("serving"));
    let text = site.net.wait_for("a log", text).await.unwrap();
    assert!(!text.contains('\u{1b}') && !text.contains("Some("), "{text:?}");
    // A terminal that goes away ends the node as SIGTERM does.
    let signal = if hangups_are_ignored() { "-TERM" } else { "-HUP" };
    let hung_up = Command::new("kill").args([signal, &node.0.id().to_string()]).status().unwrap();
    assert!(hung_up.success());
    assert!(node.0.wait().unwrap().success());
    assert!(std::fs::read_to_string(&log).unwrap().contains("draining"));
}

/// etcd-io/etcd#14809
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_operators_as_there_may_be_are_listed_added_to_and_revoked() {
    const OPERATORS: usize = 494;
    let hall = Hall::up(NODE, 1, 1).await;
    let client = hall.client(0);
    let text = std::fs::read_to_string(&hall.key).unwrap();
    let seed: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect();
    let first = OperatorSecret::from_seed(&seed.try_into().unwrap());
    let name = |kind: char, n: usize| format!("{kind}{n:063}");
    let of = |n: usize| {
        let mut seed = [9; 32];
        seed[..8].copy_from_slice(&n.to_be_bytes());
        OperatorSecret::from_seed(&seed).key()
    };
    let place = client.place().await.unwrap();
    let full = |n: usize| OperatorGrant {
        serial: 1,
        admin_depth: 0,
        broadcast: false,
        verbs: Allowed::These((0..64).map(|n| name('v', n).parse().unwrap()).collect()),
        targets: Allowed::These((0..64).map(|n| Target::Agent(name('a', n).parse().unwrap())).collect()),
        ..OperatorGrant::of_first(place.clone(), of(n), "clerk".parse().unwrap())
    };
    for n in 0..OPERATORS {
        client.grant_operator(&full(n).sign(&first).unwrap()).await.unwrap();
    }
    let listed = hall.site.skep(0, &["operator", "list", "-o", "json"]).json();
    assert_eq!(listed.as_array().unwrap().len(), OPERATORS + 1);
    let page = client.operators("", 1_000, Read::Linearizable).await.unwrap();
    assert!(!page.next.is_empty() && page.operators.len() < OPERATORS, "{}", page.operators.len());
    let key = hall.key.to_str().unwrap();
    let added =
        ["operator", "add", &of(OPERATORS).to_string(), "--name", "one-more", "--per-minute", "0", "--key", key];
    let added = hall.site.skep(0, &[&added[..], &["-o", "json"]].concat()).json();
    let one_more = added.as_array().unwrap().iter().find(|view| view["name"] == "one-more").unwrap();
    assert_eq!(one_more["per_minute"], 0, "none at all, and not as many as it likes");
    let last = of(OPERATORS - 1).to_string();
    let revoked = hall.site.skep(0, &["operator", "revoke", &last, "--key", key, "-o", "json"]).json();
    let last = revoked.as_array().unwrap().iter().find(|view| view["operator"] == last.as_str()).unwrap();
    assert_eq!((&last["revoked"], &last["serial"]), (&true.into(), &2.into()));
}

/// Koed00/django-q#602, and what else was taken for something else, or passed over in silence.
#[tokio::test]
async fn what_is_typed_is_taken_as_it_is_or_refused() {
    let site = Site::up_over_tcp(NODE).await;
    let zeros = [
        &["task", "create", "x", "--attempts", "0"][..],
        &["task", "list", "--limit", "0"],
        &["agent", "register", "r", "--max-concurrent", "0"],
        &["task", "list", "--shard", "0"],
    ];
    for args in zeros {
        assert_eq!(site.skep(0, args).code(), Some(2), "{args:?}");
    }
    let nowhere = site.skep(0, &["task", "create", "x", "--shard", "9"]);
    assert_eq!(nowhere.code(), Some(3), "{}", nowhere.error());
    assert!(nowhere.error().contains("no such shard, 9"), "{}", nowhere.error());
    let config = site.skep(0, &["config", "show", "-o", "json"]).json();
    assert!(config.as_array().unwrap().iter().all(|setting| setting["value"] != ""), "{config:#}");
    let Endpoint::Tcp { address, token } = site.net.nodes[0].tcp_endpoint().unwrap() else { panic!() };
    let status = ["node", "status", "--endpoint", &address];
    assert_eq!(Ran::of(Command::new(NODE).args(status).env("SKEP_TOKEN", &token)).code(), Some(0));
    let without = Ran::of(Command::new(NODE).args(status).env_remove("SKEP_TOKEN"));
    assert!(without.code() == Some(2) && without.error().contains("SKEP_TOKEN"), "{}", without.error());
    let loud = Ran::of(site.command(0, &["run"]).env("SKEP_LOG", "loud"));
    assert!(loud.code() == Some(2) && loud.error().contains("loud"), "{}", loud.error());
    use std::os::unix::ffi::OsStrExt as _;
    let odd = std::ffi::OsStr::from_bytes(b"/nowhere/\xff");
    let elsewhere = Ran::of(Command::new(NODE).arg("run").env_clear().env("SKEP_DIR", odd));
    assert_eq!(elsewhere.code(), Some(2));
    assert!(elsewhere.error().contains("/nowhere/"), "{}", elsewhere.error());
}
