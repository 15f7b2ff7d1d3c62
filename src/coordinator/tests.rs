//! What goes wrong between honest workers and a coordinator, over HTTP on loopback: each gets a refusal that says why, and
//! the round is unharmed: it commits with the reports of the others, or with the next try.

mod access;
mod acting;
mod basis;
mod capacity;
mod claims;
#[cfg(feature = "sqlite")]
mod damage;
mod data;
#[cfg(feature = "sqlite")]
mod faults;
mod history;
mod jobs;
mod limits;
mod operators;
mod panics;
mod payloads;
mod personal;
#[cfg(feature = "sqlite")]
mod places;
#[cfg(feature = "sqlite")]
mod power;
mod records;
mod recovery;
mod reports;
#[cfg(feature = "sqlite")]
mod stalls;
mod storage;
mod together;
mod training;
mod unlike;
mod uploads;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinHandle;

use super::*;
use crate::{
    ids::{ClientId, JobId, RoundId},
    job::{EvaluationMode, JobSpec},
    parameters::{Encoding, Parameters, safetensors::header},
    protocol::{JobSummary, PROTOCOL, Registration, RoundRecord, TaskMessage, Token},
    report::{DELTA_PREFIX, MemorySpool, Refusal, RefusalKind, ReportMetadata, Spool},
    store::MemoryModels,
    transport::{
        Caller, Credentials, Handler, Operator, OperatorError, Peer, ReportBody, Request, Response,
        http::{RouterConfig, ServerConfig, listen, router, serve},
    },
    worker::{NoopTrainers, TrainerFactory},
};

/// The caller in these tests, unless they use HTTP.
const HERE: Caller = Caller {
    peer: Peer::InProcess,
    token: None,
};
/// Number of parameters of the model.
const SIZE: usize = 8;
/// No wait is longer.
const LIMIT: Duration = Duration::from_secs(30);

/// A coordinator that listens, and workers whose every move the test makes.
struct Lab {
    coordinator: Coordinator,
    address: std::net::SocketAddr,
    trainers: Arc<NoopTrainers>,
    spool: MemorySpool,
    _server: JoinHandle<()>,
}

impl Lab {
    async fn open(mut config: CoordinatorConfig) -> Self {
        let access = &mut config.access;
        // Requests over HTTP need no token, but in the tests that are about tokens.
        access.open = access.join_token.is_none() && access.admin_token.is_none();
        let trainers = Arc::new(NoopTrainers::new(SIZE, 100).unwrap());
        let spool = MemorySpool::new(config.uploads.spool_bytes);
        let coordinator = Coordinator::builder(trainers.clone())
            .config(config)
            .spool(Arc::new(spool.clone()))
            .start();
        let (address, server) = serve_here(&coordinator).await;
        Self {
            coordinator,
            address,
            trainers,
            spool,
            _server: server,
        }
    }

    fn registration(&self, name: &str) -> Registration {
        Registration {
            protocol: PROTOCOL,
            protocol_min: None,
            capabilities: Vec::new(),
            name: name.to_string(),
            slots: 1,
            hardware: Default::default(),
            device: "test".to_string(),
            datasets: self.trainers.datasets(),
            encodings: Encoding::NAMES.map(str::to_string).to_vec(),
            local: false,
        }
    }

    async fn register(&self, registration: Registration) -> Result<Credentials, Refusal> {
        self.ask_to_register(Peer::InProcess, None, registration)
            .await
    }

    async fn register_from(
        &self,
        peer: Peer,
        join_token: Option<Token>,
    ) -> Result<Credentials, Refusal> {
        let registration = self.registration("stranger");
        self.ask_to_register(peer, join_token, registration).await
    }

    async fn ask_to_register(
        &self,
        peer: Peer,
        join_token: Option<Token>,
        registration: Registration,
    ) -> Result<Credentials, Refusal> {
        let request = Request::Register {
            join_token,
            registration,
        };
        match self.coordinator.handle(peer, request).await {
            Response::Registered(registered) => Ok(Credentials {
                worker: registered.worker,
                token: registered.token,
            }),
            Response::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    async fn worker(&self, name: &str) -> Credentials {
        self.register(self.registration(name)).await.unwrap()
    }

    /// A job of one round with two clients, both waited for.
    async fn submit(&self, change: impl FnOnce(&mut JobSpec)) -> JobId {
        let mut spec = JobSpec {
            rounds: 1,
            clients: Some(2),
            evaluation: EvaluationMode::Never,
            ..self.trainers.job()
        };
        spec.limits.min_updates = 1;
        change(&mut spec);
        self.coordinator
            .submit(&HERE, spec, None)
            .await
            .unwrap()
            .job
    }

    async fn poll(&self, credentials: &Credentials, busy: Vec<TaskMessage>) -> TaskMessage {
        let request = Request::Poll {
            credentials: credentials.clone(),
            busy,
            wait: LIMIT,
        };
        match self.coordinator.handle(Peer::InProcess, request).await {
            Response::Task(task) => task,
            other => panic!("{other:?}"),
        }
    }

    /// A request as bytes, and the answer's status and problem code.
    async fn send(&self, line: &str, headers: &str, body: &[u8]) -> (u16, String) {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        let address = self.address;
        let exchange = move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            // A refusal can come before the body was read.
            let _ = stream.write_all(&request);
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            String::from_utf8_lossy(&answer).into_owned()
        };
        let answer = tokio::task::spawn_blocking(exchange).await.unwrap();
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        (
            status,
            problem["code"].as_str().unwrap_or_default().to_string(),
        )
    }

    async fn put_report(
        &self,
        credentials: &Credentials,
        task: &TaskMessage,
        metadata: &ReportMetadata,
        body: &[u8],
    ) -> (u16, String) {
        let line = format!(
            "PUT /api/v1/jobs/{}/rounds/{}/reports/{}",
            task.job, task.round, task.client
        );
        self.send(&line, &report_headers(credentials, metadata), body)
            .await
    }

    /// The honest report of a task.
    async fn report(&self, credentials: &Credentials, task: &TaskMessage) -> (u16, String) {
        self.put_report(credentials, task, &self.metadata(task), &self.body(1.0))
            .await
    }

    fn metadata(&self, task: &TaskMessage) -> ReportMetadata {
        ReportMetadata {
            base_version: task.version,
            examples: 50,
            steps: 1,
            metrics: Default::default(),
            ..ReportMetadata::default()
        }
    }

    fn body(&self, value: f32) -> Vec<u8> {
        let layout = self
            .trainers
            .initial(&self.trainers.job().description())
            .unwrap()
            .layout()
            .clone();
        let mut body = header(&layout, DELTA_PREFIX);
        body.extend_from_slice(bytemuck::cast_slice(&[value; SIZE]));
        body
    }

    async fn finished(&self, job: JobId) -> (JobSummary, Vec<RoundRecord>, Arc<Parameters>) {
        let ended = tokio::time::timeout(LIMIT, self.coordinator.wait(&HERE, job)).await;
        let summary = ended.expect("an end in time").unwrap();
        let rounds = self
            .coordinator
            .rounds(&HERE, job, RoundId(0))
            .await
            .unwrap();
        let model = self.coordinator.model(&HERE, job, None).await.unwrap();
        (summary, rounds, model)
    }
}

/// A server of this coordinator at a free port of this machine.
async fn serve_here(coordinator: &Coordinator) -> (std::net::SocketAddr, JoinHandle<()>) {
    let listener = listen(([127, 0, 0, 1], 0).into(), true).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(Arc::new(coordinator.clone()), RouterConfig::default());
    let never = std::future::pending();
    let serving = tokio::spawn(serve(listener, router, ServerConfig::default(), never));
    (address, serving)
}

/// The refusal that the answer is.
fn refusal<T: std::fmt::Debug>(answer: Result<T, OperatorError>) -> Refusal {
    match answer {
        Err(OperatorError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn report_headers(credentials: &Credentials, metadata: &ReportMetadata) -> String {
    format!(
        "authorization: Bearer {}\r\nfedavg-worker: {}\r\nfedavg-report: {}\r\ncontent-type: application/octet-stream\r\n",
        credentials.token.0,
        credentials.worker,
        serde_json::to_string(metadata).unwrap()
    )
}
