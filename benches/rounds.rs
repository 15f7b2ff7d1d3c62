//! What a round costs when training costs nothing: coordinator and workers in one process, joined by HTTP on loopback.
//!
//! A round is: tasks go out, each worker downloads the global model, adds a constant, uploads its delta, and the
//! reports are folded and published. Beside it, in the same run, `bare_loopback` moves the round's bytes (each worker's
//! model down and report up) through one plain TCP connection.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fedavg::{
    coordinator::Coordinator,
    job::{EvaluationMode, JobSpec},
    transport::{
        Operator,
        http::{ClientConfig, HttpTransport, Server, ServerConfig},
    },
    worker::{NoopTrainers, Worker, WorkerConfig},
};
use tokio::runtime::Runtime;

/// (workers, bytes of the model).
const TABLE: [(usize, usize); 2] = [(2, 1_000_000), (8, 25_000_000)];

/// A coordinator that listens on loopback, with its workers.
struct Cluster {
    runtime: Runtime,
    coordinator: Coordinator,
    trainers: Arc<NoopTrainers>,
    workers: usize,
}

impl Cluster {
    fn start(workers: usize, bytes: usize) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let trainers = Arc::new(NoopTrainers::new(bytes / 4, 1000).expect("a layout"));
        let coordinator = runtime.block_on(async {
            let coordinator = Coordinator::builder(trainers.clone()).start();
            let address = ([127, 0, 0, 1], 0).into();
            let server = Server::bind(
                address,
                ServerConfig::default(),
                Arc::new(coordinator.clone()),
            )
            .await;
            let server = server.expect("a free port");
            let url = format!("http://{}", server.local_addr());
            tokio::spawn(server.serve(std::future::pending()));
            for index in 0..workers {
                let transport = HttpTransport::new(&url, ClientConfig::default()).expect("a URL");
                let config = WorkerConfig {
                    name: format!("worker-{index}"),
                    ..WorkerConfig::default()
                };
                tokio::spawn(
                    Worker::new(transport, trainers.clone(), config).run(std::future::pending()),
                );
            }
            coordinator
        });
        Self {
            runtime,
            coordinator,
            trainers,
            workers,
        }
    }

    /// How long this many rounds take, without the job's beginning.
    fn rounds(&self, rounds: u64) -> Duration {
        let run = |rounds: u64| {
            let mut spec = JobSpec {
                rounds: rounds as u32,
                clients: Some(self.workers as u32),
                evaluation: EvaluationMode::Never,
                ..self.trainers.job()
            };
            spec.limits.min_workers = self.workers as u32;
            let start = Instant::now();
            let job = self
                .coordinator
                .submit(spec, None)
                .expect("a job that can run")
                .job;
            let job = self
                .runtime
                .block_on(self.coordinator.finished(job))
                .expect("the job");
            assert_eq!(job.version.0, rounds, "{}", job.detail);
            start.elapsed()
        };
        // The job's beginning deals the data and draws the model, which is not a round's cost.
        run(rounds + 1).saturating_sub(run(1))
    }
}

/// One direction of a TCP connection on loopback, with a thread that reads what comes.
struct Loopback {
    stream: TcpStream,
    piece: Vec<u8>,
}

impl Loopback {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let stream =
            TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let (mut other, _) = listener.accept().expect("a connection");
        thread::spawn(move || {
            let mut piece = vec![0; 256 * 1024];
            // Each 8-byte length is followed by as many bytes and answered with one.
            let mut length = [0; 8];
            while other.read_exact(&mut length).is_ok() {
                let mut left = u64::from_le_bytes(length);
                while left > 0 {
                    let most = piece.len().min(left as usize);
                    match other.read(&mut piece[..most]) {
                        Ok(0) | Err(_) => return,
                        Ok(count) => left -= count as u64,
                    }
                }
                if other.write_all(&[0]).is_err() {
                    return;
                }
            }
        });
        Self {
            stream,
            piece: vec![1; 256 * 1024],
        }
    }

    fn move_bytes(&mut self, mut bytes: u64) {
        self.stream
            .write_all(&bytes.to_le_bytes())
            .expect("an open connection");
        while bytes > 0 {
            let count = self.piece.len().min(bytes as usize);
            self.stream
                .write_all(&self.piece[..count])
                .expect("an open connection");
            bytes -= count as u64;
        }
        self.stream.read_exact(&mut [0]).expect("an answer");
    }
}

fn rounds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rounds");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(8));
    for (workers, bytes) in TABLE {
        let moved = (2 * workers * bytes) as u64;
        let size = format!("{workers}x{}MB", bytes / 1_000_000);
        group.throughput(Throughput::Bytes(moved));
        let cluster = Cluster::start(workers, bytes);
        group.bench_function(BenchmarkId::new("http", &size), |bencher| {
            bencher.iter_custom(|rounds| cluster.rounds(rounds));
        });
        drop(cluster);
        let mut loopback = Loopback::start();
        group.bench_function(BenchmarkId::new("bare_loopback", &size), |bencher| {
            bencher.iter(|| loopback.move_bytes(moved));
        });
    }
    group.finish();
}

criterion_group!(benches, rounds);
criterion_main!(benches);
