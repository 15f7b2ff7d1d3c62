//! Workers and coordinators that die, and workers that come late.

use std::fs;

use fedavg::{
    ids::{ClientId, RoundId, WorkerId},
    protocol::LoggedEvent,
    round::{JobEvent, Outcome},
};

use super::{
    deployment::{Deployment, Watch, fedavg, nothing_was_lost},
    proxy::Proxy,
    reproducible::model,
};

/// Training that takes a good part of a second a client, so that a worker can be killed in the middle of it.
const LONG: &str = "--model tiny_cnn --clients 4 --goal 4 --min-updates 4 --rounds 3 --local-epochs 15 --batch-size 16 \
                    --lr 0.01 --seed 5";

#[test]
fn the_clients_of_a_killed_worker_go_on_elsewhere_in_the_same_round() {
    let deployment = Deployment::start();
    let _survivor = deployment.worker("survivor");
    let victim = deployment.worker("victim");
    let victim_id = deployment.worker_id("victim");
    let survivor_id = deployment.worker_id("survivor");
    let job = deployment.submit(&format!("{LONG} --min-workers 2"));
    let mut watch = deployment.watch(job);
    watch.until(|event| match event.event {
        JobEvent::TaskIssued {
            round: RoundId(2),
            worker,
            ..
        } if worker == victim_id => Some(()),
        _ => None,
    });
    victim.kill();
    let (log, code) = watch.finish();
    assert_eq!(code, Some(0), "{log:#?}");

    let position = |wanted: &dyn Fn(&JobEvent) -> bool| {
        let found = log.iter().position(|entry| wanted(&entry.event));
        found.unwrap_or_else(|| panic!("it is not in {log:#?}"))
    };
    let started = position(&|event| {
        matches!(
            event,
            JobEvent::RoundStarted {
                round: RoundId(2),
                ..
            }
        )
    });
    let committed = position(&|event| {
        matches!(
            event,
            JobEvent::RoundCommitted {
                round: RoundId(2),
                ..
            }
        )
    });
    let moved: Vec<ClientId> = log[started..committed]
        .iter()
        .filter_map(|entry| match entry.event {
            JobEvent::Leased {
                client,
                from: Some(from),
                to: Some(to),
            } if (from, to) == (victim_id, survivor_id) => Some(client),
            _ => None,
        })
        .collect();
    assert_eq!(moved.len(), 2, "{log:#?}");
    let by_survivor = log[started..committed].iter().any(|entry| {
        matches!(entry.event, JobEvent::ReportAccepted { client, worker, .. }
            if worker == survivor_id && moved.contains(&client))
    });
    assert!(by_survivor, "{log:#?}");
    nothing_was_lost(&log, 4);

    // Who trained a client is of no consequence to the model.
    let folder = tempfile::tempdir().unwrap();
    let place = |run: &str| folder.path().join(run);
    let results = format!("results {job} --output {}", place("network").display());
    assert_eq!(deployment.operator(&results).code, Some(0));
    let events = fs::read_to_string(place("network").join("events.jsonl")).unwrap();
    assert!(events.contains("\"event\":\"leased\""));
    let simulated = fedavg(&format!(
        "simulate {LONG} --output {}",
        place("simulated").display()
    ));
    assert_eq!(simulated.code, Some(0), "{simulated:?}");
    assert!(model(&place("network")) == model(&place("simulated")));
}

#[test]
fn a_worker_that_comes_late_is_given_clients_between_two_rounds() {
    let deployment = Deployment::start();
    let _first = deployment.worker("first");
    let job = deployment.submit("--clients 4 --rounds 1000000");
    let mut watch = deployment.watch(job);
    watch.until(|event| matches!(event.event, JobEvent::RoundCommitted { .. }).then_some(()));
    let _late = deployment.worker("late");
    let late = deployment.worker_id("late");
    watch.until(|event| {
        matches!(event.event, JobEvent::TaskIssued { worker, .. } if worker == late).then_some(())
    });
    let is_round = |entry: &&LoggedEvent| {
        matches!(
            entry.event,
            JobEvent::RoundStarted { .. } | JobEvent::RoundCommitted { .. }
        )
    };
    let to_late = |event: &JobEvent| matches!(event, JobEvent::Leased { from: Some(_), to: Some(WorkerId(to)), .. } if *to == late.0);
    let given = watch
        .log
        .iter()
        .position(|entry| to_late(&entry.event))
        .unwrap();
    let before = watch.log[..given].iter().rfind(is_round).unwrap();
    assert!(
        matches!(before.event, JobEvent::RoundCommitted { .. }),
        "{before:?}"
    );
    let count = watch
        .log
        .iter()
        .filter(|entry| to_late(&entry.event))
        .count();
    assert_eq!(count, 2);

    let cancelled = deployment.operator(&format!("cancel {job}"));
    assert_eq!(cancelled.code, Some(0), "{cancelled:?}");
    let (log, code) = watch.finish();
    assert_eq!(code, Some(130));
    assert!(matches!(
        log.last().unwrap().event,
        JobEvent::Ended(Outcome::Cancelled)
    ));
}

#[test]
fn watching_goes_on_where_it_broke_off_and_ends_where_nobody_answers() {
    let deployment = Deployment::start();
    let _worker = deployment.worker("only");
    let job = deployment.submit("--clients 2 --rounds 1000000");
    let proxy = Proxy::start(&deployment.url);
    let mut watch = Watch::at(&proxy.url, job);
    for _ in 0..3 {
        watch.until(|event| matches!(event.event, JobEvent::RoundCommitted { .. }).then_some(()));
        proxy.cut();
    }
    // The end comes over a connection that was made after the last cut.
    assert_eq!(deployment.operator(&format!("cancel {job}")).code, Some(0));
    let (log, code) = watch.finish();
    assert_eq!(code, Some(130));
    let sequences = log.iter().map(|entry| entry.sequence);
    assert!(
        sequences.eq(1..=log.len() as u64),
        "events are missing or came twice"
    );

    let job = deployment.submit("--clients 2 --rounds 1000000");
    let mut watch = Watch::at(&proxy.url, job);
    watch.until(|event| matches!(event.event, JobEvent::RoundCommitted { .. }).then_some(()));
    deployment.kill();
    assert_eq!(watch.finish().1, Some(4));
}

#[test]
fn a_worker_finds_a_coordinator_that_was_killed_and_started_again() {
    let deployment = Deployment::start();
    let mut worker = deployment.start_worker("--name steadfast --in-memory");
    worker.err.until("registered");
    let job = "submit --clients 2 --rounds 2 --watch";
    assert_eq!(deployment.operator(job).code, Some(0));
    let address = deployment.url.trim_start_matches("http://").to_string();
    deployment.kill();
    let deployment = Deployment::with(&format!("--bind {address}"));
    let run = deployment.operator(job);
    assert_eq!(run.code, Some(0), "{run:?}");
    worker.interrupt();
    let worker = worker.finish();
    assert_eq!(worker.code, Some(0), "{worker:?}");
    assert!(worker.err.contains("registering again"), "{}", worker.err);
    assert!(
        worker.err.contains("the coordinator accepted"),
        "{}",
        worker.err
    );
}

#[test]
fn a_job_without_a_worker_says_what_it_waits_for_and_fails_at_its_deadline() {
    let deployment = Deployment::start();
    let run = deployment.operator("submit --start-timeout 1 --watch");
    assert_eq!(run.code, Some(1), "{run:?}");
    let waits = "waiting for workers: 0 of at least 1 are there";
    assert!(run.err.lines().any(|line| line == waits), "{}", run.err);
    let last = run.err.lines().last().unwrap();
    assert_eq!(
        last,
        format!("error: the job failed: after 1 s still {waits}")
    );
}

#[test]
fn a_job_whose_reports_are_too_large_to_be_received_fails_and_says_so() {
    let deployment = Deployment::with("--bind 127.0.0.1:0 --max-body 1KiB");
    let _worker = deployment.worker("only");
    let run = deployment.operator("submit --clients 2 --max-attempts 1 --watch");
    assert_eq!(run.code, Some(1), "{run:?}");
    let last = run.err.lines().last().unwrap();
    let why = "the body has more than 1024 bytes, and that is the most; the coordinator's --max-body raises it";
    assert!(last.contains(why), "{run:?}");
}

#[test]
fn a_worker_that_has_to_wait_for_a_place_says_so_and_gets_it() {
    let deployment = Deployment::with("--bind 127.0.0.1:0 --max-workers 1");
    let first = deployment.worker("first");
    let mut second = deployment.start_worker("--name second");
    let line = second.err.until("the coordinator is busy");
    assert!(line.contains("--max-workers"), "{line}");
    first.interrupt();
    second.err.until("registered");
    let coordinator = deployment.stop();
    let told = coordinator.err.matches("a worker must wait").count();
    assert_eq!(told, 1, "{}", coordinator.err);
}

#[test]
fn a_job_says_which_workers_are_there_that_can_not_train_it() {
    let deployment = Deployment::start();
    let _workers = [deployment.worker("one"), deployment.worker("two")];
    let run = deployment.operator(
        "submit --model cifar_cnn --dataset cifar10 --initial none.safetensors --start-timeout 1 --watch",
    );
    assert_eq!(run.code, Some(2), "{run:?}");
    let run = deployment.operator("submit --partition local --clients 2 --start-timeout 1 --watch");
    assert_eq!(run.code, Some(1), "{run:?}");
    let why = "2 workers are connected that can't train this job: no data of its own (--local)";
    assert!(run.err.contains(why), "{}", run.err);
}
