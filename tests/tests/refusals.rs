//! What a node refuses, and what it says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::Command;

use skep_client::Code;
use skep_tests::running::Running;
use skep_tests::{Ran, Site};

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");

fn append(site: &Site, node: usize, text: &str) {
    let path = site.net.nodes[node].dir.join("skep.toml");
    let old = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, format!("{old}\n{text}\n")).unwrap();
}

#[test]
fn a_run_without_a_node_prints_the_first_steps_and_exits_2() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(NODE).arg("run").arg("--dir").arg(dir.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("skep init") && text.contains("skep shard init"), "{text}");
}

#[test]
fn a_directory_that_holds_a_node_is_not_made_anew() {
    let site = Site::create(NODE, 1, 1, &[]);
    let key = site.net.nodes[0].dir.join("node.key");
    let before = std::fs::read(&key).unwrap();
    let again = site.skep(0, &["init"]);
    assert_eq!(again.code(), Some(1));
    assert_eq!(std::fs::read(key).unwrap(), before);
}

#[test]
fn a_malformed_configuration_is_refused_with_its_place() {
    let site = Site::create(NODE, 1, 1, &[]);
    append(&site, 0, "[contrl]\nlisten = 1");
    let refused = site.skep(0, &["run"]);
    assert_eq!(refused.code(), Some(1));
    assert!(refused.error().contains("skep.toml:") && refused.error().contains("contrl"), "{}", refused.error());
}

#[test]
fn a_bind_beyond_this_machine_without_a_peer_list_is_refused() {
    let site = Site::create(NODE, 1, 1, &[]);
    let refused = site.skep(0, &["run", "--set", "control.listen=0.0.0.0:7341"]);
    assert_eq!(refused.code(), Some(1));
    assert!(refused.error().contains("[[peers]]"), "{}", refused.error());
}

#[test]
fn a_directory_of_a_newer_format_and_a_damaged_one_are_refused_untouched() {
    let site = Site::create(NODE, 1, 1, &[]);
    let data = site.net.nodes[0].dir.join("data");
    let format = std::fs::read(data.join("FORMAT")).unwrap();
    for (other, remedy) in [("skep 9\n", "Upgrade Skep"), ("skep 1\n", "Run the Skep that wrote it")] {
        std::fs::write(data.join("FORMAT"), other).unwrap();
        let refused = site.skep(0, &["run"]);
        assert_eq!(refused.code(), Some(1));
        let told = refused.error();
        assert!(told.contains(&format!("format {}", &other[5..6])) && told.contains(remedy), "{told}");
        assert!(!told.contains("damaged") && !told.contains("add-voter"), "{told}");
    }
    std::fs::write(data.join("FORMAT"), format).unwrap();
    let wal = std::fs::read_dir(data.join("wal")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&wal).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&wal, &bytes).unwrap();
    let refused = site.skep(0, &["run"]);
    assert_eq!(refused.code(), Some(1));
    assert!(refused.error().contains("damaged"), "{}", refused.error());
    assert!(refused.error().contains("If no other node has them, keep the directory"), "{}", refused.error());
    assert_eq!(std::fs::read(&wal).unwrap(), bytes);
}

#[tokio::test]
async fn a_second_process_on_a_directory_is_refused_and_the_first_goes_on() {
    let site = Site::up(NODE, 1, 1, &[]).await;
    let second = site.skep(0, &["run"]);
    assert_eq!(second.code(), Some(1));
    assert!(second.error().contains("in use"), "{}", second.error());
    site.skep(0, &["task", "create", "still here", "-o", "json"]).json();
}

#[tokio::test]
async fn a_peer_that_is_not_listed_is_refused_and_told_so() {
    let mut site = Site::create(NODE, 2, 1, &[]);
    // The second node lists the first; the first lists nobody.
    let path = site.net.nodes[0].dir.join("skep.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.split("\n[[peers]]").next().unwrap()).unwrap();
    site.net.start(0).unwrap();
    site.net.start(1).unwrap();
    let client = site.net.nodes[1].client();
    let why = site
        .net
        .wait_for("the refusal", async || {
            let status = client.node_status().await.ok()?;
            let peer = status.peers.first()?;
            (!peer.control_up && peer.last_error.contains("peer list")).then(|| peer.last_error.clone())
        })
        .await
        .unwrap();
    assert!(why.contains("add it to [[peers]]"), "{why}");
}

#[tokio::test]
async fn a_node_serves_no_port_unless_it_is_told_to() {
    let site = Site::up(NODE, 1, 1, &[]).await;
    let node = &site.net.nodes[0];
    assert!(node.tcp_endpoint().is_err());
    assert!(!node.dir.join("token").exists(), "nobody needs one");
    assert!(std::fs::read_to_string(node.dir.join("log")).unwrap().contains("tcp=off"));
}

#[tokio::test]
async fn connections_that_say_nothing_take_no_place_at_the_socket() {
    let site = Site::up_over_tcp(NODE).await;
    let skep_client::Endpoint::Tcp { address, .. } = site.net.nodes[0].tcp_endpoint().unwrap() else { panic!() };
    let silent: Vec<_> = (0..120).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    for n in 0..5 {
        site.skep(0, &["task", "create", &format!("task {n}"), "-o", "json"]).json();
    }
    drop(silent);
}

#[tokio::test]
async fn over_tcp_the_api_wants_the_token() {
    let site = Site::up_over_tcp(NODE).await;
    let skep_client::Endpoint::Tcp { address, token } = site.net.nodes[0].tcp_endpoint().unwrap() else { panic!() };
    let with = |token: &str| {
        let endpoint = format!("http://{address}");
        let args = ["node", "status", "--endpoint", &endpoint];
        Command::new(NODE).args(args).env("SKEP_TOKEN", token).output().unwrap().status.code()
    };
    assert_eq!(with(&token), Some(0));
    assert_eq!(with("wrong"), Some(5));
    use std::os::unix::fs::PermissionsExt;
    for file in ["token", "api.sock", "node.key"] {
        let mode = std::fs::metadata(site.net.nodes[0].dir.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} is for its owner only");
    }
}

#[test]
fn no_node_is_cut_off_but_those_that_a_testnet_has_made() {
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("n");
    let made = Ran::of(Command::new(NODE).args(["init", "--site", "testnet", "--dir"]).arg(&node));
    assert_eq!(made.code(), Some(0), "{}", made.error());
    let refused = Ran::of(Command::new(NODE).args(["run", "--set", "testnet.cuts=cuts", "--dir"]).arg(&node));
    assert_eq!(refused.code(), Some(2));
    assert!(refused.error().contains("testnet.cuts"), "{}", refused.error());
}

/// Everything under a directory, and it.
fn all_in(dir: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    found.push(dir.to_owned());
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { all_in(&path, found) } else { found.push(path) }
    }
}

#[test]
fn what_a_node_makes_is_for_its_owner_only_wherever_and_however_it_is_started() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("n");
    let without_umask = |args: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 000 && exec \"$0\" \"$@\"", NODE]).args(args).arg("--dir").arg(&dir).env_clear();
        command
    };
    // As systemd makes it.
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let made = Ran::of(&mut without_umask(&["init"]));
    assert_eq!(made.code(), Some(0), "{}", made.error());
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let free =
        ["--set", "control.listen=127.0.0.1:0", "--set", "mesh.listen=127.0.0.1:0", "--set", "api.listen=127.0.0.1:0"];
    let node = Running::start(without_umask(&[&["run"][..], &free].concat()));
    node.until_told("the node has closed it");
    node.until_told("serving");
    let mut found = Vec::new();
    all_in(&dir, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for path in found {
        // Some are there for a moment only.
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        let mode = metadata.permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
}

#[test]
fn a_directory_with_other_things_in_it_that_is_open_to_others_is_no_place_for_a_node() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("letters"), "").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = Ran::of(Command::new(NODE).arg("init").arg("--dir").arg(dir.path()));
    assert_eq!(refused.code(), Some(1));
    assert!(refused.error().contains("chmod 700"), "{}", refused.error());
    assert!(!dir.path().join("node.key").exists());
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_serves_again_when_there_is_space() {
    let mut site = Site::create(NODE, 1, 1, &[]);
    let data = site.net.nodes[0].dir.join("data");
    let saved = site.net.nodes[0].dir.join("saved");
    std::fs::rename(&data, &saved).unwrap();
    std::fs::create_dir(&data).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=200m", "skep-test"]).arg(&data).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: mounting a small file system needs root");
        return;
    }
    let _unmount = Unmount(data.clone());
    let copied = Command::new("cp").arg("-a").arg(saved.join(".")).arg(&data).status().unwrap();
    assert!(copied.success());
    site.net.up().await.unwrap();
    let client = site.net.nodes[0].impatient_client();
    let create = async |title: &str| {
        let spec = skep_client::TaskSpec { title: title.into(), ..Default::default() };
        client.create_task(spec).await
    };
    let refused = async || create("no room").await.err().filter(|error| error.code() == Some(Code::DiskFull));
    let mut claims = Vec::new();
    for n in 0..2 {
        let task_id = create("before").await.unwrap().task_id;
        let agent = format!("r{n}");
        let epoch = client.claim_task(&agent, Some(&task_id)).await.unwrap().receipt.unwrap().epoch;
        claims.push(skep_client::v1::Claim { task_id, agent, epoch });
    }
    fill(&data, 48 << 20);
    site.net.wait_for("the refusal", refused).await.unwrap();
    client.complete_task(claims.remove(0), Vec::new()).await.expect("what ends work goes on");
    assert_eq!(site.skep(0, &["task", "list"]).code(), Some(0), "reads go on");
    fill(&data, 16 << 20);
    site.net
        .wait_for("the refusal of everything", async || {
            let ended = client.complete_task(claims[0].clone(), Vec::new()).await;
            ended.err().filter(|error| error.code() == Some(Code::DiskFull))
        })
        .await
        .unwrap();
    std::fs::remove_file(data.join("filler")).unwrap();
    site.net.wait_for("service again", async || create("room").await.ok()).await.unwrap();
    drop(site);
}

/// Fills a file system up to so many bytes that are left.
fn fill(dir: &std::path::Path, left: u64) {
    let output = Command::new("df").args(["--output=avail", "-B1"]).arg(dir).output().unwrap();
    let free: u64 = String::from_utf8(output.stdout).unwrap().lines().nth(1).unwrap().trim().parse().unwrap();
    let filler = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("filler"));
    let more = usize::try_from(free.checked_sub(left).expect("there was room")).unwrap();
    std::io::Write::write_all(&mut filler.unwrap(), &vec![0; more]).unwrap();
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        // Lazily: the node that uses it may end after this.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
