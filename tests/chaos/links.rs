//! Links that are slow and break, while the processes at both ends are killed, too.

use std::{thread::sleep, time::Duration};

use super::{
    checks,
    draw::Draw,
    plan::JobPlan,
    process::Process,
    proxy::Proxy,
    site::{RESUMES_ALL, Site},
};

/// Waits until something has happened in the job, and a little longer. False at the end.
fn shortly_after_an_event(watch: &mut Process, seen: &mut Vec<String>, draw: &mut Draw) -> bool {
    for _ in 0..draw.between(1, 12) {
        match watch.out.next() {
            Some(line) => seen.push(line),
            None => return false,
        }
    }
    sleep(Duration::from_millis(draw.below(40)));
    true
}

#[test]
fn slow_links_that_break_and_restarts_of_both_sides_change_nothing() {
    for (seed, encoding) in [(1, "f32"), (2, "top_k:0.05")] {
        let mut draw = Draw::new(seed);
        let folder = tempfile::tempdir().unwrap();
        let mut site = Site::start_with(folder.path(), 600, 1, RESUMES_ALL);
        for _ in 0..2 {
            // A model takes ten pieces: most breaks come in the middle of one.
            site.links
                .push(Proxy::slow(&site.url(), Duration::from_millis(4)));
        }
        site.add_workers(2);
        site.registered();
        let plan = JobPlan::new(encoding, 4, 4, 12, 4, seed);
        let job = site.submit(&plan, 2);
        let mut watch = site.watch(job);
        let mut lines = Vec::new();
        let (mut breaks, mut listens) = (0, true);
        while breaks < 40 && shortly_after_an_event(&mut watch, &mut lines, &mut draw) {
            breaks += 1;
            let link = draw.below(2) as usize;
            match draw.below(8) {
                0 => {
                    site.restart_coordinator(|_, _| ());
                    listens = false;
                }
                1 => {
                    site.restart_worker(link);
                }
                2 => {
                    // Both sides of a link that is down are started again before it is mended.
                    site.links[link].take_down();
                    site.restart_coordinator(|_, _| ());
                    listens = false;
                    site.restart_worker(link);
                    site.links[link].mend();
                }
                _ => site.links[link].cut(),
            }
        }
        assert!(breaks > 10, "the job ended after {breaks} breaks");
        let seen = checks::seen(watch);
        // The last restart may have come with the end of the job.
        if !listens {
            site.listens();
        }
        checks::results(&site, job, &plan, &seen);
        site.stop();
        checks::left_behind(folder.path(), &[(job, &plan)]);
    }
}

#[test]
fn a_worker_that_was_lost_in_mid_round_comes_back_to_a_coordinator_that_was_restarted() {
    let folder = tempfile::tempdir().unwrap();
    let mut site = Site::start(folder.path(), 2, 1);
    for _ in 0..2 {
        site.links.push(Proxy::start(&site.url()));
    }
    site.add_workers(2);
    site.registered();
    // A round is longer than the time after which a worker is lost, so that it comes back in the midst of one.
    let plan = JobPlan::new("f32", 4, 4, 3, 400, 3);
    let job = site.submit(&plan, 2);
    let watch = site.watch(job);
    site.coordinator.err.until("round committed");
    site.coordinator.err.until("TaskIssued");
    site.links[0].take_down();
    site.coordinator.err.until("worker lost");
    site.restart_coordinator(|_, _| ());
    site.coordinator.err.until("the job goes on");
    site.links[0].mend();
    site.workers[0]
        .process
        .err
        .until("the coordinator answers again");
    let seen = checks::seen(watch);
    checks::results(&site, job, &plan, &seen);
    site.stop();
    checks::left_behind(folder.path(), &[(job, &plan)]);
}
