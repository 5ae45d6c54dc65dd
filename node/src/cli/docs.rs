//! Compares the documents of the project with the command line: lines that a reader may type, the table of verbs, error
//! codes.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::str::Chars;

use clap::error::ErrorKind;
use clap::{Arg, Command, CommandFactory as _};
use skep_client::OperatorSecret;
use skep_protocol::code::{Again, Code, Exit};

use super::Cli;

/// The variable that makes the test write the tables of verbs and of errors, in place of comparing them.
const WRITE: &str = "SKEP_WRITE_DOCS";
/// The marks around the table of verbs.
const TABLE: (&str, &str) = ("<!-- verbs begin -->\n", "<!-- verbs end -->");
/// The marks around the table of errors.
const ERRORS: (&str, &str) = ("<!-- errors begin -->\n", "<!-- errors end -->");
/// A sample of an id, in place of the word that a document has.
const ID: &str = "01a1fd21-0000-7000-8000-000000000000";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All files of the project below a directory whose names end with `end`. Files of other projects are left out.
fn files(dir: &Path, end: &str, found: &mut Vec<PathBuf>) {
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", "patched"].contains(&name.as_str()) && !name.starts_with('.') {
                files(&path, end, found);
            }
        } else if name.ends_with(end) {
            found.push(path);
        }
    }
}

fn read_all(dir: &Path, end: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(dir, end, &mut found);
    found.iter().map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap())).collect()
}

fn guide() -> (PathBuf, String) {
    let path = root().join("node/README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text)
}

/// The lines of a document's shell blocks, and the code spans of the text around the blocks. The table of verbs is left
/// out.
fn code_of(text: &str) -> (Vec<String>, Vec<String>) {
    let (begin, end) = TABLE;
    let without_table = match text.split_once(begin).and_then(|(head, rest)| Some((head, rest.split_once(end)?.1))) {
        Some((head, tail)) => format!("{head}{tail}"),
        None => text.to_owned(),
    };
    let (mut language, mut shell, mut around) = (None, Vec::new(), String::new());
    for line in without_table.lines() {
        match (line.trim().strip_prefix("```"), &language) {
            (Some(_), Some(_)) => language = None,
            (Some(of), None) => language = Some(of.to_owned()),
            (None, Some(of)) if of == "sh" => shell.push(line.to_owned()),
            (None, Some(_)) => {}
            (None, None) => around += &format!("{line} "),
        }
    }
    (shell, around.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Reads shell, as far as documents use it: simple commands, as words.
#[derive(Default)]
struct Shell {
    found: Vec<Vec<String>>,
    words: Vec<String>,
    word: Option<String>,
}

impl Shell {
    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end_command(&mut self) {
        self.end_word();
        let words = std::mem::take(&mut self.words);
        if !words.is_empty() {
            self.found.push(words);
        }
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_with(String::new).push(c);
    }

    fn read(mut self, line: &str) -> Vec<Vec<String>> {
        let (mut chars, mut quote) = (line.chars().peekable(), None);
        while let Some(c) = chars.next() {
            match (quote, c) {
                (Some(open), _) if c == open => quote = None,
                (Some('\''), _) => self.push(c),
                (_, '$') if chars.peek() == Some(&'(') => self.substitute(&mut chars),
                (Some(_), _) => self.push(c),
                (None, '\'' | '"') => quote = Some(c),
                (None, '#') if self.word.is_none() => break,
                (None, '>' | '<') => self.redirect(&mut chars),
                (None, ';' | '|' | '&' | '(' | ')') => self.end_command(),
                (None, _) if c.is_whitespace() => self.end_word(),
                (None, _) => self.push(c),
            }
        }
        self.end_command();
        self.found
    }

    /// The commands inside count as well; their output is a word.
    fn substitute(&mut self, chars: &mut Peekable<Chars<'_>>) {
        chars.next();
        let (mut inner, mut depth) = (String::new(), 1_i32);
        for c in chars.by_ref() {
            depth += match c {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            if depth == 0 {
                break;
            }
            inner.push(c);
        }
        self.found.extend(Self::default().read(&inner));
        self.word.get_or_insert_with(String::new).push_str("output");
    }

    fn redirect(&mut self, chars: &mut Peekable<Chars<'_>>) {
        // The number of a descriptor belongs to its redirection.
        if self.word.as_ref().is_some_and(|word| word.chars().all(|c| c.is_ascii_digit())) {
            self.word = None;
        }
        self.end_word();
        while chars.next_if(|c| matches!(*c, '>' | '<' | '&' | ' ')).is_some() {}
        while chars.next_if(|c| !c.is_whitespace() && !";|&)".contains(*c)).is_some() {}
    }
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

/// The arguments of the program, with its name, if a simple command runs it.
fn run_of_skep(words: Vec<String>) -> Option<Vec<String>> {
    let is_shells = |word: &str| ["do", "then", "else", "if", "until", "while", "!"].contains(&word);
    let words: Vec<String> = words.into_iter().skip_while(|word| is_shells(word) || is_assignment(word)).collect();
    let is = |at: usize, wanted: &str| words.get(at).is_some_and(|word| word == wanted);
    let given: Vec<String> = if is(0, "skep") {
        words
    } else if is(0, "cargo") && is(1, "run") && !words.iter().any(|word| word == "--bin") {
        let at = words.iter().position(|word| word == "--")?;
        std::iter::once("skep".to_owned()).chain(words[at + 1..].iter().cloned()).collect()
    } else {
        return None;
    };
    Some(given.into_iter().map(sample).collect())
}

/// A value of the right form in place of a word that stands for one.
fn sample(word: String) -> String {
    match word.as_str() {
        "ID" | "$task" => ID.to_owned(),
        "KEY" | "$operator" => OperatorSecret::from_seed(&[1; 32]).key().to_string(),
        "GENESIS" => "11".repeat(16),
        "SITE" => "11".repeat(32),
        "$port" => "7340".to_owned(),
        _ => word,
    }
}

/// Whether a line is right: a noun or a verb that the text only names may lack the rest.
fn is_fine(kind: ErrorKind, is_named: bool) -> bool {
    match kind {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => is_named,
        _ => false,
    }
}

#[test]
fn every_command_line_of_the_documents_is_one_of_the_program() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (path, text) in read_all(root(), ".md") {
        let (lines, spans) = code_of(&text);
        let lines = lines.into_iter().map(|line| (line, false));
        for (line, is_named) in lines.chain(spans.into_iter().map(|span| (span, true))) {
            for words in Shell::default().read(&line).into_iter().filter_map(run_of_skep) {
                seen += 1;
                match Cli::command().try_get_matches_from(&words) {
                    Err(error) if !is_fine(error.kind(), is_named) => wrong.push(format!("{path}: {line}\n{error}")),
                    Ok(_) | Err(_) => {}
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 50, "only {seen} lines were found");
}

#[test]
fn every_verb_that_a_message_names_is_one_of_the_program() {
    /// How a message in a source file quotes a line.
    const QUOTE: &str = "'skep";
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (path, text) in read_all(root(), ".rs") {
        let text = text.replace("\\\n", "");
        let quoted = text.split(QUOTE).skip(1).filter_map(|rest| rest.strip_prefix(' ')?.split('\'').next());
        for line in quoted {
            seen += 1;
            let mut command = Cli::command();
            for word in line.split_whitespace() {
                if !command.has_subcommands() {
                    break;
                }
                let Some(verb) = command.find_subcommand(word).cloned() else {
                    wrong.push(format!("{path}: {line}"));
                    break;
                };
                command = verb;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 50, "only {seen} lines were found");
}

#[test]
fn shell_is_read_as_documents_use_it() {
    let read = |line: &str| Shell::default().read(line).into_iter().filter_map(run_of_skep).collect::<Vec<_>>();
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(read("until skep task list > $D/t 2>&1; do sleep 1; done"), [words("skep task list")]);
    assert_eq!(read("A=b skep run --dir $D/a 2>> log & echo $!  # skep"), [words("skep run --dir $D/a")]);
    assert_eq!(read("x=$(skep key new | sed 's/\"\\(.*\\)\"/\\1/p')"), [words("skep key new")]);
    assert_eq!(read("cargo run --release -- bench commit"), [words("skep bench commit")]);
    assert!(read("cargo run -p skep-tests --bin sim -- --seeds 1").is_empty());
}

/// The verbs of the program, as a table of a document.
fn table() -> String {
    fn shown(argument: &Arg) -> String {
        let name = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
        let name = name.unwrap_or_default();
        let many = if argument.get_num_args().is_some_and(|range| range.max_values() > 1) { "..." } else { "" };
        if argument.is_required_set() { format!(" <{name}>{many}") } else { format!(" [{name}]{many}") }
    }
    fn add(command: &Command, path: &str, table: &mut String) {
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            let path = format!("{path} {}", verb.get_name());
            if verb.has_subcommands() {
                add(verb, &path, table);
            } else {
                let arguments: String = verb.get_positionals().map(shown).collect();
                let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
                *table += &format!("| `{path}{arguments}` | {about} |\n");
            }
        }
    }
    let mut table = "| verb | what it does |\n| --- | --- |\n".to_owned();
    add(&Cli::command(), "skep", &mut table);
    table
}

/// The quotes of a text for terminals, as code of a document.
fn quotes_as_code(text: &str) -> String {
    let (mut is_open, mut before) = (false, ' ');
    let as_code = |c: char| {
        let is_quote = c == '\'' && (is_open || before == ' ');
        is_open ^= is_quote;
        before = c;
        if is_quote { '`' } else { c }
    };
    text.chars().map(as_code).collect()
}

/// The catalogue of errors, as a table of a document.
fn errors() -> String {
    let mut table = "| code | exit | again | what happened, and what to do |\n| --- | --- | --- | --- |\n".to_owned();
    for code in Code::ALL {
        let again = match code.again() {
            Again::No => "no",
            Again::After(_) | Again::Told => "yes",
            Again::Sometimes => "some",
        };
        let (first, rest) = code.help().split_at(1);
        let help = quotes_as_code(&format!("{}{rest}.", first.to_uppercase()));
        table += &format!("| `{code}` | {} | {again} | {} {help} |\n", code.exit().number(), code.meaning());
    }
    table
}

#[test]
fn the_tables_of_verbs_and_of_errors_are_what_the_program_has() {
    let (path, mut text) = guide();
    let is_to_be_written = std::env::var_os(WRITE).is_some();
    for ((begin, end), table) in [(TABLE, table()), (ERRORS, errors())] {
        let (head, rest) = text.split_once(begin).unwrap();
        let (shown, tail) = rest.split_once(end).unwrap();
        if is_to_be_written {
            text = format!("{head}{begin}{table}{end}{tail}");
            continue;
        }
        for (shown, made) in shown.lines().zip(table.lines()) {
            assert_eq!(shown, made, "{WRITE}=1 writes the table anew");
        }
        assert_eq!(shown, table, "{WRITE}=1 writes the table anew");
    }
    if is_to_be_written {
        std::fs::write(path, text).unwrap();
    }
}

#[test]
fn every_exit_code_is_in_the_guide_and_no_other_is() {
    /// Success, and the end of a program whose reader has gone away.
    const OTHERS: [u8; 2] = [0, 141];
    let (_, text) = guide();
    let section = text.split_once("\n## Exit codes\n").unwrap().1.split("\n## ").next().unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse::<u8>().ok());
    let told: Vec<u8> = cells.collect();
    let known: BTreeSet<u8> = Exit::ALL.into_iter().map(Exit::number).chain(OTHERS).collect();
    assert_eq!(told, known.into_iter().collect::<Vec<_>>(), "left: guide, right: program");
}
