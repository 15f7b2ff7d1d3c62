//! Holds the arrows of ARCHITECTURE.md: which module may name which, that files import in no circle, and that the pure
//! modules name no IO.

mod files;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The modules from top to bottom, each with those that it may name. Whatever is not listed is an error, so that a new
/// module or a new arrow is a decision.
const ARROWS: &[(&str, &[&str])] = &[
    // Pure.
    ("cause", &[]),
    ("ids", &[]),
    ("rng", &["ids"]),
    ("settings", &[]),
    ("objective", &[]),
    ("words", &[]),
    ("spelling", &[]),
    ("statistics", &[]),
    ("panics", &[]),
    ("parameters", &[]),
    ("report", &["ids", "parameters"]),
    ("partition", &["words"]),
    (
        "strategy",
        &[
            "ids",
            "objective",
            "panics",
            "parameters",
            "report",
            "rng",
            "settings",
            "spelling",
            "statistics",
            "words",
        ],
    ),
    (
        "round",
        &[
            "ids",
            "objective",
            "parameters",
            "words",
            "report",
            "settings",
            "statistics",
            "strategy",
        ],
    ),
    (
        "job",
        &[
            "ids",
            "parameters",
            "partition",
            "rng",
            "settings",
            "strategy",
        ],
    ),
    (
        "protocol",
        &["ids", "job", "objective", "parameters", "round", "settings"],
    ),
    ("text", &[]),
    ("access", &["ids", "protocol", "report", "text"]),
    // Edges.
    ("computing", &[]),
    ("plain", &["spelling"]),
    ("disk", &[]),
    ("data", &["disk", "panics"]),
    ("backend", &["panics", "protocol"]),
    ("model", &["ids", "panics", "parameters", "rng"]),
    ("store", &["disk", "ids", "parameters", "report"]),
    (
        "telemetry",
        &["ids", "protocol", "report", "round", "statistics", "words"],
    ),
    (
        "transport",
        &[
            "ids",
            "job",
            "parameters",
            "plain",
            "protocol",
            "report",
            "round",
            "text",
        ],
    ),
    // Drivers.
    (
        "worker",
        &[
            "backend",
            "computing",
            "data",
            "disk",
            "ids",
            "job",
            "model",
            "objective",
            "panics",
            "parameters",
            "protocol",
            "report",
            "rng",
            "round",
            "spelling",
            "text",
            "transport",
            "words",
        ],
    ),
    (
        "attack",
        &[
            "backend",
            "data",
            "ids",
            "job",
            "panics",
            "parameters",
            "partition",
            "protocol",
            "rng",
            "round",
            "spelling",
            "strategy",
            "words",
            "worker",
        ],
    ),
    (
        "coordinator",
        &[
            "access",
            "cause",
            "computing",
            "disk",
            "ids",
            "job",
            "panics",
            "parameters",
            "partition",
            "protocol",
            "report",
            "rng",
            "round",
            "settings",
            "spelling",
            "statistics",
            "store",
            "strategy",
            "telemetry",
            "text",
            "transport",
            "words",
            "worker",
        ],
    ),
    (
        "simulation",
        &[
            "coordinator",
            "ids",
            "job",
            "panics",
            "parameters",
            "protocol",
            "report",
            "round",
            "strategy",
            "transport",
            "worker",
        ],
    ),
];

const PURE: &[&str] = &[
    "ids",
    "rng",
    "settings",
    "objective",
    "words",
    "spelling",
    "statistics",
    "panics",
    "parameters",
    "report",
    "partition",
    "strategy",
    "round",
    "job",
    "protocol",
    "text",
    "access",
];

/// What the pure modules must not name. `Instant` and `SystemTime` are the clock, `getrandom` and `thread_rng` the
/// operating system's randomness.
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "axum",
    "burn",
    "tracing",
    "log::",
    "println!",
    "eprintln!",
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
    "thread::spawn",
    "Instant",
    "SystemTime",
    "getrandom",
    "thread_rng",
    "rand::rng(",
];

/// How a file becomes durable or goes away. `crate::disk` alone calls these, so that tests see each step.
const DURABLE: &[&str] = &[
    "sync_all(",
    "sync_data(",
    "fs::rename(",
    "fs::remove_",
    "write_all_at(",
    "fs::write(",
];

/// Files that call them all the same, each with the reason.
const DURABLE_ELSEWHERE: &[(&str, &str)] = &[
    (
        "store/log/spill.rs",
        "the file without a name of a log, which ends with the process",
    ),
    (
        "coordinator/state_dir/copy.rs",
        "a file of an export, whose folder ends with the process",
    ),
];

/// The code of each module's files, tests and comments left out. Without the binaries and what they share.
fn modules() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let mut modules: BTreeMap<String, Vec<(PathBuf, String)>> = BTreeMap::new();
    for (path, code) in sources() {
        let first = path.iter().next().expect("a name");
        let name = first.to_string_lossy().replace(".rs", "");
        if !["lib", "bin", "cli"].contains(&&*name) {
            modules.entry(name).or_default().push((path, code));
        }
    }
    modules
}

/// The code of all files below `src`, tests and comments left out.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the package") {
            let path = entry.expect("an entry of the folder").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(&root).expect("below src").to_path_buf();
            let is_test = relative.iter().any(|part| {
                ["tests", "tests.rs", "testing", "testing.rs"]
                    .iter()
                    .any(|test| part == *test)
            });
            if is_test || !relative.to_string_lossy().ends_with(".rs") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a text file");
            sources.push((relative, code_of(&text)));
        }
    }
    sources
}

/// The text without its comments, and without the tests at its foot.
fn code_of(text: &str) -> String {
    let code = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let lines = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The modules of this crate that the code names, as `crate::NAME` or inside of `crate::{...}`.
fn named_in(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| {
            text.trim_start()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        };
        if !rest.starts_with('{') {
            names.insert(word(rest));
            continue;
        }
        let mut depth = 0;
        for (position, character) in rest.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && matches!(character, '{' | ',') {
                names.insert(word(&rest[position + 1..]));
            }
        }
    }
    names.remove("");
    names
}

#[test]
fn arrows_point_only_where_the_table_says() {
    let allowed: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    let modules = modules();
    let known: BTreeSet<_> = modules.keys().map(String::as_str).collect();
    assert_eq!(
        known,
        allowed.keys().copied().collect(),
        "the table and the folders differ"
    );
    let mut wrong = Vec::new();
    for (module, files) in &modules {
        for (path, code) in files {
            for name in named_in(code) {
                let is_module = allowed.contains_key(&*name);
                if is_module && name != *module && !allowed[&**module].contains(&&*name) {
                    wrong.push(format!("{} names {name}", path.display()));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that ARCHITECTURE.md does not have:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn arrows_between_modules_all_point_up() {
    let mut above = BTreeSet::new();
    for (module, allowed) in ARROWS {
        for name in *allowed {
            assert!(
                above.contains(name),
                "{module} names {name}, which is not above it"
            );
        }
        above.insert(module);
    }
}

#[test]
fn files_import_each_other_in_no_circle() {
    let arrows = files::Files::new(sources()).arrows();
    let mut told = String::new();
    for circle in files::circles(&arrows) {
        told.push_str("\na circle:\n");
        for file in &circle {
            for target in &arrows[file] {
                if circle.contains(target) {
                    told.push_str(&format!("  {} -> {}\n", file.display(), target.display()));
                }
            }
        }
    }
    assert!(told.is_empty(), "{told}");
}

#[test]
fn every_arrow_of_the_table_is_used() {
    let modules = modules();
    for (module, allowed) in ARROWS {
        let named: BTreeSet<_> = modules[*module]
            .iter()
            .flat_map(|(_, code)| named_in(code))
            .collect();
        let unused: Vec<_> = allowed
            .iter()
            .filter(|name| !named.contains(**name))
            .collect();
        assert!(unused.is_empty(), "{module} does not name {unused:?}");
    }
}

#[test]
fn pure_modules_name_no_io_no_clock_and_no_burn() {
    let mut wrong = Vec::new();
    for (module, files) in modules()
        .iter()
        .filter(|(module, _)| PURE.contains(&&***module))
    {
        for (path, code) in files {
            wrong.extend(
                IMPURE
                    .iter()
                    .filter(|word| code.contains(**word))
                    .map(|word| format!("{module}: {} names {word}", path.display())),
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "below the purity line:\n{}",
        wrong.join("\n")
    );
}

/// A wall clock may jump by hours at any moment: everything else measures time by `Instant`.
#[test]
fn the_wall_clock_is_read_once_at_a_start_and_else_only_shown() {
    let readers = ["coordinator/clock.rs", "cli/values.rs"];
    let found: BTreeSet<String> = sources()
        .into_iter()
        .filter(|(_, code)| code.contains("SystemTime"))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_eq!(found, readers.map(str::to_string).into());
}

#[test]
fn durable_steps_go_through_the_disk_module() {
    let mut wrong = Vec::new();
    let mut excused = BTreeSet::new();
    for (path, code) in sources() {
        let path = path.display().to_string();
        if path.starts_with("disk/") {
            continue;
        }
        for word in DURABLE {
            // `disk::sync_data(` is the module's own.
            let calls = code.matches(word).count();
            let routed = code.matches(&format!("disk::{word}")).count();
            if calls == routed {
                continue;
            }
            let excuse = DURABLE_ELSEWHERE.iter().find(|(file, _)| *file == path);
            match excuse {
                Some((file, _)) => drop(excused.insert(*file)),
                None => wrong.push(format!("{path} calls {word}")),
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "not by crate::disk:\n{}",
        wrong.join("\n")
    );
    let listed: BTreeSet<_> = DURABLE_ELSEWHERE.iter().map(|(file, _)| *file).collect();
    assert_eq!(excused, listed, "the list names files that need no excuse");
}

#[test]
fn pure_modules_name_nothing_below_the_line() {
    for (module, allowed) in ARROWS.iter().filter(|(module, _)| PURE.contains(module)) {
        assert!(allowed.iter().all(|name| PURE.contains(name)), "{module}");
    }
}

#[test]
fn the_scanner_sees_what_it_should() {
    let code = code_of(
        "use crate::{\n    ids::X,\n    report::{self, tokio},\n};\nlet x = crate::job::Y; // crate::no\n",
    );
    assert_eq!(
        named_in(&code),
        ["ids", "job", "report"].map(String::from).into()
    );
}
