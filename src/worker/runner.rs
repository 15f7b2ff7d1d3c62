//! A worker from its start to its end: registers, works, and registers again, whatever happens to the coordinator.

use std::{fmt, future::Future, pin::pin, sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::timeout};

use super::{
    TrainerFactory, WorkerConfig, WorkerError,
    connection::Watched,
    failure::unexpected,
    session::{Session, persist},
    session_loop::{End, SessionLoop},
};
use crate::{
    computing::Computing,
    parameters::Encoding,
    protocol::{OLDEST_PROTOCOL, PROTOCOL, Registered, Registration},
    transport::{Request, Response, Transport},
};

/// How long a worker that leaves waits for the coordinator to hear of it.
const FAREWELL: Duration = Duration::from_secs(2);

/// Hosts clients for a coordinator.
pub struct Worker<T> {
    transport: Arc<Watched<T>>,
    trainers: Arc<dyn TrainerFactory>,
    config: WorkerConfig,
    computing: Computing,
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

impl<T: Transport> Worker<T> {
    /// A worker with these models and data.
    pub fn new(transport: T, trainers: Arc<dyn TrainerFactory>, config: WorkerConfig) -> Self {
        Self {
            // One for the worker's life: an outage may begin in one registration and end in the next.
            transport: Arc::new(Watched::new(transport)),
            trainers,
            config,
            computing: Computing::default(),
        }
    }

    /// Works until `shutdown` is ready, then leaves. Must be called on a tokio runtime.
    ///
    /// A coordinator that goes away and comes back finds the worker again: it goes on trying, and registers again if
    /// it is not known any more.
    ///
    /// At its end, whatever the reason, it tells its trainings to stop and waits for them, at most for
    /// [`WorkerConfig::stop_timeout`]. If this future is dropped, they are told to stop, too, and end soon after.
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
                // A worker that is told to end must not register once more.
                biased;
                () = &mut shutdown => {
                    // The registration may be reading the datasets.
                    self.wait_for_threads().await;
                    return Ok(totals);
                }
                registered = self.register() => registered?,
            };
            totals.registrations += 1;
            tracing::info!(worker = %registered.worker, name = self.config.name, "registered");
            let session = Arc::new(Session::new(
                self.transport.clone(),
                self.trainers.clone(),
                self.config.clone(),
                registered,
                self.computing.clone(),
            ));
            let end = SessionLoop::new(session.clone())
                .run(shutdown.as_mut())
                .await;
            totals.reports += session.accepted_reports();
            if let End::Shutdown = end {
                // Before the wait for trainings, so that others get the clients at once.
                leave(&session).await;
            }
            self.wait_for_threads().await;
            match end {
                End::Shutdown => return Ok(totals),
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
        let known = self.computing.spawn(&Handle::current(), move || {
            (trainers.datasets(), trainers.capabilities())
        });
        // A factory that panics has no data to offer.
        let (datasets, capabilities) = known.await.unwrap_or_default();
        let registration = Registration {
            protocol: PROTOCOL,
            protocol_min: Some(OLDEST_PROTOCOL),
            name: self.config.name.clone(),
            // A worker without a slot would poll forever and get nothing.
            slots: self.config.slots.max(1),
            hardware: self.config.hardware.clone(),
            device: self.config.device.clone(),
            datasets,
            // Every build has all of them.
            encodings: Encoding::NAMES.map(str::to_string).to_vec(),
            capabilities,
            local: self.config.local,
        };
        let answer = persist(&*self.transport, &self.config, || Request::Register {
            join_token: self.config.join_token.clone(),
            registration: registration.clone(),
        });
        match answer.await? {
            Response::Registered(registered) => Ok(registered),
            Response::Refused(refusal) => Err(WorkerError::Refused(refusal)),
            other => Err(WorkerError::Transport(unexpected(&other))),
        }
    }

    /// Waits for the trainings that were told to stop: they would compute beside those of the next registration, or while
    /// the process ends.
    async fn wait_for_threads(&self) {
        let limit = self.config.stop_timeout;
        if !self.computing.ended(limit).await {
            tracing::warn!(
                seconds = limit.as_secs_f64(),
                "a training was told to stop and still computes: is a batch that long, or does its trainer not look at \
                 `ClientContext::is_cancelled`?"
            );
        }
    }
}

/// Tells the coordinator that this worker leaves. Without it, the coordinator finds out by itself, later.
async fn leave<T: Transport>(session: &Session<T>) {
    let request = Request::Leave {
        credentials: session.credentials(),
    };
    let _ = timeout(FAREWELL, session.transport.send(request)).await;
}
