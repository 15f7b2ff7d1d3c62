//! What the fold of N reports with P parameters costs, beside references over the same values in the same run:
//!
//! - `read_sum`: one stream that adds all values up in f32, as fast as memory gives them: what any fold has to read;
//! - `read_sum_2_threads`: two such streams at once: what both cores together get out of memory;
//! - `read_sum_f64`: the same in f64, so with the conversion that every value of a fold needs;
//! - `read_tiles`: `read_sum` in the fold's order, one block of each report after the other;
//! - `axpy`: what one would write first: for each client in turn, `sum += weight * delta` over the whole model, in f64.
//!
//! Throughput is in bytes of values as f32, whatever the encoding, so that the rows of one group compare directly. Sizes
//! that don't fit in this machine's free memory are left out, and said so.

use std::{collections::BTreeMap, fs, hint::black_box, sync::Arc, thread, time::Duration};

#[cfg(feature = "testing")]
use criterion::{BenchmarkGroup, measurement::WallTime};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fedavg::{
    coordinator::Threads,
    ids::{ClientId, ModelVersion, RoundId},
    parameters::{
        BlockError, BlockWriter, Encoded, Encoding, Form, Layout, Parameters, Role, Roles, encode,
    },
    report::{DELTA, Executor, Report, ReportMetadata},
    settings::TrainingSettings,
    strategy::{AggregateContext, FedAvg, RoundPlan, Version, VersionSink, aggregate},
};

const CLIENTS: [usize; 3] = [10, 100, 1000];
const PARAMETERS: [usize; 3] = [1_000_000, 4_000_000, 25_000_000];

/// The size at which the encodings are compared.
const ENCODED: (usize, usize) = (100, 4_000_000);
const ENCODINGS: [Encoding; 4] = [
    Encoding::F16,
    Encoding::Bf16,
    Encoding::Int8,
    Encoding::TopK { fraction: 0.01 },
];

/// Values in a block of the fold.
const BLOCK: usize = 64 * 1024;

fn deltas(clients: usize, layout: &Arc<Layout>) -> Vec<Arc<Parameters>> {
    let delta = |client: usize| {
        let value = |index: usize| ((client * 31 + index * 7) % 1000) as f32 / 1000.0 - 0.5;
        (0..layout.len()).map(value).collect()
    };
    (0..clients)
        .map(|client| Parameters::new(layout.clone(), delta(client)))
        .map(|delta| Arc::new(delta.expect("as many values as the layout")))
        .collect()
}

fn reports(deltas: &[Arc<Parameters>], encoding: Encoding) -> Vec<Report> {
    let report = |(client, delta): (usize, &Arc<Parameters>)| {
        let metadata = ReportMetadata::new(ModelVersion(0), 100 + client as u64);
        let delta: Encoded = encode(
            &Form::new(encoding, delta.layout().clone(), Roles::TRAINED),
            delta,
        )
        .expect("finite values");
        let payloads: Vec<(
            String,
            Arc<dyn fedavg::parameters::BlockReader + Send + Sync>,
        )> = vec![(DELTA.to_string(), Arc::new(delta))];
        Report::new(ClientId(client as u32), RoundId(1), metadata, payloads)
    };
    deltas.iter().enumerate().map(report).collect()
}

/// The next model in memory.
struct Memory<'a>(&'a mut Parameters);

impl VersionSink for Memory<'_> {
    fn write(&mut self, offset: usize, values: &[f32]) -> Result<(), BlockError> {
        self.0.write(offset, values)
    }

    fn write_state(&mut self, _: usize, _: usize, _: &[f32]) -> Result<(), BlockError> {
        Ok(())
    }
}

fn fold(global: &Parameters, reports: &[Report], executor: &dyn Executor, next: &mut Parameters) {
    let numbers = BTreeMap::new();
    let version = Version {
        number: ModelVersion(0),
        model: global,
        states: &[],
        numbers: &numbers,
    };
    let clients = reports.iter().map(|report| report.client);
    let plan = RoundPlan::new(clients, TrainingSettings::default());
    let context = AggregateContext::new(RoundId(1), &plan, reports, version, executor);
    let context = context.expect("reports in client order");
    aggregate(&FedAvg::default(), context, &mut Memory(next)).expect("a mean");
}

/// Sums side by side, which the compiler keeps in vector registers.
fn add_all(sums: &mut [f32; 32], values: &[f32]) {
    for row in values.chunks_exact(sums.len()) {
        sums.iter_mut()
            .zip(row)
            .for_each(|(sum, value)| *sum += value);
    }
}

fn read_sum(deltas: &[Arc<Parameters>]) -> f32 {
    let mut sums = [0f32; 32];
    deltas
        .iter()
        .for_each(|delta| add_all(&mut sums, delta.values()));
    sums.iter().sum()
}

/// As many streams as threads, each over its share of the reports.
fn read_sum_at_once(deltas: &[Arc<Parameters>], threads: usize) -> f32 {
    let shares = deltas.chunks(deltas.len().div_ceil(threads));
    thread::scope(|scope| {
        let sums: Vec<_> = shares
            .map(|share| scope.spawn(|| read_sum(share)))
            .collect();
        sums.into_iter().map(|sum| sum.join().expect("a sum")).sum()
    })
}

fn read_tiles(deltas: &[Arc<Parameters>]) -> f32 {
    let mut sums = [0f32; 32];
    let len = deltas[0].values().len();
    for start in (0..len).step_by(BLOCK) {
        let block = start..len.min(start + BLOCK);
        deltas
            .iter()
            .for_each(|delta| add_all(&mut sums, &delta.values()[block.clone()]));
    }
    sums.iter().sum()
}

fn read_sum_f64(deltas: &[Arc<Parameters>]) -> f64 {
    let mut sums = [0f64; 16];
    for delta in deltas {
        for row in delta.values().chunks_exact(sums.len()) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, value)| *sum += f64::from(*value));
        }
    }
    sums.iter().sum()
}

fn axpy(global: &Parameters, deltas: &[Arc<Parameters>], sums: &mut [f64], next: &mut Parameters) {
    sums.fill(0.0);
    let mut total = 0.0;
    for (client, delta) in deltas.iter().enumerate() {
        let weight = 100.0 + client as f64;
        total += weight;
        sums.iter_mut()
            .zip(delta.values())
            .for_each(|(sum, value)| *sum += weight * f64::from(*value));
    }
    let rows = next.values_mut().iter_mut().zip(global.values()).zip(sums);
    rows.for_each(|((next, global), sum)| *next = (f64::from(*global) + *sum / total) as f32);
}

/// Bytes of memory that are free, if the system says.
fn free_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemAvailable"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.map_or(4 << 30, |kib| kib << 10)
}

fn aggregation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("aggregation");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    for parameters in PARAMETERS {
        for clients in CLIENTS {
            let size = format!("{clients}x{}M", parameters / 1_000_000);
            let bytes = (clients * parameters * 4) as u64;
            if bytes > free_memory() / 10 * 6 {
                eprintln!("{size}: left out, {} GB of reports don't fit", bytes >> 30);
                continue;
            }
            let layout = Layout::new([("weight".to_string(), vec![parameters], Role::Trainable)])
                .expect("one tensor");
            let deltas = deltas(clients, &layout);
            let plain = reports(&deltas, Encoding::F32);
            let global = Parameters::zeros(layout.clone());
            let mut next = Parameters::zeros(layout.clone());
            let mut sums = vec![0.0; parameters];
            group.throughput(Throughput::Bytes(bytes));
            for threads in [1, 2] {
                let executor = Threads::new(threads);
                let id = BenchmarkId::new(format!("fold_{threads}_threads"), &size);
                group.bench_function(id, |bencher| {
                    bencher.iter(|| fold(&global, &plain, &executor, &mut next));
                });
            }
            group.bench_function(BenchmarkId::new("read_sum", &size), |bencher| {
                bencher.iter(|| black_box(read_sum(&deltas)));
            });
            group.bench_function(BenchmarkId::new("read_sum_2_threads", &size), |bencher| {
                bencher.iter(|| black_box(read_sum_at_once(&deltas, 2)));
            });
            group.bench_function(BenchmarkId::new("read_sum_f64", &size), |bencher| {
                bencher.iter(|| black_box(read_sum_f64(&deltas)));
            });
            group.bench_function(BenchmarkId::new("read_tiles", &size), |bencher| {
                bencher.iter(|| black_box(read_tiles(&deltas)));
            });
            group.bench_function(BenchmarkId::new("axpy", &size), |bencher| {
                bencher.iter(|| axpy(&global, &deltas, &mut sums, &mut next));
            });
            if (clients, parameters) != ENCODED {
                continue;
            }
            for encoding in ENCODINGS {
                let encoded = reports(&deltas, encoding);
                for threads in [1, 2] {
                    let executor = Threads::new(threads);
                    let name = format!("fold_{}_{threads}_threads", encoding.name());
                    group.bench_function(BenchmarkId::new(name, &size), |bencher| {
                        bencher.iter(|| fold(&global, &encoded, &executor, &mut next));
                    });
                }
            }
            #[cfg(feature = "testing")]
            without_avx512(&mut group, &size, &global, &deltas, &mut next);
        }
    }
    group.finish();
}

/// What a CPU takes that has AVX2 but not AVX-512, as most have: needs `--features testing`.
#[cfg(feature = "testing")]
fn without_avx512(
    group: &mut BenchmarkGroup<'_, WallTime>,
    size: &str,
    global: &Parameters,
    deltas: &[Arc<Parameters>],
    next: &mut Parameters,
) {
    fedavg::strategy::testing::without_avx512(true);
    for encoding in [Encoding::F32, Encoding::F16, Encoding::Bf16] {
        let encoded = reports(deltas, encoding);
        for threads in [1, 2] {
            let executor = Threads::new(threads);
            let name = format!("fold_{}_avx2_{threads}_threads", encoding.name());
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| fold(global, &encoded, &executor, next));
            });
        }
    }
    fedavg::strategy::testing::without_avx512(false);
}

criterion_group!(benches, aggregation);
criterion_main!(benches);
