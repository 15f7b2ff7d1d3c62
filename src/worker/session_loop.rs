//! The loop of one registration: poll, work, report, repeat, until the worker is told to end or the coordinator has
//! forgotten it. It never waits for a training: that is its caller's business when it ends.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{
    WorkerError,
    busy::{BusyTask, BusyTasks},
    failure::unexpected,
    open_jobs::OpenJobs,
    session::Session,
};
use crate::{
    protocol::TaskMessage,
    report::{Refusal, RefusalKind},
    transport::{Request, Response, Transport},
};

/// A poll that is answered within this time was not held.
const AT_ONCE: Duration = Duration::from_millis(10);
/// How many such polls in a row are taken for chance.
const MOST_EMPTY_POLLS: u32 = 20;
/// No heartbeats come closer together, whatever the coordinator asks for.
const LEAST_HEARTBEAT: Duration = Duration::from_millis(10);

/// Why a session ended.
pub(super) enum End {
    Shutdown,
    /// The coordinator refuses this worker's token, for this reason: register again.
    Forgotten(Refusal),
    Error(WorkerError),
}

impl End {
    fn of_refusal(refusal: Refusal) -> Self {
        match refusal.kind {
            // A coordinator that restarted, or that has forgotten a worker which was lost, does not know its token.
            RefusalKind::Unauthorized => Self::Forgotten(refusal),
            _ => Self::Error(WorkerError::Refused(refusal)),
        }
    }
}

/// The loop of one registration.
pub(super) struct SessionLoop<T> {
    session: Arc<Session<T>>,
    jobs: Arc<OpenJobs>,
    busy: Arc<BusyTasks>,
    /// How many polls in a row were answered at once, and with nothing.
    empty_polls: AtomicU32,
}

impl<T: Transport> SessionLoop<T> {
    /// Jobs outlive a registration: a worker that registers again at the same coordinator goes on with them.
    pub fn new(session: Arc<Session<T>>, jobs: Arc<OpenJobs>) -> Self {
        Self {
            session,
            jobs,
            busy: Arc::default(),
            empty_polls: AtomicU32::new(0),
        }
    }

    /// Works until the session ends. Trainings that are under way are told to stop; whether they have is for
    /// [`Computing`](crate::computing::Computing) to say.
    pub async fn run(self, shutdown: Pin<&mut impl Future<Output = ()>>) -> End {
        let mut tasks = JoinSet::new();
        let end = Arc::new(self).work(shutdown, &mut tasks).await;
        // Each dropped task stops its training. After this, none can begin one any more.
        tasks.shutdown().await;
        end
    }

    async fn work(
        self: Arc<Self>,
        mut shutdown: Pin<&mut impl Future<Output = ()>>,
        tasks: &mut JoinSet<Result<(), Refusal>>,
    ) -> End {
        let slots = self.session.config.slots.max(1) as usize;
        let mut heartbeats = pin!(self.send_heartbeats());
        // Kept from turn to turn: dropped, it would break off whenever a task ends, and be sent again.
        let mut poll = None;
        loop {
            // A worker that has no free slot must not be given a task that another one could begin at once.
            if poll.is_none() && tasks.len() < slots {
                poll = Some(Box::pin(self.clone().poll()));
            }
            let polled = async {
                match &mut poll {
                    Some(poll) => poll.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // In this order: a shutdown comes before a new task.
                biased;
                () = shutdown.as_mut() => return End::Shutdown,
                end = &mut heartbeats => return end,
                Some(done) = tasks.join_next(), if !tasks.is_empty() => {
                    // Any other refusal is of one task, and has been logged. This one is of the whole registration.
                    if let Ok(Err(refusal)) = done
                        && refusal.kind == RefusalKind::Unauthorized
                    {
                        return End::Forgotten(refusal);
                    }
                }
                polled = polled => {
                    poll = None;
                    match polled {
                        Ok(Some(mut message)) => {
                            self.jobs.keep_running(&message);
                            // What the coordinator knows better is not told back to it with every request.
                            message.running.clear();
                            let task = self.busy.begin(message);
                            tasks.spawn(self.clone().perform(task));
                        }
                        Ok(None) => {}
                        Err(end) => return end,
                    }
                }
            }
        }
    }

    async fn perform(self: Arc<Self>, task: BusyTask) -> Result<(), Refusal> {
        let message = &task.message;
        let performed = self.jobs.perform(&self.session, message, &task.stop).await;
        if let Err(refusal) = &performed {
            tracing::warn!(job = %message.job, round = %message.round, client = %message.client, %refusal, "task refused");
            // Until the coordinator knows better, it may give the same task again at once.
            sleep(self.session.config.backoff.first).await;
        }
        performed
    }

    async fn poll(self: Arc<Self>) -> Result<Option<TaskMessage>, End> {
        let wait = Duration::from_millis(self.session.registered.poll_ms);
        let asked = Instant::now();
        let answer = self
            .session
            .ask(|| Request::Poll {
                credentials: self.session.credentials(),
                busy: self.busy.messages(),
                wait,
            })
            .await;
        let is_empty = matches!(answer, Ok(Response::Idle)) && asked.elapsed() < AT_ONCE;
        if is_empty {
            let empty_polls = self.empty_polls.fetch_add(1, Ordering::Relaxed);
            if empty_polls >= MOST_EMPTY_POLLS {
                // Something in between answers for the coordinator, or it does not hold polls: no reason to ask as fast as
                // the network allows.
                sleep(self.session.config.backoff.first).await;
            }
        } else {
            self.empty_polls.store(0, Ordering::Relaxed);
        }
        match answer {
            Ok(Response::Task(message)) => Ok(Some(message)),
            Ok(Response::Idle) => Ok(None),
            Ok(Response::Refused(refusal)) => Err(End::of_refusal(refusal)),
            Ok(other) => Err(End::Error(WorkerError::Transport(unexpected(&other)))),
            Err(error) => Err(End::Error(error)),
        }
    }

    /// Says at each interval that the worker is alive, and stops the tasks that were cancelled. A worker without a task
    /// polls, which says the same.
    async fn send_heartbeats(&self) -> End {
        let every = Duration::from_millis(self.session.registered.heartbeat_ms);
        let mut ticks = interval(every.max(LEAST_HEARTBEAT));
        // After the machine slept, one heartbeat is enough.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, and the registration has just said that the worker is alive.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let busy = self.busy.messages();
            if busy.is_empty() {
                continue;
            }
            let request = Request::Heartbeat {
                credentials: self.session.credentials(),
                busy,
            };
            match self.session.transport.send(request).await {
                Ok(Response::Alive { unwanted }) => {
                    for message in &unwanted {
                        self.busy.stop(message);
                    }
                }
                Ok(Response::Refused(refusal)) => return End::of_refusal(refusal),
                Ok(_) => {}
                // The poll and the report try again themselves; a heartbeat that is late is as good as the next one.
                Err(error) => tracing::debug!(%error, "no answer to a heartbeat"),
            }
        }
    }
}
