//! What testnets read, given malformed input: problems, maps, histories, and questions to the station.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use skep_testnet::record::{ClientRecord, read};
use skep_testnet::site::station::{Effect, Question};
use skep_testnet::{Floor, load_problem};

const MAP: &str = "type octile\nheight 2\nwidth 3\nmap\n...\n.@.\n";

#[test]
fn fuzz_map() {
    let decode = |text: &str| {
        if let Ok(floor) = Floor::parse(Path::new("m.map"), text) {
            let again = Floor::parse(Path::new("m.map"), &floor.to_text()).unwrap();
            assert_eq!(again.to_text(), floor.to_text());
        }
    };
    decode(MAP);
    bolero::check!().with_type::<(u8, Vec<u8>)>().for_each(|(at, rubbish)| {
        let rubbish = String::from_utf8_lossy(rubbish);
        let (head, tail) = MAP.split_at(usize::from(*at) % MAP.len());
        decode(&format!("{head}{rubbish}{tail}"));
        decode(&rubbish);
    });
}

#[test]
fn fuzz_problem() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("m.map", MAP.as_bytes());
    write("a.agents", b"2\n0\n5\n");
    let json = r#"{"mapFile":"m.map","agentFile":"a.agents","taskFile":"t.tasks","teamSize":2,"numTasksReveal":1.5}"#;
    write("p.json", json.as_bytes());
    let path = dir.path().join("p.json");
    let mut good = 0;
    write("t.tasks", b"2\n1,2\n0\n");
    good += usize::from(load_problem(&path, 1, 2).is_ok());
    bolero::check!().with_iterations(300).for_each(|bytes: &[u8]| {
        write("t.tasks", bytes);
        if let Ok(workload) = load_problem(&path, 1, 2) {
            assert!(workload.orders.iter().flatten().all(|cell| workload.floor.is_free(*cell)));
        }
    });
    assert_eq!(good, 1);
}

#[test]
fn fuzz_histories_and_questions() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.jsonl");
    bolero::check!().with_iterations(300).for_each(|bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let _ = (read::<ClientRecord>(&path), read::<Effect>(&path));
        let _ = serde_json::from_slice::<Question>(bytes);
    });
}
