//! What reducers and filters cost: reports in memory, two threads, each preset's whole aggregation as a ratio to the mean's. Beside it, in the
//! same run and for rows of the same size, NumPy's median and its product of all pairs (`X @ X.T`, f32), if there is a Python with
//! NumPy: FEDAVG_PYTHON names it, else `python3` is tried.
//!
//! `cargo bench --bench reducers [-- CLIENTS PARAMETERS]`.

use std::{collections::BTreeMap, env, error::Error, process::Command, sync::Arc, time::Instant};

use fedavg::{
    Settings,
    coordinator::Threads,
    ids::{ClientId, ModelVersion, RoundId},
    parameters::{BlockError, BlockReader, BlockWriter, Layout, Parameters, Role},
    report::{DELTA, Report, ReportMetadata},
    settings::TrainingSettings,
    strategy::{
        AggregateContext, Catalogue, Initial, PartKind, RoundPlan, StateValues, Version,
        VersionSink, aggregate,
    },
};

const THREADS: usize = 2;
const RUNS: usize = 7;
/// NumPy on as many threads as this crate has.
const NUMPY: &str = "
import sys, time
import numpy as np
rows, values = int(sys.argv[1]), int(sys.argv[2])
x = np.random.default_rng(1).standard_normal((rows, values), dtype=np.float32)
def best(work, runs):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * sorted(times)[len(times) // 2]
print(best(lambda: x @ x.T, 7), best(lambda: np.median(x, axis=0), 1))
";

fn layout(parameters: usize) -> Arc<Layout> {
    Layout::new([("w".to_string(), vec![parameters], Role::Trainable)]).expect("one tensor")
}

fn reports(clients: usize, layout: &Arc<Layout>) -> Vec<Report> {
    let mut reports = Vec::new();
    for client in 0..clients {
        // Not in any order, as the values of clients are not: a generator for each.
        let mut state = client as u64 + 1;
        let mut values = Vec::with_capacity(layout.len());
        for _ in 0..layout.len() {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            values.push((state >> 40) as f32 / (1 << 24) as f32 - 0.5);
        }
        let delta = Parameters::new(layout.clone(), values).expect("as many values as the layout");
        let metadata = ReportMetadata::new(ModelVersion(0), 100 + client as u64);
        let delta: Arc<dyn BlockReader + Send + Sync> = Arc::new(delta);
        let payloads = vec![(DELTA.to_string(), delta)];
        reports.push(Report::new(
            ClientId(client as u32),
            RoundId(1),
            metadata,
            payloads,
        ));
    }
    reports
}

/// The next model in memory; the state is not kept.
struct Memory<'a>(&'a mut Parameters);

impl VersionSink for Memory<'_> {
    fn write(&mut self, offset: usize, values: &[f32]) -> Result<(), BlockError> {
        self.0.write(offset, values)
    }

    fn write_state(&mut self, _: usize, _: usize, _: &[f32]) -> Result<(), BlockError> {
        Ok(())
    }
}

/// The median time of an aggregation, in milliseconds.
fn time(
    preset: &str,
    settings: &Settings,
    reports: &[Report],
    layout: &Arc<Layout>,
) -> Result<f64, Box<dyn Error>> {
    use fedavg::FederatedStrategy;

    let strategy = Catalogue::default().make(preset, settings)?;
    let spec = strategy.state();
    let global = Parameters::zeros(layout.clone());
    let mut states = Vec::new();
    for tensor in &spec.tensors {
        assert_eq!(tensor.initial, Initial::Filled(0.0));
        states.push(StateValues {
            name: &tensor.name,
            roles: tensor.roles,
            values: &global,
        });
    }
    let numbers: BTreeMap<_, _> = spec.numbers.clone();
    let version = Version {
        number: ModelVersion(0),
        model: &global,
        states: &states,
        numbers: &numbers,
    };
    let clients = reports.iter().map(|report| report.client);
    let plan = RoundPlan::new(clients, TrainingSettings::default());
    let executor = Threads::new(THREADS);
    let mut next = Parameters::zeros(layout.clone());
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let start = Instant::now();
        let context = AggregateContext::new(RoundId(1), &plan, reports, version, &executor)?;
        aggregate(&strategy, context, &mut Memory(&mut next))?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(times[RUNS / 2])
}

/// The times of the product of all pairs and of the median, in milliseconds.
fn numpy(clients: usize, parameters: usize) -> Option<(f64, f64)> {
    let python = env::var_os("FEDAVG_PYTHON").unwrap_or("python3".into());
    let mut command = Command::new(python);
    command.args(["-c", NUMPY, &clients.to_string(), &parameters.to_string()]);
    for threads in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"] {
        command.env(threads, THREADS.to_string());
    }
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (product, median) = text.trim().split_once(' ')?;
    Some((product.parse().ok()?, median.parse().ok()?))
}

/// The parameter of a filter.
fn bound_of(filter: &str) -> &'static str {
    if filter == "norm" {
        "max_norm"
    } else {
        "max_of_median"
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let numbers: Vec<usize> = env::args()
        .filter_map(|argument| argument.parse().ok())
        .collect();
    let clients = numbers.first().copied().unwrap_or(100);
    let parameters = numbers.get(1).copied().unwrap_or(1_000_000);
    let layout = layout(parameters);
    let reports = reports(clients, &layout);
    println!("{clients} reports of {parameters} values in memory, {THREADS} threads");
    let none = Settings::new();
    let mean = time("fedavg", &none, &reports, &layout)?;
    println!("{:17} {mean:8.1} ms", "mean");
    for filter in ["norm", "median_norm"] {
        let mut settings = Settings::new();
        settings.insert("filter".to_string(), filter.into());
        // Above all norms, so that as many reports are averaged.
        settings.insert(bound_of(filter).to_string(), 1e9.into());
        let took = time("fedavg", &settings, &reports, &layout)?;
        println!("{filter:17} {took:8.1} ms  {:5.2} x the mean", took / mean);
    }
    let numpy = numpy(clients, parameters);
    for preset in Catalogue::default().presets() {
        // The others differ in other parts.
        if preset.part(PartKind::Reducer) == "mean" {
            continue;
        }
        let reducer = preset.name;
        let took = time(reducer, &none, &reports, &layout)?;
        println!("{reducer:17} {took:8.1} ms  {:5.2} x the mean", took / mean);
        if reducer == "krum"
            && let Some((product, _)) = numpy
        {
            let bound = 3.0 * mean + 2.0 * product;
            println!(
                "{:17} {bound:8.1} ms  3 x the mean and 2 x NumPy's X @ X.T: {:.2} of it",
                "",
                took / bound
            );
        }
    }
    match numpy {
        Some((product, median)) => {
            println!("NumPy's X @ X.T   {product:8.1} ms\nNumPy's median    {median:8.1} ms")
        }
        None => println!("no NumPy here: FEDAVG_PYTHON names a Python that has it"),
    }
    Ok(())
}
