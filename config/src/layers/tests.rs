use std::io::Write;

use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn origin_of(settings: &[Setting], key: &str) -> (String, String) {
    let setting = settings.iter().find(|s| s.key == key).unwrap();
    (setting.value.clone(), setting.origin.to_string())
}

#[test]
fn every_preset_and_the_example_are_valid() {
    for preset in ["lan", "wan", "sim"] {
        let file = file(&format!("preset = \"{preset}\""));
        let (config, _) = load(Some(file.path()), &Overrides::default()).unwrap();
        assert_eq!(config.preset.to_string(), preset);
    }
    let (config, _) = load(Some(file(crate::EXAMPLE).path()), &Overrides::default()).unwrap();
    assert_eq!(config, load(None, &Overrides::default()).unwrap().0, "the example shows the defaults");
}

#[test]
fn precedence_is_flag_environment_file_preset_default() {
    let file = file("preset = \"wan\"\n[node]\nname = \"f\"\nsite = \"f\"\n[control]\nrpc_timeout_ms = 7000\n");
    let overrides = Overrides {
        flags: vec![("node.name".into(), "flagged".into(), "name".into())],
        environment: vec![
            ("SKEP_NODE__NAME".into(), "env".into()),
            ("SKEP_CONTROL__HEARTBEAT_MS".into(), "300".into()),
            ("SKEP_DIR".into(), "/nowhere".into()),
            ("HOME".into(), "/root".into()),
        ],
    };
    let (config, settings) = load(Some(file.path()), &overrides).unwrap();
    assert_eq!(config.control.heartbeat_ms, 300);
    assert_eq!(origin_of(&settings, "node.name"), ("flagged".into(), "--name".into()));
    assert_eq!(origin_of(&settings, "control.heartbeat_ms"), ("300".into(), "$SKEP_CONTROL__HEARTBEAT_MS".into()));
    assert_eq!(origin_of(&settings, "node.site").1, file.path().display().to_string());
    assert_eq!(origin_of(&settings, "control.silence_ms_min"), ("2000".into(), "preset wan".into()));
    assert_eq!(origin_of(&settings, "api.listen").1, "default");
}

#[test]
fn the_api_listens_on_a_port_only_if_it_is_told_to() {
    let listens =
        |text: &str| load(Some(file(text).path()), &Overrides::default()).map(|(config, _)| config.api.listen);
    assert_eq!(listens("preset = \"lan\"").unwrap(), None);
    assert_eq!(listens(crate::EXAMPLE).unwrap(), None);
    assert_eq!(listens("[api]\nlisten = \"127.0.0.1:7\"\n").unwrap(), Some("127.0.0.1:7".parse().unwrap()));
    assert_eq!(listens("[api]\nlisten = \"off\"\n").unwrap(), None);
    let error = listens("[api]\nlisten = \"on\"\n").unwrap_err().to_string();
    assert!(error.starts_with("api.listen: ") && error.contains("\"off\""), "{error}");
}

#[test]
fn an_unknown_key_is_refused_with_file_line_and_key() {
    let file = file("preset = \"lan\"\n\n[control]\nlisten = \"127.0.0.1:1\"\nheartbaet_ms = 50\n");
    let error = load(Some(file.path()), &Overrides::default()).unwrap_err().to_string();
    let place = format!("{}:5:1: control.heartbaet_ms: ", file.path().display());
    assert!(error.starts_with(&place), "{error}");
    let environment = vec![("SKEP_CONTROL__HEARTBAET_MS".to_owned(), "50".to_owned())];
    let error = load(None, &Overrides { environment, ..Overrides::default() }).unwrap_err().to_string();
    assert!(error.contains("heartbaet_ms") && error.contains("SKEP_CONTROL__HEARTBAET_MS"), "{error}");
}

#[test]
fn an_empty_file_is_an_error_that_names_it_and_no_default() {
    // etcd-io/etcd#3082
    for empty in ["", " \n\n", "\0\0\0\0"] {
        let file = file(empty);
        let error = load(Some(file.path()), &Overrides::default()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{} is empty", file.path().display())), "{error}");
    }
    let missing = load(Some(Path::new("/nowhere/skep.toml")), &Overrides::default()).unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere/skep.toml: "), "{missing}");
}

#[test]
fn every_value_is_shown() {
    let (_, settings) = load(Some(file("[mesh]\nmdns = true\n").path()), &Overrides::default()).unwrap();
    assert_eq!(origin_of(&settings, "mesh.mdns").0, "true");
    assert!(settings.iter().all(|setting| !setting.value.is_empty()), "{settings:?}");
}

/// databendlabs/databend#4341, in a list: an error names the file, the line and the column.
#[test]
fn what_stands_in_a_list_has_the_origin_of_the_list() {
    for bad in ["id = \"rubbish\"", "id = \"KNOWN\"\ncontrol = \"here\"", "id = \"KNOWN\"\nmesh = \"here\""] {
        let id = skep_protocol::ids::NodeId::from_public_key([1; 32]).to_string();
        let file = file(&format!("[[peers]]\n{}\n", bad.replace("KNOWN", &id)));
        let error = load(Some(file.path()), &Overrides::default()).unwrap_err().to_string();
        assert!(error.starts_with("peers.0."), "{error}");
        assert!(error.ends_with(&format!("(from {})", file.path().display())), "{error}");
    }
    let id = skep_protocol::ids::NodeId::from_public_key([1; 32]).to_string();
    let file = file(&format!("[[peers]]\nid = \"{id}\"\nname = \"b\"\n"));
    let (_, settings) = load(Some(file.path()), &Overrides::default()).unwrap();
    assert_eq!(origin_of(&settings, "peers.0.name"), ("b".into(), file.path().display().to_string()));
    assert_eq!((list_of("peers.0.id"), list_of("control.listen"), list_of("")), ("peers", "control.listen", ""));
}

#[test]
fn the_name_of_a_site_is_one_of_its_topics() {
    // VDA5050/VDA5050#605
    let file = file("[node]\nsite = \"plant/1\"\n");
    let error = load(Some(file.path()), &Overrides::default()).unwrap_err().to_string();
    assert!(error.starts_with("node.site: ") && error.contains("'/'"), "{error}");
}

#[test]
fn a_value_out_of_bounds_is_refused_with_its_origin() {
    let refused = |text: &str, key: &str| {
        let file = file(text);
        let error = load(Some(file.path()), &Overrides::default()).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    };
    refused("[control]\nheartbeat_ms = \"soon\"\n", "heartbeat_ms");
    refused("[control]\nheartbeat_ms = 0\n", "control.heartbeat_ms");
    refused("[control]\nsilence_ms_min = 150\n", "control.silence_ms_min");
    refused("[control]\nlisten = \"0.0.0.0:7341\"\n", "list the [[peers]]");
    refused("[api]\nlisten = \"0.0.0.0:7342\"\n", "api.listen");
    refused("[api]\nlisten = \"127.0.0.1:7340\"\n", "mesh.listen");
    refused("[control]\nlisten = \"127.0.0.1:7340\"\n", "mesh.listen");
    refused("preset = \"moon\"\n", "preset");
    refused("[[peers]]\nid = \"rubbish\"\n", "peers.0.id");
    refused("[node]\nname = \"a b\"\n", "node.name");
    refused("not toml", ":1:");
}

#[test]
fn a_zero_for_any_number_of_the_control_plane_or_the_store_is_refused_by_its_key() {
    let (_, settings) = load(None, &Overrides::default()).unwrap();
    let is_number = |setting: &&Setting| setting.value.parse::<u64>().is_ok();
    let keys = settings.iter().filter(is_number).filter_map(|setting| setting.key.split_once('.'));
    let keys: Vec<(&str, &str)> = keys.filter(|(section, _)| matches!(*section, "control" | "store")).collect();
    for known in [("control", "heartbeat_ms"), ("control", "entries_kept"), ("store", "low_water_bytes")] {
        assert!(keys.contains(&known), "{keys:?}");
    }
    for (section, name) in keys {
        let file = file(&format!("[{section}]\n{name} = 0\n"));
        let error = load(Some(file.path()), &Overrides::default()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{section}.{name}: ")), "{error}");
        assert!(error.contains(&file.path().display().to_string()), "{error}");
    }
}

#[test]
fn a_low_water_mark_of_zero_is_refused_with_what_it_means() {
    let file = file("[store]\nlow_water_bytes = 0\n");
    let error = load(Some(file.path()), &Overrides::default()).unwrap_err().to_string();
    assert!(error.contains("below which the node refuses new work"), "{error}");
}

#[test]
fn any_text_is_read_or_refused_and_never_a_panic() {
    use proptest::prelude::*;
    proptest!(|(text in "[a-z\\[\\]=\"\\n. 0-9{}]{0,200}")| {
        let file = file(&text);
        let _ = load(Some(file.path()), &Overrides::default());
    });
}

#[test]
fn only_a_node_of_a_testnet_can_be_cut_off() {
    let with = |site: &str| {
        let file = file(&format!("[node]\nname = \"n\"\nsite = \"{site}\"\n[testnet]\ncuts = \"cuts\"\n"));
        load(Some(file.path()), &Overrides::default())
    };
    assert!(with("testnet").unwrap().0.checks.cuts.is_some());
    assert!(with("plant-7").unwrap_err().to_string().contains("testnet"));
}

#[test]
fn a_node_that_lists_nobody_is_reached_by_nobody_unless_certificates_say_who_is_let_in() {
    for key in ["control", "mesh"] {
        let file = file(&format!("[node]\nname = \"n\"\nsite = \"s\"\n[{key}]\nlisten = \"10.0.0.7:7345\"\n"));
        let error = load(Some(file.path()), &Overrides::default()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{key}.listen: ")) && error.contains("[[peers]]"), "{error}");
        let (config, _) = load_in_site(Some(file.path()), &Overrides::default()).unwrap();
        assert!(config.control.peers.is_empty());
    }
    // All else is checked as ever.
    let file = file("[control]\nlisten = \"here\"\n");
    assert!(load_in_site(Some(file.path()), &Overrides::default()).is_err());
}
