//! Two jobs at the same time, on the same workers.

use fedavg::{ids::Timestamp, protocol::LoggedEvent, round::JobEvent};

use super::{
    deployment::{Deployment, fedavg},
    reproducible::model,
};

/// When the first and the last task of a job went out.
fn tasks(log: &[LoggedEvent]) -> (Timestamp, Timestamp) {
    let mut times = Vec::new();
    for entry in log {
        if matches!(entry.event, JobEvent::TaskIssued { .. }) {
            times.push(entry.time);
        }
    }
    (times[0], times[times.len() - 1])
}

#[test]
fn jobs_that_share_workers_end_in_the_bytes_that_each_ends_in_alone() {
    // `top_k` keeps a residual for each client: a worker must not lose it when it trains the other job in between.
    let flags = [
        "--clients 4 --goal 4 --min-updates 4 --rounds 40 --local-epochs 1 --lr 0.1 --seed 7 --encoding top_k:0.05",
        "--clients 3 --goal 3 --min-updates 3 --rounds 40 --local-epochs 1 --lr 0.1 --seed 8 --encoding top_k:0.1 --partition dirichlet:0.5",
    ];
    let deployment = Deployment::start();
    // Before there are workers, so that both begin at the same moment, when the second worker comes.
    let jobs = flags.map(|flags| deployment.submit(&format!("{flags} --min-workers 2")));
    let _first = deployment.worker("first");
    let mut second = deployment.start_worker("--name second --slots 2");
    second.err.until("registered");
    let mut logs = Vec::new();
    for job in jobs {
        let (log, code) = deployment.watch(job).finish();
        assert_eq!(code, Some(0), "{log:#?}");
        logs.push(log);
    }
    let [(first_begin, first_end), (second_begin, second_end)] = [tasks(&logs[0]), tasks(&logs[1])];
    assert!(
        first_begin < second_end && second_begin < first_end,
        "one after the other"
    );

    let folder = tempfile::tempdir().unwrap();
    for (job, flags) in jobs.iter().zip(flags) {
        let (together, alone) = (
            folder.path().join(format!("{job}")),
            folder.path().join(format!("{job}-alone")),
        );
        let results = format!("results {job} --output {}", together.display());
        assert_eq!(deployment.operator(&results).code, Some(0));
        let run = fedavg(&format!("simulate {flags} --output {}", alone.display()));
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(
            model(&together) == model(&alone),
            "job {job} made another model"
        );
    }
}
