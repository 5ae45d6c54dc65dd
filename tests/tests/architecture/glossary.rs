//! A word has one meaning, and a thing has one word: what was mended does not come back.

/// This file, which may have these words.
const OWN: &str = "tests/tests/architecture/glossary.rs";

/// Words that are not to be used, and the words to use instead.
const MENDED: [(&str, &str); 17] = [
    ("AgentCommands", "AgentRequests"),
    ("CommandOrder", "CommandControl"),
    ("JournalEffect", "JournalJob"),
    ("OperatorCommands", "CommandRequests or OperatorRequests"),
    ("OrderCommandRequest", "ControlCommandRequest"),
    ("OrderKind", "ControlKind"),
    ("ShardCommands", "ShardRequests"),
    ("SignedOrder", "SignedControl"),
    ("TaskCommand", "TaskRequest"),
    ("TaskCommandReply", "TaskReply"),
    ("TaskCommands", "TaskRequests"),
    ("let out", "released"),
    ("lets out", "releases"),
    ("letting out", "releasing"),
    ("order_command", "control_command"),
    ("place in the log", "index"),
    ("task_command", "task_request"),
];

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The numbers of the lines, from 1, in which a word stands by itself. A variable may be called `out`.
fn lines_with(text: &str, said: &str) -> Vec<usize> {
    let stands = |line: &str| {
        line.match_indices(said).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + said.len()..]);
            let is_variable = said == "let out" && after.starts_with([' ', ':']) && after.contains('=');
            !before.ends_with(is_of_name) && !after.starts_with(is_of_name) && !is_variable
        })
    };
    text.lines().zip(1..).filter(|(line, _)| stands(line)).map(|(_, number)| number).collect()
}

#[test]
fn a_word_that_was_mended_does_not_come_back() {
    assert!(MENDED.is_sorted_by(|a, b| a.0 < b.0), "each once, and in order");
    let files = crate::files(&[".rs", ".md", ".proto"]);
    for (path, text) in files.iter().filter(|(path, _)| path != OWN) {
        for (said, instead) in &MENDED {
            let found = lines_with(text, said);
            assert!(found.is_empty(), "{path}, lines {found:?}: say {instead:?} in place of {said:?}");
        }
    }
}

#[test]
fn a_word_is_found_where_it_stands_by_itself() {
    let text =
        "it is let out.\nlet out = 1;\nlet out: u8 = 1;\nwalls let outside in\nOrderKind::Cancel, an OrderKind\n";
    assert_eq!(lines_with(text, "let out"), [1]);
    assert_eq!(lines_with(text, "OrderKind"), [5]);
    assert_eq!(lines_with("ReorderKind OrderKinds", "OrderKind"), [0_usize; 0]);
}
