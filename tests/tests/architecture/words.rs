//! Reads Rust sources word by word, without comments, without the content of literals, and without tests.

use std::collections::{BTreeMap, BTreeSet};

/// A name, a number or a sign. `::` is one sign, and each literal of characters reads as `"`.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// The names of a module from the root of its crate.
pub(crate) type Module = Vec<String>;

/// A file of a crate.
#[derive(Debug)]
pub(crate) struct Source {
    /// The path from the root of the repository.
    pub(crate) path: String,
    pub(crate) words: Vec<Word>,
}

/// The modules of each crate, by the crate's directory. Tests are left out, and so are the modules of a single binary.
pub(crate) fn crates() -> BTreeMap<String, BTreeMap<Module, Source>> {
    let mut crates: BTreeMap<String, BTreeMap<Module, Source>> = BTreeMap::new();
    let mut tests: BTreeSet<(String, Module)> = BTreeSet::new();
    for (path, text) in crate::sources() {
        let Some((dir, file)) = path.split_once("/src/") else { continue };
        if dir.starts_with("consensus/patched") || file == "main.rs" || file.starts_with("bin/") {
            continue;
        }
        let module = module_of(file);
        let (words, of_tests) = product(&words_of(&text));
        tests.extend(of_tests.iter().map(|name| (dir.to_owned(), inside(&module, name))));
        crates.entry(dir.to_owned()).or_default().insert(module, Source { path: path.clone(), words });
    }
    for (dir, modules) in &mut crates {
        let of_tests =
            |module: &Module| (1..=module.len()).any(|to| tests.contains(&(dir.clone(), module[..to].to_vec())));
        modules.retain(|module, _| !of_tests(module));
    }
    crates
}

fn module_of(file: &str) -> Module {
    let mut module: Module = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|name| name == "mod") || module == ["lib"] {
        module.pop();
    }
    module
}

/// The path of a module inside another one.
pub(crate) fn inside(module: &[String], name: &str) -> Module {
    module.iter().cloned().chain([name.to_owned()]).collect()
}

/// The word at an index; empty behind the last one.
pub(crate) fn text(words: &[Word], at: usize) -> &str {
    words.get(at).map_or("", |word| word.text.as_str())
}

/// The index behind the bracket that closes the one at an index.
pub(crate) fn closed(words: &[Word], mut at: usize) -> usize {
    let mut depth = 0;
    while at < words.len() {
        match text(words, at) {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The words that are built into the product, and the modules in files of their own that are not.
fn product(words: &[Word]) -> (Vec<Word>, BTreeSet<String>) {
    let (mut kept, mut tests, mut at) = (Vec::new(), BTreeSet::new(), 0);
    while at < words.len() {
        let of_tests = ["#", "[", "cfg", "(", "test", ")", "]"];
        if of_tests.iter().enumerate().any(|(next, expected)| text(words, at + next) != *expected) {
            kept.push(words[at].clone());
            at += 1;
            continue;
        }
        let mut item = at + of_tests.len();
        while text(words, item) == "#" {
            item = closed(words, item + 1);
        }
        at = end_of_item(words, item);
        let is_file = text(words, at - 1) == ";";
        let named = (item..at).take(5).find(|at| text(words, *at) == "mod").map(|at| text(words, at + 1));
        tests.extend(named.filter(|_| is_file).map(str::to_owned));
    }
    (kept, tests)
}

/// The index behind an item, a statement, a field or an arm.
fn end_of_item(words: &[Word], mut at: usize) -> usize {
    const ITEMS: [&str; 12] =
        ["fn", "impl", "struct", "enum", "mod", "use", "static", "const", "trait", "type", "let", "macro_rules"];
    let mut kind = at;
    while matches!(text(words, kind), "pub" | "async" | "unsafe" | "(") {
        kind = if text(words, kind) == "(" { closed(words, kind) } else { kind + 1 };
    }
    let is_item = ITEMS.contains(&text(words, kind));
    while at < words.len() {
        match text(words, at) {
            ";" => return at + 1,
            "," if !is_item => return at + 1,
            ")" | "]" | "}" => return at,
            "{" => return closed(words, at),
            "(" | "[" => at = closed(words, at),
            _ => at += 1,
        }
    }
    at
}

/// The words of a text.
pub(crate) fn words_of(text: &str) -> Vec<Word> {
    let mut reader = Reader { chars: text.chars().collect(), at: 0, line: 1, words: Vec::new() };
    while reader.at < reader.chars.len() {
        reader.step();
    }
    reader.words
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    line: usize,
    words: Vec<Word>,
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

impl Reader {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn bump(&mut self) {
        if self.peek(0) == Some('\n') {
            self.line += 1;
        }
        self.at += 1;
    }

    fn skip_until(&mut self, end: impl Fn(&Self) -> bool) {
        while self.at < self.chars.len() && !end(self) {
            self.bump();
        }
    }

    fn say(&mut self, text: &str) {
        self.words.push(Word { text: text.to_owned(), line: self.line });
    }

    fn step(&mut self) {
        let Some(first) = self.peek(0) else { return };
        match (first, self.peek(1)) {
            ('/', Some('/')) => self.skip_until(|reader| reader.peek(0) == Some('\n')),
            ('/', Some('*')) => self.comment(),
            ('"', _) => self.string(),
            ('\'', _) => self.quote(),
            (':', Some(':')) => {
                self.say("::");
                self.at += 2;
            }
            (c, _) if c.is_whitespace() => self.bump(),
            (c, _) if is_of_name(c) => self.name(),
            (c, _) => {
                self.say(&c.to_string());
                self.at += 1;
            }
        }
    }

    fn comment(&mut self) {
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    depth += 1;
                    self.at += 2;
                }
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.bump(),
            }
        }
    }

    fn string(&mut self) {
        self.say("\"");
        self.bump();
        while let Some(c) = self.peek(0) {
            if c == '\\' {
                self.bump();
            }
            self.bump();
            if c == '"' {
                return;
            }
        }
    }

    /// A character, or a lifetime.
    fn quote(&mut self) {
        let is_escaped = self.peek(1) == Some('\\');
        if is_escaped || self.peek(2) == Some('\'') {
            self.say("\"");
            self.at += if is_escaped { 3 } else { 2 };
            self.skip_until(|reader| reader.peek(0) == Some('\''));
            self.bump();
        } else {
            self.at += 1;
            self.skip_until(|reader| !reader.peek(0).is_some_and(is_of_name));
        }
    }

    /// A name, a number, or what comes before a literal.
    fn name(&mut self) {
        let begin = self.at;
        self.skip_until(|reader| !reader.peek(0).is_some_and(is_of_name));
        let name: String = self.chars[begin..self.at].iter().collect();
        let hashes = self.chars[self.at..].iter().take_while(|c| **c == '#').count();
        match (name.as_str(), self.peek(hashes)) {
            ("r" | "br" | "cr", Some('"')) => self.raw_string(hashes),
            // r#type: the name comes next.
            ("r", Some(c)) if hashes == 1 && is_of_name(c) => self.at += 1,
            ("b" | "c", Some('"' | '\'')) if hashes == 0 => {}
            (name, _) => self.say(name),
        }
    }

    fn raw_string(&mut self, hashes: usize) {
        self.say("\"");
        self.at += hashes + 1;
        let end: Vec<char> = ['"'].into_iter().chain(std::iter::repeat_n('#', hashes)).collect();
        self.skip_until(|reader| reader.chars[reader.at..].starts_with(&end));
        self.at += end.len();
    }
}

#[test]
fn sources_are_read_as_rust_reads_them() {
    let source = r##"
        /* a /* nested */ comment { */
        fn one<'a>(of: &'a str) -> char { // }
            let (r#type, raw) = ('\'', r#"{"# );
            b'{'; "\"{"; '{'
        }
        #[cfg(test)]
        pub(crate) mod looks;
        struct Two { #[cfg(test)] seen: Vec<u8>, kept: u8 }
        #[cfg(test)] #[allow(x)] mod tests { fn three() { ";" } }
        fn four() {}
    "##;
    let (words, tests) = product(&words_of(source));
    let told: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let expected = "fn one < > ( of : & str ) -  > char { let ( type , raw ) = ( \" , \" ) ; \" ; \" ; \" } \
                    struct Two { kept : u8 } fn four ( ) { }";
    assert_eq!(told, expected.split_whitespace().collect::<Vec<_>>());
    assert_eq!(tests, BTreeSet::from(["looks".to_owned()]));
    assert_eq!((words[0].line, words.last().unwrap().line), (3, 11));
    assert_eq!((closed(&words, 4), text(&words, 4)), (10, "("));
}
