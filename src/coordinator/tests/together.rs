//! Several jobs at the same time: they share the workers' slots.

use super::*;
use crate::round::Outcome;

fn at_most(max_running: usize) -> CoordinatorConfig {
    CoordinatorConfig {
        jobs: JobLimits {
            max_running,
            ..JobLimits::default()
        },
        ..CoordinatorConfig::default()
    }
}

impl Lab {
    async fn worker_with(&self, name: &str, slots: u32) -> Credentials {
        let registration = Registration {
            slots,
            ..self.registration(name)
        };
        self.register(registration).await.unwrap()
    }

    /// Submits a job, and waits until its first round has tasks.
    async fn begin(&self, change: impl FnOnce(&mut JobSpec)) -> JobId {
        let job = self.submit(change).await;
        let collecting = async {
            while self.coordinator.job(&HERE, job).await.unwrap().phase != "collecting" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, collecting).await.unwrap();
        job
    }

    async fn train_one(&self, worker: &Credentials, task: &TaskMessage) {
        let metadata = ReportMetadata {
            examples: 1,
            ..self.metadata(task)
        };
        let body = self.body(1.0);
        let (status, _) = self.put_report(worker, task, &metadata, &body).await;
        assert_eq!(status, 204);
    }

    /// Polls and reports, one task after the other; the jobs of the tasks.
    async fn work(&self, worker: &Credentials, tasks: usize) -> Vec<JobId> {
        let mut jobs = Vec::new();
        for _ in 0..tasks {
            let task = self.poll(worker, Vec::new()).await;
            jobs.push(task.job);
            self.train_one(worker, &task).await;
        }
        jobs
    }
}

#[tokio::test]
async fn a_worker_with_two_slots_trains_two_jobs_at_the_same_time() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let worker = lab.worker_with("both", 2).await;
    let first = lab.begin(|_| {}).await;
    let second = lab.begin(|_| {}).await;
    let of_first = lab.poll(&worker, Vec::new()).await;
    let of_second = lab.poll(&worker, vec![of_first.clone()]).await;
    assert_eq!([of_first.job, of_second.job], [first, second]);
    assert_eq!(of_first.running, [first, second]);
    let health = lab.coordinator.health().await.unwrap();
    assert_eq!((health.running, health.queued), (vec![first, second], 0));
    let workers = lab.coordinator.workers(&HERE).await.unwrap();
    assert_eq!(workers[0].clients, 4, "two of each job");
}

#[tokio::test]
async fn a_job_that_comes_later_gets_the_next_slot_that_is_free() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let worker = lab.worker("only").await;
    let first = lab.begin(|spec| spec.clients = Some(4)).await;
    let task = lab.poll(&worker, Vec::new()).await;
    let second = lab.begin(|_| {}).await;
    lab.train_one(&worker, &task).await;
    let order = lab.work(&worker, 5).await;
    assert_eq!(order, [second, first, second, first, first]);
    for job in [first, second] {
        assert_eq!(lab.finished(job).await.0.outcome, Some(Outcome::Completed));
    }
}

#[tokio::test]
async fn a_job_with_twice_the_priority_gets_twice_the_tasks() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let worker = lab.worker("only").await;
    let usual = lab.begin(|spec| spec.clients = Some(20)).await;
    let urgent = |spec: &mut JobSpec| (spec.clients, spec.priority) = (Some(20), 2);
    let urgent = lab.begin(urgent).await;
    let order = lab.work(&worker, 15).await;
    let of = |job| order.iter().filter(|of| **of == job).count();
    assert_eq!((of(usual), of(urgent)), (5, 10));
}

#[tokio::test]
async fn jobs_beyond_the_most_that_run_wait_and_start_by_priority() {
    let lab = Lab::open(at_most(1)).await;
    let worker = lab.worker("only").await;
    let first = lab.submit(|spec| spec.clients = Some(1)).await;
    let second = lab.submit(|spec| spec.clients = Some(1)).await;
    let third = |spec: &mut JobSpec| (spec.clients, spec.priority) = (Some(1), 7);
    let third = lab.submit(third).await;
    let waiting = lab.coordinator.job(&HERE, second).await.unwrap();
    assert_eq!(
        (&*waiting.phase, &*waiting.detail),
        ("queued", "waiting for one of the running jobs to end")
    );
    for job in [first, third, second] {
        assert_eq!(lab.work(&worker, 1).await, [job]);
        assert_eq!(lab.finished(job).await.0.outcome, Some(Outcome::Completed));
    }
}

#[tokio::test]
async fn a_worker_that_leaves_gives_its_clients_of_all_jobs_to_the_others() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let (leaver, stayer) = (lab.worker("leaver").await, lab.worker("stayer").await);
    let jobs = [lab.begin(|_| {}).await, lab.begin(|_| {}).await];
    // Both tasks that it has under way are lost with it.
    let task = lab.poll(&leaver, Vec::new()).await;
    lab.poll(&leaver, vec![task]).await;
    let request = Request::Leave {
        credentials: leaver.clone(),
    };
    lab.coordinator.handle(Peer::InProcess, request).await;
    let mut order = lab.work(&stayer, 4).await;
    order.sort_unstable();
    assert_eq!(order, [jobs[0], jobs[0], jobs[1], jobs[1]]);
    for job in jobs {
        let (summary, rounds, _) = lab.finished(job).await;
        assert_eq!(summary.outcome, Some(Outcome::Completed));
        assert_eq!(rounds.len(), 1, "no round was lost");
    }
}

#[tokio::test]
async fn the_end_of_one_job_leaves_the_tasks_of_the_other_alone() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let worker = lab.worker_with("both", 2).await;
    let first = lab.begin(|_| {}).await;
    lab.begin(|_| {}).await;
    let of_first = lab.poll(&worker, Vec::new()).await;
    let of_second = lab.poll(&worker, vec![of_first.clone()]).await;
    lab.coordinator.cancel(&HERE, first).await.unwrap();
    let request = Request::Heartbeat {
        credentials: worker.clone(),
        busy: vec![of_first.clone(), of_second.clone()],
    };
    let answer = lab.coordinator.handle(Peer::InProcess, request).await;
    let Response::Alive { unwanted } = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(unwanted, [of_first]);
    lab.train_one(&worker, &of_second).await;
}
