//! A worker from its start to its end: registers, works, and registers again, whatever happens to the coordinator.

use std::{fmt, future::Future, pin::pin, sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::timeout};

use super::{
    TrainerFactory, WorkerConfig, WorkerError,
    connection::Watched,
    failure::unexpected,
    home::Home,
    session::{Session, persist},
    session_loop::{End, SessionLoop},
};
use crate::{
    computing::Computing,
    parameters::Encoding,
    protocol::{OLDEST_PROTOCOL, PROTOCOL, Registered, Registration},
    text::printable,
    transport::{Credentials, Request, Response, Transport},
};

/// How long a worker that leaves waits for the coordinator to hear of it.
const FAREWELL: Duration = Duration::from_secs(2);
/// The most characters of a reason that the coordinator gives.
const LONGEST_REASON: usize = 500;

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

/// How a worker became one of the coordinator's.
enum Joined {
    /// It is the one that an earlier process of it was.
    Again(Registered),
    New(Registered),
}

/// What a worker did in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerTotals {
    /// Reports that were accepted.
    pub reports: u64,
    /// Times it registered.
    pub registrations: u64,
    /// What the coordinator knows of its end.
    pub departure: Departure,
}

/// What a coordinator knows of the end of a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Departure {
    /// Nothing: it could not be told. It finds out later that the worker is lost.
    #[default]
    Unknown,
    /// The worker said that it leaves.
    Left,
    /// Nothing, as the worker's folder has states of clients: started again, it is the same worker and goes on with them.
    KeepsStates,
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

    /// Works until `shutdown` is ready, then leaves: its clients go to other workers at once. If its folder has states of
    /// clients, it ends and does not leave: another worker would begin without these states, so the clients wait until this one
    /// is started again, or is lost. Must be called on a tokio runtime.
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
        let home = Home::find(&*self.transport, &self.config, &self.computing);
        let mut home = tokio::select! {
            biased;
            () = &mut shutdown => return Ok(totals),
            home = home => home?,
        };
        // Only a process that has just begun goes on with what an earlier one was given: later, it is the coordinator that does
        // not know the token.
        let mut former = home.registration();
        loop {
            let joined = tokio::select! {
                // A worker that is told to end must not register once more.
                biased;
                () = &mut shutdown => {
                    // The registration may be reading the datasets.
                    self.wait_for_threads().await;
                    return Ok(totals);
                }
                joined = self.join(&mut home, former.take()) => joined?,
            };
            let name = home.name(&self.config);
            match &joined {
                Joined::Again(registered) => {
                    tracing::info!(worker = %registered.worker, name, "goes on as the worker that it was");
                }
                Joined::New(registered) => {
                    totals.registrations += 1;
                    tracing::info!(worker = %registered.worker, name, "registered");
                }
            }
            let (Joined::Again(registered) | Joined::New(registered)) = joined;
            let session = Arc::new(Session::new(
                self.transport.clone(),
                self.trainers.clone(),
                self.config.clone(),
                registered,
                self.computing.clone(),
            ));
            let end = SessionLoop::new(session.clone(), home.jobs.clone())
                .run(shutdown.as_mut())
                .await;
            totals.reports += session.accepted_reports();
            if let End::Shutdown = end {
                // Before the wait for trainings, so that others get the clients at once.
                totals.departure = self.depart(&home, session.credentials()).await;
            }
            self.wait_for_threads().await;
            match end {
                End::Shutdown => return Ok(totals),
                End::Forgotten(refusal) => {
                    let reason = printable(&refusal.detail, LONGEST_REASON);
                    tracing::warn!(
                        "the coordinator refuses this worker's token; registering again: {reason}"
                    );
                }
                End::Error(error) => return Err(error),
            }
        }
    }

    /// Goes on as the worker that an earlier process of it was, if what that said of itself still holds; else registers.
    async fn join(
        &self,
        home: &mut Home,
        former: Option<(Registration, Registered)>,
    ) -> Result<Joined, WorkerError> {
        let registration = self.registration(home.name(&self.config)).await;
        if let Some((said, registered)) = former {
            let still_holds = still_holds(&said, &registration);
            // A newer program is given what it can do only once it has said so. That costs nothing if no client's state would
            // have to wait for another worker; until then it works as before.
            if still_holds && (home.has_states() || !knows_more(&said, &registration)) {
                let registered = self.with_new_token(home, &said, registered).await;
                return Ok(Joined::Again(registered));
            }
            if still_holds {
                tracing::info!("this worker can do more than before: it registers again");
            } else {
                tracing::info!(
                    "this worker has another device, other data or other slots than before: it registers again"
                );
            }
            let credentials = Credentials {
                worker: registered.worker,
                token: registered.token,
            };
            // Otherwise its clients would wait for it until it is lost, and its name would be taken.
            leave(&*self.transport, credentials).await;
        }
        let registered = self.register(&registration).await?;
        home.registered(&registration, &registered, &self.config)
            .await?;
        Ok(Joined::New(registered))
    }

    /// Has its token replaced, so that a copy of its folder is of no use for long. If there is no answer, or a coordinator that
    /// knows no such request, it goes on with the one that it has.
    async fn with_new_token(
        &self,
        home: &Home,
        said: &Registration,
        mut registered: Registered,
    ) -> Registered {
        let credentials = Credentials {
            worker: registered.worker,
            token: registered.token.clone(),
        };
        let answer = self.transport.send(Request::Rotate { credentials });
        if let Ok(Response::Rotated(token)) = answer.await {
            registered.token = token;
            // Before it is shown: from then on the former one counts no more.
            home.keep_registration(said, &registered);
        }
        registered
    }

    /// Leaves, if nothing would be lost by that.
    async fn depart(&self, home: &Home, credentials: Credentials) -> Departure {
        if home.has_states() {
            return Departure::KeepsStates;
        }
        if !leave(&*self.transport, credentials).await {
            return Departure::Unknown;
        }
        home.left();
        Departure::Left
    }

    /// What the worker says about itself.
    async fn registration(&self, name: &str) -> Registration {
        let trainers = self.trainers.clone();
        // Reading and digesting the datasets can take a second.
        let known = self.computing.spawn(&Handle::current(), move || {
            (trainers.datasets(), trainers.capabilities())
        });
        // A factory that panics has no data to offer.
        let (mut datasets, capabilities) = known.await.unwrap_or_default();
        datasets.retain(|dataset| self.config.limits.allows_dataset(&dataset.name));
        Registration {
            protocol: PROTOCOL,
            protocol_min: Some(OLDEST_PROTOCOL),
            name: name.to_string(),
            // A worker without a slot would poll forever and get nothing.
            slots: self.config.slots.max(1),
            hardware: self.config.hardware.clone(),
            device: self.config.device.clone(),
            datasets,
            // Every build has all of them.
            encodings: Encoding::NAMES.map(str::to_string).to_vec(),
            capabilities,
            local: self.config.local,
        }
    }

    async fn register(&self, registration: &Registration) -> Result<Registered, WorkerError> {
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

/// Whether what a worker said of itself is still true of what it is now. A newer version of the program may know more than it
/// said, and the hardware is told for people alone.
fn still_holds(said: &Registration, now: &Registration) -> bool {
    let speaks_it = (now.protocol_min()..=now.protocol).contains(&said.protocol);
    let encodes_it = said
        .encodings
        .iter()
        .all(|name| now.encodings.contains(name));
    let is_able = said
        .capabilities
        .iter()
        .all(|name| now.capabilities.contains(name));
    let does_the_same = said.name == now.name
        && said.slots == now.slots
        && said.device == now.device
        && said.datasets == now.datasets
        && said.local == now.local;
    speaks_it && encodes_it && is_able && does_the_same
}

/// Whether a worker can do what it did not say.
fn knows_more(said: &Registration, now: &Registration) -> bool {
    now.protocol > said.protocol
        || names_more(&said.capabilities, &now.capabilities)
        || names_more(&said.encodings, &now.encodings)
}

fn names_more(said: &[String], now: &[String]) -> bool {
    now.iter().any(|name| !said.contains(name))
}

/// Tells the coordinator that this worker leaves; returns whether it heard. If not, it finds out by itself, later.
async fn leave<T: Transport>(transport: &T, credentials: Credentials) -> bool {
    let request = Request::Leave { credentials };
    let answer = timeout(FAREWELL, transport.send(request)).await;
    matches!(answer, Ok(Ok(Response::Accepted)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::TransportError;

    #[test]
    fn a_newer_program_is_the_same_worker_if_all_still_holds_that_it_said() {
        let mut said = Registration::new("lab");
        said.encodings = vec!["f32".into(), "int8".into()];
        let mut now = said.clone();
        now.protocol += 1;
        now.encodings.push("new".into());
        now.capabilities.push("payload:new".into());
        now.hardware.os = "another".into();
        assert!(still_holds(&said, &now));
        assert!(!still_holds(&now, &said), "an older program knows less");
        assert!(knows_more(&said, &now) && !knows_more(&now, &said) && !knows_more(&now, &now));

        let changes: [fn(&mut Registration); 6] = [
            |now| now.protocol_min = Some(now.protocol),
            |now| now.slots += 1,
            |now| now.device = "libtorch:cuda:0".into(),
            |now| now.local = true,
            |now| now.name = "other".into(),
            |now| now.encodings = vec!["f32".into()],
        ];
        for change in changes {
            let mut changed = now.clone();
            change(&mut changed);
            assert!(!still_holds(&said, &changed), "{changed:?}");
        }
    }

    /// A coordinator that registers whoever asks, as worker 8.
    struct Registering;

    fn as_worker(number: u64) -> Registered {
        let text = format!(
            r#"{{"worker":{number},"coordinator":"a","token":"t","heartbeat_ms":1,"poll_ms":1}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    impl Transport for Registering {
        async fn send(&self, request: Request) -> Result<Response, TransportError> {
            Ok(match request {
                Request::Register { .. } => Response::Registered(as_worker(8)),
                _ => Response::Accepted,
            })
        }
    }

    #[tokio::test]
    async fn a_worker_with_other_slots_is_not_the_one_before() {
        let trainers = Arc::new(crate::worker::NoopTrainers::new(10, 10).unwrap());
        let worker = Worker::new(Registering, trainers, WorkerConfig::new("lab"));
        let mut home = Home::find(&Registering, &worker.config, &worker.computing)
            .await
            .unwrap();
        let mut said = worker.registration("lab").await;
        let former = Some((said.clone(), as_worker(7)));
        let joined = worker.join(&mut home, former).await.unwrap();
        assert!(matches!(joined, Joined::Again(registered) if registered == as_worker(7)));
        // An older program, which could do less.
        let mut less = said.clone();
        less.capabilities.pop();
        let joined = worker.join(&mut home, Some((less, as_worker(7)))).await;
        assert!(matches!(joined.unwrap(), Joined::New(_)));
        said.slots += 1;
        let former = Some((said, as_worker(7)));
        let joined = worker.join(&mut home, former).await.unwrap();
        assert!(matches!(joined, Joined::New(registered) if registered == as_worker(8)));
    }
}
