//! Random sequences of events against every invariant of the design.
//!
//! A run is a function of its seed. A violation prints the seed and the last of what happened, and this repeats it:
//!
//! ```text
//! FEDAVG_ROUND_SEED=17 cargo test --release --lib round::tests::random
//! ```
//!
//! `FEDAVG_ROUND_SEEDS` changes how many seeds are tried, `FEDAVG_ROUND_EVENTS` how many events each plays.

mod checker;
mod planted;
mod replica;
mod world;

use std::{collections::BTreeSet, fmt, str::FromStr};

use planted::Bug;
use world::World;

use crate::report::RefusalKind;

/// What a run has been through.
#[derive(Debug, Default, Clone)]
struct Seen {
    committed: bool,
    abandoned: bool,
    retried: bool,
    cancelled: bool,
    completed: bool,
    failed: bool,
    /// An upload ended after its round had closed.
    late_upload: bool,
    /// A lease moved to another worker while its round was open.
    moved: bool,
    /// The data was dealt again.
    dealt: bool,
    /// A commit excluded somebody.
    excluded: bool,
    /// A commit without any report.
    without_reports: bool,
    /// An aggregation folded fewer than the quorum.
    not_folded: bool,
    /// An aggregation did not name each accepted client once.
    nonsense: bool,
    /// A task named the round whose commit folded its client.
    on_a_basis: bool,
    duplicates: u32,
    restarted: u32,
    /// Events after which a replay was compared with the live machine.
    compared: u64,
    refused: BTreeSet<&'static str>,
}

fn setting<T: FromStr<Err: fmt::Debug>>(name: &str) -> Option<T> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().expect("a number"))
}

fn events() -> u32 {
    setting("FEDAVG_ROUND_EVENTS").unwrap_or(200)
}

/// Plays a seed; a violation is told with what led to it.
fn play(seed: u64) -> Result<Seen, String> {
    World::new(seed, false).run(events()).map_err(|violation| {
        let mut again = World::new(seed, true);
        let _ = again.run(events());
        let from = again.trace.len().saturating_sub(60);
        format!(
            "{violation}\n\n{}\n\nseed {seed}: repeat with\n    FEDAVG_ROUND_SEED={seed} cargo test --release --lib round::tests::random\n",
            again.trace[from..].join("\n")
        )
    })
}

#[test]
fn no_sequence_of_events_breaks_an_invariant() {
    if let Some(seed) = setting("FEDAVG_ROUND_SEED") {
        match play(seed) {
            Ok(seen) => println!("{seen:#?}"),
            Err(violation) => panic!("{violation}"),
        }
        return;
    }
    let seeds: u64 = setting("FEDAVG_ROUND_SEEDS").unwrap_or(4000);
    let runs: Vec<_> = (0..seeds)
        .map(|seed| play(seed).unwrap_or_else(|violation| panic!("{violation}")))
        .collect();
    let share = |what: fn(&Seen) -> bool| {
        runs.iter().filter(|seen| what(seen)).count() as f64 / runs.len() as f64
    };
    let shares = [
        ("committed", share(|seen| seen.committed)),
        ("abandoned", share(|seen| seen.abandoned)),
        ("retried", share(|seen| seen.retried)),
        ("cancelled", share(|seen| seen.cancelled)),
        ("completed", share(|seen| seen.completed)),
        ("failed", share(|seen| seen.failed)),
        ("late upload", share(|seen| seen.late_upload)),
        ("lease moved", share(|seen| seen.moved)),
        ("dealt again", share(|seen| seen.dealt)),
        ("excluded", share(|seen| seen.excluded)),
        ("without reports", share(|seen| seen.without_reports)),
        ("not folded", share(|seen| seen.not_folded)),
        ("nonsense", share(|seen| seen.nonsense)),
        ("on a basis", share(|seen| seen.on_a_basis)),
        ("duplicates", share(|seen| seen.duplicates > 0)),
    ];
    println!("shares of the runs: {shares:?}");
    for (what, share) in shares {
        let least = match what {
            // Few drivers are faulty at just this moment.
            "nonsense" => 0.02,
            "excluded" | "not folded" | "without reports" => 0.05,
            _ => 0.1,
        };
        assert!(share >= least, "{what} in {share} of the runs only");
    }
    let refused: BTreeSet<_> = runs
        .iter()
        .flat_map(|seen| &seen.refused)
        .copied()
        .collect();
    for kind in [
        RefusalKind::UnknownClient,
        RefusalKind::Late,
        RefusalKind::Duplicate,
        RefusalKind::Stale,
        RefusalKind::WrongRound,
        RefusalKind::NotInCohort,
        RefusalKind::NotLeased,
        RefusalKind::Conflict,
        RefusalKind::Malformed,
        RefusalKind::ExamplesExceeded,
        RefusalKind::Truncated,
    ] {
        assert!(refused.contains(kind.code()), "never refused as {kind:?}");
    }
}

/// Checks that one of 200 seeds shows a planted bug as the violation of this rule. Others may show it by what follows from it.
fn assert_caught(bug: Bug, rule: &str) {
    for seed in 0..200 {
        let mut world = World::new(seed, false).with_bug(bug);
        if let Err(violation) = world.run(events())
            && violation.contains(rule)
        {
            println!("seed {seed}: {violation}");
            return;
        }
    }
    panic!("200 seeds did not find {bug:?}")
}

/// Recovery from every prefix of a journal is the live machine, commands included; and a job that is recovered in the midst
/// of anything keeps every invariant.
#[test]
fn a_replay_is_the_live_machine_after_every_event() {
    const THREADS: u64 = 4;
    let seeds: u64 = setting("FEDAVG_ROUND_SEEDS").unwrap_or(8000);
    let mut all = Seen::default();
    std::thread::scope(|scope| {
        let mut parts = Vec::new();
        for first in 0..THREADS {
            parts.push(scope.spawn(move || replay(first, THREADS, seeds)));
        }
        for part in parts {
            let seen = part.join().unwrap();
            all.compared += seen.compared;
            all.restarted += seen.restarted;
            all.completed |= seen.completed;
        }
    });
    println!("{} events, {} restarts", all.compared, all.restarted);
    let is_whole = setting::<u64>("FEDAVG_ROUND_SEEDS").is_none();
    assert!(
        !is_whole || all.compared >= 1_000_000,
        "{} events only",
        all.compared
    );
    assert!(all.restarted > 0 && all.completed);
}

/// Plays every `step`th seed from `first` on, each event into a second machine, too.
fn replay(first: u64, step: u64, seeds: u64) -> Seen {
    let mut all = Seen::default();
    for seed in (first..seeds).step_by(step as usize) {
        let mut world = World::new(seed, true).with_replica();
        match world.run(300) {
            Ok(seen) => {
                all.compared += seen.compared;
                all.restarted += seen.restarted;
                all.completed |= seen.completed;
            }
            Err(violation) => {
                let from = world.trace.len().saturating_sub(60);
                panic!(
                    "{violation}\n\n{}\n\nseed {seed}",
                    world.trace[from..].join("\n")
                );
            }
        }
    }
    all
}

#[test]
fn a_quorum_that_is_ignored_is_found() {
    assert_caught(Bug::QuorumIgnored, "quorum");
}

#[test]
fn a_late_report_that_is_accepted_is_found() {
    assert_caught(Bug::LateAccepted, "after the close");
}

#[test]
fn a_stale_report_that_is_admitted_is_found() {
    assert_caught(Bug::StaleAdmitted, "another version");
}

#[test]
fn an_aggregation_that_is_not_checked_is_found() {
    assert_caught(Bug::ExclusionIgnored, "a wrong aggregation");
}

#[test]
fn a_basis_that_follows_exclusions_is_found() {
    assert_caught(Bug::BasisOfExcluded, "basis");
}
