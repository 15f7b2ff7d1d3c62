//! A worker with a model of one's own, for a coordinator that does not know it.
//!
//! The coordinator is `fedavg-coordinator` as it comes. It gets the model's first version with the job, and its workers evaluate:
//!
//! ```text
//! cargo run --release --example own_worker -- initial spirals.safetensors
//! fedavg-coordinator
//! cargo run --release --example own_worker -- work http://127.0.0.1:8000
//! fedavg submit --watch --initial spirals.safetensors --model spiral_net --dataset spirals --clients 4 --evaluation workers
//! ```

use std::{error::Error, fs, sync::Arc};

use fedavg::{
    BurnTrainers, DeviceSpec, JobSpec, Token, Worker, WorkerConfig,
    parameters::safetensors,
    transport::http::{ClientConfig, HttpTransport},
    worker::TrainerFactory,
};

// The model and its data: a burn module, and how its loss is computed.
#[allow(dead_code)]
#[path = "custom_model.rs"]
mod custom_model;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let trainers = BurnTrainers::new(DeviceSpec::Cpu)?;
    let trainers = trainers.with_learner("spiral_net", "spirals", custom_model::Spirals);
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["initial", file] => {
            let job = JobSpec::new("spiral_net", "spirals");
            let initial = trainers.initial(&job.description())?;
            fs::write(file, safetensors::encode(&initial))?;
        }
        ["work", url] => {
            let transport = HttpTransport::new(url, ClientConfig::default())?;
            let mut config = WorkerConfig::new("own-worker");
            config.join_token = std::env::var("FEDAVG_JOIN_TOKEN").ok().map(Token);
            let worker = Worker::new(transport, Arc::new(trainers), config);
            worker.run(std::future::pending()).await?;
        }
        _ => return Err("usage: own_worker initial FILE | own_worker work URL".into()),
    }
    Ok(())
}
