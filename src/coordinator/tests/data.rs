//! Datasets that differ, and data that is the workers' own.

use super::*;
use crate::{partition::PartitionSpec, round::JobEvent};

#[tokio::test]
async fn a_worker_whose_copy_of_the_dataset_differs_is_refused_at_registration() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let mut registration = lab.registration("other");
    registration.datasets[0].fingerprint = "another".to_string();
    let refusal = lab.register(registration).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::DatasetMismatch);
    assert!(refusal.detail.contains("another"), "{}", refusal.detail);
}

#[tokio::test]
async fn without_data_of_its_own_the_coordinator_holds_workers_to_the_first_ones_copy() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let with = |fingerprint: &str| {
        let mut registration = lab.registration(fingerprint);
        registration.datasets[0].name = "elsewhere".to_string();
        registration.datasets[0].fingerprint = fingerprint.to_string();
        registration
    };
    lab.register(with("a")).await.unwrap();
    lab.register(with("a")).await.unwrap();
    assert_eq!(
        lab.register(with("b")).await.unwrap_err().kind,
        RefusalKind::DatasetMismatch
    );
}

#[tokio::test]
async fn the_copy_of_workers_that_left_binds_nobody() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let with = |fingerprint: &str| {
        let mut registration = lab.registration(fingerprint);
        registration.datasets[0].name = "elsewhere".to_string();
        registration.datasets[0].fingerprint = fingerprint.to_string();
        registration
    };
    let first = lab.register(with("a")).await.unwrap();
    let second = lab.register(with("a")).await.unwrap();
    for credentials in [first, second] {
        let refused = lab.register(with("b")).await.unwrap_err().kind;
        assert_eq!(refused, RefusalKind::DatasetMismatch);
        lab.coordinator
            .handle(Peer::InProcess, Request::Leave { credentials })
            .await;
    }
    lab.register(with("b")).await.unwrap();
    assert_eq!(
        lab.register(with("a")).await.unwrap_err().kind,
        RefusalKind::DatasetMismatch
    );
}

#[tokio::test]
async fn a_worker_that_was_there_first_with_another_copy_gets_no_client_of_the_job() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let job = lab.submit(|_| {}).await;
    let fingerprint = lab
        .coordinator
        .state()
        .job(job)
        .unwrap()
        .fingerprint
        .clone();
    assert_eq!(fingerprint, lab.trainers.datasets()[0].fingerprint);
    let mut other = lab.registration("other");
    other.datasets[0].fingerprint = "another".to_string();
    let state = lab.coordinator.state();
    assert!(!state.job(job).unwrap().can_be_trained_by(&other));
    assert!(
        state
            .job(job)
            .unwrap()
            .can_be_trained_by(&lab.registration("same"))
    );
}

#[tokio::test]
async fn a_partition_by_label_needs_the_labels_here() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let spec = JobSpec {
        dataset: "elsewhere".to_string(),
        partition: PartitionSpec::Dirichlet { alpha: 0.5 },
        ..lab.trainers.job()
    };
    let refusal = refusal(lab.coordinator.submit(&HERE, spec, None).await);
    assert_eq!(refusal.kind, RefusalKind::InvalidJob);
    assert!(
        refusal.detail.contains("partition") && refusal.detail.contains("labels"),
        "{}",
        refusal.detail
    );
}

#[tokio::test]
async fn local_data_makes_a_client_of_each_worker_and_a_lost_one_a_dropout() {
    let lab = Lab::open(CoordinatorConfig {
        uploads: UploadLimits {
            max_local_examples: 70,
            ..UploadLimits::default()
        },
        ..CoordinatorConfig::default()
    })
    .await;
    let local = |name: &str, examples: u64| {
        let mut registration = lab.registration(name);
        registration.local = true;
        registration.datasets[0].train_examples = examples;
        registration
    };
    let small = lab.register(local("small", 10)).await.unwrap();
    let large = lab.register(local("large", 1000)).await.unwrap();
    let gone = lab.register(local("gone", 10)).await.unwrap();
    let job = lab
        .submit(|spec| {
            spec.partition = PartitionSpec::Local;
            spec.clients = Some(3);
            spec.evaluation = EvaluationMode::Never;
        })
        .await;
    let tasks = [
        lab.poll(&small, Vec::new()).await,
        lab.poll(&large, Vec::new()).await,
    ];
    lab.poll(&gone, Vec::new()).await;
    lab.coordinator
        .handle(Peer::InProcess, Request::Leave { credentials: gone })
        .await;
    let claim = |task: &TaskMessage, examples| ReportMetadata {
        examples,
        ..lab.metadata(task)
    };
    let answer = lab
        .put_report(&small, &tasks[0], &claim(&tasks[0], 10), &lab.body(0.0))
        .await;
    assert_eq!(answer.0, 204, "{answer:?}");
    let answer = lab
        .put_report(&large, &tasks[1], &claim(&tasks[1], 1000), &lab.body(8.0))
        .await;
    assert_eq!(answer.0, 204, "{answer:?}");
    let (summary, rounds, model) = lab.finished(job).await;
    assert_eq!(summary.phase, "completed", "{}", summary.detail);
    assert_eq!(rounds[0].folded.len(), 2);
    // 1000 examples count for 70: 8 * 70 / 80.
    assert_eq!(model.values(), [7.0; SIZE]);
}

/// A worker with data of its own.
fn at_home(lab: &Lab, name: &str, examples: u64) -> Registration {
    let mut registration = lab.registration(name);
    registration.local = true;
    registration.datasets[0].train_examples = examples;
    registration
}

/// Asks for a task without waiting for one, which is a sign of life.
async fn show_life(lab: &Lab, credentials: &Credentials) -> Response {
    let request = Request::Poll {
        credentials: credentials.clone(),
        busy: Vec::new(),
        wait: Duration::ZERO,
    };
    lab.coordinator.handle(Peer::InProcess, request).await
}

/// Marks all workers lost that send no request from here on.
fn lose_all(lab: &Lab) {
    let later = lab.coordinator.now() + lab.coordinator.0.config.workers.expiry;
    let mut state = lab.coordinator.state();
    for worker in state.expire(later) {
        lab.coordinator.worker_lost(&mut state, worker);
    }
}

#[tokio::test]
async fn the_name_of_a_live_worker_with_its_own_data_is_refused_and_the_refusal_says_what_to_do() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let first = lab.register(at_home(&lab, "lab-1", 10)).await.unwrap();
    show_life(&lab, &first).await;
    let refusal = lab.register(at_home(&lab, "lab-1", 10)).await.unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Conflict);
    let detail = refusal.detail;
    for part in ["\"lab-1\"", "worker 1", "--name", "90 s"] {
        assert!(detail.contains(part), "{detail}");
    }
    // Workers whose data is dealt to them need no names of their own.
    lab.worker("lab-1").await;
    lab.worker("lab-1").await;
    assert!(matches!(show_life(&lab, &first).await, Response::Idle));
}

#[tokio::test]
async fn a_worker_whose_registration_was_answered_in_vain_registers_again() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let lost = lab.register(at_home(&lab, "lab-1", 10)).await.unwrap();
    let again = lab.register(at_home(&lab, "lab-1", 10)).await.unwrap();
    assert!(matches!(show_life(&lab, &again).await, Response::Idle));
    let refused = show_life(&lab, &lost).await;
    assert!(
        matches!(&refused, Response::Refused(refusal) if refusal.kind == RefusalKind::Unauthorized),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_lost_worker_gets_its_client_back_with_the_size_that_its_data_has_now() {
    let lab = Lab::open(CoordinatorConfig {
        uploads: UploadLimits {
            max_local_examples: 70,
            ..UploadLimits::default()
        },
        workers: WorkerLimits {
            keep: 2,
            ..WorkerLimits::default()
        },
        ..CoordinatorConfig::default()
    })
    .await;
    let first = lab.register(at_home(&lab, "lab-1", 10)).await.unwrap();
    let second = lab.register(at_home(&lab, "lab-2", 10)).await.unwrap();
    for worker in [&first, &second] {
        show_life(&lab, worker).await;
    }
    let job = lab
        .submit(|spec| {
            spec.partition = PartitionSpec::Local;
            spec.limits.min_updates = 2;
            spec.limits.max_attempts = 10;
        })
        .await;
    lab.poll(&first, Vec::new()).await;
    // The round has lost both, and can't commit: there is another attempt once both are back.
    lose_all(&lab);
    // So many come and go meanwhile that nobody else is remembered.
    for index in 0..200 {
        let other = lab
            .register(at_home(&lab, &format!("other-{index}"), 10))
            .await;
        let credentials = other.unwrap();
        let leave = Request::Leave { credentials };
        lab.coordinator.handle(Peer::InProcess, leave).await;
    }
    assert!(lab.coordinator.state().roster.find(first.worker).is_none());
    let smaller = lab.register(at_home(&lab, "lab-1", 5)).await.unwrap();
    let larger = lab.register(at_home(&lab, "lab-2", 1000)).await.unwrap();
    let tasks = [
        lab.poll(&smaller, Vec::new()).await,
        lab.poll(&larger, Vec::new()).await,
    ];
    assert_eq!(
        tasks.each_ref().map(|task| task.client),
        [ClientId(0), ClientId(1)]
    );
    let claim = |task: &TaskMessage, examples| ReportMetadata {
        examples,
        ..lab.metadata(task)
    };
    let answer = lab
        .put_report(&smaller, &tasks[0], &claim(&tasks[0], 5), &lab.body(0.0))
        .await;
    assert_eq!(answer.0, 204, "{answer:?}");
    let answer = lab
        .put_report(&larger, &tasks[1], &claim(&tasks[1], 1000), &lab.body(15.0))
        .await;
    assert_eq!(answer.0, 204, "{answer:?}");
    let (summary, _, model) = lab.finished(job).await;
    assert_eq!(summary.phase, "completed", "{}", summary.detail);
    // 1000 examples count for 70: 15 * 70 / 75.
    assert_eq!(model.values(), [14.0; SIZE]);
    let log = lab.coordinator.log(job).await.unwrap();
    let mut returned = Vec::new();
    let mut resized = Vec::new();
    for logged in log {
        match logged.event {
            JobEvent::WorkerReturned { replaces, name, .. } => returned.push((replaces, name)),
            JobEvent::DataResized { client, examples } => resized.push((client, examples)),
            _ => {}
        }
    }
    let expected = [
        (first.worker, "lab-1".to_string()),
        (second.worker, "lab-2".to_string()),
    ];
    assert_eq!(returned, expected);
    assert_eq!(resized, [(ClientId(0), 5), (ClientId(1), 70)]);
}
