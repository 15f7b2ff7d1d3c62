//! What a round of a simulation costs beside training: clients that do nothing, in one process.
//!
//! A round is: tasks, the global model (shared, not copied), each client's no-op update and its delta, the reports and the
//! fold. Beside it, in the same run, `arithmetic` does what no round can avoid, on as many threads: each client's update
//! (a copy of the model and an addition), its delta, and the mean.

use std::{hint::black_box, sync::Arc, thread, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fedavg::{job::EvaluationMode, simulation::Simulation, worker::NoopTrainers};

/// (clients, bytes of the model).
const TABLE: [(usize, usize); 3] = [(10, 1_000_000), (100, 1_000_000), (1000, 1_000_000)];

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn simulation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("simulation");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(5));
    let workers = thread::available_parallelism().map_or(1, |threads| threads.get());
    for (clients, bytes) in TABLE {
        let size = format!("{clients}x{}MB", bytes / 1_000_000);
        group.throughput(Throughput::Elements(clients as u64));
        group.bench_function(BenchmarkId::new("round", &size), |bencher| {
            bencher.iter_custom(|rounds| {
                let run = |rounds: u64| time(clients, bytes, workers, rounds);
                // The beginning deals the data and draws the model, which is not a round's cost.
                run(rounds + 1).saturating_sub(run(1))
            });
        });
        let global = vec![0f32; bytes / 4];
        group.bench_function(BenchmarkId::new("arithmetic", &size), |bencher| {
            bencher.iter(|| arithmetic(&global, clients, workers));
        });
    }
    group.finish();
}

fn time(clients: usize, bytes: usize, workers: usize, rounds: u64) -> Duration {
    let trainers = Arc::new(NoopTrainers::new(bytes / 4, 10 * clients).expect("a layout"));
    let mut spec = trainers.job();
    spec.rounds = rounds as u32;
    spec.clients = Some(clients as u32);
    spec.evaluation = EvaluationMode::Never;
    let start = std::time::Instant::now();
    let result = Simulation::new(spec, trainers).workers(workers).run();
    let elapsed = start.elapsed();
    assert_eq!(result.expect("a run").rounds.len() as u64, rounds);
    elapsed
}

fn arithmetic(global: &[f32], clients: usize, threads: usize) {
    let deltas: Vec<Vec<Vec<f32>>> = thread::scope(|scope| {
        let share = |thread: usize| {
            scope.spawn(move || {
                (thread..clients)
                    .step_by(threads)
                    .map(|client| {
                        let mut local = global.to_vec();
                        local.iter_mut().for_each(|value| *value += client as f32);
                        let rows = local.iter_mut().zip(global);
                        rows.for_each(|(local, global)| *local -= global);
                        local
                    })
                    .collect()
            })
        };
        let threads: Vec<_> = (0..threads).map(share).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a sum"))
            .collect()
    });
    let mut sums = vec![0f64; global.len()];
    for delta in deltas.iter().flatten() {
        sums.iter_mut()
            .zip(delta)
            .for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let next: Vec<f32> = global
        .iter()
        .zip(&sums)
        .map(|(global, sum)| (f64::from(*global) + sum / clients as f64) as f32)
        .collect();
    black_box(next);
}

criterion_group!(benches, simulation);
criterion_main!(benches);
