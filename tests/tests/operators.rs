//! Which operators may command robots, on real processes: from the making of a shard to what a revocation ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use serde_json::Value;
use skep_client::{Client, ClientError, Code, Endpoint, Genesis, NotStarted, Settings};
use skep_tests::hall::{Hall, attach};
use skep_tests::{Ran, Site};

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");

/// Makes an operator's key; returns the path of its file, and the operator's name.
fn key(site: &Site, dir: &Path, name: &str) -> (String, String) {
    let file = dir.join(name).to_str().unwrap().to_owned();
    let made = site.skep(0, &["key", "new", "--key", &file, "-o", "json"]).json();
    (file, made["operator"].as_str().unwrap().to_owned())
}

fn operator<'a>(listed: &'a Value, operator: &str) -> &'a Value {
    listed.as_array().unwrap().iter().find(|view| view["operator"] == operator).unwrap()
}

#[tokio::test]
async fn a_shard_is_made_with_its_first_operator_who_shows_its_key_and_gives_its_place_to_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::create(NODE, 1, 1, &[]);
    site.net.start(0).unwrap();
    let client = site.net.nodes[0].client();
    site.net.wait_for("a node", async || client.node_status().await.ok()).await.unwrap();
    let ((first_file, first), (next_file, next)) = (key(&site, dir.path(), "first"), key(&site, dir.path(), "next"));
    let voters = site.net.nodes[0].id.clone();
    let forgotten = site.skep(0, &["shard", "init", "--voters", &voters]);
    assert_eq!(forgotten.code(), Some(2), "{}", forgotten.error());
    for said in ["--operator", "--no-operator", "skep key new"] {
        assert!(forgotten.error().contains(said), "{said}: {}", forgotten.error());
    }
    let both = site.skep(0, &["shard", "init", "--voters", &voters, "--operator", &first, "--no-operator"]);
    assert_eq!(both.code(), Some(2), "{}", both.error());
    let init = ["shard", "init", "--voters", &voters, "--operator", &first, "--key"];
    let with_another_key = site.skep(0, &[&init[..], &[next_file.as_str()]].concat());
    assert_eq!(with_another_key.code(), Some(2), "{}", with_another_key.error());
    assert_eq!(site.skep(0, &[&init[..], &[first_file.as_str()]].concat()).code(), Some(0));
    site.net.leader().await.unwrap();
    let genesis = site.skep(0, &["shard", "status", "-o", "json"]).json()["genesis"].as_str().unwrap().to_owned();
    assert_eq!(genesis, client.place().await.unwrap().genesis.to_string());
    let listed = site.skep(0, &["operator", "list", "-o", "json"]).json();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["operator"]), (1, &first.as_str().into()));
    let replaced = site.skep(0, &["operator", "replace-first", &next, "--key", &first_file, "-o", "json"]).json();
    assert_eq!(operator(&replaced, &first)["revoked"], true);
    assert_eq!(operator(&replaced, &next)["revoked"], false);
    let add = ["operator", "add", &first, "--name", "former", "--key"];
    let by_the_former = site.skep(0, &[&add[..], &[first_file.as_str()]].concat());
    assert_eq!(by_the_former.code(), Some(5), "{}", by_the_former.error());
    assert_eq!(site.skep(0, &[&add[..], &[next_file.as_str()]].concat()).code(), Some(0));
    let mut events = client.watch_operators(Some(1)).await.unwrap();
    let (first, next) = (first.as_str(), next.as_str());
    let expected = [
        ("granted", first, first),
        ("replaced-first", next, first),
        ("granted", next, next),
        ("refused", "", first),
        ("granted", first, next),
    ];
    for expected in expected {
        let event = events.message().await.unwrap().unwrap();
        assert_eq!((event.kind.as_str(), event.operator.as_str(), event.by.as_str()), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_operators_commands_are_begun_no_more_and_a_grant_ends() {
    let dir = tempfile::tempdir().unwrap();
    let hall = Hall::up(NODE, 1, 1).await;
    let (_agent, mut offers) = attach(&hall.client(0), "r1", &[]).await;
    let first = hall.key.to_str().unwrap();
    let (clerk_file, clerk) = key(&hall.site, dir.path(), "clerk");
    let add = ["operator", "add", &clerk, "--name", "clerk", "--valid-for", "60s", "--key", first, "-o", "json"];
    let added = hall.site.skep(0, &add).json();
    assert!(operator(&added, &clerk)["until"].as_u64().unwrap() > 0);
    let send = |valid_for: &str| {
        let send = ["command", "send", "--to", "r1", "--verb", "goto", "--valid-for", valid_for, "--key", &clerk_file];
        hall.site.skep(0, &[&send[..], &["-o", "json"]].concat())
    };
    let outlives = send("2min");
    assert_eq!(outlives.code(), Some(5), "{}", outlives.error());
    let sent = send("30s").json();
    let offer = offers.next().await.unwrap();
    hall.site.skep(0, &["operator", "revoke", &clerk, "--key", first, "-o", "json"]).json();
    let client = hall.client(0);
    let id = sent["command"].as_str().unwrap().parse().unwrap();
    let ended = client.command_end(id).await.unwrap();
    assert_eq!(ended.deliveries[0].outcome, "cancelled");
    assert!(matches!(offer.start().await, Err(NotStarted::Void(_))));
    let refused = send("1s");
    assert_eq!(refused.code(), Some(5), "{}", refused.error());
}

/// The code of a refusal, for programs.
fn code(refused: &Ran) -> Code {
    let error = refused.error();
    let told: Value = serde_json::from_str(error.lines().last().unwrap_or_default()).unwrap_or_default();
    told["error"]["code"].as_str().and_then(Code::of).unwrap_or_else(|| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_signs_for_the_shard_that_it_signed_for_first_whatever_shard_a_node_names() {
    let (own, other) = (Hall::up(NODE, 1, 1).await, Hall::up(NODE, 1, 1).await);
    let key = own.key.to_str().unwrap();
    let genesis = |hall: &Hall| {
        let status = hall.site.skep(0, &["shard", "status", "-o", "json"]).json();
        status["genesis"].as_str().unwrap().to_owned()
    };
    let (first, second) = (genesis(&own), genesis(&other));
    let cancel = ["command", "cancel", "07070707-0707-0707-0707-070707070707", "--key", key, "-o", "json"];
    let given = [&cancel[..], &["--genesis", second.as_str()]].concat();
    assert_eq!(code(&own.site.skep(0, &cancel)), Code::NoSuchCommand, "the shard judges it");
    let remembered = || std::fs::read_to_string(format!("{key}.shard-1")).unwrap().trim().to_owned();
    assert_eq!(remembered(), first);
    // This is as if the node of the one shard named the other.
    let refused = other.site.skep(0, &cancel);
    assert_eq!((refused.code(), code(&refused)), (Some(5), Code::AnotherShard));
    assert_eq!(remembered(), first);
    // An operator that says which shard is meant is taken at that word, and at no other.
    assert!(code(&other.site.skep(0, &given)).is_of_statements());
    assert_eq!(code(&own.site.skep(0, &given)), Code::AnotherShard);
    let by_variable = Ran::of(own.site.command(0, &cancel).env("SKEP_GENESIS", &second));
    assert_eq!(code(&by_variable), Code::AnotherShard);
    let pinned = own.site.skep(0, &["operator", "pin", &second, "--key", key]);
    assert_eq!((pinned.code(), remembered()), (Some(0), second.clone()), "{}", pinned.error());
    assert!(code(&other.site.skep(0, &cancel)).is_of_statements());
    assert_eq!(code(&own.site.skep(0, &cancel)), Code::AnotherShard);
    // The same holds for the client of a program.
    let [wanted, told] = [&second, &first].map(|genesis| genesis.parse::<Genesis>().unwrap());
    let settings = Settings { genesis: Some(wanted), ..Settings::default() };
    let client = Client::with_settings(Endpoint::of_dir(&own.site.net.nodes[0].dir), settings).unwrap();
    assert_eq!(client.place().await, Err(ClientError::AnotherShard { wanted, told }));
}
