//! A coordinator inside of an axum application of one's own: `cargo run --release --example own_server`.
//!
//! The application has a page of its own beside the coordinator's routes, and is served by axum. A worker joins it over HTTP,
//! trains a small job, and the program ends; `own_server ADDRESS` serves until Ctrl-C instead.

use std::{error::Error, net::SocketAddr, sync::Arc};

use fedavg::{
    BurnTrainers, Caller, Coordinator, DeviceSpec, JobSpec, Operator, Worker, WorkerConfig,
    protocol::NewToken,
    transport::http::{
        ClientConfig, HttpTransport, RouterConfig,
        axum::{self, Router, routing::get},
        check_bind, router,
    },
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let trainers = Arc::new(BurnTrainers::new(DeviceSpec::Cpu)?);
    let coordinator = Arc::new(Coordinator::builder(trainers.clone()).start());
    let argument = std::env::args().nth(1);
    let address: SocketAddr = argument.as_deref().unwrap_or("127.0.0.1:0").parse()?;
    // It asks each worker for a join token, and each operator for one of their own; this program, which holds it, for none.
    check_bind(address, false)?;
    let here = Caller::in_process();
    let join = coordinator.create_token(&here, NewToken::join("example"));
    let join = join.await?.secret;

    let jobs = {
        let coordinator = coordinator.clone();
        move || async move {
            let jobs = coordinator.jobs(&Caller::in_process()).await;
            format!("{} jobs\n", jobs.unwrap_or_default().len())
        }
    };
    let app = Router::new()
        .route("/", get(jobs))
        .merge(router(coordinator.clone(), RouterConfig::default()));
    let listener = TcpListener::bind(address).await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("listening on {url}");
    println!(
        "workers join with: FEDAVG_JOIN_TOKEN={} fedavg-worker --coordinator {url}",
        join.0
    );
    // The coordinator has to know the caller's address. `transport::http::serve` says that, too, and has limits that axum's
    // server lacks: the documentation of `router` lists them.
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    if argument.is_some() {
        return Ok(serving.await??);
    }

    let transport = HttpTransport::new(&url, ClientConfig::default())?;
    let mut config = WorkerConfig::new("over-http");
    config.join_token = Some(join);
    let worker = Worker::new(transport, trainers, config);
    tokio::spawn(worker.run(std::future::pending()));
    let mut job = JobSpec::new("mlp", "digits");
    job.clients = Some(4);
    job.rounds = 3;
    let job = coordinator.submit(&here, job, None).await?.job;
    let ended = coordinator.wait(&here, job).await?;
    println!("job {job}: {}, version {}", ended.phase, ended.version);
    Ok(())
}
