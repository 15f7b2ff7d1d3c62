//! Images a second of local training, on every backend that is compiled in and beside PyTorch.
//!
//! A measurement is one client's round as a worker runs it: `LocalTrainer::train` from a global model on images of
//! CIFAR-10's shape, flipped and cropped, in batches of 64, by SGD with momentum and weight decay, the local model read
//! back at the end. PyTorch does the same in a process of its own (`scripts/pytorch_training_speed.py`), on as many
//! threads as LibTorch takes here: one for each core, or `OMP_NUM_THREADS`. Measurements take turns, each backend once
//! and then PyTorch, so that what else this machine does meets all of them; a ratio is the median over the turns of a
//! backend's speed to PyTorch's in the same turn. On a busy machine let it be one thread: several wait for each other.
//!
//! `data` is the share of the time that choosing, flipping, cropping and normalising images takes by itself.
//!
//! `FEDAVG_PYTHON` names a Python that has torch, safetensors and numpy; without it `python3` is tried, and without
//! PyTorch the ratio is left out. `cargo bench --bench training -- cifar_cnn libtorch` runs a part: any of the models,
//! any of the backends. `FEDAVG_BENCH_SECONDS` is how long a measurement takes, 2 seconds if it isn't set.

#[path = "support/noise_client.rs"]
mod noise_client;

use std::{
    env,
    ffi::OsString,
    hint::black_box,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use fedavg::{
    backend::DeviceSpec,
    data::{Batch, Dataset},
    ids::RoundId,
    rng::{Purpose, keyed},
};
use noise_client::{BATCH, EXAMPLES, NoiseClient, noise};
use serde_json::Value;

const MODELS: [&str; 3] = ["cifar_cnn", "lenet", "mlp"];
const TURNS: usize = 5;

/// The workers' allocator, as in `fedavg-worker`.
#[cfg(feature = "cli")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let asked: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |name: &str, all: &[String]| {
        let of_these: Vec<_> = asked.iter().filter(|word| all.contains(word)).collect();
        of_these.is_empty() || of_these.iter().any(|word| *word == name)
    };
    let mut torch = PyTorch::start();
    match &torch {
        Some(torch) => println!("{}", torch.version),
        None => println!("no PyTorch here: FEDAVG_PYTHON names a Python that has it"),
    }
    let noise = noise();
    let data = data_speed(&noise);
    let devices = devices();
    let names: Vec<String> = devices.iter().map(DeviceSpec::to_string).collect();
    let models = MODELS.map(str::to_string);
    println!("model      backend            images/s   ratio   data");
    for model in MODELS.into_iter().filter(|model| wanted(model, &models)) {
        let mut rows: Vec<Ours> = devices
            .iter()
            .filter(|device| wanted(&device.to_string(), &names))
            .map(|device| Ours::new(*device, model, noise.clone()))
            .collect();
        let mut reference = torch.as_mut().map(|torch| Reference::new(torch, model));
        for _ in 0..TURNS {
            rows.iter_mut().for_each(Ours::turn);
            if let Some(reference) = &mut reference {
                reference.turn();
            }
        }
        let torch = reference.map(|reference| reference.speeds);
        for row in &rows {
            let ratio = torch.as_ref().map(|torch| {
                let ratios = row.speeds.iter().zip(torch).map(|(own, torch)| own / torch);
                format!("{:.3}", median(ratios.collect()))
            });
            let speed = median(row.speeds.clone());
            println!(
                "{model:10} {:18} {speed:8.1}   {:5}   {:.2} %",
                row.name,
                ratio.as_deref().unwrap_or("-"),
                100.0 * speed / data,
            );
        }
        if let Some(torch) = torch {
            println!("{model:10} PyTorch            {:8.1}", median(torch));
        }
    }
}

/// One device of each kind that is compiled in and here.
fn devices() -> Vec<DeviceSpec> {
    let named = DeviceSpec::built()
        .into_iter()
        .map(|name| name.replace("INDEX", "0"))
        .filter_map(|name| name.parse::<DeviceSpec>().ok())
        .filter(|device| !matches!(device, DeviceSpec::Cpu | DeviceSpec::Auto));
    named
        .filter(|device| match device.device() {
            Ok(_) => true,
            Err(error) => {
                println!("{device} is left out: {error}");
                false
            }
        })
        .collect()
}

/// How many images a second are made ready, on one thread.
fn data_speed(dataset: &Dataset) -> f64 {
    let transform = dataset.transform().expect("a transform");
    let mut rng = keyed(1, Purpose::Augment, RoundId(1), None);
    let order: Vec<u32> = (0..EXAMPLES as u32).collect();
    let start = Instant::now();
    for indices in order.chunks(BATCH) {
        // A new batch each time, as in training, where the values go on to the device.
        let mut batch = Batch::default();
        let vary = dataset.augmentation;
        let filled = transform.fill_augmented(&dataset.train, indices, vary, &mut rng, &mut batch);
        filled.expect("images");
        black_box(batch);
    }
    EXAMPLES as f64 / start.elapsed().as_secs_f64()
}

/// One backend's trainer of one model.
struct Ours {
    name: String,
    client: NoiseClient,
    images: usize,
    speeds: Vec<f64>,
}

impl Ours {
    fn new(device: DeviceSpec, model: &str, dataset: Dataset) -> Self {
        let mut ours = Self {
            name: device.to_string(),
            client: NoiseClient::new(device, model, dataset).expect("a device that is here"),
            images: 0,
            speeds: Vec::new(),
        };
        ours.images = enough(|images| ours.train(images));
        ours
    }

    fn turn(&mut self) {
        let time = self.train(self.images);
        self.speeds.push(self.images as f64 / time.as_secs_f64());
    }

    fn train(&mut self, images: usize) -> Duration {
        self.client.train(images).expect("an update")
    }
}

/// PyTorch training one model, in turns.
struct Reference<'a> {
    torch: &'a mut PyTorch,
    model: &'static str,
    images: usize,
    speeds: Vec<f64>,
}

impl<'a> Reference<'a> {
    fn new(torch: &'a mut PyTorch, model: &'static str) -> Self {
        let images = enough(|images| torch.train(model, images));
        Self {
            torch,
            model,
            images,
            speeds: Vec::new(),
        }
    }

    fn turn(&mut self) {
        let time = self.torch.train(self.model, self.images);
        self.speeds.push(self.images as f64 / time.as_secs_f64());
    }
}

/// Whole batches that take about as long as a measurement should; one batch if that alone takes longer.
fn enough(mut train: impl FnMut(usize) -> Duration) -> usize {
    let window = env::var("FEDAVG_BENCH_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(2.0);
    let mut images = BATCH;
    loop {
        let seconds = train(images).as_secs_f64();
        if seconds > window / 8.0 {
            let batches = images as f64 * window / seconds / BATCH as f64;
            return BATCH * (batches.round() as usize).max(1);
        }
        images *= 2;
    }
}

/// The companion script in a process of its own. Dropping it ends it.
struct PyTorch {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    version: String,
}

impl PyTorch {
    fn start() -> Option<Self> {
        let python = env::var_os("FEDAVG_PYTHON").unwrap_or(OsString::from("python3"));
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/scripts/pytorch_training_speed.py"
        );
        let mut child = Command::new(python)
            .arg(script)
            // The LibTorch that this program may run on is not the one that this Python has.
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let orders = child.stdin.take()?;
        let mut torch = Self {
            orders,
            answers: BufReader::new(child.stdout.take()?),
            child,
            version: String::new(),
        };
        torch.version = torch.line()?;
        Some(torch)
    }

    fn train(&mut self, model: &str, images: usize) -> Duration {
        writeln!(self.orders, "train {model} {images}").expect("a running script");
        let answer = self.line().expect("an answer");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let seconds = answer["seconds"].as_f64();
        Duration::from_secs_f64(seconds.unwrap_or_else(|| panic!("PyTorch: {answer}")))
    }

    /// The next line of its output; none where it has ended.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).ok()?;
        (!line.is_empty()).then(|| line.trim().to_string())
    }
}

impl Drop for PyTorch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
