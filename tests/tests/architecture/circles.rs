//! Files that need each other are one room with a wall of paper in it.
//!
//! A file needs another one if it names something that is defined there, whichever module exports it again. A module's
//! own files may name what is in the module: a folder is one room, and the module its door.

use std::collections::{BTreeMap, BTreeSet};

use crate::words::{self, Module, Source, Word, inside, text};

/// The most exports of exports that are followed.
const EXPORTS_MAX: usize = 8;

/// A name that a file imports, or exports again.
struct Use {
    path: Vec<String>,
    name: String,
    is_export: bool,
}

/// The directory of the crate, and the paths of the files in it.
type Circle = (String, BTreeSet<String>);

/// What the files of a crate name.
struct Named<'a> {
    uses: BTreeMap<&'a Module, Vec<Use>>,
    paths: BTreeMap<&'a Module, Vec<Vec<String>>>,
}

impl<'a> Named<'a> {
    fn new(modules: &'a BTreeMap<Module, Source>) -> Self {
        let mut named = Self { uses: BTreeMap::new(), paths: BTreeMap::new() };
        for (module, source) in modules {
            let (uses, paths) = read(&source.words);
            named.uses.insert(module, uses);
            named.paths.insert(module, paths);
        }
        named
    }

    /// The module at which a path begins, and the rest of the path. None if the path is of another crate.
    fn begin<'p>(&self, from: &Module, path: &'p [String]) -> Option<(Module, &'p [String])> {
        let supers = path.iter().take_while(|name| *name == "super").count();
        match path.first()?.as_str() {
            "crate" => Some((Module::new(), &path[1..])),
            "self" => Some((from.clone(), &path[1..])),
            "super" => Some((from[..from.len().checked_sub(supers)?].to_vec(), &path[supers..])),
            child => self.uses.contains_key(&inside(from, child)).then(|| (from.clone(), path)),
        }
    }

    /// The file that defines what a path names, as far as that is known.
    fn resolve(&self, from: &Module, path: &[String], exports: usize) -> Option<Module> {
        let (mut module, mut rest) = self.begin(from, path)?;
        while let Some(name) = rest.first() {
            let deeper = inside(&module, name);
            if !self.uses.contains_key(&deeper) {
                break;
            }
            (module, rest) = (deeper, &rest[1..]);
        }
        let Some(item) = rest.first().filter(|_| exports < EXPORTS_MAX) else { return Some(module) };
        let imported = self.uses.get(&module).into_iter().flatten().filter(|imported| imported.name == *item);
        let mut found = imported.filter_map(|imported| {
            let path: Vec<String> = imported.path.iter().chain(&rest[1..]).cloned().collect();
            self.resolve(&module, &path, exports + 1).filter(|found| *found != module)
        });
        Some(found.next().unwrap_or_else(|| module.clone()))
    }

    /// The files that a file needs.
    fn needs(&self, module: &Module) -> BTreeSet<Module> {
        let imported = self.uses[module].iter().filter(|imported| !imported.is_export).map(|imported| &imported.path);
        let named = imported.chain(&self.paths[module]).filter_map(|path| self.resolve(module, path, 0));
        named.filter(|needed| self.uses.contains_key(needed) && !module.starts_with(needed)).collect()
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The imports of a file, and the other paths that it names.
fn read(words: &[Word]) -> (Vec<Use>, Vec<Vec<String>>) {
    let (mut uses, mut paths, mut at) = (Vec::new(), Vec::new(), 0);
    while at < words.len() {
        let before = if at == 0 { ";" } else { text(words, at - 1) };
        if text(words, at) == "use" && matches!(before, ";" | "{" | "}" | "]" | "pub" | ")") {
            let end = (at..words.len()).find(|end| text(words, *end) == ";").unwrap_or(words.len());
            let mut found = Vec::new();
            tree(&words[at + 1..end], &mut 0, &[], &mut found);
            let is_export = matches!(before, "pub" | ")");
            uses.extend(found.into_iter().map(|(path, name)| Use { path, name, is_export }));
            at = end + 1;
        } else if is_name(text(words, at)) && text(words, at + 1) == "::" && !matches!(before, "::" | ".") {
            let mut path = vec![text(words, at).to_owned()];
            at += 1;
            while text(words, at) == "::" && is_name(text(words, at + 1)) {
                path.push(text(words, at + 1).to_owned());
                at += 2;
            }
            paths.push(path);
        } else {
            at += 1;
        }
    }
    (uses, paths)
}

/// The paths of a `use`, each with the name that it has in the file.
fn tree(words: &[Word], at: &mut usize, before: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let mut path = before.to_vec();
    while *at < words.len() {
        match text(words, *at) {
            "{" => {
                *at += 1;
                while *at < words.len() && text(words, *at) != "}" {
                    tree(words, at, &path, found);
                    if text(words, *at) == "," {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            "," | "}" => break,
            "as" => {
                found.push((path, text(words, *at + 1).to_owned()));
                *at += 2;
                return;
            }
            "::" => *at += 1,
            name => {
                path.push(name.to_owned());
                *at += 1;
            }
        }
    }
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let name = path.last().cloned().unwrap_or_default();
    found.push((path, name));
}

/// The groups of files that all reach each other, and what each of them needs of the others.
fn circles_of(dir: &str, modules: &BTreeMap<Module, Source>) -> Vec<(Circle, Vec<String>)> {
    let named = Named::new(modules);
    let needs: BTreeMap<&Module, BTreeSet<Module>> =
        modules.keys().map(|module| (module, named.needs(module))).collect();
    let reach_of = |from: &Module| {
        let mut reached: BTreeSet<Module> = BTreeSet::new();
        let mut next = vec![from.clone()];
        while let Some(module) = next.pop() {
            let new: Vec<Module> = needs[&module].iter().filter(|needed| !reached.contains(*needed)).cloned().collect();
            reached.extend(new.iter().cloned());
            next.extend(new);
        }
        reached
    };
    let reach: BTreeMap<&Module, BTreeSet<Module>> = modules.keys().map(|module| (module, reach_of(module))).collect();
    let file = |module: &Module| modules[module].path[dir.len() + "/src/".len()..].to_owned();
    let mut seen: BTreeSet<&Module> = BTreeSet::new();
    let mut circles = Vec::new();
    for module in modules.keys() {
        if seen.contains(module) || !reach[module].contains(module) {
            continue;
        }
        let inner = |of: &Module| reach[module].contains(of) && reach[of].contains(module);
        let circle: Vec<&Module> = modules.keys().filter(|of| inner(of)).collect();
        let arrows = circle.iter().flat_map(|from| {
            let to = needs[*from].iter().filter(|to| inner(to)).map(&file);
            to.map(|to| format!("{} -> {to}", file(from))).collect::<Vec<_>>()
        });
        circles.push(((dir.to_owned(), circle.iter().map(|of| file(of)).collect()), arrows.collect()));
        seen.extend(circle);
    }
    circles
}

/// The listed circles. Each line has one: the directory of the crate, and its files.
fn listed() -> BTreeSet<Circle> {
    let lines = include_str!("circles.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let circle = |line: &str| {
        let (dir, files) = line.split_once(':').unwrap();
        (dir.to_owned(), files.split_whitespace().map(str::to_owned).collect())
    };
    lines.map(circle).collect()
}

#[test]
fn files_that_need_each_other_only_become_fewer() {
    let listed = listed();
    let mut found = BTreeSet::new();
    for (dir, modules) in words::crates() {
        for (circle, arrows) in circles_of(&dir, &modules) {
            let is_known = listed.iter().any(|(of, files)| *of == circle.0 && circle.1.is_subset(files));
            assert!(is_known, "files of {dir} need each other: {arrows:#?}");
            found.insert(circle);
        }
    }
    assert_eq!(found, listed, "left: what there is; right: what circles.txt lists, and is gone");
}

#[test]
fn a_circle_is_found_through_what_is_exported_again() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), words: words::words_of(text) };
    let name = |name: &str| -> Module { name.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect() };
    let modules: BTreeMap<Module, Source> = [
        (name(""), source("c/src/lib.rs", "mod a; mod b; mod d; pub use b::Of; use std::{fmt, io as a};")),
        (name("a"), source("c/src/a.rs", "use crate::{Of, d::{self, X as Y}}; pub struct A;")),
        (name("b"), source("c/src/b/mod.rs", "mod inner; pub use inner::Of; use inner::Own; pub struct Room;")),
        (name("b/inner"), source("c/src/b/inner.rs", "use super::Room; pub struct Of(crate::a::A); pub struct Own;")),
        (name("d"), source("c/src/d.rs", "pub struct X; // crate::a::A")),
    ]
    .into();
    let found = circles_of("c", &modules);
    let [((dir, files), arrows)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((dir.as_str(), files.len()), ("c", 2));
    assert_eq!(*arrows, ["a.rs -> b/inner.rs", "b/inner.rs -> a.rs"]);
}
