//! The records of a job's rounds as they come: `cargo run --release --example follow`.
//!
//! `follow URL JOB` follows a job of a coordinator that runs elsewhere; FEDAVG_TOKEN is an operator's token.
//! Without arguments, the job is one in this process. The program does not know which: both are an `Operator`.

use std::{error::Error, sync::Arc};

use fedavg::{
    BurnTrainers, Caller, Coordinator, DeviceSpec, InProcess, JobId, JobSpec, Operator, RoundId,
    Token, Worker, WorkerConfig,
    transport::http::{ClientConfig, OperatorClient},
};
use futures_util::StreamExt;

/// A coordinator and a worker in this process, with a job.
async fn here() -> Result<(Arc<dyn Operator>, JobId), Box<dyn Error>> {
    let trainers = Arc::new(BurnTrainers::new(DeviceSpec::Cpu)?);
    let coordinator = Arc::new(Coordinator::builder(trainers.clone()).start());
    let transport = InProcess::new(coordinator.clone());
    let worker = Worker::new(transport, trainers, WorkerConfig::new("here"));
    tokio::spawn(worker.run(std::future::pending()));
    let mut job = JobSpec::new("mlp", "digits");
    job.clients = Some(8);
    job.rounds = 5;
    let job = coordinator
        .submit(&Caller::in_process(), job, None)
        .await?
        .job;
    Ok((coordinator, job))
}

/// The coordinator at this address.
fn elsewhere(url: &str, job: &str) -> Result<(Arc<dyn Operator>, JobId), Box<dyn Error>> {
    let token = std::env::var("FEDAVG_TOKEN").ok().map(Token);
    let client = OperatorClient::new(url, token, ClientConfig::default())?;
    Ok((Arc::new(client), job.parse()?))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (operator, job) = match arguments.as_slice() {
        [] => here().await?,
        [url, job] => elsewhere(url, job)?,
        _ => return Err("usage: follow [URL JOB]".into()),
    };
    let caller = Caller::in_process();
    let mut records = operator.records(&caller, job, RoundId(0));
    while let Some(record) = records.next().await {
        let record = record?;
        match &record.abandoned {
            Some(reason) => println!("round {} was abandoned: {reason}", record.round),
            None => println!(
                "round {}: {} reports, test accuracy {:?}",
                record.round,
                record.folded.len(),
                record.test_accuracy
            ),
        }
    }
    let ended = operator.job(&caller, job).await?;
    println!("job {job}: {}", ended.phase);
    Ok(())
}
