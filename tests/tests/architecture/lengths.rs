//! A function fits on a screen.

use std::collections::BTreeMap;

use crate::words::{self, Word, closed, text};

/// The longest that a function may be, in lines, from its name to its end.
const LINES_MAX: usize = 60;

/// The functions of a file that are too long: their names, and their lengths in lines.
fn long(words: &[Word]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for at in 0..words.len() {
        // A type of functions has no name, and a macro makes one.
        if text(words, at) != "fn" || !text(words, at + 1).starts_with(|c: char| c.is_alphabetic() || c == '_') {
            continue;
        }
        let mut body = at + 2;
        while !matches!(text(words, body), "{" | ";" | "") {
            body = if matches!(text(words, body), "(" | "[") { closed(words, body) } else { body + 1 };
        }
        if text(words, body) == "{" {
            let lines = words[closed(words, body) - 1].line - words[at].line + 1;
            if lines > LINES_MAX {
                found.push((text(words, at + 1).to_owned(), lines));
            }
        }
    }
    found
}

/// The listed functions. Each line has one: its length in lines, its file, its name.
fn listed() -> BTreeMap<(String, String), usize> {
    let lines = include_str!("lengths.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let function = |line: &str| {
        let mut parts = line.split_whitespace().map(str::to_owned);
        let lines: usize = parts.next().unwrap().parse().unwrap();
        ((parts.next().unwrap(), parts.next().unwrap()), lines)
    };
    lines.map(function).collect()
}

#[test]
fn long_functions_only_become_shorter_and_fewer() {
    let listed = listed();
    let mut found: BTreeMap<(String, String), usize> = BTreeMap::new();
    for source in words::crates().values().flat_map(BTreeMap::values) {
        for (name, lines) in long(&source.words) {
            let longest = found.entry((source.path.clone(), name)).or_default();
            *longest = lines.max(*longest);
        }
    }
    for (function, lines) in &found {
        let may = listed.get(function).copied().unwrap_or(LINES_MAX);
        assert!(*lines <= may, "{function:?} has {lines} lines, and may have {may}: are there two in it?");
    }
    assert_eq!(found, listed, "left: what there is; right: what lengths.txt lists, and is shorter or gone");
}

#[test]
fn the_lines_of_a_function_are_counted_to_its_end() {
    let lines = |count: usize| "\n".repeat(count);
    let text = format!(
        "const F: fn(u8) = long; trait T {{ fn of(&self) -> [u8; {{ 1 }}]; }} fn short() {{{}}} fn long<T>(x: fn(T)) where T: Fn() {{{}}}",
        lines(59),
        lines(60)
    );
    assert_eq!(long(&words::words_of(&text)), [("long".to_owned(), 61)]);
}
