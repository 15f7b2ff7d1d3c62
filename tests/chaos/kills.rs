//! Coordinators and workers are killed at random moments.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    checks,
    draw::Draw,
    phase::Tally,
    plan::{Plan, ROUNDS},
    process::{LIMIT, Process},
    site::{RESUMES_ALL, Site},
};

/// After this many kills a run is left in peace, so that it ends.
const MOST: usize = 50;

/// What the coordinator logs at the borders between the phases.
const BORDERS: [&str; 6] = [
    "RoundStarted",
    "TaskIssued",
    "ReportAccepted",
    "round committed",
    "version evaluated",
    "the job goes on",
];

#[test]
fn what_is_killed_at_any_moment_goes_on_and_ends_in_the_same_model() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("FEDAVG_CHAOS_SEED").unwrap_or(1);
    let runs = number("FEDAVG_CHAOS_RUNS").unwrap_or(2);
    let kills = number("FEDAVG_CHAOS_KILLS").unwrap_or(0) as usize;
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut seed = first;
    while seed - first < runs || tally.coordinators.min(tally.workers) < kills {
        run(seed, &mut tally);
        seed += 1;
        println!(
            "{} s, seeds {first} to {}; {tally}",
            start.elapsed().as_secs(),
            seed - 1
        );
    }
}

/// One run; its folder stays if it fails.
fn run(seed: u64, tally: &mut Tally) {
    let folder = tempfile::tempdir().unwrap();
    let ran = catch_unwind(AssertUnwindSafe(|| disturbed(seed, folder.path(), tally)));
    if let Err(panic) = ran {
        let folder = folder.keep();
        eprintln!(
            "FEDAVG_CHAOS_SEED={seed} FEDAVG_CHAOS_RUNS=1 repeats it; what the processes left is in {}",
            folder.display()
        );
        resume_unwind(panic);
    }
}

fn disturbed(seed: u64, folder: &Path, tally: &mut Tally) {
    let mut draw = Draw::new(seed);
    let plan = Plan::draw(&mut draw);
    println!("seed {seed}: {plan:?}");
    let arguments = if plan.resumes_all { RESUMES_ALL } else { "" };
    let mut site = Site::start_with(folder, plan.expiry, plan.slots, arguments);
    // With states of clients, all workers register in peace: one that is killed while it does has no number yet, and the one that
    // the coordinator gave it may get clients, whose states would be lost with it.
    let is_early = !plan.has_states() && draw.below(2) == 0;
    if !is_early {
        site.add_workers(plan.workers);
        site.registered();
    }
    let mut jobs = Vec::new();
    for job in &plan.jobs {
        jobs.push(site.submit(job, plan.workers));
        // What was submitted is there after any kill.
        if draw.below(2) == 0 {
            shortly(&mut draw);
            tally.kill_coordinator(&mut site);
            site.listens();
        }
    }
    let mut watches: Vec<_> = jobs.iter().map(|job| site.watch(*job)).collect();
    if is_early {
        site.add_workers(plan.workers);
        // While they register, and while the job begins.
        for _ in 0..draw.below(4) {
            shortly(&mut draw);
            tally.kill_coordinator(&mut site);
        }
    }
    for _ in 0..MOST {
        if watches.iter_mut().all(Process::has_ended) {
            break;
        }
        match draw.below(10) {
            0..5 => kill_coordinator(&mut site, &mut draw, tally),
            5..9 => kill_worker(&mut site, &mut draw, tally),
            _ => {
                wait(&mut site, &mut draw);
                let worker = draw.below(plan.workers) as usize;
                tally.kill_worker(&mut site, worker);
                tally.kill_coordinator(&mut site);
            }
        }
    }
    let (last, start) = (format!("version={ROUNDS} clients"), Instant::now());
    let step = Duration::from_millis(50);
    while !watches.iter_mut().all(Process::has_ended) {
        assert!(start.elapsed() < LIMIT, "the jobs do not end");
        // At the end of a job, too.
        if site.coordinator.err.within(step, &[&last]).is_some() {
            shortly(&mut draw);
            tally.kill_coordinator(&mut site);
        }
    }
    // The end is as durable as all before.
    site.restart_coordinator(|_, _| ());
    site.listens();
    let mut ended = Vec::new();
    for ((job, plan), watch) in jobs.into_iter().zip(&plan.jobs).zip(watches) {
        let seen = checks::seen(watch);
        checks::results(&site, job, plan, &seen);
        ended.push((job, plan));
    }
    site.stop();
    checks::left_behind(folder, &ended);
}

/// Kills the coordinator at a random moment, and perhaps the next one while it starts, and so on.
fn kill_coordinator(site: &mut Site, draw: &mut Draw, tally: &mut Tally) {
    wait(site, draw);
    tally.kill_coordinator(site);
    while draw.below(3) == 0 {
        shortly(draw);
        tally.kill_coordinator(site);
    }
}

fn kill_worker(site: &mut Site, draw: &mut Draw, tally: &mut Tally) {
    wait(site, draw);
    let worker = draw.below(site.workers.len() as u64) as usize;
    tally.kill_worker(site, worker);
    while draw.below(3) == 0 {
        shortly(draw);
        tally.kill_worker(site, worker);
    }
}

/// Waits for a random moment: of time, or shortly after something happened.
fn wait(site: &mut Site, draw: &mut Draw) {
    if draw.below(4) == 0 {
        return pause(draw, 500);
    }
    let border = draw.one_of(&BORDERS);
    site.coordinator.err.skip();
    // It need not come: the job may have ended, or be elsewhere.
    site.coordinator
        .err
        .within(Duration::from_millis(300), &[border]);
    shortly(draw);
}

/// A wait that may end before the disk has what happened last, or in the midst of a start, or after it.
fn shortly(draw: &mut Draw) {
    let longest = [1, 4, 16, 64][draw.below(4) as usize];
    pause(draw, longest);
}

/// A wait of random length.
fn pause(draw: &mut Draw, milliseconds: u64) {
    sleep(Duration::from_micros(draw.below(milliseconds * 1000)));
}
