//! The bits of a job whose trainer is plain Rust, on fixed numbers: the same on every machine, in every version.
//!
//! A trainer of burn's has the same bits only on the same model of CPU. This one adds and multiplies, and nothing else. If a
//! digest here changes, every user's results do: the CHANGELOG must say so.

use std::sync::Arc;

use fedavg::{
    JobSpec, Simulation,
    parameters::{Digest, Encoding, safetensors},
};

#[allow(dead_code)]
#[path = "../../examples/regression.rs"]
mod regression;

fn digest(workers: usize, reports: Encoding, models: Encoding) -> String {
    let mut job = JobSpec::new("line", "numbers");
    job.clients = Some(7);
    job.rounds = 5;
    job.training.lr = 0.01;
    job.encoding.reports = reports;
    job.encoding.models = models;
    let run = Simulation::new(job, Arc::new(regression::Regression)).workers(workers);
    let model = run.run().expect("a run").model;
    Digest::of(&safetensors::encode(&model)).to_string()
}

#[test]
fn a_jobs_bits_are_the_committed_ones() {
    let top_k: Encoding = "top_k:0.5".parse().expect("an encoding");
    for (reports, models, expected) in [
        (Encoding::F32, Encoding::F32, "crc32=b1b733da"),
        (Encoding::F16, Encoding::F32, "crc32=7edde535"),
        (Encoding::Bf16, Encoding::F32, "crc32=bf2d8f71"),
        (Encoding::Int8, Encoding::F32, "crc32=84e4590d"),
        (top_k, Encoding::F32, "crc32=30c7a833"),
        (Encoding::F32, Encoding::Int8, "crc32=1aaf05e4"),
    ] {
        for workers in [1, 2] {
            let found = digest(workers, reports, models);
            assert_eq!(found, expected, "{reports} and {models}, {workers} workers");
        }
    }
}
