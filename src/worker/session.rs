//! One registration of the worker: who it is for the coordinator, and how it asks.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::time::{Instant, sleep};

use super::{TrainerFactory, WorkerConfig, WorkerError};
use crate::{
    Cause,
    computing::Computing,
    protocol::Registered,
    report::RefusalKind,
    transport::{Credentials, Request, Response, Transport, TransportError},
};

/// What one registration shares between the loop, its heartbeats and its tasks.
pub(super) struct Session<T> {
    pub transport: Arc<T>,
    pub trainers: Arc<dyn TrainerFactory>,
    pub config: WorkerConfig,
    pub registered: Registered,
    /// The trainings and evaluations that run at the moment.
    pub computing: Computing,
    /// How many reports were accepted.
    reports: AtomicU64,
}

impl<T: Transport> Session<T> {
    pub fn new(
        transport: Arc<T>,
        trainers: Arc<dyn TrainerFactory>,
        config: WorkerConfig,
        registered: Registered,
        computing: Computing,
    ) -> Self {
        Self {
            transport,
            trainers,
            config,
            registered,
            computing,
            reports: AtomicU64::new(0),
        }
    }

    pub fn credentials(&self) -> Credentials {
        Credentials {
            worker: self.registered.worker,
            token: self.registered.token.clone(),
        }
    }

    /// Sends a request as [`persist`] does.
    pub async fn ask(&self, request: impl Fn() -> Request) -> Result<Response, WorkerError> {
        persist(&*self.transport, &self.config, request).await
    }

    pub fn note_accepted(&self) {
        self.reports.fetch_add(1, Ordering::Relaxed);
    }

    pub fn accepted_reports(&self) -> u64 {
        self.reports.load(Ordering::Relaxed)
    }
}

/// Sends a request until it is answered, with waits in between, as long as the worker's patience lasts.
pub(super) async fn persist<T: Transport>(
    transport: &T,
    config: &WorkerConfig,
    request: impl Fn() -> Request,
) -> Result<Response, WorkerError> {
    let was_told = AtomicBool::new(false);
    let asked = until_answered(config, || async {
        // Made for each try: what a poll says that the worker is busy with changes meanwhile.
        match transport.send(request()).await? {
            // A coordinator that is busy is as one that can't be reached: the same request is granted later.
            Response::Refused(refusal)
                if matches!(refusal.kind, RefusalKind::Busy | RefusalKind::TooMany) =>
            {
                // Once: it can last for hours, and each try says the same.
                if !was_told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%refusal, "the coordinator is busy: trying again until it is not");
                }
                Err(TransportError::Unreachable(Cause::of(refusal)))
            }
            response => Ok(response),
        }
    });
    asked.await
}

/// Asks until there is an answer, with waits in between, as long as the worker's patience lasts.
pub(super) async fn until_answered<R, F>(
    config: &WorkerConfig,
    ask: impl Fn() -> F,
) -> Result<R, WorkerError>
where
    F: Future<Output = Result<R, TransportError>>,
{
    let start = Instant::now();
    let mut waits = config.backoff.waits();
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is_transient() => error,
            Err(error) => return Err(WorkerError::Transport(error)),
        };
        let waited = start.elapsed();
        if config.patience.is_some_and(|patience| waited >= patience) {
            return Err(WorkerError::GaveUp {
                seconds: waited.as_secs(),
                source: error,
            });
        }
        sleep(waits.next_wait()).await;
    }
}
