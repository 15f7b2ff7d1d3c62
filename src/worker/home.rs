//! What a worker has of the coordinator that it works for: its identity, the jobs that are open, and its folder.
//!
//! The coordinator's identity binds them: job 1 of another coordinator is another job. A worker finds out who the coordinator is
//! before it shows a token that it was given earlier, and again from the answer to each registration.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::{
    StateError, WorkerConfig, WorkerError, open_jobs::OpenJobs, session::until_answered,
    state::StateFolder,
};
use crate::{
    computing::Computing,
    ids::CoordinatorId,
    protocol::{Registered, Registration},
    transport::{Transport, TransportError},
};

/// What a worker has of one coordinator.
pub(super) struct Home {
    /// Empty as long as it is not known.
    coordinator: CoordinatorId,
    folder: Option<Arc<StateFolder>>,
    pub jobs: Arc<OpenJobs>,
    computing: Computing,
}

impl Home {
    /// Finds out which coordinator it is, if the worker keeps its state on a disk, and opens the folder.
    pub async fn find<T: Transport>(
        transport: &T,
        config: &WorkerConfig,
        computing: &Computing,
    ) -> Result<Self, WorkerError> {
        let mut coordinator = CoordinatorId::default();
        if config.state_dir.is_some() {
            coordinator = until_answered(config, || transport.coordinator())
                .await?
                .ok_or(StateError::NoIdentity)?;
        }
        Self::open(coordinator, config, computing).await
    }

    async fn open(
        coordinator: CoordinatorId,
        config: &WorkerConfig,
        computing: &Computing,
    ) -> Result<Self, WorkerError> {
        let folder = open_folder(&coordinator, config, computing).await?;
        Ok(Self {
            jobs: Arc::new(OpenJobs::new(folder.clone(), computing.clone())),
            coordinator,
            folder,
            computing: computing.clone(),
        })
    }

    /// The name that the worker has here. It is not the configured one if another process has that.
    pub fn name<'a>(&'a self, config: &'a WorkerConfig) -> &'a str {
        match &self.folder {
            Some(folder) => folder.name(),
            None => &config.name,
        }
    }

    /// Who the worker was when its process ended: what it said then, and the answer.
    pub fn registration(&self) -> Option<(Registration, Registered)> {
        self.folder.as_ref()?.registration()
    }

    /// The worker has registered. What it has of another coordinator is dropped.
    pub async fn registered(
        &mut self,
        registration: &Registration,
        registered: &Registered,
        config: &WorkerConfig,
    ) -> Result<(), WorkerError> {
        // One of version 0.1 has no identity. Its jobs end with it, and are numbered from 1 by the next one.
        let is_same = registered.coordinator == self.coordinator && !self.coordinator.0.is_empty();
        if !is_same {
            let found = registered.coordinator.clone();
            let former = std::mem::replace(&mut self.coordinator, found);
            if !former.0.is_empty() {
                tracing::warn!(
                    %former, coordinator = %self.coordinator,
                    "the coordinator is another one than before: dropped what was kept of the former one's jobs"
                );
            }
            self.drop_states().await;
            *self = Self::open(self.coordinator.clone(), config, &self.computing).await?;
            if self.coordinator.0.is_empty() && config.state_dir.is_some() {
                tracing::warn!(
                    "the coordinator does not tell its identity, as those of version 0.1: state is kept in memory alone"
                );
            }
        }
        self.keep_registration(registration, registered);
        Ok(())
    }

    /// Keeps what the worker was told, with its token.
    pub fn keep_registration(&self, registration: &Registration, registered: &Registered) {
        if let Some(folder) = &self.folder {
            folder.keep_registration(registration, registered);
        }
    }

    /// Whether the folder has states of clients. Those of a job that has ended are there until another one's task comes.
    pub fn has_states(&self) -> bool {
        self.folder
            .as_ref()
            .is_some_and(|folder| folder.has_others(&[]))
    }

    /// The coordinator knows this worker no more: another process of its name has to register.
    pub fn left(&self) {
        if let Some(folder) = &self.folder {
            folder.forget_registration();
        }
    }

    /// The coordinator is gone, and so are its jobs.
    async fn drop_states(&mut self) {
        // Open jobs hold the folder, too.
        self.jobs = Arc::new(OpenJobs::new(None, self.computing.clone()));
        let Some(folder) = self.folder.take() else {
            return;
        };
        let removing = self.computing.spawn(&Handle::current(), move || {
            folder.forget_registration();
            folder.remove_others(&[]);
        });
        let _ = removing.await;
    }
}

/// Opens the folder for this coordinator, if the worker keeps its state on a disk.
async fn open_folder(
    coordinator: &CoordinatorId,
    config: &WorkerConfig,
    computing: &Computing,
) -> Result<Option<Arc<StateFolder>>, WorkerError> {
    let Some(base) = config.state_dir.clone() else {
        return Ok(None);
    };
    if coordinator.0.is_empty() {
        return Ok(None);
    }
    let (coordinator, name, is_local) = (coordinator.clone(), config.name.clone(), config.local);
    let opening = computing.spawn(&Handle::current(), move || {
        StateFolder::open(&base, &coordinator, &name, is_local)
    });
    let opened = opening.await.map_err(|error| {
        // A runtime that shuts down drops the work.
        WorkerError::Transport(TransportError::Protocol(error.to_string().into()))
    })?;
    let folder = opened?;
    tracing::info!(folder = %folder.path().display(), "who this worker is and its clients' states are kept");
    Ok(Some(Arc::new(folder)))
}

#[cfg(test)]
mod tests;
