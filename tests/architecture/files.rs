//! Which file of the library imports which, read from the text, and the circles among them.
//!
//! A name is followed through re-exports to the file that defines it, so a `mod.rs` that only hands names on is never
//! part of a circle. One that defines what its children use, and itself uses its children, is.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// A module's path from the crate's root: `["round", "machine"]`.
type ModulePath = Vec<String>;

/// The files of a crate by the module that each is.
pub struct Files {
    modules: BTreeMap<ModulePath, File>,
}

struct File {
    path: PathBuf,
    code: String,
    /// Each name that a `use` brings in, with the whole path that it stands for. A glob has the name `*`.
    imports: Vec<(String, Vec<String>)>,
}

impl Files {
    /// Of the code (without comments and tests) of files below `src`.
    pub fn new(files: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        let mut modules = BTreeMap::new();
        for (path, code) in files {
            let imports = imports(&code);
            let file = File {
                path: path.clone(),
                code,
                imports,
            };
            modules.insert(module_of(&path), file);
        }
        Self { modules }
    }

    /// The files that each file imports from.
    pub fn arrows(&self) -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
        let mut arrows = BTreeMap::new();
        for (module, file) in &self.modules {
            let mut targets = BTreeSet::new();
            for path in self.paths_in(module, file) {
                if let Some(target) = self.definer(module, &path, 0)
                    && target != *module
                {
                    targets.insert(self.modules[&target].path.clone());
                }
            }
            arrows.insert(file.path.clone(), targets);
        }
        arrows
    }

    /// All paths that a file names: those of its `use`s, and those written in its code.
    fn paths_in(&self, module: &ModulePath, file: &File) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        let body = without_uses(&file.code);
        for (name, path) in &file.imports {
            // A re-export is not a use: the file that uses the name is checked instead.
            if name == "*" || next_word(&body, name).is_some() {
                paths.push(path.clone());
            }
        }
        for path in written_paths(&body) {
            let mut child = module.clone();
            child.push(path[0].clone());
            let is_relative = ["crate", "self", "super"].contains(&path[0].as_str());
            if is_relative || self.modules.contains_key(&child) {
                paths.push(path);
            }
        }
        paths
    }

    /// The module whose file defines what `path` means in `module`.
    fn definer(&self, module: &ModulePath, path: &[String], depth: usize) -> Option<ModulePath> {
        const LONGEST_CHAIN: usize = 16;
        if depth > LONGEST_CHAIN {
            return None;
        }
        let mut here = module.clone();
        let mut rest = path;
        if let Some(first) = path.first()
            && !["crate", "self", "super"].contains(&first.as_str())
        {
            let mut child = module.clone();
            child.push(first.clone());
            if !self.modules.contains_key(&child) {
                return None;
            }
        }
        while let Some((name, after)) = rest.split_first() {
            match name.as_str() {
                "crate" => here.clear(),
                "self" => {}
                "super" => {
                    here.pop();
                }
                _ => {
                    let mut child = here.clone();
                    child.push(name.clone());
                    if !self.modules.contains_key(&child) {
                        return self.definer_of_item(&here, name, depth);
                    }
                    here = child;
                }
            }
            rest = after;
        }
        self.modules.contains_key(&here).then_some(here)
    }

    fn definer_of_item(&self, module: &ModulePath, name: &str, depth: usize) -> Option<ModulePath> {
        let file = self.modules.get(module)?;
        if defines(&file.code, name) {
            return Some(module.clone());
        }
        for (imported, path) in &file.imports {
            if imported == name {
                return self.definer(module, path, depth + 1);
            }
        }
        for (imported, path) in &file.imports {
            if imported == "*" {
                let mut path = path.clone();
                path.push(name.to_string());
                if let Some(found) = self.definer(module, &path, depth + 1)
                    && found != *module
                {
                    return Some(found);
                }
            }
        }
        // What a macro defines is taken for the file's own.
        Some(module.clone())
    }
}

/// The circles: sets of files, each of which imports, over others of its set, itself.
pub fn circles(arrows: &BTreeMap<PathBuf, BTreeSet<PathBuf>>) -> Vec<Vec<PathBuf>> {
    let mut reached = BTreeMap::new();
    for start in arrows.keys() {
        let mut seen: BTreeSet<&PathBuf> = BTreeSet::new();
        let mut open = vec![start];
        while let Some(file) = open.pop() {
            for next in arrows.get(file).into_iter().flatten() {
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        reached.insert(start, seen);
    }
    let mut circles = BTreeSet::new();
    for (file, seen) in &reached {
        if !seen.contains(file) {
            continue;
        }
        let mut circle = Vec::new();
        for other in seen {
            if reached.get(*other).is_some_and(|back| back.contains(file)) {
                circle.push((*other).clone());
            }
        }
        circles.insert(circle);
    }
    circles.into_iter().collect()
}

fn module_of(path: &Path) -> ModulePath {
    let mut module: ModulePath = path
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if module
        .last()
        .is_some_and(|name| name == "mod" || name == "lib")
    {
        module.pop();
    }
    module
}

/// The names that the `use` declarations of some code bring in.
fn imports(code: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(start) = next_word(rest, "use") {
        rest = &rest[start + "use".len()..];
        let end = rest.find(';').unwrap_or(rest.len());
        expand(&rest[..end], &[], &mut found);
        rest = &rest[end..];
    }
    found
}

/// Spreads `a::{b, c::d as e}` out into its paths.
fn expand(tree: &str, before: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let tree = tree.trim();
    if tree.is_empty() {
        return;
    }
    if let Some(inner) = tree.strip_prefix('{') {
        let inner = inner.strip_suffix('}').unwrap_or(inner);
        for part in parts(inner) {
            expand(part, before, found);
        }
        return;
    }
    if let Some((name, rest)) = tree.split_once("::")
        && !name.contains('{')
    {
        let mut path = before.to_vec();
        path.push(name.trim().to_string());
        expand(rest, &path, found);
        return;
    }
    let (name, alias) = tree.split_once(" as ").unwrap_or((tree, tree));
    let mut path = before.to_vec();
    let (name, mut alias) = (name.trim(), alias.trim().to_string());
    if name == "self" {
        if alias == "self" {
            alias = path.last().cloned().unwrap_or_default();
        }
    } else if name != "*" {
        path.push(name.to_string());
    }
    found.push((alias, path));
}

/// The parts between the outermost commas.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// The paths with `::` that some code has, each with its segments.
fn written_paths(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    // `pub(in crate::a)` says who may see something, and uses nothing.
    let code = code.replace("pub(in crate::", "pub(in ");
    let is_path = |character: char| character.is_alphanumeric() || "_:".contains(character);
    for text in code.split(|character| !is_path(character)) {
        let segments: Vec<_> = text.split("::").map(String::from).collect();
        let has_empty = segments
            .iter()
            .any(|part| part.is_empty() || part.contains(':'));
        if segments.len() > 1 && !has_empty {
            paths.push(segments);
        }
    }
    paths
}

const KINDS: [&str; 9] = [
    "fn",
    "struct",
    "enum",
    "trait",
    "const",
    "static",
    "type",
    "union",
    "macro_rules!",
];

/// Whether the code defines an item of this name.
fn defines(code: &str, name: &str) -> bool {
    let mut words = code.split(|character: char| {
        !(character.is_alphanumeric() || character == '_' || character == '!')
    });
    let mut before = "";
    words.any(|word| {
        let is_definition = word == name && KINDS.contains(&before);
        if !word.is_empty() {
            before = word;
        }
        is_definition
    })
}

/// The code without its `use` declarations.
fn without_uses(code: &str) -> String {
    let (mut body, mut rest) = (String::new(), code);
    while let Some(start) = next_word(rest, "use") {
        body.push_str(&rest[..start]);
        let end = rest[start..]
            .find(';')
            .map_or(rest.len(), |end| start + end);
        rest = &rest[end..];
    }
    body.push_str(rest);
    body
}

/// The place of a word that begins a statement or follows other words.
fn next_word(code: &str, word: &str) -> Option<usize> {
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    for (at, _) in code.match_indices(word) {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        if !before.is_some_and(is_name) && !after.is_some_and(is_name) {
            return Some(at);
        }
    }
    None
}

#[test]
fn names_are_followed_to_the_files_that_define_them() {
    let files = [
        ("lib.rs", "pub mod a; pub mod b;"),
        (
            "a/mod.rs",
            "mod one; mod two; pub use one::{One, Uno as Eins};",
        ),
        (
            "a/one.rs",
            "use super::two::Two; pub struct One(Two); pub struct Uno;",
        ),
        ("a/two.rs", "use super::Eins; pub struct Two(Eins);"),
        (
            "b.rs",
            "use crate::a::{self, One}; fn f() -> One { a::two::g() }",
        ),
    ];
    let files = files.map(|(path, code)| (PathBuf::from(path), code.to_string()));
    let arrows = Files::new(files).arrows();
    let targets = |file: &str| {
        let targets: Vec<_> = arrows[Path::new(file)].iter().collect();
        targets
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(targets("a/one.rs"), ["a/two.rs"]);
    assert_eq!(targets("a/two.rs"), ["a/one.rs"]);
    assert_eq!(targets("b.rs"), ["a/mod.rs", "a/one.rs"]);
    assert_eq!(targets("a/mod.rs"), Vec::<String>::new());
    let found = circles(&arrows);
    assert_eq!(
        found,
        [[PathBuf::from("a/one.rs"), PathBuf::from("a/two.rs")].to_vec()]
    );
}

#[test]
fn a_parent_that_defines_what_its_child_uses_is_in_a_circle() {
    let files = [
        (
            "a/mod.rs",
            "mod child; pub struct Parent; const N: usize = child::N;",
        ),
        (
            "a/child.rs",
            "use super::Parent; pub const N: usize = size_of::<Parent>();",
        ),
    ];
    let files = files.map(|(path, code)| (PathBuf::from(path), code.to_string()));
    let found = circles(&Files::new(files).arrows());
    assert_eq!(found.len(), 1, "{found:?}");
}
