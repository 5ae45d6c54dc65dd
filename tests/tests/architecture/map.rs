//! The map in the README shows the house as it is.

use std::collections::{BTreeMap, BTreeSet};

use crate::{metadata, normal, ours, root};

/// The name of a crate on the map.
fn on_the_map(package: &str) -> &str {
    match package {
        "skep" => "node",
        "skep-client" => "clients",
        package => package.trim_start_matches("skep-"),
    }
}

/// The arrows in a text: `a, b -> c, d`, several on a line.
fn arrows(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("->")) {
        // Names with commas between them are one side of an arrow.
        let mut sides: Vec<Vec<String>> = Vec::new();
        let mut goes_on = false;
        for word in line.split_whitespace().filter(|word| *word != "->") {
            let name = word.trim_end_matches(',').to_owned();
            if goes_on && let Some(side) = sides.last_mut() {
                side.push(name);
            } else {
                sides.push(vec![name]);
            }
            goes_on = word.ends_with(',');
        }
        for pair in sides.chunks(2) {
            let [from, to] = pair else { panic!("{line:?} is half an arrow") };
            for from in from {
                let is_new = arrows.insert(from.clone(), to.iter().cloned().collect()).is_none();
                assert!(is_new, "the arrows of {from} are in two places");
            }
        }
    }
    arrows
}

#[test]
fn the_arrows_of_the_map_are_those_of_the_manifests() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let block = readme.split("```text").skip(1).filter_map(|block| block.split("```").next());
    let drawn: BTreeMap<_, _> = block.filter(|block| block.contains("->")).flat_map(arrows).collect();
    let metadata = metadata();
    let rooms: BTreeSet<&str> = ours(&metadata).iter().map(|package| package.name.as_str()).collect();
    let mut real: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in ours(&metadata) {
        let dependencies = normal(package);
        let named = dependencies.iter().filter(|name| rooms.contains(name.as_str()));
        let to: BTreeSet<String> = named.map(|name| on_the_map(name).to_owned()).collect();
        real.insert(on_the_map(package.name.as_str()).to_owned(), to);
    }
    // The ground floor depends on no crate, and the tests on all.
    assert_eq!(real.remove("protocol"), Some(BTreeSet::new()));
    real.insert("tests".to_owned(), ["everything".to_owned()].into());
    assert_eq!(drawn, real, "left: the README; right: the manifests");
}

#[test]
fn each_room_is_on_the_map() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    for package in ours(&metadata()) {
        let dir = package.manifest_path.parent().unwrap().strip_prefix(root()).unwrap();
        // There are clients in several languages.
        let dir = format!("{}/ ", dir.as_str().trim_end_matches("/rust"));
        assert!(readme.lines().any(|line| line.starts_with(&dir)), "the README has no line for {dir}");
    }
}

#[test]
fn each_file_of_the_vocabulary_is_on_its_map() {
    let dir = root().join("protocol");
    let document = std::fs::read_to_string(dir.join("README.md")).unwrap();
    let map = document.split_once("## Where it is\n").unwrap().1.split("\n## ").next().unwrap();
    let mut files = 0;
    for item in std::fs::read_dir(dir.join("src")).unwrap() {
        let name = item.unwrap().file_name().into_string().unwrap();
        let is_there = [format!("(src/{name})"), format!("(src/{name}/mod.rs)")].iter().any(|link| map.contains(link));
        assert!(is_there || name == "lib.rs", "protocol/README.md has no place for {name}");
        files += 1;
    }
    assert!(files > 30, "only {files} files were found");
}

#[test]
fn arrows_are_read_as_they_are_drawn() {
    let read = arrows("a    -> b, c      d, e -> f\nno arrow\ng -> h");
    let told: Vec<String> = read.iter().map(|(from, to)| format!("{from} {to:?}")).collect();
    assert_eq!(told, [r#"a {"b", "c"}"#, r#"d {"f"}"#, r#"e {"f"}"#, r#"g {"h"}"#]);
}
