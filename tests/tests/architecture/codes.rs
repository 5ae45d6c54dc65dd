//! The page of errors names what a client can be told.

use std::collections::BTreeSet;

/// Where the codes are said: by a node, and by a client whom no node answers.
const SAID: [&str; 2] = ["node/api/src/failure.rs", "protocol/clients/rust/src/error.rs"];
const PAGE: &str = "node/README.md";

/// The numbers of the codes in a text.
fn codes(text: &str) -> BTreeSet<&str> {
    let is_number = |number: &&str| number.bytes().all(|digit| digit.is_ascii_digit());
    text.split("SKEP-").skip(1).filter_map(|after| after.get(..4)).filter(is_number).collect()
}

#[test]
fn the_page_of_errors_names_each_code_once_and_no_other() {
    let sources = crate::sources();
    let product = sources.iter().filter(|(path, _)| SAID.contains(&path.as_str()));
    let said: BTreeSet<&str> =
        product.flat_map(|(_, text)| codes(text.split("#[cfg(test)]").next().unwrap_or_default())).collect();
    let page = std::fs::read_to_string(crate::root().join(PAGE)).unwrap();
    let rows: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `SKEP-")?.get(..4)).collect();
    assert!(rows.is_sorted(), "{rows:?}");
    assert_eq!(said.iter().copied().collect::<Vec<_>>(), rows, "left: what the code says; right: {PAGE}");
    for (path, text) in &sources {
        let unsaid: Vec<&str> = codes(text).difference(&said).copied().collect();
        assert!(unsaid.is_empty(), "{path} names codes that neither nodes nor clients say: {unsaid:?}");
    }
}
