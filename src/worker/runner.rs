//! The worker's loop: register, poll, work, repeat, through whatever happens to the coordinator.

use std::{
    fmt,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{TrainerFactory, WorkerConfig, WorkerError, connection::Watched, open_job::OpenJobs};
use crate::{
    Cause,
    parameters::Encoding,
    protocol::{OLDEST_PROTOCOL, PROTOCOL, Registered, Registration, TaskMessage},
    report::{Refusal, RefusalKind},
    transport::{Credentials, Request, Response, Transport, TransportError},
};

/// A poll that is answered within this time was not held.
const AT_ONCE: Duration = Duration::from_millis(10);
/// How many such polls in a row are taken for chance.
const MOST_EMPTY_POLLS: u32 = 20;

/// Hosts clients for a coordinator.
pub struct Worker<T> {
    transport: Arc<Watched<T>>,
    trainers: Arc<dyn TrainerFactory>,
    config: WorkerConfig,
}

impl<T> fmt::Debug for Worker<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Worker")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What a worker did in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerTotals {
    /// Reports that were accepted.
    pub reports: u64,
    /// Times it registered.
    pub registrations: u64,
}

/// What one registration shares between the loop, its heart-beats and its tasks.
pub(super) struct Session<T> {
    pub transport: Arc<T>,
    pub trainers: Arc<dyn TrainerFactory>,
    pub config: WorkerConfig,
    pub registered: Registered,
    /// The tasks under way, each with the flag that stops it.
    busy: Mutex<Vec<(TaskMessage, Arc<AtomicBool>)>>,
    pub reports: AtomicU64,
    /// How many polls in a row were answered at once, and with nothing.
    empty_polls: AtomicU32,
}

/// Why a session ended.
enum End {
    Shutdown,
    /// The coordinator does not know this worker any more: register again.
    Forgotten,
    Error(WorkerError),
}

impl<T: Transport> Worker<T> {
    /// A worker with these models and data.
    pub fn new(transport: T, trainers: Arc<dyn TrainerFactory>, config: WorkerConfig) -> Self {
        Self {
            transport: Arc::new(Watched::new(transport)),
            trainers,
            config,
        }
    }

    /// Works until `shutdown` is ready, then leaves. Must be called on a tokio runtime.
    ///
    /// A coordinator that goes away and comes back finds the worker again: it goes on trying, and registers again if
    /// it is not known any more.
    ///
    /// # Errors
    ///
    /// [`WorkerError`]: the coordinator refuses it, or can't be reached for longer than its patience.
    pub async fn run(
        self,
        shutdown: impl Future<Output = ()>,
    ) -> Result<WorkerTotals, WorkerError> {
        let mut shutdown = pin!(shutdown);
        let mut totals = WorkerTotals::default();
        loop {
            let registered = tokio::select! {
                biased;
                () = &mut shutdown => return Ok(totals),
                registered = self.register() => registered?,
            };
            totals.registrations += 1;
            tracing::info!(worker = %registered.worker, name = self.config.name, "registered");
            let session = Arc::new(Session {
                transport: self.transport.clone(),
                trainers: self.trainers.clone(),
                config: self.config.clone(),
                registered,
                busy: Mutex::default(),
                reports: AtomicU64::new(0),
                empty_polls: AtomicU32::new(0),
            });
            let end = session.clone().work(shutdown.as_mut()).await;
            totals.reports += session.reports.load(Ordering::Relaxed);
            session.stop_all();
            match end {
                End::Shutdown => {
                    session.leave().await;
                    return Ok(totals);
                }
                End::Forgotten => tracing::warn!(
                    "the coordinator does not know this worker any more: registering again"
                ),
                End::Error(error) => return Err(error),
            }
        }
    }

    async fn register(&self) -> Result<Registered, WorkerError> {
        let trainers = self.trainers.clone();
        // Reading and digesting the datasets can take a second.
        let known =
            tokio::task::spawn_blocking(move || (trainers.datasets(), trainers.capabilities()));
        let (datasets, capabilities) = known.await.unwrap_or_default();
        let registration = Registration {
            protocol: PROTOCOL,
            protocol_min: Some(OLDEST_PROTOCOL),
            name: self.config.name.clone(),
            slots: self.config.slots.max(1),
            hardware: self.config.hardware.clone(),
            device: self.config.device.clone(),
            datasets,
            encodings: Encoding::NAMES.map(str::to_string).to_vec(),
            capabilities,
            local: self.config.local,
        };
        let request = || Request::Register {
            join_token: self.config.join_token.clone(),
            registration: registration.clone(),
        };
        match persist(&*self.transport, &self.config, request).await? {
            Response::Registered(registered) => Ok(registered),
            Response::Refused(refusal) => Err(WorkerError::Refused(refusal)),
            other => Err(WorkerError::Transport(unexpected(&other))),
        }
    }
}

impl<T: Transport> Session<T> {
    pub fn credentials(&self) -> Credentials {
        Credentials {
            worker: self.registered.worker,
            token: self.registered.token.clone(),
        }
    }

    async fn work(
        self: Arc<Self>,
        mut shutdown: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> End {
        let jobs = Arc::new(OpenJobs::default());
        let mut tasks = JoinSet::new();
        let mut heartbeats = pin!(self.send_heartbeats());
        let mut poll = None;
        loop {
            if poll.is_none() && tasks.len() < self.config.slots.max(1) as usize {
                poll = Some(Box::pin(self.clone().poll()));
            }
            let polled = async {
                match &mut poll {
                    Some(poll) => poll.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.as_mut() => return End::Shutdown,
                end = &mut heartbeats => return end,
                Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Ok(Err(Refusal { kind: RefusalKind::Unauthorized, .. })) = done {
                        return End::Forgotten;
                    }
                }
                polled = polled => {
                    poll = None;
                    match polled {
                        Ok(Some(message)) => {
                            let stop = self.begin(message.clone());
                            tasks.spawn(self.clone().perform(jobs.clone(), message, stop));
                        }
                        Ok(None) => {}
                        Err(end) => return end,
                    }
                }
            }
        }
    }

    async fn perform(
        self: Arc<Self>,
        jobs: Arc<OpenJobs>,
        message: TaskMessage,
        stop: Arc<AtomicBool>,
    ) -> Result<(), Refusal> {
        let result = jobs.perform(&self, &message, &stop).await;
        if let Err(refusal) = &result {
            tracing::warn!(job = %message.job, round = %message.round, client = %message.client, %refusal, "task refused");
            // Until the coordinator knows better, it may give the same task again at once.
            sleep(self.config.backoff.first).await;
        }
        self.finish(&message);
        result
    }

    async fn poll(self: Arc<Self>) -> Result<Option<TaskMessage>, End> {
        let wait = Duration::from_millis(self.registered.poll_ms);
        let request = || Request::Poll {
            credentials: self.credentials(),
            busy: self.busy(),
            wait,
        };
        let asked = Instant::now();
        let answer = persist(&*self.transport, &self.config, request).await;
        let is_empty = matches!(answer, Ok(Response::Idle)) && asked.elapsed() < AT_ONCE;
        if is_empty {
            let empty_polls = self.empty_polls.fetch_add(1, Ordering::Relaxed);
            if empty_polls >= MOST_EMPTY_POLLS {
                // Something in between answers for the coordinator, or it does not hold polls: no reason to ask as fast as
                // the network allows.
                sleep(self.config.backoff.first).await;
            }
        } else {
            self.empty_polls.store(0, Ordering::Relaxed);
        }
        match answer {
            Ok(Response::Task(message)) => Ok(Some(message)),
            Ok(Response::Idle) => Ok(None),
            Ok(Response::Refused(refusal)) => Err(end_of(refusal)),
            Ok(other) => Err(End::Error(WorkerError::Transport(unexpected(&other)))),
            Err(error) => Err(End::Error(error)),
        }
    }

    /// Says at each interval that the worker is alive, and stops the tasks that are not wanted any more. A worker
    /// without a task polls, which says the same.
    async fn send_heartbeats(&self) -> End {
        let mut ticks = interval(Duration::from_millis(self.registered.heartbeat_ms.max(10)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let busy = self.busy();
            if busy.is_empty() {
                continue;
            }
            let request = Request::Heartbeat {
                credentials: self.credentials(),
                busy,
            };
            match self.transport.send(request).await {
                Ok(Response::Alive { unwanted }) => {
                    unwanted.iter().for_each(|message| self.stop(message))
                }
                Ok(Response::Refused(refusal)) => return end_of(refusal),
                Ok(_) => {}
                // Not the heart-beat's to solve: the poll and the report try again themselves.
                Err(error) => tracing::debug!(%error, "no answer to a heart-beat"),
            }
        }
    }

    async fn leave(&self) {
        let request = Request::Leave {
            credentials: self.credentials(),
        };
        // Courtesy: without it, the coordinator finds out by itself.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.transport.send(request)).await;
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<(TaskMessage, Arc<AtomicBool>)>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn busy(&self) -> Vec<TaskMessage> {
        self.locked()
            .iter()
            .map(|(message, _)| message.clone())
            .collect()
    }

    fn begin(&self, message: TaskMessage) -> Arc<AtomicBool> {
        let stop = Arc::new(AtomicBool::new(false));
        self.locked().push((message, stop.clone()));
        stop
    }

    fn finish(&self, message: &TaskMessage) {
        self.locked().retain(|(busy, _)| busy != message);
    }

    fn stop(&self, message: &TaskMessage) {
        let of_message = |(busy, _): &&(TaskMessage, _)| busy == message;
        if let Some((_, stop)) = self.locked().iter().find(of_message) {
            stop.store(true, Ordering::Relaxed);
        }
    }

    fn stop_all(&self) {
        self.locked()
            .iter()
            .for_each(|(_, stop)| stop.store(true, Ordering::Relaxed));
    }
}

/// Sends a request until it is answered, with waits in between, as long as the worker's patience lasts.
pub(super) async fn persist<T: Transport>(
    transport: &T,
    config: &WorkerConfig,
    request: impl Fn() -> Request,
) -> Result<Response, WorkerError> {
    let start = Instant::now();
    for tries in 1.. {
        let error = match transport.send(request()).await {
            Ok(Response::Refused(refusal)) if refusal.kind == RefusalKind::Busy => {
                TransportError::Unreachable(Cause::of(refusal))
            }
            Ok(response) => return Ok(response),
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
        let wait = config.backoff.random_wait(tries);
        sleep(wait).await;
    }
    unreachable!("tries are not bounded")
}

fn end_of(refusal: Refusal) -> End {
    match refusal.kind {
        RefusalKind::Unauthorized => End::Forgotten,
        _ => End::Error(WorkerError::Refused(refusal)),
    }
}

pub(super) fn unexpected(response: &Response) -> TransportError {
    TransportError::Protocol(
        format!("an answer that does not belong to the question: {response:?}").into(),
    )
}
