//! What the fold of N reports with P parameters costs, beside two references over the same values in the same run:
//!
//! - `read_sum`: one stream that adds all values up, the least that any fold has to read;
//! - `axpy`: what one would write first: for each client in turn, `sum += weight * delta` over the whole model, in f64.
//!
//! Throughput is in bytes of reports, so the rows of one group compare directly.

use std::{collections::BTreeMap, hint::black_box, sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fedavg::{
    coordinator::Threads,
    ids::{ClientId, ModelVersion, RoundId},
    parameters::{BlockReader, Layout, Parameters, Role},
    report::{DELTA, Executor, Report, ReportMetadata, Reports},
    strategy::{FedAvg, FederatedStrategy},
};

/// (clients, parameters): at most 1.6 GB of reports, so that the table fits in a small machine's memory.
const TABLE: [(usize, usize); 5] = [
    (10, 1_000_000),
    (100, 1_000_000),
    (10, 4_000_000),
    (100, 4_000_000),
    (10, 25_000_000),
];

fn deltas(clients: usize, layout: &Arc<Layout>) -> Vec<Arc<Parameters>> {
    let value =
        |client: usize, index: usize| ((client * 31 + index * 7) % 1000) as f32 / 1000.0 - 0.5;
    let delta = |client| {
        (0..layout.len())
            .map(|index| value(client, index))
            .collect()
    };
    (0..clients)
        .map(|client| {
            Arc::new(
                Parameters::new(layout.clone(), delta(client))
                    .expect("as many values as the layout"),
            )
        })
        .collect()
}

fn report(client: usize, delta: &Arc<Parameters>) -> Report {
    let metadata = ReportMetadata {
        base_version: ModelVersion(0),
        examples: 100 + client as u64,
        steps: 1,
        metrics: BTreeMap::new(),
    };
    let delta: Arc<dyn BlockReader + Send + Sync> = delta.clone();
    Report::new(
        ClientId(client as u32),
        RoundId(1),
        metadata,
        vec![(DELTA.to_string(), delta)],
    )
}

fn fold(global: &Parameters, reports: &[Report], executor: &dyn Executor, next: &mut Parameters) {
    let reports = Reports::new(global.layout(), reports, executor).expect("in client order");
    FedAvg::default()
        .aggregate(global, &reports, next)
        .expect("a mean");
}

/// Eight sums side by side, which the compiler keeps in vector registers.
fn read_sum(deltas: &[Arc<Parameters>]) -> f32 {
    let mut sums = [0f32; 32];
    for delta in deltas {
        for row in delta.values().chunks_exact(sums.len()) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, value)| *sum += value);
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

fn aggregation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("aggregation");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    for (clients, parameters) in TABLE {
        let layout = Layout::new([("weight".to_string(), vec![parameters], Role::Trainable)])
            .expect("one tensor");
        let deltas = deltas(clients, &layout);
        let reports: Vec<_> = deltas
            .iter()
            .enumerate()
            .map(|(client, delta)| report(client, delta))
            .collect();
        let global = Parameters::zeros(layout.clone());
        let mut next = Parameters::zeros(layout.clone());
        let mut sums = vec![0.0; parameters];
        let size = format!("{clients}x{}M", parameters / 1_000_000);
        group.throughput(Throughput::Bytes((clients * layout.bytes()) as u64));
        for threads in [1, 2] {
            let executor = Threads::new(threads);
            group.bench_function(
                BenchmarkId::new(format!("fold_{threads}_threads"), &size),
                |bencher| {
                    bencher.iter(|| fold(&global, &reports, &executor, &mut next));
                },
            );
        }
        group.bench_function(BenchmarkId::new("read_sum", &size), |bencher| {
            bencher.iter(|| black_box(read_sum(&deltas)));
        });
        group.bench_function(BenchmarkId::new("axpy", &size), |bencher| {
            bencher.iter(|| axpy(&global, &deltas, &mut sums, &mut next));
        });
    }
    group.finish();
}

criterion_group!(benches, aggregation);
criterion_main!(benches);
