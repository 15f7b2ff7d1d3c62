//! Datasets that differ, and data that is the workers' own.

use super::*;
use crate::partition::PartitionSpec;

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
        max_local_examples: 70,
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
