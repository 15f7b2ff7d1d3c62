//! The jobs that a worker has open: each is fetched when its first task comes, and dropped when the coordinator does not run it
//! any more.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::runtime::Handle;

use super::{
    client_states::ClientStates, failure::Failure, idle_trainers::IdleTrainers, locked::locked,
    open_job::OpenJob, session::Session, state::StateFolder,
};
use crate::{
    computing::Computing,
    ids::JobId,
    protocol::{JobMessage, TaskMessage},
    transport::{Request, Response, Transport},
};

/// The jobs that are open.
pub(super) struct OpenJobs {
    jobs: Mutex<BTreeMap<JobId, Arc<OpenJob>>>,
    /// The states of clients, by the job under which they are kept. Another job may go on from one that has ended.
    states: Mutex<BTreeMap<JobId, Arc<ClientStates>>>,
    trainers: Arc<IdleTrainers>,
    /// Where clients' states are kept, if on a disk.
    folder: Option<Arc<StateFolder>>,
    computing: Computing,
}

impl OpenJobs {
    /// None is open. Clients' states are kept in this folder, or in memory alone.
    pub fn new(folder: Option<Arc<StateFolder>>, computing: Computing) -> Self {
        Self {
            jobs: Mutex::default(),
            states: Mutex::default(),
            trainers: Arc::default(),
            folder,
            computing,
        }
    }

    /// Returns a job, fetched if it is not open.
    pub async fn open<T: Transport>(
        &self,
        session: &Session<T>,
        id: JobId,
    ) -> Result<Arc<OpenJob>, Failure> {
        if let Some(job) = self.find(id) {
            return Ok(job);
        }
        let answer = session.ask(|| Request::Job {
            credentials: session.credentials(),
            job: id,
        });
        let described: JobMessage = match answer.await? {
            Response::Job(described) => described,
            other => return Err(Failure::of_answer(other)),
        };
        let states = self.states(described.states_of.unwrap_or(id));
        let mut open = locked(&self.jobs);
        // Another slot can have been quicker, and has perhaps trained a client already.
        let job = open.entry(id).or_insert_with(|| {
            Arc::new(OpenJob::new(
                id,
                described,
                session.trainers.clone(),
                session.computing.clone(),
                self.trainers.clone(),
                states,
            ))
        });
        Ok(job.clone())
    }

    fn states(&self, job: JobId) -> Arc<ClientStates> {
        let mut states = locked(&self.states);
        let made = states.entry(job).or_insert_with(|| {
            let (folder, computing) = (self.folder.clone(), self.computing.clone());
            Arc::new(ClientStates::new(job, folder, computing))
        });
        made.clone()
    }

    /// Drops all jobs but this task's and those that run, and all clients' states that are not to be kept. A coordinator that does not say which run has one at a time.
    ///
    /// Must be called in the order in which tasks come: an earlier one may name a job that has ended, and not one that has
    /// begun since.
    pub fn keep_running(&self, task: &TaskMessage) {
        let mut kept = task.running.clone();
        kept.push(task.job);
        let mut open = locked(&self.jobs);
        let gone: Vec<_> = open.extract_if(.., |job, _| !kept.contains(job)).collect();
        drop(open);
        // Models are freed outside of the lock.
        drop(gone);
        self.trainers.keep(&kept);
        kept.extend(&task.kept);
        let mut states = locked(&self.states);
        let gone: Vec<_> = states
            .extract_if(.., |job, _| !kept.contains(job))
            .collect();
        drop(states);
        drop(gone);
        if let Some(folder) = &self.folder
            && folder.has_others(&kept)
        {
            let folder = folder.clone();
            // The task that came need not wait for it.
            self.computing
                .spawn(&Handle::current(), move || folder.remove_others(&kept));
        }
    }

    fn find(&self, id: JobId) -> Option<Arc<OpenJob>> {
        locked(&self.jobs).get(&id).cloned()
    }
}
