//! How fast it is on loopback. Not part of the suite: `cargo test --release --lib http::tests::speed -- --ignored --nocapture`.

use std::{sync::Arc, time::Instant};

use super::{
    Running, credentials,
    fake::{Fake, parameters},
};
use crate::{
    ids::{ClientId, JobId, ModelVersion, RoundId},
    report::ReportMetadata,
    transport::{ReportBody, Request, Response, Transport, http::ServerConfig},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn throughput_and_latency() {
    const VALUES: usize = 25_000_000 / 4;
    let values = parameters(VALUES, 0);
    let running = Running::start(Fake::with_model(values.clone()), ServerConfig::default()).await;
    let (worker, values) = (running.worker(), Arc::new(values));
    let small = Request::Heartbeat {
        credentials: credentials(1),
        busy: Vec::new(),
    };
    worker.send(small).await.unwrap();
    let begin = Instant::now();
    for _ in 0..2000 {
        let small = Request::Heartbeat {
            credentials: credentials(1),
            busy: Vec::new(),
        };
        worker.send(small).await.unwrap();
    }
    println!("heartbeat: {:?} each", begin.elapsed() / 2000);
    for _ in 0..3 {
        const COUNT: u32 = 10;
        let begin = Instant::now();
        for _ in 0..COUNT {
            let request = Request::Report {
                credentials: credentials(1),
                job: JobId(1),
                round: RoundId(4),
                client: ClientId(0),
                metadata: ReportMetadata {
                    base_version: ModelVersion(3),
                    examples: 1,
                    steps: 1,
                    metrics: Default::default(),
                },
                body: ReportBody::Memory(values.clone()),
            };
            assert!(matches!(worker.send(request).await, Ok(Response::Accepted)));
            running.fake.reports.lock().unwrap().clear();
        }
        let put = begin.elapsed() / COUNT;
        let begin = Instant::now();
        for _ in 0..COUNT {
            let request = Request::Model {
                credentials: credentials(1),
                job: JobId(1),
                version: ModelVersion(3),
            };
            let Ok(Response::Model(body)) = worker.send(request).await else {
                panic!("no model");
            };
            body.collect(Some(values.layout().clone())).await.unwrap();
        }
        let get = begin.elapsed() / COUNT;
        let rate = |time: std::time::Duration| 0.025 / time.as_secs_f64();
        println!(
            "25 MB: report {put:?} ({:.2} GB/s), model {get:?} ({:.2} GB/s)",
            rate(put),
            rate(get)
        );
    }
}
