//! The handle of a coordinator, and what its clones share.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, watch},
};

use super::{
    clock::Clock, config::CoordinatorConfig, effects::Effects, executor::Threads, state::State,
};
use crate::{
    computing::Computing,
    ids::{CoordinatorId, Timestamp},
    job::{JobSpec, Settings},
    protocol::DatasetInfo,
    report::Spool,
    round::RoundMachine,
    store::{Journal, LogPlace, ModelStore, journal::JournalError},
    strategy::{Catalogue, FederatedStrategy, StrategyError},
    worker::TrainerFactory,
};

/// Makes a strategy of an embedder's own for a job, from the settings that the job gives.
pub(crate) type StrategyFactory = Arc<
    dyn Fn(&JobSpec, &Settings) -> Result<Arc<dyn FederatedStrategy>, StrategyError> + Send + Sync,
>;

/// The factory of strategies of one type.
pub(crate) fn strategy_factory<S: FederatedStrategy + 'static>(
    make: impl Fn(&JobSpec, &Settings) -> Result<S, StrategyError> + Send + Sync + 'static,
) -> StrategyFactory {
    Arc::new(move |job, settings| Ok(Arc::new(make(job, settings)?)))
}

/// Owns jobs: hands out work, collects reports, folds them. A handle: clones are the same coordinator.
#[derive(Clone)]
pub struct Coordinator(pub(super) Arc<Shared>);

impl fmt::Debug for Coordinator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Coordinator")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

/// What all handles of one coordinator share. Beside `state` and the end, nothing of it changes after the start.
pub(super) struct Shared {
    pub identity: CoordinatorId,
    pub config: CoordinatorConfig,
    pub trainers: Arc<dyn TrainerFactory>,
    pub strategies: BTreeMap<String, StrategyFactory>,
    pub catalogue: Catalogue,
    pub spool: Arc<dyn Spool>,
    pub models: Arc<dyn ModelStore>,
    /// What survives this process; none: jobs end with it.
    pub journal: Option<Arc<dyn Journal>>,
    /// With a journal: what is done once something is durable.
    pub effects: Option<Effects>,
    /// How often this coordinator has started.
    pub term: u64,
    /// Where jobs' logs go that are not in memory.
    pub logs: LogPlace,
    /// How many reports are taken at once, and how many batches of their bytes wait for the spool.
    pub uploads: Semaphore,
    pub batches: Arc<Semaphore>,
    pub executor: Threads,
    /// What the coordinator itself has of the data.
    pub datasets: Vec<DatasetInfo>,
    pub runtime: Handle,
    pub clock: Clock,
    pub state: Mutex<State>,
    /// The next deadline may have moved nearer.
    pub rearm: Notify,
    /// What runs on blocking threads.
    pub computing: Computing,
    /// Set when the coordinator is to stop: jobs go no further.
    pub stopped: AtomicBool,
    /// Why nothing can be written down any more.
    pub broken: watch::Sender<Option<JournalError>>,
}

impl Coordinator {
    /// Which coordinator it is.
    pub fn identity(&self) -> &CoordinatorId {
        &self.0.identity
    }

    /// Waits until the journal can't be written any more, for a reason that does not pass: another process writes to it. The
    /// coordinator is of no use then, and must be stopped. Without a journal, this waits forever.
    pub async fn broken(&self) -> JournalError {
        let mut broken = self.0.broken.subscribe();
        let found = broken.wait_for(Option::is_some).await;
        match found.ok().and_then(|found| found.clone()) {
            Some(error) => error,
            // The sender lives as long as `self`.
            None => std::future::pending().await,
        }
    }

    /// Ends what computes here: jobs go no further, evaluations and folds under way are told to stop, and this waits for
    /// them, at most for `limit`. Returns whether they have ended. For the end of a process: while `exit` runs, no thread
    /// may compute any more.
    pub async fn stop(&self, limit: Duration) -> bool {
        // First the flag: from here on `drive` takes no event, so work that ends starts no next piece while this waits.
        // Relaxed is enough: `drive` reads it under the lock that is taken next.
        self.0.stopped.store(true, Ordering::Relaxed);
        self.state().stop_work();
        let ended = self.0.computing.ended(limit).await;
        if tokio::time::timeout(limit, self.write_last())
            .await
            .is_err()
        {
            tracing::error!("the journal can't be written: what it did not have yet is lost");
        }
        ended
    }

    /// Brings all that was appended to the disk. Each job's machine is written down once more, so that another version of this
    /// program, which does not replay what this one has recorded, loses nothing either.
    async fn write_last(&self) {
        {
            let mut state = self.state();
            for id in state.turns.order() {
                self.append_snapshot(&mut state, id);
                let status = state.jobs.get(&id).and_then(|job| job.machine.as_ref());
                if let (Some(_), Some(status)) = (&self.0.journal, status.map(RoundMachine::status))
                {
                    tracing::info!(job = %id, round = %status.round, "the job goes on at the next start: {}", status.detail);
                }
            }
        }
        // After the end of the journal there is nothing to wait for, and it has said why.
        let _ = self.settled().await;
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic under the lock would be a defect here, since foreign code runs outside of it. It must not make every
        // later request panic as well.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}
