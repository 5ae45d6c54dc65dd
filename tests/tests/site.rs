//! How a site begins, and what a node's directory has of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::Permissions;
use std::io::Write as _;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use skep_tests::Ran;
use skep_tests::ports::free_ports;
use skep_tests::running::Running;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");

/// A place for a node, its root keys and its operator's key.
struct Hall {
    root: tempfile::TempDir,
}

impl Hall {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The program, in the directory of the hall.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(NODE);
        command.args(args).current_dir(self.root.path()).env_clear();
        command.env("SKEP_DIR", self.path("edge")).env("SKEP_OPERATOR_KEY", self.path("operator.key"));
        command
    }

    fn skep(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args))
    }

    fn init(&self, args: &[&str]) -> Ran {
        self.skep(&[&["site", "init", "hall", "-o", "json"], args].concat())
    }

    fn show(&self) -> Value {
        self.skep(&["site", "show", "-o", "json"]).json()
    }

    /// What there is in a directory.
    fn names(&self, dir: &Path) -> Vec<String> {
        let listed = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = listed.map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The first of three free ports, as an argument.
fn ports() -> String {
    free_ports(3).to_string()
}

#[test]
fn a_site_has_root_keys_to_put_away_and_a_first_node_that_votes_and_issues() {
    let hall = Hall::new();
    let made = hall.init(&["--name", "edge-1"]).json();
    let root = hall.path("hall-root");
    assert_eq!(hall.names(&root), ["root-1.key", "root-2.key", "root-3.key", "root-document-1"]);
    assert_eq!((made["name"].as_str(), made["threshold"].as_u64()), (Some("hall"), Some(2)));
    assert_eq!(made["root_keys"].as_array().unwrap().len(), 3);
    // Of the node's directory nothing is open to others, and no root key is in it.
    let site = hall.path("edge/site");
    assert_eq!((mode(&root), mode(&site)), (0o700, 0o700));
    assert_eq!(hall.names(&site), ["chain", "first-shards", "floors", "hints", "revocations", "roots"]);
    for file in hall.names(&root).iter().map(|name| root.join(name)) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    for file in hall.names(&site).iter().map(|name| site.join(name)) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    let shown = hall.show();
    assert_eq!((&shown["site"], &shown["node"]), (&made["site"], &made["node"]));
    assert_eq!(shown["certificate"]["roles"], serde_json::json!(["voter", "issuer"]));
    assert_eq!(shown["certificate"]["name"], "edge-1");
    assert_eq!(shown["certificate"]["until_ms"], made["certificate_until_ms"]);
    assert_eq!(shown["operators"][0]["operator"], made["operator"]);
    assert_eq!(shown["issuers"], serde_json::json!([made["node"]]));
    assert_eq!((&shown["refused"], &shown["root_version"]), (&Value::Null, &1.into()));
    // People are told what to do with the keys, and what comes next.
    let other = Hall::new();
    let told = other.skep(&["site", "init", "hall"]).text();
    for said in ["put away", "2 of the 3 together", "skep run --dir", "makes the directory"] {
        assert!(told.contains(said), "{said}: {told}");
    }
    assert_ne!(other.show()["site"], made["site"], "two sites of one name are two");
}

#[test]
fn the_key_that_an_operator_has_is_the_first_operators() {
    let hall = Hall::new();
    let operator = hall.skep(&["key", "new", "-o", "json"]).json()["operator"].clone();
    assert_eq!(hall.init(&[]).json()["operator"], operator);
    set_mode(&hall.path("operator.key"), 0o644);
    let refused = hall.skep(&["site", "init", "hall", "--dir", "other", "--root-dir", "other-root"]);
    assert_eq!(refused.code(), Some(1));
    assert!(refused.error().contains("operator.key can be read by others"), "{}", refused.error());
}

#[test]
fn a_site_that_rests_on_one_key_says_so() {
    let hall = Hall::new();
    for count in ["0", "2", "4", "rubbish"] {
        let refused = hall.init(&["--root-keys", count]);
        assert_eq!((refused.code(), hall.names(hall.root.path()).len()), (Some(2), 0), "{count}: nothing is made");
    }
    let told = hall.skep(&["site", "init", "hall", "--root-keys", "1"]).text();
    assert!(told.contains("whoever has it has the site"), "{told}");
    assert_eq!(hall.names(&hall.path("hall-root")), ["root-1.key", "root-document-1"]);
    assert_eq!(hall.show()["threshold"], 1);
    let shown = hall.skep(&["site", "show"]).text();
    assert!(shown.contains("whoever has it has the site"), "{shown}");
}

/// A code that is one: of a site whose id begins with sevens, and of a node without an address that nobody runs.
const CODE: &str = "skep1qyrswpc8qurswpc8qurswpc8qur58feww9zqza3d7e4k3sndl00jdq42aj0jga8v53snusj2p7a060qfpyysjzgfpyysjzgfpyysjzgfz6vx5y";

/// Runs the program with a text at its standard input.
fn with_input(mut command: Command, text: &str) -> Ran {
    let (input, mut output) = std::io::pipe().unwrap();
    output.write_all(text.as_bytes()).unwrap();
    drop(output);
    Ran::of(command.stdin(input))
}

#[test]
fn a_text_that_is_no_code_of_an_invitation_is_refused_before_anything_is_made() {
    let hall = Hall::new();
    let cut = &CODE[..CODE.len() - 1];
    for given in ["rubbish", "skep1", cut, &CODE.replace('q', "Q")] {
        let mut by_variable = hall.command(&["join"]);
        by_variable.env("SKEP_INVITE", given);
        let by_input = with_input(hall.command(&["join", "-"]), given);
        for refused in [hall.skep(&["join", given]), Ran::of(&mut by_variable), by_input] {
            assert_eq!(refused.code(), Some(2), "{given}: {}", refused.error());
            assert!(refused.error().contains("this is not the code of an invitation"), "{}", refused.error());
        }
    }
    let none = hall.skep(&["join"]);
    assert_eq!(none.code(), Some(2));
    assert!(none.error().contains("SKEP_INVITE"), "{}", none.error());
    assert_eq!(hall.names(hall.root.path()).len(), 0, "nothing is made");
}

#[test]
fn a_code_whose_node_is_nowhere_leaves_a_node_that_the_same_line_goes_on_with() {
    let hall = Hall::new();
    let mut by_variable = hall.command(&["join", "-o", "json"]);
    by_variable.env("SKEP_INVITE", CODE);
    let by_input = with_input(hall.command(&["join", "-", "-o", "json"]), CODE);
    let key = std::fs::read(hall.path("edge/node.key")).unwrap();
    for refused in [by_input, Ran::of(&mut by_variable), hall.skep(&["join", CODE, "-o", "json"])] {
        assert_eq!(refused.code(), Some(4), "{}", refused.error());
        let error: Value = serde_json::from_str(refused.error().lines().last().unwrap()).unwrap();
        assert_eq!(error["error"]["exit"], 4);
        assert_eq!(std::fs::read(hall.path("edge/node.key")).unwrap(), key);
    }
    assert!(!hall.path("edge/skep.toml").exists() && !hall.path("edge/site").exists());
}

#[test]
fn a_code_is_in_no_argument_and_no_variable_of_a_process_that_waits() {
    let hall = Hall::new();
    for in_variable in [false, true] {
        // It hears that somebody dials, and never answers.
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        silent.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = hall.command(&["join", "--address", &silent.local_addr().unwrap().to_string()]);
        // A test cannot look into a process into which nobody can.
        command.env("SKEP_DUMPABLE", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if in_variable {
            command.env("SKEP_INVITE", CODE);
        } else {
            command.arg(CODE);
        }
        let mut child = command.spawn().unwrap();
        let of_process = format!("/proc/{}", child.id());
        silent.recv_from(&mut [0; 2_048]).unwrap();
        for file in ["cmdline", "environ"] {
            let held = std::fs::read(format!("{of_process}/{file}")).unwrap();
            let held = String::from_utf8_lossy(&held);
            assert!(held.contains(if file == "cmdline" { "join" } else { "SKEP_DIR" }), "{file}: {held}");
            assert!(!held.contains(CODE), "{file}: {held}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_machine_without_a_network_writes_its_request_to_a_file_and_takes_no_other_file_for_the_reply() {
    let hall = Hall::new();
    let (site, other) = ("07".repeat(32), "08".repeat(32));
    let ask = |site: &str| hall.skep(&["join", CODE, "--site", site, "--request", "request", "-o", "json"]);
    let early = hall.skep(&["join", "--reply", "request"]);
    assert_eq!(early.code(), Some(2), "{}", early.error());
    let elsewhere = ask(&other);
    assert_eq!(elsewhere.code(), Some(2), "{}", elsewhere.error());
    assert_eq!(hall.names(hall.root.path()).len(), 0, "nothing is made");
    let asked = ask(&site).json();
    assert_eq!((&asked["site"], &asked["request"]), (&site.as_str().into(), &"request".into()));
    let request = std::fs::read(hall.path("request")).unwrap();
    assert_eq!(std::fs::read(hall.path("edge/join-request")).unwrap(), request);
    assert_eq!(ask(&site).json(), asked);
    assert_eq!(std::fs::read(hall.path("request")).unwrap(), request, "the same line writes the same request");
    // It is no reply, and neither is what somebody else sealed, or what is none.
    let no_reply = hall.skep(&["join", "--reply", "request"]);
    assert_eq!(no_reply.code(), Some(1));
    assert!(no_reply.error().contains("is no reply to a request to join"), "{}", no_reply.error());
    std::fs::write(hall.path("rubbish"), [b"skep join reply 1\n".as_slice(), &[7; 90]].concat()).unwrap();
    assert_eq!(hall.skep(&["join", "--reply", "rubbish"]).code(), Some(1));
    let no_request = hall.skep(&["site", "sign", "rubbish"]);
    assert_eq!(no_request.code(), Some(2), "{}", no_request.error());
    assert!(!hall.path("edge/skep.toml").exists() && !hall.path("edge/site").exists());
}

#[test]
fn a_file_of_invitations_with_a_wrong_line_is_refused_before_anybody_is_asked() {
    let hall = Hall::new();
    for (text, line) in [("name,role\nrobot-1,robot\nrobot-2,king\n", 3), ("robot-1\n", 1), ("name\na\na\n", 3)] {
        std::fs::write(hall.path("robots.csv"), text).unwrap();
        let refused = hall.skep(&["site", "invite", "--bulk", "robots.csv"]);
        assert_eq!(refused.code(), Some(2), "{}", refused.error());
        assert!(refused.error().contains(&format!("robots.csv, line {line}: ")), "{}", refused.error());
    }
    let both = hall.skep(&["site", "invite", "--bulk", "robots.csv", "--name", "robot-1"]);
    assert_eq!((both.code(), hall.skep(&["site", "invite"]).code()), (Some(2), Some(2)));
    assert_eq!(hall.skep(&["site", "invite", "--name", "robot-1", "--role", "king"]).code(), Some(2));
}

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "it never was so: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

impl Hall {
    /// The program, for a node in this directory.
    fn at(&self, dir: &str, args: &[&str]) -> Ran {
        self.skep(&[args, &["--dir", dir]].concat())
    }

    /// The names of the members, once the directory of the site answers.
    fn members(&self) -> Vec<String> {
        let told = self.skep(&["site", "members", "-o", "json"]);
        let rows = if told.code() == Some(0) { told.json() } else { Value::Null };
        let rows = rows.as_array().cloned().unwrap_or_default();
        let mut names: Vec<String> = rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// Joins by a code and runs the node.
    fn joined(&self, dir: &str, code: &str) -> Running {
        let joined = self.at(dir, &["join", code, "--port", &ports(), "-o", "json"]).json();
        assert_eq!(joined["name"], dir);
        Running::start(self.command(&["run", "--dir", dir]))
    }
}

#[test]
fn three_empty_machines_become_a_site() {
    let hall = Hall::new();
    let made = hall.init(&["--name", "edge-1", "--port", &ports()]).json();
    let _edge = Running::start(hall.command(&["run"]));
    until("the first node is a member", || hall.members() == ["edge-1"]);
    // One line, once: and its code is all that the robot is given.
    let invited = hall.skep(&["site", "invite", "--name", "robot-7", "--can", "lift"]);
    let code = invited.text().trim_end().to_owned();
    assert!(code.starts_with("skep1") && code.lines().count() == 1, "{code}: {}", invited.error());
    assert_eq!(hall.skep(&["site", "invitations", "-o", "json"]).json()[0]["name"], "robot-7");
    let robot = hall.joined("robot-7", &code);
    let voter = hall.skep(&["site", "invite", "--name", "edge-2", "--role", "voter", "-o", "json"]).json();
    let _voter = hall.joined("edge-2", voter["code"].as_str().unwrap());
    until("all three are members", || hall.members() == ["edge-1", "edge-2", "robot-7"]);
    assert_eq!(hall.skep(&["site", "invitations", "-o", "json"]).json(), serde_json::json!([]));
    for dir in ["robot-7", "edge-2"] {
        until("its node does work", || hall.at(dir, &["task", "create", dir]).code() == Some(0));
        assert_eq!(hall.at(dir, &["site", "show", "-o", "json"]).json()["site"], made["site"]);
    }
    // The code is used, and so are its machine's directory and its name.
    let thief = hall.at("thief", &["join", &code]);
    assert_eq!(thief.code(), Some(5), "{}", thief.error());
    assert_eq!(hall.at("robot-7", &["join", &code]).code(), Some(1));
    let twice = hall.skep(&["site", "invite", "--name", "robot-7"]);
    assert!(twice.code() == Some(1) && twice.error().contains("has the name"), "{}", twice.error());
    // Out: at once in the directory, and soon for its node.
    let revoked = hall.skep(&["site", "revoke", "robot-7", "--reason", "stolen", "-o", "json"]).json();
    assert_eq!((&revoked["name"], &revoked["members"]), (&"robot-7".into(), &1.into()));
    assert_eq!(hall.members(), ["edge-1", "edge-2"]);
    until("its node does nothing more", || hall.at("robot-7", &["task", "create", "late"]).code() != Some(0));
    drop(robot);
    let unknown = hall.skep(&["site", "revoke", "robot-7", "--reason", "stolen"]);
    assert_eq!(unknown.code(), Some(3), "{}", unknown.error());
}

#[test]
fn a_machine_without_a_network_joins_by_two_files() {
    let hall = Hall::new();
    let made = hall.init(&["--name", "edge-1", "--port", &ports()]).json();
    let _edge = Running::start(hall.command(&["run"]));
    until("the first node is a member", || hall.members() == ["edge-1"]);
    let invited = hall.skep(&["site", "invite", "--name", "robot-9", "-o", "json"]).json();
    assert_eq!(invited["site"], made["site"]);
    let (code, site) = (invited["code"].as_str().unwrap(), made["site"].as_str().unwrap());
    let asked = hall.at("robot-9", &["join", code, "--site", site, "--request", "request", "-o", "json"]).json();
    let signed = hall.skep(&["site", "sign", "request", "-o", "json"]).json();
    assert_eq!((&signed["node"], &signed["name"]), (&asked["node"], &"robot-9".into()));
    let again = hall.skep(&["site", "sign", "request", "--reply", "again", "-o", "json"]).json();
    assert_eq!(again["node"], asked["node"], "the same request gets the same member");
    assert_eq!(hall.members(), ["edge-1", "robot-9"]);
    let joined = hall.at("robot-9", &["join", "--reply", "request.reply", "--port", &ports(), "-o", "json"]).json();
    assert_eq!((&joined["site"], &joined["node"], &joined["name"]), (&made["site"], &asked["node"], &"robot-9".into()));
    assert!(!hall.path("robot-9/join-request").exists());
    let _robot = Running::start(hall.command(&["run", "--dir", "robot-9"]));
    until("its node does work", || hall.at("robot-9", &["task", "create", "one"]).code() == Some(0));
}

#[test]
fn what_site_init_left_half_done_is_finished_by_it() {
    let hall = Hall::new();
    let made = hall.init(&[]).json();
    let same = |again: &Value| {
        for field in ["site", "node", "incarnation", "operator"] {
            assert_eq!(again[field], made[field], "{field}");
        }
    };
    // Cut off before the configuration was written, and before that.
    std::fs::remove_file(hall.path("edge/skep.toml")).unwrap();
    same(&hall.init(&[]).json());
    std::fs::remove_file(hall.path("edge/skep.toml")).unwrap();
    std::fs::remove_file(hall.path("hall-root/root-document-1")).unwrap();
    let other = hall.skep(&["site", "init", "yard"]);
    assert_eq!(other.code(), Some(1));
    assert!(other.error().contains("holds the site hall"), "{}", other.error());
    same(&hall.init(&[]).json());
    // Cut off before the site was there: keys that were made are its keys, and the site is another one.
    std::fs::remove_file(hall.path("edge/skep.toml")).unwrap();
    std::fs::remove_file(hall.path("hall-root/root-document-1")).unwrap();
    std::fs::remove_dir_all(hall.path("edge/site")).unwrap();
    let before = std::fs::read(hall.path("hall-root/root-2.key")).unwrap();
    let again = hall.init(&[]).json();
    assert_eq!((&again["node"], &again["operator"]), (&made["node"], &made["operator"]));
    assert_eq!(std::fs::read(hall.path("hall-root/root-2.key")).unwrap(), before);
    // A node that is whole is made no second time.
    let whole = hall.init(&[]);
    assert_eq!(whole.code(), Some(1));
    assert!(whole.error().contains("holds a node already"), "{}", whole.error());
}

#[test]
fn root_keys_that_others_can_read_that_are_used_or_that_would_be_with_the_nodes_are_refused() {
    let hall = Hall::new();
    let inside = hall.init(&["--root-dir", "edge/keys"]);
    assert_eq!((inside.code(), hall.names(hall.root.path()).len()), (Some(2), 0), "{}", inside.error());
    assert!(inside.error().contains("not kept in the node's directory"), "{}", inside.error());
    hall.init(&[]).json();
    let used = hall.skep(&["site", "init", "hall", "--dir", "other"]);
    assert_eq!(used.code(), Some(1));
    assert!(used.error().contains("root keys of another site"), "{}", used.error());
    assert!(!hall.path("other").exists(), "nothing is made");
    std::fs::remove_file(hall.path("hall-root/root-document-1")).unwrap();
    set_mode(&hall.path("hall-root/root-3.key"), 0o640);
    let exposed = hall.skep(&["site", "init", "hall", "--dir", "other"]);
    assert_eq!(exposed.code(), Some(1));
    assert!(exposed.error().contains("others can read the root key"), "{}", exposed.error());
    assert!(!hall.path("other/site").exists());
}

#[test]
fn what_is_wrong_with_the_files_of_a_site_is_told_and_no_site_is_made_up() {
    let hall = Hall::new();
    let none = hall.skep(&["site", "show"]);
    assert_eq!(none.code(), Some(2));
    assert!(none.error().contains("skep site init"), "{}", none.error());
    hall.init(&[]).json();
    let why = || {
        let refused = hall.skep(&["site", "show"]);
        assert_eq!(refused.code(), Some(1));
        refused.error()
    };
    let chain = hall.path("edge/site/chain");
    set_mode(&chain, 0o644);
    assert!(why().contains("is open to others"), "{}", why());
    set_mode(&chain, 0o600);
    let whole = std::fs::read(&chain).unwrap();
    std::fs::write(&chain, &whole[..whole.len() / 2]).unwrap();
    assert!(why().contains("edge/site/chain: it is cut off") && why().contains("join again"), "{}", why());
    std::fs::write(&chain, whole).unwrap();
    // The files of another site's node: its chain is shown to nobody here as if it held.
    let other = Hall::new();
    other.init(&[]).json();
    std::fs::copy(other.path("edge/site/chain"), &chain).unwrap();
    let refused = hall.show()["refused"].as_str().unwrap().to_owned();
    assert!(refused.contains("certificate"), "{refused}");
}

/// What the node says when its site has begun.
const BEGUN: &str = "the site has begun: its directory and its first shard are there";

impl Hall {
    fn run(&self) -> Running {
        Running::start(self.command(&["run"]))
    }

    /// What a node of the site must show that has begun it: two shards, of which one takes work, under one operator.
    fn check_begun(&self, made: &Value) {
        let created = self.skep(&["task", "create", "one"]);
        assert_eq!(created.code(), Some(0), "{}", created.error());
        assert_eq!(self.skep(&["operator", "list", "-o", "json"]).json()[0]["operator"], made["operator"]);
        let status = self.skep(&["node", "status", "-o", "json"]).json();
        assert_eq!(status["shards"], serde_json::json!([0, 1]));
        // The shard is the one that was stated with the site, and the operator's key signs for no other.
        let pinned = std::fs::read_to_string(self.path("operator.key.shard-1")).unwrap();
        assert_eq!(self.skep(&["shard", "status", "-o", "json"]).json()["genesis"], pinned.trim());
        assert!(!self.path("edge/site/first-shards").exists(), "there is nothing left to make");
    }
}

#[test]
fn a_site_takes_work_once_its_first_node_runs_and_after_each_restart() {
    let hall = Hall::new();
    let made = hall.init(&["--port", &ports()]).json();
    for start in 0..3 {
        let running = hall.run();
        if start == 0 {
            running.until_told(BEGUN);
        }
        hall.check_begun(&made);
        let tasks = hall.skep(&["task", "list", "-o", "json"]).json();
        assert_eq!(tasks.as_array().unwrap().len(), start + 1, "what was there stays");
    }
}

#[test]
fn a_first_start_that_is_killed_anywhere_goes_on_at_the_next_one() {
    let shard = |number: u32| format!("the first node made a shard of the site shard={number}");
    for point in ["starting node=".to_owned(), "serving".to_owned(), shard(0), shard(1), BEGUN.to_owned()] {
        println!("killed at {point:?}");
        let hall = Hall::new();
        let made = hall.init(&["--port", &ports()]).json();
        let first_shards = std::fs::read(hall.path("edge/site/first-shards")).unwrap();
        let first = hall.run();
        first.until_told(&point);
        drop(first);
        if point == BEGUN {
            // As if it had been killed a moment earlier: what was made is not made again.
            std::fs::write(hall.path("edge/site/first-shards"), first_shards).unwrap();
            set_mode(&hall.path("edge/site/first-shards"), 0o600);
        }
        if hall.path("edge/site/first-shards").exists() {
            hall.run().until_told(BEGUN);
        }
        let _third = hall.run();
        hall.check_begun(&made);
    }
}

#[test]
fn the_first_shards_are_made_by_the_node_and_the_data_that_they_were_stated_for() {
    let hall = Hall::new();
    hall.init(&["--port", &ports()]).json();
    // Another node that somebody gave the files of the site.
    let other = hall.skep(&["init", "--dir", "other", "--site", "hall", "--port", &ports()]);
    assert_eq!(other.code(), Some(0), "{}", other.error());
    let copied = Command::new("cp").args(["-a", "edge/site", "other/site"]).current_dir(hall.root.path()).status();
    assert!(copied.unwrap().success());
    let mut running = Running::start(hall.command(&["run", "--dir", "other"]));
    running.until_told("shows the certificate of");
    assert_eq!(running.ended().code(), Some(1));
    // The node itself, whose data is gone: what it made may be with others.
    std::fs::remove_dir_all(hall.path("edge/data")).unwrap();
    for _ in 0..2 {
        let running = hall.run();
        running.until_told("this node makes no shards");
        let status = hall.skep(&["node", "status", "-o", "json"]).json();
        assert_eq!(status["shards"], serde_json::json!([]), "also after a restart");
    }
}

/// Appends to the configuration of a node where another one is, as a voter.
fn list(config: &Path, of: &Value) {
    let (id, control, mesh) = (&of["node"], &of["control"], &of["mesh"]);
    let peer = format!("\n[[peers]]\nid = {id}\ncontrol = {control}\nmesh = {mesh}\nvoter = true\n");
    let text = std::fs::read_to_string(config).unwrap();
    std::fs::write(config, text + &peer).unwrap();
}

#[test]
fn a_list_lets_nobody_into_a_site() {
    let hall = Hall::new();
    let made = hall.init(&["--port", &ports()]).json();
    let port = ports();
    let stranger = hall.skep(&["init", "--dir", "stranger", "--site", "hall", "--port", &port, "-o", "json"]).json();
    // Each lists the other: in the site that is an address, and no more.
    list(&hall.path("stranger/skep.toml"), &made);
    list(&hall.path("edge/skep.toml"), &stranger);
    let running = hall.run();
    running.until_told(BEGUN);
    let _stranger = Running::start(hall.command(&["run", "--dir", "stranger"]));
    let id = stranger["node"].as_str().unwrap();
    // Each plane refuses it, in whatever order it dials them.
    let refusals = ["the control plane refused a node", "a connection to the mesh is not admitted"];
    for told in running.until_all_told(&refusals) {
        assert!(told.contains(id), "{told}");
    }
    for (dir, of) in [("edge", id), ("stranger", made["node"].as_str().unwrap())] {
        let status = hall.skep(&["node", "status", "--dir", dir, "-o", "json"]).json();
        let peers = status["peers"].as_array().unwrap();
        let peer = peers.iter().find(|peer| peer["node"] == of).unwrap();
        assert_eq!(peer["control_up"], false, "{dir}: {peer}");
        // To the stranger a connection is up until the site ends it, and it dials again.
        assert!(dir == "stranger" || peer["mesh_up"] == false, "{dir}: {peer}");
    }
    assert_eq!(hall.skep(&["task", "create", "one"]).code(), Some(0), "the site goes on");
}
