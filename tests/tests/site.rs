//! How a site begins, and what a node's directory has of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::Permissions;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use skep_tests::Ran;
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

/// The first of three free ports, beside those of testnets, and below those that the system gives to programs.
fn free_ports() -> String {
    let is_free =
        |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok();
    let mut firsts = (32_700..32_760_u16).step_by(3);
    firsts.find(|first| (0..3).all(|n| is_free(first + n))).expect("ports are free").to_string()
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
    assert_eq!(hall.names(&site), ["chain", "floors", "hints", "revocations", "roots"]);
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
    for said in ["put away", "2 of the 3 together", "skep run --dir", "--operator"] {
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

#[test]
fn the_first_node_of_a_site_runs_as_it_is_told_to() {
    let hall = Hall::new();
    let made = hall.init(&["--port", &free_ports()]).json();
    let (node, operator) = (made["node"].as_str().unwrap(), made["operator"].as_str().unwrap());
    let _running = Running::start(hall.command(&["run"]));
    let ready = hall.skep(&["shard", "init", "--voters", node, "--operator", operator]);
    assert_eq!(ready.code(), Some(0), "{}", ready.error());
    assert_eq!(hall.skep(&["task", "create", "one"]).code(), Some(0));
    assert_eq!(hall.skep(&["operator", "list", "-o", "json"]).json()[0]["operator"], operator);
}
