//! Fuzz targets as tests: bytes from outside, changed at random, go into what decodes them.
//!
//! `cargo test` runs each target some thousand times with a fixed seed, so that every run is the same. `just fuzz` runs each for
//! a time, with another seed (docs/testing.md). An input that shows something new (another error, another kind of value) joins the
//! inputs that are changed next: so a target gets behind the first check without a compiler that counts branches.

mod memory;
mod mutation;
mod shrinking;

use std::{
    cell::RefCell,
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use memory::Memory;
use mutation::Inputs;
use shrinking::Changed;

/// How long each target runs, in seconds; without it, a fixed number of inputs.
const SECONDS: &str = "FEDAVG_FUZZ_SECONDS";
/// The seed; without it, always the same.
const SEED: &str = "FEDAVG_FUZZ_SEED";
/// Inputs of a run without a time.
const USUAL: u32 = 1500;
/// Inputs between two looks at the clock.
const BATCH: u32 = 50;
/// More bytes of address space for one input are a finding. Inputs have some thousand bytes, and what a target allows on purpose
/// (a spool of a megabyte, a thread's arena) is far below.
const MOST_MEMORY: u64 = 512 << 20;

/// A target: its name, and the inputs that it begins with.
pub(crate) struct Target {
    name: &'static str,
    runs: u32,
    /// How many times as long as others it runs.
    share: u32,
    inputs: Inputs,
}

impl Target {
    /// A target, with the inputs of `tests/fuzz/corpus/NAME`: each file is one, and each line of a file `*.lines`.
    pub(crate) fn new(name: &'static str) -> Self {
        let mut inputs = Inputs::default();
        for path in corpus(name) {
            let bytes = fs::read(&path).unwrap();
            if path
                .extension()
                .is_some_and(|extension| extension == "lines")
            {
                for line in bytes.split(|byte| *byte == b'\n') {
                    inputs.add(line.to_vec());
                }
            } else {
                inputs.add(bytes);
            }
        }
        Self {
            name,
            runs: USUAL,
            share: 1,
            inputs,
        }
    }

    /// One more input to begin with.
    pub(crate) fn seed(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.inputs.add(bytes.into());
        self
    }

    /// Words that are put into inputs: the format's own.
    pub(crate) fn words(mut self, words: &[&str]) -> Self {
        for word in words {
            self.inputs.add_word(word.as_bytes());
        }
        self
    }

    /// For a target that is slow: so many inputs, if it has no time.
    pub(crate) fn runs(mut self, runs: u32) -> Self {
        self.runs = runs;
        self
    }

    /// For a target that deserves it: `just fuzz` gives it so many times the time of others.
    pub(crate) fn long(mut self, share: u32) -> Self {
        self.share = share;
        self
    }

    /// Runs the target. What `decode` returns says what came of the input, for people: an error's text, or the kind of a value.
    /// It panics if a property does not hold.
    ///
    /// # Panics
    ///
    /// If `decode` did, with the smallest such input that was found. The input is kept in `target/fuzz`.
    pub(crate) fn run(self, decode: impl Fn(&[u8]) -> String) {
        let seconds =
            number_of(SECONDS).map(|seconds| Duration::from_secs(seconds * u64::from(self.share)));
        let seed = number_of(SEED).unwrap_or(1);
        let memory = Memory::new(seconds.is_some());
        let seen = RefCell::new(HashSet::new());
        let inputs = RefCell::new(self.inputs.seeded(seed));
        let test = |bytes: Vec<u8>| {
            let before = memory.start();
            let what = decode(&bytes);
            let more = memory.grown(before);
            if more > MOST_MEMORY {
                return Err(TestCaseError::fail(format!(
                    "it took {more} bytes of memory"
                )));
            }
            // Not while inputs are drawn, so that nothing else borrows them.
            if seen.borrow_mut().insert(shape(&what)) {
                inputs.borrow_mut().add(bytes);
            }
            Ok(())
        };
        // As they are, before anything is changed.
        let mut executions = 0;
        let first = inputs.borrow().all().to_vec();
        for bytes in first {
            self::kept(self.name, &bytes, || test(bytes.clone()));
            executions += 1;
        }
        let start = Instant::now();
        loop {
            let is_over = match seconds {
                Some(seconds) => start.elapsed() >= seconds,
                None => executions >= self.runs,
            };
            if is_over {
                break;
            }
            batch(self.name, seed, &inputs, &test);
            executions += BATCH;
        }
        let known = seen.borrow().len();
        println!(
            "fuzz {}: {executions} inputs in {:.1} s, {known} kinds of answers, seed {seed}, nothing found",
            self.name,
            start.elapsed().as_secs_f64()
        );
    }
}

/// Runs one input as it is, and names it if it fails.
fn kept(name: &str, bytes: &[u8], test: impl FnOnce() -> Result<(), TestCaseError>) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
    let problem = match result {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .unwrap_or_else(|| "a panic".to_string()),
    };
    found(name, &problem, bytes);
}

/// Draws and runs some inputs.
fn batch(
    name: &str,
    seed: u64,
    inputs: &RefCell<Inputs>,
    test: &impl Fn(Vec<u8>) -> Result<(), TestCaseError>,
) {
    let config = Config {
        cases: BATCH,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        max_shrink_time: 20_000,
        ..Config::default()
    };
    // The inputs have their own generator. This one draws nothing.
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed as u8; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    match runner.run(&Changed(inputs), test) {
        Ok(()) => {}
        Err(TestError::Fail(reason, bytes)) => found(name, &reason.to_string(), &bytes),
        Err(error) => panic!("fuzz {name}: {error}"),
    }
}

/// Writes the input to a file, and fails with the file's path.
fn found(name: &str, problem: &str, bytes: &[u8]) -> ! {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
    let file = folder.join(format!("{name}-{:08x}", crc32fast::hash(bytes)));
    let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, bytes));
    panic!(
        "fuzz {name}: {problem}\nthe input, {} bytes: {:?}\nin {} ({written:?}); once it is mended, put it into tests/fuzz/corpus/{name}",
        bytes.len(),
        String::from_utf8_lossy(&bytes[..bytes.len().min(600)]),
        file.display()
    );
}

/// The files of a target's corpus, in the order of their names.
fn corpus(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name);
    let mut files = Vec::new();
    // A target whose inputs are all made by its code has no folder.
    let Ok(entries) = fs::read_dir(folder) else {
        return files;
    };
    for entry in entries {
        files.push(entry.unwrap().path());
    }
    files.sort();
    files
}

/// What came of an input, without what differs by the input alone: digits, and what is in quotes.
fn shape(what: &str) -> u32 {
    let mut kept = String::new();
    let mut is_quoted = false;
    for character in what.chars().take(400) {
        if character == '"' {
            is_quoted = !is_quoted;
        } else if !is_quoted && !character.is_ascii_digit() {
            kept.push(character);
        }
    }
    crc32fast::hash(kept.as_bytes())
}

fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable)
        .ok()
        .filter(|text| !text.is_empty())?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is {text:?}, and must be a whole number")))
}
