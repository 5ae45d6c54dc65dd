//! A comment fits on a screen.

use std::collections::BTreeMap;

/// The longest that a line of a comment may be, in characters.
const COLUMNS_MAX: usize = 120;

/// How many lines of a file are comments that are too wide. A comment behind code counts as code, which rustfmt wraps.
fn wide(text: &str) -> usize {
    text.lines().filter(|line| line.trim_start().starts_with("//") && line.chars().count() > COLUMNS_MAX).count()
}

/// The listed files, and how many wide lines each may have.
fn listed() -> BTreeMap<String, usize> {
    let lines = include_str!("widths.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let file = |line: &str| {
        let (count, path) = line.split_once(' ').unwrap();
        (path.to_owned(), count.parse().unwrap())
    };
    lines.map(file).collect()
}

#[test]
fn wide_comments_only_become_fewer() {
    let listed = listed();
    let ours = crate::sources().into_iter().filter(|(path, _)| !path.starts_with("consensus/patched/"));
    let counted = ours.map(|(path, text)| (path, wide(&text)));
    let found: BTreeMap<String, usize> = counted.filter(|(_, count)| *count > 0).collect();
    for (path, count) in &found {
        let may = listed.get(path).copied().unwrap_or(0);
        assert!(
            *count <= may,
            "{path} has {count} comment lines of more than {COLUMNS_MAX} columns, and may have {may}"
        );
    }
    assert_eq!(found, listed, "left: what there is; right: what widths.txt lists, and is fewer or gone");
}

#[test]
fn comments_are_counted_and_code_is_not() {
    let line = |begin: &str, columns: usize| format!("    {begin}{}\n", "ä".repeat(columns - 4 - begin.len()));
    let text = [line("/// ", 120), line("/// ", 121), line("//! ", 130), line("// ", 121), line("call", 121)].concat();
    assert_eq!(wide(&text), 3);
}
