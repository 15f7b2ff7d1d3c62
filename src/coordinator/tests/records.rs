//! What workers say of themselves and their clients, as it reaches tasks, records and other workers.

use super::*;
use crate::{
    ids::RoundId, job::Settings, protocol::TaskWork, round::Evaluation, settings::EvalSplit,
    telemetry::ClientMetricsLimit,
};

fn basis(task: &TaskMessage) -> Option<RoundId> {
    match &task.work {
        TaskWork::Train { basis, .. } => *basis,
        other => panic!("not a training: {other:?}"),
    }
}

#[tokio::test]
async fn the_record_has_what_clients_measured_within_its_limit_and_who_lost_its_state() {
    let config = CoordinatorConfig {
        jobs: JobLimits {
            client_metrics: ClientMetricsLimit {
                clients: 1,
                metrics: 1,
                ..ClientMetricsLimit::default()
            },
            ..JobLimits::default()
        },
        ..CoordinatorConfig::default()
    };
    let lab = Lab::open(config).await;
    let worker = lab.worker("one").await;
    let job = lab.submit(|spec| spec.rounds = 2).await;
    let body = lab.body(1.0);
    for round in 1..=2 {
        let first = lab.poll(&worker, Vec::new()).await;
        let second = lab.poll(&worker, vec![first.clone()]).await;
        let expected = (round == 2).then_some(RoundId(1));
        assert_eq!((basis(&first), basis(&second)), (expected, expected));
        let mut metadata = lab.metadata(&first);
        metadata.metrics = [("mae".to_string(), 2.0), ("train_loss".to_string(), 0.5)].into();
        let put = lab.put_report(&worker, &first, &metadata, &body);
        assert_eq!(put.await.0, 204);
        metadata.metrics = [("mae".to_string(), 4.0)].into();
        metadata.state_lost = round == 2;
        let put = lab.put_report(&worker, &second, &metadata, &body);
        assert_eq!(put.await.0, 204);
    }
    let (_, rounds, _) = lab.finished(job).await;
    assert!(rounds[0].state_lost.is_empty());
    let record = &rounds[1];
    assert_eq!(record.state_lost, [crate::ids::ClientId(1)]);
    assert_eq!(record.client_metrics, [("mae".to_string(), 3.0)].into());
    assert_eq!(record.client_metrics_left_out, 1);
    assert_eq!(record.by_client.len(), 1);
    assert_eq!(
        record.by_client[0].metrics,
        [("mae".to_string(), 2.0)].into()
    );
    assert_eq!(record.by_client[0].metrics_left_out, 1);
    assert_eq!(record.clients_left_out, 1);
    assert_eq!(record.train_loss, None, "one of the two has none");
}

#[tokio::test]
async fn workers_measure_what_they_like_and_the_record_has_the_mean() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let worker = lab.worker("one").await;
    let job = lab
        .submit(|spec| spec.evaluation = EvaluationMode::Workers)
        .await;
    let first = lab.poll(&worker, Vec::new()).await;
    let second = lab.poll(&worker, vec![first.clone()]).await;
    for task in [first, second] {
        assert_eq!(lab.report(&worker, &task).await.0, 204);
    }
    for mae in [1.0, 5.0] {
        let task = lab.poll(&worker, Vec::new()).await;
        let evaluation = Evaluation::new(0.5, 30).with_metric("mae", mae);
        let request = Request::Evaluation {
            credentials: worker.clone(),
            job: task.job,
            version: task.version,
            split: EvalSplit::Test,
            client: task.client,
            evaluation: Ok(evaluation),
        };
        let response = lab.coordinator.handle(Peer::InProcess, request).await;
        assert!(matches!(response, Response::Accepted), "{response:?}");
    }
    let (_, rounds, _) = lab.finished(job).await;
    let record = &rounds[0];
    assert_eq!((record.test_loss, record.test_accuracy), (Some(0.5), None));
    assert_eq!(record.test_metrics, [("mae".to_string(), 3.0)].into());
}

#[tokio::test]
async fn a_jobs_own_settings_reach_its_workers() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let worker = lab.worker("one").await;
    let settings = Settings::from_iter([("hidden".to_string(), vec![64, 32].into())]);
    let job = lab.submit(|spec| spec.settings = settings.clone()).await;
    let request = Request::Job {
        credentials: worker,
        job,
    };
    let Response::Job(message) = lab.coordinator.handle(Peer::InProcess, request).await else {
        panic!("no description");
    };
    assert_eq!(message.spec.settings, settings);
    let json = serde_json::to_value(&message).unwrap();
    assert_eq!(json["job"], job.0);
    assert_eq!(json["spec"]["model"], "noop");
    assert_eq!(json["spec"]["settings"]["hidden"][0], 64);
}
