//! The coordinator itself and its client over HTTP are the same operator.

use futures_util::StreamExt;

use super::*;
use crate::{
    ids::ModelVersion,
    parameters::safetensors,
    protocol::Scope,
    transport::{
        InProcess,
        http::{ClientConfig, OperatorClient},
    },
    worker::{Worker, WorkerConfig},
};

/// A job of four rounds, evaluated by its worker. What each operator says of it while it runs, and after its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_operators_wait_follow_and_read_alike() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let url = format!("http://{}", lab.address);
    let client = OperatorClient::new(&url, None, ClientConfig::default()).unwrap();
    let operators: [Arc<dyn Operator>; 2] = [Arc::new(lab.coordinator.clone()), Arc::new(client)];
    let mut spec = JobSpec {
        rounds: 4,
        clients: Some(2),
        evaluation: EvaluationMode::Workers,
        ..lab.trainers.job()
    };
    spec.limits.min_workers = 1;
    let job = operators[1].submit(&HERE, spec, None).await.unwrap().job;
    let mut following = Vec::new();
    for operator in &operators {
        let operator = operator.clone();
        following.push(tokio::spawn(async move {
            let records: Vec<_> = operator.records(&HERE, job, RoundId(0)).collect().await;
            let ended = operator.wait(&HERE, job).await.unwrap();
            (records, ended)
        }));
    }
    let transport = InProcess::new(Arc::new(lab.coordinator.clone()));
    let worker = Worker::new(transport, lab.trainers.clone(), WorkerConfig::new("one"));
    tokio::spawn(worker.run(std::future::pending()));

    let mut models = Vec::new();
    for (operator, following) in operators.iter().zip(following) {
        let followed = tokio::time::timeout(LIMIT, following).await;
        let (records, ended) = followed.expect("an end in time").unwrap();
        let records: Vec<_> = records.into_iter().map(Result::unwrap).collect();
        assert_eq!(ended.phase, "completed");
        // Each once, in order, and as it stays: with its evaluation.
        let all = operator.rounds(&HERE, job, RoundId(0)).await.unwrap();
        assert_eq!(records, all);
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|record| record.test_loss.is_some()));
        let rest = operator.rounds(&HERE, job, RoundId(3)).await.unwrap();
        assert_eq!(rest, all[3..]);
        let late: Vec<_> = operator.records(&HERE, job, RoundId(2)).collect().await;
        assert_eq!(late.len(), 2);
        // What has ended is not waited for.
        assert_eq!(operator.wait(&HERE, job).await.unwrap(), ended);
        let model = operator.model(&HERE, job, None).await.unwrap();
        let mut file = Vec::new();
        let written = operator
            .download(&HERE, job, None, &mut file)
            .await
            .unwrap();
        assert_eq!(written, (ModelVersion(4), file.len() as u64));
        assert_eq!(safetensors::decode(&file).unwrap().values(), model.values());
        models.push(model);
        let unknown = operator.wait(&HERE, JobId(99)).await;
        assert_eq!(refusal(unknown).kind, RefusalKind::UnknownJob);
        let unknown: Vec<_> = operator
            .records(&HERE, JobId(99), RoundId(0))
            .collect()
            .await;
        assert_eq!(unknown.len(), 1);
        assert!(operator.authorize(&HERE, Scope::Admin).await.is_ok());
    }
    assert_eq!(models[0].values(), models[1].values());
}

#[tokio::test]
async fn a_client_shows_its_callers_token_or_else_its_own() {
    let token = |text: &str| Some(Token(text.to_string()));
    let mut config = CoordinatorConfig::default();
    config.access.admin_token = token("secret");
    let lab = Lab::open(config).await;
    let url = format!("http://{}", lab.address);
    for (own, callers, granted) in [
        ("secret", None, true),
        ("secret", Some("wrong"), false),
        ("wrong", Some("secret"), true),
        ("wrong", None, false),
    ] {
        let client = OperatorClient::new(&url, token(own), ClientConfig::default()).unwrap();
        let caller = Caller::new(Peer::InProcess, callers.and_then(token));
        let (authorized, jobs) = (
            client.authorize(&caller, Scope::Admin).await,
            client.jobs(&caller).await,
        );
        if granted {
            assert!(authorized.is_ok() && jobs.is_ok(), "{own} {callers:?}");
        } else {
            assert_eq!(refusal(authorized).kind, RefusalKind::Unauthorized);
            assert_eq!(refusal(jobs).kind, RefusalKind::Unauthorized);
        }
    }
}
