//! What ten thousand workers cost that wait for work, and how soon all of them have it.
//!
//! The coordinator runs in a process of its own, with the allocator, the runtime and the limits of `fedavg-coordinator`.
//! This process is the workers: each has one connection, registers, and asks for a task again and again. Heartbeats go
//! over a few connections that all workers share, since here each process may open only a limited number of files.
//!
//! - *registered*: from the first connection to the last answer to a registration.
//! - *memory*: of the coordinator's process, resident: when all wait (`idle`), and the most there ever was (`peak`, with the
//!   round's beginning in it).
//! - *CPU*: user and system time of the coordinator's process over a window in which nothing happens: polls alone, then polls
//!   and heartbeats. A window has its share of the polls that end and are asked again: they are spread over the time that
//!   a poll waits.
//! - *woken*: a job with a client for each worker is submitted; from the moment that its `RoundStarted` event carries (at
//!   which the tasks are there) until each worker has read its task. Dealing the data and planning come before it: `since
//!   submission` has them in it.
//! - *health*: the slowest answer to `GET /health` in a row of them, in the quiet and while the job begins. It looks at the
//!   state, so it waits as long as another thread holds the lock.
//!
//! ```text
//! ulimit -n 20000
//! cargo bench --bench idle_workers -- --workers 10000 --seconds 20
//! cargo bench --bench idle_workers -- --workers 10000 --seconds 20 --tls
//! ```
//!
//! Linux only: figures come from `/proc`.

use std::{
    env,
    error::Error,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fedavg::{
    coordinator::Coordinator,
    coordinator::CoordinatorConfig,
    job::EvaluationMode,
    protocol::{DatasetInfo, Hardware, Registered, Registration},
    round::JobEvent,
    transport::{
        Caller, Operator,
        http::{
            ClientConfig, ClientTls, Identity, OperatorClient, RouterConfig, ServerConfig,
            ServerTls, Trust, listen, router, serve,
        },
    },
    worker::{NoopTrainers, TrainerFactory},
};
use futures_util::StreamExt;
use rustls::{
    ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, Runtime},
    sync::{Semaphore, mpsc},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

/// Set in the coordinator's process if it speaks TLS: its certificate and key, as PEM.
const TLS: &str = "FEDAVG_IDLE_WORKERS_TLS";
/// Set in the coordinator's process: the number of workers.
const ROLE: &str = "FEDAVG_IDLE_WORKERS_COORDINATOR";
/// Number of parameters of the model.
const PARAMETERS: usize = 16;
/// Connections being opened at once.
const OPENING: usize = 128;
/// Connections that heartbeats go over.
const HEARTBEAT_LINES: usize = 8;
/// Files that a process has open beside its connections.
const OTHER_FILES: usize = 64;
/// No step takes longer.
const LIMIT: Duration = Duration::from_secs(120);

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let done = match env::var(ROLE) {
        Ok(workers) => workers.parse().map_err(Failure::from).and_then(coordinate),
        Err(_) => Arguments::parse().and_then(|arguments| measure(&arguments)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("idle_workers: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    workers: usize,
    /// Length of a quiet window.
    seconds: u64,
    tls: bool,
}

impl Arguments {
    fn parse() -> Result<Self, Failure> {
        let mut arguments = Self {
            workers: 10_000,
            seconds: 20,
            tls: false,
        };
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|word| word.parse().ok());
            match word.as_str() {
                // From cargo.
                "--bench" => {}
                "--tls" => arguments.tls = true,
                "--workers" => arguments.workers = number().ok_or("--workers NUMBER")?,
                "--seconds" => {
                    arguments.seconds = number().ok_or("--seconds NUMBER")? as u64;
                }
                _ => return Err("usage: [--workers NUMBER] [--seconds NUMBER] [--tls]".into()),
            }
        }
        let most = open_files()?.saturating_sub(OTHER_FILES + HEARTBEAT_LINES);
        if arguments.workers > most {
            println!(
                "only {most} of {} workers: `ulimit -n` allows no more",
                arguments.workers
            );
            arguments.workers = most;
        }
        if arguments.workers == 0 || arguments.seconds == 0 {
            Err("at least one worker and one second".into())
        } else {
            Ok(arguments)
        }
    }
}

/// How many files this process may have open.
fn open_files() -> io::Result<usize> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    Ok(soft
        .and_then(|soft| soft.parse().ok())
        .unwrap_or(usize::MAX))
}

// The coordinator's process.

fn trainers(workers: usize) -> Result<Arc<NoopTrainers>, Failure> {
    Ok(Arc::new(NoopTrainers::new(PARAMETERS, 2 * workers)?))
}

/// Says on standard output where it listens, and serves until standard input ends.
fn coordinate(workers: usize) -> Result<(), Failure> {
    let trainers = trainers(workers)?;
    Runtime::new()?.block_on(async {
        let coordinator = Coordinator::builder(trainers)
            .config(CoordinatorConfig::open())
            .start();
        let address = ([127, 0, 0, 1], 0).into();
        let listener = listen(address, true).await?;
        println!("{}", listener.local_addr()?);
        let parent_is_gone = tokio::task::spawn_blocking(|| io::stdin().read(&mut [0]));
        // All workers are at one address here, register at once and are strangers until then.
        let mut limits = RouterConfig::default();
        limits.callers.registrations = 0;
        limits.callers.loopback.registrations = 0;
        let router = router(Arc::new(coordinator), limits);
        let mut config = ServerConfig::default();
        if let Ok(pem) = env::var(TLS) {
            let identity = Identity::from_pem(pem.as_bytes(), pem.as_bytes())?;
            config.tls = Some(ServerTls::new(&identity, None)?);
        }
        serve(listener, router, config, async {
            let _ = parent_is_gone.await;
        })
        .await;
        Ok(())
    })
}

/// The coordinator's process, which ends with this value.
struct Process {
    child: Child,
    place: Place,
}

impl Process {
    fn start(workers: usize, is_tls: bool) -> Result<Self, Failure> {
        let mut command = Command::new(env::current_exe()?);
        command.env(ROLE, workers.to_string());
        let mut tls = None;
        if is_tls {
            let pem = Identity::self_signed_pem(&["localhost".to_string()])?;
            command.env(TLS, &pem);
            tls = Some(Secure::new(&pem)?);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().ok_or("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().parse()?;
        let place = Place { address, tls };
        Ok(Self { child, place })
    }

    /// A line of `/proc/PID/status`, in bytes.
    fn memory(&self, name: &str) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let line = line.ok_or("no such line in /proc/PID/status")?;
        let kilobytes: u64 = line
            .trim_matches(|character: char| !character.is_ascii_digit())
            .parse()?;
        Ok(kilobytes * 1024)
    }

    /// User and system time so far.
    fn cpu(&self) -> Result<Duration, Failure> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name may have blanks; what follows it has none.
        let (_, rest) = stat.rsplit_once(')').ok_or("no name in /proc/PID/stat")?;
        let ticks = rest.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        // Linux counts in hundredths of a second here, whatever the kernel's own tick.
        Ok(Duration::from_millis(10 * ticks))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its standard input ends; it may be slow about it.
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the coordinator is, and how it is spoken to.
#[derive(Clone)]
struct Place {
    address: SocketAddr,
    tls: Option<Secure>,
}

#[derive(Clone)]
struct Secure {
    config: Arc<rustls::ClientConfig>,
    operator: ClientTls,
}

impl Secure {
    fn new(pem: &str) -> Result<Self, Failure> {
        let identity = Identity::from_pem(pem.as_bytes(), pem.as_bytes())?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes())?)?;
        let provider = Arc::new(ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            config: Arc::new(config),
            operator: ClientTls::new(Trust::Pinned(identity.fingerprint())),
        })
    }

    fn name() -> ServerName<'static> {
        ServerName::try_from("localhost").expect("a name")
    }
}

// A worker's end of a connection, as frugal as can be.

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

struct Line {
    stream: Box<dyn Duplex>,
    received: Vec<u8>,
}

impl Line {
    async fn open(place: &Place) -> io::Result<Self> {
        let stream = TcpStream::connect(place.address).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Duplex> = match &place.tls {
            Some(tls) => {
                let connector = tokio_rustls::TlsConnector::from(tls.config.clone());
                Box::new(connector.connect(Secure::name(), stream).await?)
            }
            None => Box::new(stream),
        };
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// Sends a request; the status and the body of its answer.
    async fn ask(
        &mut self,
        path: &str,
        token: Option<&str>,
        body: &str,
    ) -> io::Result<(u16, &[u8])> {
        let authorization = token.map_or_else(String::new, |token| {
            format!("authorization: Bearer {token}\r\n")
        });
        let request = format!(
            "POST /api/v1{path} HTTP/1.1\r\nhost: localhost\r\n{authorization}content-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await?;
        self.received.clear();
        loop {
            if let Some((status, start, end)) = whole(&self.received) {
                return Ok((status, &self.received[start..end]));
            }
            // Answers are small, and this is all that a worker holds here while it waits.
            let mut piece = [0; 512];
            match self.stream.read(&mut piece).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.received.extend_from_slice(&piece[..count]),
            }
        }
    }
}

/// The status of an answer, and where its body begins and ends, once it is whole.
fn whole(answer: &[u8]) -> Option<(u16, usize, usize)> {
    let start = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..start]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok()).flatten()
    });
    let end = start + length.unwrap_or(0);
    (answer.len() >= end).then_some((status, start, end))
}

/// What happens to a worker.
enum News {
    Registered(Arc<Registered>),
    /// It has read its task, at this time since the Unix epoch.
    Woken(Duration),
    Failed(String),
}

struct Fleet {
    place: Place,
    workers: usize,
    datasets: Vec<DatasetInfo>,
    hardware: Hardware,
    opening: Semaphore,
}

impl Fleet {
    async fn work(self: Arc<Self>, index: usize, news: mpsc::UnboundedSender<News>) {
        let end = match self.live(index, &news).await {
            // It has what it waited for, and keeps its connection.
            Ok(_line) => return std::future::pending().await,
            Err(error) => News::Failed(format!("worker {index}: {error}")),
        };
        let _ = news.send(end);
    }

    async fn live(
        &self,
        index: usize,
        news: &mpsc::UnboundedSender<News>,
    ) -> Result<Line, Failure> {
        let (mut line, registered) = {
            let _turn = self.opening.acquire().await?;
            let mut line = Line::open(&self.place).await?;
            let registered = Arc::new(self.register(index, &mut line).await?);
            (line, registered)
        };
        let _ = news.send(News::Registered(registered.clone()));
        let path = format!("/workers/{}/poll", registered.worker);
        // The first poll is shorter, by another time for each worker, so that later ones end one after the other.
        let mut wait_ms = registered.poll_ms * (index as u64 + 1) / self.workers as u64;
        loop {
            let body = format!(r#"{{"busy":[],"wait_ms":{wait_ms}}}"#);
            wait_ms = registered.poll_ms;
            let (status, _) = line.ask(&path, Some(&registered.token.0), &body).await?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            match status {
                204 => {}
                200 => {
                    let _ = news.send(News::Woken(now));
                    return Ok(line);
                }
                other => return Err(format!("a poll was answered with {other}").into()),
            }
        }
    }

    async fn register(&self, index: usize, line: &mut Line) -> Result<Registered, Failure> {
        let mut registration = Registration::new(format!("worker-{index}"));
        registration.hardware = self.hardware.clone();
        registration.device = "cpu".to_string();
        registration.datasets = self.datasets.clone();
        let body = serde_json::to_string(&registration)?;
        match line.ask("/workers", None, &body).await? {
            (201, answer) => Ok(serde_json::from_slice(answer)?),
            (status, answer) => {
                let answer = String::from_utf8_lossy(answer);
                Err(format!("registration was answered with {status}: {answer}").into())
            }
        }
    }

    /// Heartbeats of these workers over one connection, evenly spread.
    async fn beat(
        self: Arc<Self>,
        workers: Vec<Arc<Registered>>,
        news: mpsc::UnboundedSender<News>,
    ) {
        let beats = async {
            let mut line = Line::open(&self.place).await?;
            let Some(first) = workers.first() else {
                return Ok(());
            };
            let pause = Duration::from_millis(first.heartbeat_ms) / workers.len() as u32;
            let mut ticks = interval(pause);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for worker in workers.iter().cycle() {
                ticks.tick().await;
                let path = format!("/workers/{}/heartbeat", worker.worker);
                let (status, _) = line
                    .ask(&path, Some(&worker.token.0), r#"{"busy":[]}"#)
                    .await?;
                if status != 200 {
                    return Err(Failure::from(format!(
                        "a heartbeat was answered with {status}"
                    )));
                }
            }
            Ok(())
        };
        if let Err(error) = beats.await {
            let _ = news.send(News::Failed(error.to_string()));
        }
    }
}

trait Both: Read + Write {}
impl<S: Read + Write> Both for S {}

/// Asks for the coordinator's health in a row, on a thread of its own, until it is told to stop.
struct Probe {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<io::Result<Duration>>,
}

impl Probe {
    fn start(place: Place) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let stream = std::net::TcpStream::connect(place.address)?;
            stream.set_nodelay(true)?;
            let mut stream: Box<dyn Both> = match &place.tls {
                Some(tls) => {
                    let client = ClientConnection::new(tls.config.clone(), Secure::name());
                    let client = client.map_err(io::Error::other)?;
                    Box::new(StreamOwned::new(client, stream))
                }
                None => Box::new(stream),
            };
            let mut slowest = Duration::ZERO;
            let mut answer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                let start = Instant::now();
                stream.write_all(b"GET /api/v1/health HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
                let mut count = 0;
                while whole(&answer[..count]).is_none() {
                    match stream.read(&mut answer[count..])? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        more => count += more,
                    }
                }
                slowest = slowest.max(start.elapsed());
                thread::sleep(Duration::from_millis(1));
            }
            Ok(slowest)
        });
        Self { stop, thread }
    }

    /// The slowest answer.
    fn stop(self) -> Result<Duration, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.thread.join().map_err(|_| "the probe panicked")??)
    }
}

// What is measured.

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let coordinator = Process::start(arguments.workers, arguments.tls)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(run(arguments, &coordinator));
    // The workers' connections end with the runtime: before the coordinator does.
    drop(runtime);
    result
}

async fn run(arguments: &Arguments, coordinator: &Process) -> Result<(), Failure> {
    let workers = arguments.workers;
    let window = Duration::from_secs(arguments.seconds);
    let trainers = trainers(workers)?;
    let fleet = Arc::new(Fleet {
        place: coordinator.place.clone(),
        workers,
        datasets: trainers.datasets(),
        hardware: Hardware::detect(),
        opening: Semaphore::new(OPENING),
    });
    let empty = coordinator.memory("VmRSS:")?;
    let how = if arguments.tls {
        "over TLS"
    } else {
        "in plain HTTP"
    };
    println!("{workers} workers {how}, each with one connection that waits for a task");

    let (sender, mut news) = mpsc::unbounded_channel();
    let start = Instant::now();
    for index in 0..workers {
        tokio::spawn(fleet.clone().work(index, sender.clone()));
    }
    let mut registered = Vec::with_capacity(workers);
    while registered.len() < workers {
        match next(&mut news).await? {
            News::Registered(one) => registered.push(one),
            News::Woken(_) => return Err("a task before there is a job".into()),
            News::Failed(reason) => return Err(reason.into()),
        }
    }
    row(
        "registered",
        format!("{:.2} s", start.elapsed().as_secs_f64()),
    );

    let first_polls = Duration::from_secs(3);
    sleep(first_polls).await;
    let polls = quiet(coordinator, window).await?;
    let idle = coordinator.memory("VmRSS:")?;
    row(
        "memory, idle",
        format!(
            "{} MB, {:.1} kB a worker ({} MB without workers)",
            idle / 1_000_000,
            idle.saturating_sub(empty) as f64 / 1000.0 / workers as f64,
            empty / 1_000_000
        ),
    );
    row("CPU, polls alone", format!("{polls:.2} % of a core"));
    for line in registered.chunks(workers.div_ceil(HEARTBEAT_LINES)) {
        tokio::spawn(fleet.clone().beat(line.to_vec(), sender.clone()));
    }
    sleep(Duration::from_secs(1)).await;
    let both = quiet(coordinator, window).await?;
    row(
        "CPU, polls and heartbeats",
        format!("{both:.2} % of a core"),
    );

    let probe = Probe::start(coordinator.place.clone());
    sleep(Duration::from_secs(1)).await;
    let calm = probe.stop()?;
    wake(arguments, coordinator, &trainers, &mut news, calm).await?;
    row(
        "memory, peak",
        format!("{} MB", coordinator.memory("VmHWM:")? / 1_000_000),
    );
    Ok(())
}

/// Submits a job with a client for each worker and waits until each has its task.
async fn wake(
    arguments: &Arguments,
    coordinator: &Process,
    trainers: &NoopTrainers,
    news: &mut mpsc::UnboundedReceiver<News>,
    calm: Duration,
) -> Result<(), Failure> {
    let workers = arguments.workers;
    let Place { address, tls } = &coordinator.place;
    let mut config = ClientConfig::default();
    let mut scheme = "http";
    if let Some(tls) = tls {
        config.tls = tls.operator.clone();
        scheme = "https";
    }
    let operator = OperatorClient::new(&format!("{scheme}://{address}"), None, config)?;
    let here = Caller::in_process();
    let live = operator.health().await?.workers;
    if live != workers {
        return Err(format!("{live} of {workers} workers are live").into());
    }
    let mut spec = trainers.job();
    spec.rounds = 1;
    spec.clients = Some(workers as u32);
    spec.evaluation = EvaluationMode::Never;
    spec.limits.min_workers = workers as u32;

    let probe = Probe::start(coordinator.place.clone());
    let submitted = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let job = operator.submit(&here, spec, None).await?.job;
    let mut woken = Vec::with_capacity(workers);
    while woken.len() < workers {
        match next(news).await? {
            News::Woken(at) => woken.push(at),
            News::Registered(_) => {}
            News::Failed(reason) => return Err(reason.into()),
        }
    }
    let busy = probe.stop()?;
    woken.sort_unstable();

    let mut events = operator.events(&here, job, 0).await?;
    let started = loop {
        let event = events.next().await.ok_or("the round never began")??;
        if let JobEvent::RoundStarted { .. } = event.event {
            break Duration::from_millis(event.time.0);
        }
    };
    drop(events);
    operator.cancel(&here, job).await?;

    let at = |part: f64| woken[((workers - 1) as f64 * part) as usize];
    let ms = |from: Duration, to: Duration| to.saturating_sub(from).as_millis();
    row(
        "woken",
        format!(
            "all {workers} in {} ms; median {} ms, 99 % {} ms",
            ms(started, at(1.0)),
            ms(started, at(0.5)),
            ms(started, at(0.99)),
        ),
    );
    row(
        "woken, since submission",
        format!(
            "all in {} ms; {} ms until the round began",
            ms(submitted, at(1.0)),
            ms(submitted, started)
        ),
    );
    row(
        "health, slowest answer",
        format!(
            "{:.1} ms in the quiet, {:.1} ms while the job begins",
            calm.as_secs_f64() * 1e3,
            busy.as_secs_f64() * 1e3
        ),
    );
    Ok(())
}

async fn next(news: &mut mpsc::UnboundedReceiver<News>) -> Result<News, Failure> {
    let news = timeout(LIMIT, news.recv()).await;
    let news = news.map_err(|_| format!("nothing happened for {} s", LIMIT.as_secs()))?;
    Ok(news.ok_or("the workers are gone")?)
}

/// The coordinator's share of a core over a while without any new request, in percent.
async fn quiet(coordinator: &Process, window: Duration) -> Result<f64, Failure> {
    let (before, start) = (coordinator.cpu()?, Instant::now());
    sleep(window).await;
    let used = coordinator.cpu()?.saturating_sub(before);
    Ok(100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64())
}

fn row(name: &str, value: String) {
    println!("    {name:<28}{value}");
}
