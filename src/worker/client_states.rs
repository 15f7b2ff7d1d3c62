//! The states of a job's clients: in memory and, if the worker has a folder, on the disk.
//!
//! What reads and writes files runs on blocking threads. A state is on the disk before its report is sent: a worker that is
//! killed after that starts again with the state that the report leads to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::runtime::Handle;

use super::{
    TrainError,
    failure::Failure,
    locked::locked,
    memory::{Choice, ClientMemory, Kept},
    state::{ClientFiles, StateFolder},
};
use crate::{
    Cause,
    computing::Computing,
    ids::{ClientId, JobId, RoundId},
};

/// The states of all clients of one job.
pub(super) struct ClientStates {
    job: JobId,
    folder: Option<Arc<StateFolder>>,
    computing: Computing,
    clients: Mutex<HashMap<ClientId, Arc<Mutex<ClientState>>>>,
}

/// The states of one client.
struct ClientState {
    memory: ClientMemory,
    files: Option<Files>,
}

struct Files {
    files: ClientFiles,
    /// To tell it of a job that it has files of from now on.
    folder: Arc<StateFolder>,
    job: JobId,
    /// Whether the states on the disk are in memory, too.
    are_read: bool,
    /// Whether there is something on the disk.
    are_there: bool,
}

impl ClientStates {
    pub fn new(job: JobId, folder: Option<Arc<StateFolder>>, computing: Computing) -> Self {
        Self {
            job,
            folder,
            computing,
            clients: Mutex::default(),
        }
    }

    /// As [`ClientMemory::begin`] and [`ClientMemory::choose`].
    pub async fn choose(
        &self,
        client: ClientId,
        round: RoundId,
        basis: Option<RoundId>,
    ) -> Result<Choice, Failure> {
        self.with(client, move |state| {
            let memory = state.read();
            memory.begin(round);
            memory.choose(basis)
        })
        .await
    }

    /// As [`ClientMemory::prepare`]. Once this returns, the state is on the disk.
    ///
    /// # Errors
    ///
    /// The disk is full, or fails. The states before stay as they are.
    pub async fn prepare(
        &self,
        client: ClientId,
        round: RoundId,
        kept: Kept,
    ) -> Result<bool, Failure> {
        let prepared = self.with(client, move |state| state.prepare(round, kept));
        prepared.await?.map_err(|problem| {
            Failure::Unable(format!(
                "the state of client {client} can't be kept on this worker's disk: {problem}"
            ))
        })
    }

    /// As [`ClientMemory::at`].
    pub async fn at(
        &self,
        client: ClientId,
        round: RoundId,
        basis: Option<RoundId>,
    ) -> Result<Kept, Failure> {
        self.with(client, move |state| state.read().at(round, basis))
            .await
    }

    /// Does something with a client's states: on a blocking thread if they are on a disk.
    async fn with<R: Send + 'static>(
        &self,
        client: ClientId,
        act: impl FnOnce(&mut ClientState) -> R + Send + 'static,
    ) -> Result<R, Failure> {
        let state = self.client(client);
        if self.folder.is_none() {
            return Ok(act(&mut locked(&state)));
        }
        let running = self
            .computing
            .spawn(&Handle::current(), move || act(&mut locked(&state)));
        let done = running.await;
        // It does not panic; a runtime that shuts down drops it.
        done.map_err(|error| TrainError::Panicked(error.to_string()).into())
    }

    fn client(&self, client: ClientId) -> Arc<Mutex<ClientState>> {
        let mut clients = locked(&self.clients);
        let state = clients.entry(client).or_insert_with(|| {
            let files = self.folder.as_ref().map(|folder| Files {
                files: folder.client(self.job, client),
                folder: folder.clone(),
                job: self.job,
                are_read: false,
                are_there: false,
            });
            let memory = ClientMemory::default();
            Arc::new(Mutex::new(ClientState { memory, files }))
        });
        state.clone()
    }
}

impl ClientState {
    /// The states, read from the disk the first time.
    fn read(&mut self) -> &mut ClientMemory {
        if let Some(files) = &mut self.files
            && !files.are_read
        {
            let (committed, prepared) = files.files.read();
            files.are_there = committed.is_some() || prepared.is_some();
            files.are_read = true;
            self.memory = ClientMemory::new(committed, prepared);
        }
        &mut self.memory
    }

    fn prepare(&mut self, round: RoundId, kept: Kept) -> Result<bool, Cause> {
        self.read();
        if let Some(files) = &mut self.files
            && !self.memory.is_past(round)
        {
            if self.memory.would_keep(&kept) {
                files.folder.note_job(files.job);
                files.files.write(self.memory.committed(), round, &kept)?;
                files.are_there = true;
            } else if files.are_there {
                files.files.clear()?;
                files.are_there = false;
            }
        }
        Ok(self.memory.prepare(round, kept))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        ids::CoordinatorId,
        parameters::{Layout, Parameters, Role},
    };

    const CLIENT: ClientId = ClientId(4);

    fn folder(base: &tempfile::TempDir) -> Option<Arc<StateFolder>> {
        let coordinator = CoordinatorId("c".to_string());
        let folder = StateFolder::open(base.path(), &coordinator, "lab", false);
        Some(Arc::new(folder.unwrap()))
    }

    fn states(folder: Option<Arc<StateFolder>>) -> ClientStates {
        ClientStates::new(JobId(1), folder, Computing::default())
    }

    /// A round as a worker does it: the number that it starts from, and whether the state is unknown. It leads to the next number.
    async fn train(states: &ClientStates, round: u64, basis: u64) -> (f32, bool) {
        let basis = (basis > 0).then_some(RoundId(basis));
        let choice = states
            .choose(CLIENT, RoundId(round), basis)
            .await
            .ok()
            .unwrap();
        let found = choice.kept.residuals.get("delta");
        let number = found.map_or(0.0, |number| number.values()[0]);
        let layout = Layout::new([("n".to_string(), vec![1], Role::Trainable)]).unwrap();
        let next = Parameters::new(layout, vec![number + 1.0]).unwrap();
        let kept = Kept {
            state: BTreeMap::new(),
            residuals: BTreeMap::from([("delta".to_string(), next)]),
            personal: None,
        };
        let kept = states.prepare(CLIENT, RoundId(round), kept).await;
        assert!(kept.ok().unwrap());
        (number, choice.is_unknown)
    }

    #[tokio::test]
    async fn a_worker_that_starts_again_goes_on_from_the_committed_or_the_prepared_state() {
        let base = tempfile::tempdir().unwrap();
        // As a process that is killed: nothing is written at the end.
        assert_eq!(train(&states(folder(&base)), 1, 0).await, (0.0, false));
        assert_eq!(train(&states(folder(&base)), 2, 1).await, (1.0, false));
        // Round 2 was abandoned: the committed state counts.
        assert_eq!(train(&states(folder(&base)), 3, 1).await, (1.0, false));
        assert_eq!(train(&states(folder(&base)), 4, 3).await, (2.0, false));
        // Another worker's report was folded.
        assert_eq!(train(&states(folder(&base)), 9, 8).await, (0.0, true));
        assert_eq!(train(&states(folder(&base)), 10, 9).await, (1.0, false));
    }

    #[tokio::test]
    async fn a_client_without_a_state_writes_nothing() {
        let base = tempfile::tempdir().unwrap();
        let folder = folder(&base);
        let states = states(folder.clone());
        for round in 1..4 {
            let basis = (round > 1).then(|| RoundId(round - 1));
            states
                .choose(CLIENT, RoundId(round), basis)
                .await
                .ok()
                .unwrap();
            let prepared = states.prepare(CLIENT, RoundId(round), Kept::default());
            assert!(!prepared.await.ok().unwrap());
        }
        assert!(!folder.unwrap().path().join("jobs").exists());
    }

    #[tokio::test]
    async fn a_state_that_can_not_be_written_fails_the_task_and_changes_nothing() {
        let base = tempfile::tempdir().unwrap();
        let folder = folder(&base);
        let states = states(folder.clone());
        train(&states, 1, 0).await;
        let jobs = folder.unwrap().path().join("jobs");
        std::fs::rename(&jobs, base.path().join("away")).unwrap();
        std::fs::write(&jobs, "a file in the place of a folder").unwrap();
        let choice = states
            .choose(CLIENT, RoundId(2), Some(RoundId(1)))
            .await
            .ok()
            .unwrap();
        let prepared = states.prepare(CLIENT, RoundId(2), choice.kept).await;
        let Err(Failure::Unable(reason)) = prepared else {
            panic!("it is kept in memory alone");
        };
        assert!(
            reason.contains("the state of client 4 can't be kept on this worker's disk"),
            "{reason}"
        );
        std::fs::remove_file(&jobs).unwrap();
        std::fs::rename(base.path().join("away"), &jobs).unwrap();
        assert_eq!(train(&states, 3, 1).await, (1.0, false));
    }
}
