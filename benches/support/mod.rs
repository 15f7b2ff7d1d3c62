//! What benchmarks of rounds share: a coordinator in a process of its own, workers that generate their reports as they
//! send them, and the physical limits beside which a round is put.

pub mod bare;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use fedavg::{
    job::JobSpec,
    parameters::{BodyForm, Digest, Encoding, Layout, PayloadSpec, Role, Roles},
    protocol::{Registration, TaskMessage, TaskWork},
    report::{DELTA, ReportMetadata},
    round::JobEvent,
    transport::{
        Caller, Credentials, ModelBody, Operator, ReportBody, Request, Response, Transport,
        http::{ClientConfig, ClientTls, HttpTransport, OperatorClient, Trust},
    },
    worker::{NoopTrainers, TrainerFactory},
};
use futures_util::{StreamExt, stream};

/// Where a coordinator keeps reports and models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spool {
    Memory,
    File,
}

/// The model that a coordinator is to have, by a name that travels as an argument.
pub fn layout(model: &str) -> Arc<Layout> {
    let tensor = |name: String, shape: &[usize]| (name, shape.to_vec(), Role::Trainable);
    let tensors = match model {
        "gpt2_large" => gpt2(50257, 1024, 1280, 36),
        bytes => {
            let bytes: usize = bytes.parse().expect("a number of bytes");
            vec![tensor("weight".to_string(), &[bytes / 4])]
        }
    };
    Layout::new(tensors).expect("a layout")
}

/// GPT-2's tensors, with an output layer of its own.
fn gpt2(
    words: usize,
    places: usize,
    width: usize,
    layers: usize,
) -> Vec<(String, Vec<usize>, Role)> {
    let mut tensors = vec![
        ("wte.weight".to_string(), vec![words, width]),
        ("wpe.weight".to_string(), vec![places, width]),
        ("ln_f.weight".to_string(), vec![width]),
        ("ln_f.bias".to_string(), vec![width]),
        ("lm_head.weight".to_string(), vec![words, width]),
    ];
    for layer in 0..layers {
        for (name, shape) in [
            ("ln_1.weight", vec![width]),
            ("ln_1.bias", vec![width]),
            ("attn.c_attn.weight", vec![width, 3 * width]),
            ("attn.c_attn.bias", vec![3 * width]),
            ("attn.c_proj.weight", vec![width, width]),
            ("attn.c_proj.bias", vec![width]),
            ("ln_2.weight", vec![width]),
            ("ln_2.bias", vec![width]),
            ("mlp.c_fc.weight", vec![width, 4 * width]),
            ("mlp.c_fc.bias", vec![4 * width]),
            ("mlp.c_proj.weight", vec![4 * width, width]),
            ("mlp.c_proj.bias", vec![width]),
        ] {
            tensors.push((format!("h.{layer}.{name}"), shape));
        }
    }
    let trainable = |(name, shape)| (name, shape, Role::Trainable);
    tensors.into_iter().map(trainable).collect()
}

/// A coordinator as it is shipped, in a process of its own. Dropping it ends it.
pub struct Process {
    child: Child,
    pub url: String,
    pub trainers: Arc<NoopTrainers>,
    tls: ClientTls,
}

impl Process {
    pub fn start(model: &str, folder: Option<&Path>, is_tls: bool) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fedavg-coordinator"));
        command.args(["--open", "--bind", "127.0.0.1:0", "--log", "error"]);
        match folder {
            Some(folder) => command.arg("--state-dir").arg(folder),
            None => command.args(["--in-memory", "--spool-bytes", "64GiB"]),
        };
        if is_tls {
            command.arg("--tls-self-signed");
        }
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the coordinator");
        let output = child.stdout.take().expect("a pipe");
        let mut output = BufReader::new(output);
        let mut lines = [String::new(), String::new()];
        for line in &mut lines {
            output.read_line(line).expect("its address");
        }
        let [address, invitation] = lines;
        let url = address
            .trim()
            .trim_start_matches("listening on ")
            .to_string();
        let mut tls = ClientTls::default();
        if let Some((_, fingerprint)) = invitation.split_once(" --fingerprint ") {
            tls.trust = Trust::Pinned(fingerprint.trim().parse().expect("a fingerprint"));
        }
        Self {
            child,
            url,
            tls,
            trainers: Arc::new(NoopTrainers::with_layout(layout(model), 100_000)),
        }
    }

    /// What clients of it have.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::default();
        config.tls = self.tls.clone();
        config
    }

    /// The largest resident size so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    }

    /// Runs a job to its end. How long a round took: the mean from commit to commit, if there are two and more, else
    /// from its beginning to its commit.
    pub async fn run(&self, spec: &JobSpec) -> Duration {
        let operator = OperatorClient::new(&self.url, None, self.client()).expect("its address");
        let here = Caller::in_process();
        // The coordinator has no such model: it is given its first version.
        let initial = self.trainers.initial(&spec.description()).expect("a model");
        let submitted = operator
            .submit(&here, spec.clone(), Some(Arc::new(initial)))
            .await;
        let job = submitted.expect("a job").job;
        let events = operator.events(&here, job, 0).await.expect("its events");
        let mut events = std::pin::pin!(events);
        let (mut begun, mut commits) = (None, Vec::new());
        while let Some(event) = events.next().await {
            let event = event.expect("an event");
            match event.event {
                JobEvent::RoundStarted { .. } => begun = begun.or(Some(event.time)),
                JobEvent::RoundCommitted { .. } => commits.push(event.time),
                _ => {}
            }
        }
        let ended = operator.job(&here, job).await.expect("the job");
        assert_eq!(ended.version.0, u64::from(spec.rounds), "{}", ended.detail);
        let last = *commits.last().expect("a commit");
        match commits.len() {
            1 => last.since(begun.expect("a beginning")),
            count => last.since(commits[0]) / (count as u32 - 1),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A worker that downloads each model without keeping it, and generates its report while it sends it.
pub async fn generate_reports(url: String, trainers: Arc<NoopTrainers>, name: String) {
    let transport = HttpTransport::new(&url, ClientConfig::default()).expect("an address");
    let mut registration = Registration::new(name);
    registration.datasets = trainers.datasets();
    registration.capabilities = trainers.capabilities();
    registration.encodings = Encoding::NAMES.map(str::to_string).to_vec();
    let register = Request::Register {
        join_token: None,
        registration,
    };
    let Ok(Response::Registered(registered)) = transport.send(register).await else {
        panic!("not registered");
    };
    let credentials = Credentials {
        worker: registered.worker,
        token: registered.token,
    };
    let model = trainers
        .initial(&trainers.job().description())
        .expect("a model");
    let layout = model.layout().clone();
    drop(model);
    let piece = Bytes::from(vec![0; 256 * 1024]);
    loop {
        let poll = Request::Poll {
            credentials: credentials.clone(),
            busy: Vec::new(),
            wait: Duration::from_secs(30),
        };
        match transport.send(poll).await {
            Ok(Response::Task(task)) => {
                act(&transport, &credentials, &task, &layout, &piece).await;
            }
            Ok(Response::Idle) => {}
            // The coordinator has ended.
            _ => return,
        }
    }
}

async fn act(
    transport: &HttpTransport,
    credentials: &Credentials,
    task: &TaskMessage,
    layout: &Arc<Layout>,
    piece: &Bytes,
) {
    let TaskWork::Train { expects, sends, .. } = &task.work else {
        panic!("an evaluation: {task:?}");
    };
    // The model, and what the strategy sends beside it.
    for payload in std::iter::once(None).chain(sends.iter().map(Some)) {
        let request = Request::Model {
            credentials: credentials.clone(),
            job: task.job,
            version: task.version,
            payload: payload.cloned(),
        };
        let Ok(Response::Model(ModelBody::Stream { mut bytes, .. })) =
            transport.send(request).await
        else {
            panic!("no model");
        };
        while let Some(piece) = bytes.next().await {
            piece.expect("the whole model");
        }
    }
    let plain = [PayloadSpec::model(DELTA, Roles::TRAINED)];
    let expects = if expects.is_empty() {
        &plain
    } else {
        expects.as_slice()
    };
    let form = BodyForm::of(expects, layout);
    let header = Bytes::from(form.header());
    let (length, mut left) = (header.len() as u64 + form.bytes(), form.bytes() as usize);
    // The digest of this many zeros, by doubling.
    let digest = Digest::of(&header).then(zeros(form.bytes()), form.bytes());
    let piece = piece.clone();
    let values = stream::iter(std::iter::from_fn(move || {
        let count = left.min(piece.len());
        left -= count;
        (count > 0).then(|| Ok(piece.slice(..count)))
    }));
    let metadata = ReportMetadata::new(task.version, 1);
    let request = Request::Report {
        credentials: credentials.clone(),
        job: task.job,
        round: task.round,
        client: task.client,
        metadata,
        body: ReportBody::Stream {
            bytes: Box::pin(stream::iter([Ok(header)]).chain(values)),
            length: Some(length),
            digest: Some(digest),
        },
    };
    match transport.send(request).await {
        Ok(Response::Accepted) => {}
        other => panic!("not accepted: {other:?}"),
    }
}

fn zeros(count: u64) -> Digest {
    let (mut total, mut length) = (Digest::of(&[]), 0);
    let (mut unit, mut size) = (Digest::of(&[0]), 1u64);
    let mut left = count;
    while left > 0 {
        if left & 1 == 1 {
            total = total.then(unit, size);
            length += size;
        }
        unit = unit.then(unit, size);
        size *= 2;
        left >>= 1;
    }
    assert_eq!(length, count);
    total
}

/// One direction of a TCP connection on loopback, with a thread that reads what comes.
pub struct Loopback {
    stream: TcpStream,
    piece: Vec<u8>,
}

impl Loopback {
    pub fn start() -> Self {
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

    pub fn move_bytes(&mut self, mut bytes: u64) -> Duration {
        let start = Instant::now();
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
        start.elapsed()
    }
}

/// How long a round's writes and syncs take, one after the other and with nothing else to do:
///
/// - each report: its bytes, fdatasync, its name, fsync of the folder (a crash must not lose what was accepted);
/// - the journal: 12 KiB and fdatasync for each accepted report, for the plan with its tasks, and for the commit (nobody is told
///   what a crash could take back);
/// - the next model: its bytes, fdatasync, fsync of its folder, its name, fsync of the folder above (it appears as a whole).
pub fn write_round(folder: &Path, reports: usize, bytes: usize) -> Duration {
    let journal = fs::File::create(folder.join("raw-journal")).expect("a file");
    // As after its first megabytes: its pages are written again and again.
    journal
        .write_all_at(&vec![0; JOURNAL * (reports + 2)], 0)
        .and_then(|()| journal.sync_all())
        .expect("room");
    let sync = |folder: &Path| {
        let opened = fs::File::open(folder).expect("a folder");
        opened.sync_all().expect("a disk");
    };
    let note = |index: usize| {
        journal
            .write_all_at(&[7; JOURNAL], (JOURNAL * index) as u64)
            .and_then(|()| journal.sync_data())
            .expect("a disk");
    };
    let start = Instant::now();
    note(0);
    for index in 0..reports {
        let path = folder.join(format!("raw-{index}.part"));
        write_durably(&path, bytes);
        fs::rename(&path, path.with_extension("report")).expect("a folder");
        sync(folder);
        note(index + 1);
    }
    let version = folder.join("raw-version.next");
    fs::create_dir(&version).expect("a folder");
    write_durably(&version.join("model"), bytes);
    sync(&version);
    fs::rename(&version, folder.join("raw-version")).expect("a folder");
    sync(folder);
    note(reports + 1);
    let elapsed = start.elapsed();
    for index in 0..reports {
        let _ = fs::remove_file(folder.join(format!("raw-{index}.report")));
    }
    let _ = fs::remove_dir_all(folder.join("raw-version"));
    elapsed
}

/// Bytes of the journal that a transaction writes.
const JOURNAL: usize = 12 << 10;

fn write_durably(path: &Path, bytes: usize) {
    let piece = vec![7; 1 << 20];
    let mut file = fs::File::create(path).expect("a file");
    let mut left = bytes;
    while left > 0 {
        let count = left.min(piece.len());
        file.write_all(&piece[..count]).expect("room");
        left -= count;
    }
    file.sync_data().expect("a disk");
}
