//! The walls of the house, held up by a program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod circles;
mod codes;
mod glossary;
mod lengths;
mod map;
mod widths;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Who may import whom. A crate that is not here may not exist.
const ARROWS: [(&str, &[&str]); 15] = [
    ("skep-protocol", &[]),
    ("skep-proto", &["skep-protocol"]),
    ("skep-trust", &["skep-protocol"]),
    ("skep-admission", &["skep-protocol", "skep-trust"]),
    ("skep-client", &["skep-proto", "skep-protocol"]),
    ("skep-config", &["skep-protocol"]),
    ("skep-fleet", &["skep-protocol", "skep-trust"]),
    ("skep-engine", &["skep-config", "skep-protocol"]),
    ("skep-mesh", &["skep-admission", "skep-config", "skep-protocol", "skep-trust"]),
    ("skep-api", &["skep-config", "skep-proto", "skep-protocol"]),
    ("skep-store", &["skep-protocol"]),
    ("skep-consensus", &["skep-admission", "skep-config", "skep-fleet", "skep-protocol", "skep-store", "skep-trust"]),
    ("skep-testnet", &["skep-client", "skep-protocol"]),
    (
        "skep",
        &[
            "skep-admission",
            "skep-api",
            "skep-client",
            "skep-config",
            "skep-consensus",
            "skep-engine",
            "skep-mesh",
            "skep-protocol",
            "skep-store",
            "skep-testnet",
            "skep-trust",
        ],
    ),
    ("skep-tests", &["*"]),
];

/// Libraries that end in one room. A bad robot of the tests speaks as they do, with none of the product's own code.
const OWNERS: [(&str, &[&str]); 15] = [
    ("libp2p", &["skep-mesh", "skep-tests"]),
    ("libp2p-identity", &["skep-consensus", "skep-tests"]),
    ("libp2p-tls", &["skep-consensus", "skep-tests"]),
    ("openraft", &["skep-consensus"]),
    ("fjall", &["skep-store"]),
    ("quinn", &["skep-consensus", "skep-tests"]),
    ("rustls", &["skep-consensus"]),
    ("imbl", &["skep-fleet"]),
    // What operators and issuers sign are protobuf messages, and a part of the vocabulary; a transport is none.
    ("prost", &["skep-protocol", "skep-trust", "skep-proto", "skep-api", "skep-client", "skep-tests"]),
    ("tonic", &["skep-proto", "skep-api", "skep-client"]),
    ("tonic-prost", &["skep-proto"]),
    ("tonic-health", &["skep-api"]),
    ("tonic-reflection", &["skep-api"]),
    ("figment", &["skep-config"]),
    ("clap", &["skep", "skep-tests"]),
];

/// The crates that see nothing but their arguments.
const PURE: [&str; 3] = ["skep-fleet", "skep-engine", "skep-trust"];

/// What the pure crates must not name. Of prost see its owners: messages that are signed are made and read without any IO.
const IMPURE: [&str; 11] =
    ["tokio", "libp2p", "openraft", "quinn", "rand", "getrandom", "fjall", "rustix", "mio", "socket2", "tonic"];

/// What nothing may bring to the pure crates, however far from them: runtimes, transports and stores.
const IO: [&str; 28] = [
    "async-io",
    "async-std",
    "fjall",
    "futures-executor",
    "h2",
    "http",
    "http-body",
    "hyper",
    "hyper-util",
    "libp2p",
    "libp2p-identity",
    "mio",
    "openraft",
    "polling",
    "quinn",
    "quinn-proto",
    "rustix",
    "rustls",
    "signal-hook-registry",
    "smol",
    "socket2",
    "tokio",
    "tokio-stream",
    "tokio-util",
    "tonic",
    "tower",
    "tower-layer",
    "tower-service",
];

/// Where random numbers of the machine come from.
const ENTROPY: [&str; 3] = ["fastrand", "getrandom", "rand"];

/// Versions with known faults are below these.
const FLOORS: [(&str, [u64; 3]); 12] = [
    ("libp2p", [0, 57, 1]),
    ("libp2p-gossipsub", [0, 50, 0]),
    ("libp2p-rendezvous", [0, 17, 1]),
    ("yamux", [0, 14, 0]),
    ("quinn-proto", [0, 11, 15]),
    ("rustls", [0, 23, 18]),
    ("rustls-webpki", [0, 103, 13]),
    ("snow", [0, 9, 5]),
    ("ed25519-dalek", [2, 0, 0]),
    ("h2", [0, 4, 16]),
    ("aws-lc-sys", [0, 39, 0]),
    ("hickory-proto", [0, 26, 1]),
];

fn metadata() -> Metadata {
    // What this machine has built is at hand; what other platforms would need may never have been downloaded.
    let options = ["--offline".to_owned(), "--filter-platform".to_owned(), host()];
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).other_options(options).exec().unwrap()
}

fn host() -> String {
    let told = std::process::Command::new("rustc").arg("-vV").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    told.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn ours(metadata: &Metadata) -> Vec<&Package> {
    metadata.workspace_packages()
}

/// Names of the crates that a package of ours depends on in production.
fn normal(package: &Package) -> BTreeSet<String> {
    package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal).map(|d| d.name.clone()).collect()
}

#[test]
fn crates_import_only_along_the_arrows() {
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.into();
    let metadata = metadata();
    for package in ours(&metadata) {
        let name = package.name.as_str();
        let allowed = arrows.get(name).unwrap_or_else(|| panic!("{name} is not a room of the house"));
        for dependency in normal(package).iter().filter(|d| arrows.contains_key(d.as_str())) {
            let arrow = allowed.contains(&"*") || allowed.contains(&dependency.as_str());
            assert!(arrow, "{name} -> {dependency} is not an arrow of the house");
        }
    }
    assert_eq!(ours(&metadata).len(), ARROWS.len(), "a room of the house is missing");
}

#[test]
fn libraries_end_in_the_rooms_that_own_them() {
    let metadata = metadata();
    for (library, owners) in OWNERS {
        for package in ours(&metadata).into_iter().filter(|p| normal(p).contains(library)) {
            assert!(owners.contains(&package.name.as_str()), "{} must not depend on {library}", package.name);
        }
    }
}

#[test]
fn the_pure_crates_see_no_io_clock_or_randomness() {
    let metadata = metadata();
    for pure in PURE {
        let package = ours(&metadata).into_iter().find(|p| p.name.as_str() == pure).unwrap();
        let direct = normal(package);
        for impure in IMPURE {
            assert!(!direct.contains(impure), "{pure} must not depend on {impure}");
        }
        // The crate's own clippy.toml forbids clocks, files and threads of std.
        let lints = std::fs::read_to_string(package.manifest_path.with_file_name("clippy.toml")).unwrap();
        for banned in ["std::collections::HashMap", "std::time::Instant", "std::time::SystemTime", "std::fs::File"] {
            assert!(lints.contains(banned), "{pure}/clippy.toml must forbid {banned}");
        }
        let root = std::fs::read_to_string(package.manifest_path.with_file_name("src/lib.rs")).unwrap();
        let warns = root.contains("warn(clippy::wildcard_enum_match_arm)");
        assert!(warns, "{pure} must say what it does with each variant");
    }
}

/// The crates that one of ours is linked with, each under the one that brings it: with the features that are on when the whole
/// workspace is built, where one crate asks for a feature and all have it.
fn linked_with<'a>(metadata: &'a Metadata, package: &Package) -> BTreeMap<&'a str, &'a str> {
    let names: BTreeMap<_, _> = metadata.packages.iter().map(|p| (&p.id, p.name.as_str())).collect();
    let nodes: BTreeMap<_, _> = metadata.resolve.as_ref().unwrap().nodes.iter().map(|node| (&node.id, node)).collect();
    let mut linked = BTreeMap::new();
    let mut next = vec![&package.id];
    while let Some(id) = next.pop() {
        let of_a_kind = |d: &&cargo_metadata::NodeDep| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
        for dependency in nodes[id].deps.iter().filter(of_a_kind) {
            if linked.insert(names[&dependency.pkg], names[id]).is_none() {
                next.push(&dependency.pkg);
            }
        }
    }
    linked
}

/// The crates that one of ours is built of, itself among them: with the features that it and its dependencies ask for, as when
/// it is built alone.
fn built_of(package: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let asked = ["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let told = std::process::Command::new(cargo).args(asked).args(["--package", package]).current_dir(root()).output();
    let told = told.unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told = String::from_utf8(told.stdout).unwrap();
    told.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn nothing_brings_io_or_randomness_to_the_pure_crates() {
    let metadata = metadata();
    for pure in PURE {
        let package = ours(&metadata).into_iter().find(|p| p.name.as_str() == pure).unwrap();
        let linked = linked_with(&metadata, package);
        // It looks at what it has to look at.
        assert!(linked.contains_key("ed25519-dalek") && linked.contains_key("serde_core"), "{linked:?}");
        for io in IO {
            let by = linked.get(io);
            assert!(by.is_none(), "{by:?} brings {io} to {pure}");
        }
        // Other crates of the workspace make ids at random, with a feature of a crate that the vocabulary has, too. Alone it has
        // not got it.
        let built = built_of(pure);
        assert!(built.contains(pure) && built.contains("ed25519-dalek"), "{built:?}");
        for impure in IO.iter().chain(&ENTROPY) {
            assert!(!built.contains(*impure), "{pure} is built of {impure}: cargo tree -p {pure} -i {impure}");
        }
    }
}

#[test]
fn versions_with_known_faults_are_not_in_the_lock_file() {
    let lock: toml::Table = std::fs::read_to_string(root().join("Cargo.lock")).unwrap().parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    let versions = |name: &str| -> Vec<String> {
        let named = packages.iter().filter(|p| p["name"].as_str() == Some(name));
        named.map(|p| p["version"].as_str().unwrap().to_owned()).collect()
    };
    for (name, floor) in FLOORS {
        for version in versions(name) {
            let numbers: Vec<u64> = version.split(['.', '-', '+']).take(3).map(|n| n.parse().unwrap()).collect();
            assert!(numbers.as_slice() >= floor.as_slice(), "{name} {version} is below {floor:?}");
        }
    }
    assert_eq!(versions("openraft"), ["0.10.0-alpha.37"], "the version that was measured and reviewed");
}

#[test]
fn arithmetic_that_overflows_ends_what_is_released_too() {
    let manifest: toml::Table = std::fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let profiles = &manifest["profile"];
    assert_eq!(profiles["release"]["overflow-checks"].as_bool(), Some(true));
    assert_eq!(profiles["dist"]["inherits"].as_str(), Some("release"));
    assert!(profiles["dist"].get("overflow-checks").is_none());
}

#[test]
fn no_older_tls_is_compiled_in() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().unwrap();
    let rustls =
        |id: &cargo_metadata::PackageId| metadata.packages.iter().any(|p| p.id == *id && p.name.as_str() == "rustls");
    let nodes: Vec<_> = resolve.nodes.iter().filter(|node| rustls(&node.id)).collect();
    assert!(!nodes.is_empty());
    for node in nodes {
        assert!(!node.features.iter().any(|feature| **feature == "tls12"), "{}", node.id);
    }
}

#[test]
fn the_floors_of_versions_are_those_of_the_check_of_the_supply_chain() {
    let deny: toml::Table = std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap();
    let denied = deny["bans"]["deny"].as_array().unwrap();
    for (name, [major, minor, patch]) in FLOORS {
        let named = denied.iter().find(|ban| ban.get("name").and_then(toml::Value::as_str) == Some(name));
        let version = named.unwrap_or_else(|| panic!("deny.toml has no floor for {name}"))["version"].as_str().unwrap();
        let below: Vec<u64> = version.trim_start_matches('<').split('.').map(|n| n.parse().unwrap()).collect();
        assert!([major, minor, patch].starts_with(&below), "{name}: {version} and {major}.{minor}.{patch}");
    }
}

#[test]
fn every_dependency_is_versioned_in_the_workspace_manifest() {
    for package in ours(&metadata()) {
        let manifest: toml::Table = std::fs::read_to_string(&package.manifest_path).unwrap().parse().unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for (name, value) in table {
                assert!(value.get("workspace").is_some(), "{}: {name} does not come from the workspace", package.name);
            }
        }
    }
}

/// All files of the project with such endings: where each is, and its text.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    fn walk(dir: &Path, endings: &[&str], found: &mut Vec<(String, String)>) {
        for item in std::fs::read_dir(dir).unwrap() {
            let path = item.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                walk(&path, endings, found);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(), text));
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), endings, &mut found);
    found
}

/// All Rust files of the product.
fn sources() -> Vec<(String, String)> {
    files(&[".rs"])
}

#[test]
fn types_of_libraries_end_where_the_walls_are() {
    for (path, text) in sources() {
        let may = |owner: &[&str]| owner.iter().any(|dir| path.starts_with(dir)) || path.starts_with("tests/");
        let uses = |name: &str| text.lines().any(|l| !l.trim_start().starts_with("//") && l.contains(name));
        assert!(!uses("openraft::") || may(&["consensus/src/"]), "{path} uses openraft");
        assert!(!uses("fjall::") || may(&["consensus/store/src/"]), "{path} uses fjall");
        assert!(!uses("libp2p::") || may(&["node/mesh/"]), "{path} uses libp2p");
        assert!(!uses("quinn::") || may(&["consensus/src/net/"]), "{path} uses quinn");
        // Operators, and issuers of certificates, sign in one place each.
        assert!(
            !uses("ed25519_dalek::") || may(&["protocol/src/signing/", "protocol/trust/"]),
            "{path} uses ed25519-dalek"
        );
        // Over HTTP there are no traits of gRPC's services either.
        let of_transport = ["tonic", "_server::"].into_iter().find(|name| uses(name));
        let may_not = of_transport.filter(|_| path.starts_with("node/api/src/service/"));
        assert!(may_not.is_none(), "{path} serves whatever the transport is, and names {may_not:?}");
        let proto = [
            "protocol/proto/",
            "protocol/src/stated/",
            "protocol/trust/src/",
            "protocol/clients/",
            "node/api/",
            "node/src/cli/",
            "testnet/",
        ];
        assert!(!uses("v1::") || may(&proto), "{path} uses generated protobuf types");
    }
}

#[test]
fn files_are_short_and_rooms_have_names() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 600, "{path} has {lines} lines: two rooms in one?");
        let stem = Path::new(&path).file_stem().unwrap().to_string_lossy().into_owned();
        assert!(
            !["utils", "util", "common", "manager", "helper", "helpers", "misc"].contains(&stem.as_str()),
            "{path}"
        );
        let product = !path.starts_with("tests/");
        assert!(!product || !text.contains("unbounded_channel"), "{path} has an unbounded channel");
    }
}
