//! What a device can do, asked order by order: the program that `scripts/gpu-check` carries to a machine with a GPU.
//!
//!     device_check DEVICE FIXTURES
//!
//! FIXTURES is a folder with files of `tests/fixtures`. A line on the standard input is an order, and a line of JSON on
//! the standard output is its answer, `{"error": ...}` if the order failed:
//!
//! - `prove`: the proof that a device gives before it is used.
//! - `steps sgd`, `steps adam`: how far twenty steps of `tiny_cnn` end from PyTorch's.
//! - `digits`: the job of `fedavg simulate` without arguments, trained here with one client at a time.
//! - `train MODEL IMAGES`: one client's round on this many random images. `scripts/pytorch_training_speed.py` takes the
//!   same orders.
//!
//! It only measures. Whether a figure is good enough is for its reader to decide.

#[path = "support/noise_client.rs"]
mod noise_client;
#[path = "support/twenty_steps.rs"]
mod twenty_steps;

use std::{
    collections::BTreeMap, env, error::Error, io, path::PathBuf, process::ExitCode, sync::Arc,
    time::Instant,
};

use fedavg::{
    BurnTrainers, DeviceSpec, JobSpec, Simulation,
    backend::{EnergyMeter, Metered},
    data::Dataset,
    protocol::Hardware,
};
use noise_client::{NoiseClient, noise};
use serde_json::{Value, json};

type Answer = Result<Value, Box<dyn Error>>;

/// The workers' allocator, as in `fedavg-worker`.
#[cfg(feature = "cli")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // `cargo bench` adds `--bench`, and gives nothing to check.
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(device), Some(fixtures)) = (arguments.next(), arguments.next()) else {
        eprintln!(
            "usage: device_check DEVICE FIXTURES, with orders on the standard input; scripts/gpu-check runs it"
        );
        return ExitCode::SUCCESS;
    };
    let device: DeviceSpec = match device.parse() {
        Ok(device) => device,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let mut check = DeviceCheck {
        device,
        fixtures: PathBuf::from(fixtures),
        noise: noise(),
        clients: BTreeMap::new(),
        meter: None,
    };
    for order in io::stdin().lines() {
        let Ok(order) = order else {
            return ExitCode::FAILURE;
        };
        let answer = check.answer(&order);
        println!(
            "{}",
            answer.unwrap_or_else(|error| json!({ "error": error.to_string() }))
        );
    }
    ExitCode::SUCCESS
}

/// The device, and what is kept between orders.
struct DeviceCheck {
    device: DeviceSpec,
    fixtures: PathBuf,
    noise: Dataset,
    /// A client for each model that was asked for.
    clients: BTreeMap<String, NoiseClient>,
    /// The device's energy, once it has proven itself and if it is measured. A simulation has a meter of its own.
    meter: Option<Arc<EnergyMeter>>,
}

impl DeviceCheck {
    fn answer(&mut self, order: &str) -> Answer {
        let words: Vec<&str> = order.split_whitespace().collect();
        match words[..] {
            ["prove"] => self.prove(),
            ["steps", optimizer] => self.steps(optimizer),
            ["digits"] => self.digits(),
            ["train", model, images] => self.train(model, images.parse()?),
            _ => Err(format!(
                "{order:?} is no order: expected prove, steps sgd, steps adam, digits or train MODEL IMAGES"
            )
            .into()),
        }
    }

    fn prove(&mut self) -> Answer {
        let start = Instant::now();
        self.device.device()?;
        let seconds = start.elapsed().as_secs_f64();
        self.meter = EnergyMeter::of(self.device);
        Ok(json!({
            "device": self.device.to_string(),
            "seconds": seconds,
            "energy_is_measured": self.meter.is_some(),
            "hardware": Hardware::detect(),
        }))
    }

    fn steps(&self, optimizer: &str) -> Answer {
        let factory = BurnTrainers::new(self.device)?;
        let distance = twenty_steps::distance(factory, &self.fixtures, optimizer)?;
        Ok(
            json!({ "distance": distance.largest, "tensor": distance.tensor, "loss_distance": distance.loss }),
        )
    }

    fn digits(&self) -> Answer {
        let mut job = JobSpec::new("mlp", "digits");
        job.clients = Some(8);
        job.training.local_epochs = 2.0;
        job.training.lr = 0.1;
        let factory = BurnTrainers::new(self.device)?;
        let start = Instant::now();
        let result = Simulation::new(job, Arc::new(factory)).run()?;
        let seconds = start.elapsed().as_secs_f64();
        let last = result.rounds.last().ok_or("the job had no round")?;
        let joules: Vec<f64> = result
            .rounds
            .iter()
            .filter_map(|round| round.energy_joules)
            .collect();
        let rounds_with_energy = joules.len();
        Ok(json!({
            "rounds": result.rounds.len(),
            "seconds": seconds,
            "test_accuracy": last.test_accuracy,
            "rounds_with_energy": rounds_with_energy,
            "joules": joules.into_iter().reduce(|sum, joules| sum + joules),
            "devices": last.contributions.iter().map(|part| &part.device).collect::<Vec<_>>(),
        }))
    }

    fn train(&mut self, model: &str, images: usize) -> Answer {
        if !self.clients.contains_key(model) {
            let client = NoiseClient::new(self.device, model, self.noise.clone())?;
            self.clients.insert(model.to_string(), client);
        }
        let client = self.clients.get_mut(model).ok_or("no client")?;
        let metered = self.meter.as_ref().map(EnergyMeter::begin);
        let time = client.train(images)?;
        let joules = metered.and_then(Metered::end);
        Ok(json!({ "seconds": time.as_secs_f64(), "joules": joules }))
    }
}
