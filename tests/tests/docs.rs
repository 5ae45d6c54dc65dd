//! Checks the documents of the project against what they describe: links, settings, services, faults, invariants and
//! names of tests. Runs the script that they tell readers to run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use skep_config::{Overrides, RawConfig, load};
use skep_protocol::fault::ShardFault;
use skep_protocol::mutant::Mutant;
use skep_tests::ports::free_ports;

const NODE: &str = env!("CARGO_BIN_EXE_skep-node");
/// The shortest test name that a document can mean, in characters.
const TEST_NAME_MIN: usize = 16;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files of the project whose names end like this: the path and the text of each. Files that are not ours are left
/// out.
fn read_all(end: &str) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, end: &str, found: &mut Vec<(PathBuf, String)>) {
        for item in std::fs::read_dir(dir).unwrap() {
            let path = item.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", "patched"].contains(&name.as_str()) && !name.starts_with('.') {
                    walk(&path, end, found);
                }
            } else if name.ends_with(end) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), end, &mut found);
    found
}

/// The cells of the table below a header.
fn table(text: &str, header: &str) -> Vec<Vec<String>> {
    let (_, rest) = text.split_once(header).unwrap_or_else(|| panic!("there is no table {header}"));
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells =
        |row: &str| -> Vec<String> { row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect() };
    rows.map(cells).collect()
}

fn plain(cell: &str) -> String {
    cell.trim_matches('`').to_owned()
}

/// The parts of a text that are set as code.
fn spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The anchor of a heading in links.
fn anchor_of(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(*c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn has_anchor(text: &str, anchor: &str) -> bool {
    text.lines().filter(|line| line.starts_with('#')).any(|line| anchor_of(line.trim_start_matches('#')) == anchor)
}

#[test]
fn every_link_of_a_document_leads_somewhere() {
    let mut lost = Vec::new();
    for (path, text) in read_all(".md") {
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        for (link, _) in links.filter(|(link, _)| !link.starts_with("http")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let leads = target.exists()
                && (anchor.is_empty() || std::fs::read_to_string(&target).is_ok_and(|text| has_anchor(&text, anchor)));
            if !leads {
                lost.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(lost.is_empty(), "{lost:#?}");
}

#[test]
fn the_first_page_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 100, "README.md has {lines} lines");
}

/// The keys of a section of the configuration, as the error about an unknown key lists them.
fn keys_of(section: &str) -> Vec<String> {
    let key = "no_such_key = 1";
    let text = match section {
        "" => key.to_owned(),
        "peers" => format!("[[peers]]\n{key}"),
        section => format!("[{section}]\n{key}"),
    };
    let error = toml::from_str::<RawConfig>(&text).unwrap_err();
    // The first one is the unknown key.
    spans(error.message()).skip(1).map(str::to_owned).collect()
}

#[test]
fn every_setting_is_in_the_guide_with_its_default_and_nothing_else_is() {
    let guide = read("node/README.md");
    let rows = table(&guide, "| key | type, unit | default | what it is |");
    let told: BTreeMap<String, String> = rows.iter().map(|row| (plain(&row[0]), plain(&row[2]))).collect();
    assert_eq!(told.len(), rows.len(), "a key is told twice");
    let mut keys = BTreeSet::from(["preset".to_owned()]);
    for section in keys_of("").into_iter().filter(|section| section != "preset") {
        keys.extend(keys_of(&section).into_iter().map(|key| format!("{section}.{key}")));
    }
    assert_eq!(told.keys().cloned().collect::<BTreeSet<_>>(), keys, "left: guide, right: code");
    let (_, settings) = load(None, &Overrides::default()).unwrap();
    for setting in settings {
        assert_eq!(told.get(&setting.key), Some(&setting.value), "{}", setting.key);
    }
    let rows = table(&guide, "| key | lan | wan | sim |");
    for (at, preset) in ["lan", "wan", "sim"].into_iter().enumerate() {
        let own: BTreeMap<String, String> = rows.iter().map(|row| (plain(&row[0]), plain(&row[at + 1]))).collect();
        let flags = vec![("preset".to_owned(), preset.to_owned(), "preset".to_owned())];
        let (_, settings) = load(None, &Overrides { flags, ..Overrides::default() }).unwrap();
        for setting in settings.iter().filter(|setting| setting.key != "preset") {
            let expected = own.get(&setting.key).or_else(|| told.get(&setting.key));
            assert_eq!(expected, Some(&setting.value), "{} of preset {preset}", setting.key);
        }
    }
}

#[test]
fn every_method_of_the_api_is_in_its_document_and_no_other_is() {
    let rows = table(&read("protocol/README.md"), "| service | methods |");
    let told: BTreeMap<String, BTreeSet<String>> =
        rows.iter().map(|row| (plain(&row[0]), spans(&row[1]).map(str::to_owned).collect())).collect();
    let mut served: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, text) in read_all(".proto") {
        let mut service = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("service ").and_then(|rest| rest.strip_suffix(" {")) {
                service = name.to_owned();
            } else if let Some((name, _)) = line.strip_prefix("rpc ").and_then(|rest| rest.split_once('(')) {
                served.entry(service.clone()).or_default().insert(name.to_owned());
            }
        }
    }
    assert_eq!(told, served, "left: document, right: messages");
}

#[test]
fn every_fault_is_in_the_guide_and_no_other_is() {
    let rows = table(&read("node/README.md"), "| fault | what is wrong |");
    let told: BTreeSet<&str> = rows.iter().flat_map(|row| spans(&row[0])).collect();
    let all: BTreeSet<&str> = ShardFault::ALL.iter().map(|fault| fault.name()).collect();
    assert_eq!(told, all, "left: guide, right: code");
}

#[test]
fn a_word_of_the_glossary_has_one_meaning() {
    let rows = table(&read("tests/STYLE.md"), "| word | meaning |");
    let words: Vec<&String> = rows.iter().map(|row| &row[0]).collect();
    assert!(words.len() > 40 && words.is_sorted_by(|a, b| a < b), "each word once, and in order: {words:?}");
}

#[test]
fn every_invariant_is_defined_and_every_seeded_bug_stands_beside_one() {
    let text = read("tests/INVARIANTS.md");
    let defined: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let ids: Vec<String> = (1..=19).map(|n| format!("S{n}")).chain((1..=8).map(|n| format!("L{n}"))).collect();
    assert_eq!(defined, ids.iter().map(String::as_str).collect::<BTreeSet<_>>());
    let is_id = |text: &str| {
        let number = text.strip_prefix(['S', 'L']);
        number.is_some_and(|n| (1..=2).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()))
    };
    for (path, source) in read_all(".rs") {
        for id in source.split('"').filter(|text| is_id(text)) {
            assert!(defined.contains(id), "{} names {id}, which tests/INVARIANTS.md does not define", path.display());
        }
    }
    let named: BTreeSet<&str> = spans(&text).collect();
    for mutant in Mutant::ALL {
        assert!(named.contains(mutant.name()), "tests/INVARIANTS.md does not name the mutant {}", mutant.name());
    }
}

/// The names of all functions.
fn functions() -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let sources = read_all(".rs");
    let after_fn = sources.iter().flat_map(|(_, text)| text.split("fn ").skip(1));
    after_fn.map(|rest| rest.chars().take_while(|c| is_of_name(*c)).collect::<String>()).collect()
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let functions = functions();
    for path in ["tests/INVARIANTS.md", "tests/README.md"] {
        let text = read(path);
        let is_name = |span: &&str| {
            let name = span.trim_end_matches('…');
            let of_names = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            name.len() >= TEST_NAME_MIN && name.contains('_') && name.chars().all(of_names)
        };
        for span in spans(&text).filter(is_name) {
            let is_there = match span.strip_suffix('…') {
                None => functions.contains(span),
                Some(begin) => functions.range(begin.to_owned()..).next().is_some_and(|name| name.starts_with(begin)),
            };
            assert!(is_there, "{path} names {span}, which is no function");
        }
    }
}

#[test]
fn the_three_nodes_of_the_guide_run_as_they_are_told_to() {
    let guide = read("node/README.md");
    let (_, rest) = guide.split_once("<!-- run -->\n```sh\n").unwrap();
    let (script, _) = rest.split_once("\n```\n").unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(NODE, dir.path().join("skep")).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    // No node is left, whatever fails.
    let ends = "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT";
    let ran = Command::new("timeout")
        .args(["300", "bash", "-euo", "pipefail", "-c", &format!("{ends}\n{script}")])
        .env_clear()
        .env("PATH", path)
        .env("TMPDIR", dir.path())
        .env("PORT", free_ports(23).to_string())
        .output()
        .unwrap();
    let (told, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{}\n{told}\n{error}", ran.status);
    for expected in ["robot-2 lost the race", "completed", "leader"] {
        assert!(told.contains(expected), "{expected}: {told}\n{error}");
    }
}
