//! The catalogue of errors is the one place where codes are written, and the page of errors names what it has.

use skep_protocol::code::Code;

/// The file that has the codes.
const CATALOGUE: &str = "protocol/src/code.rs";
const PAGE: &str = "node/README.md";

/// The numbers of the codes in a text.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    let is_number = |number: &&str| number.bytes().all(|digit| digit.is_ascii_digit());
    text.split("SKEP-").skip(1).filter_map(|after| after.get(..4)).filter(is_number)
}

#[test]
fn codes_are_written_in_the_catalogue_alone() {
    for (path, text) in crate::sources().into_iter().filter(|(path, _)| path != CATALOGUE) {
        let written: Vec<&str> = codes(&text).collect();
        assert!(written.is_empty(), "{path} writes codes, which {CATALOGUE} has names for: {written:?}");
    }
}

#[test]
fn each_code_is_said_by_something() {
    let sources = crate::sources();
    let is_said = |code: &Code| {
        let name = format!("Code::{code:?}");
        let is_end = |after: &str| !after.starts_with(|next: char| next.is_alphanumeric() || next == '_');
        let mut others = sources.iter().filter(|(path, _)| path != CATALOGUE);
        others.any(|(_, text)| text.match_indices(&name).any(|(at, _)| is_end(&text[at + name.len()..])))
    };
    let unsaid: Vec<&Code> = Code::ALL.iter().filter(|code| !is_said(code)).collect();
    assert!(unsaid.is_empty(), "nothing says {unsaid:?}, which {CATALOGUE} has");
}

#[test]
fn the_page_of_errors_names_each_code_once_and_no_other() {
    let page = std::fs::read_to_string(crate::root().join(PAGE)).unwrap();
    let rows: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.get(..9)).collect();
    let rows: Vec<&str> = rows.into_iter().filter(|row| row.starts_with("SKEP-")).collect();
    let known: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(rows, known, "left: {PAGE}; right: {CATALOGUE}");
    let unknown: Vec<&str> = codes(&page).filter(|number| Code::of(&format!("SKEP-{number}")).is_none()).collect();
    assert!(unknown.is_empty(), "{PAGE} names codes that {CATALOGUE} does not have: {unknown:?}");
}
