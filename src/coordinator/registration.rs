//! Workers come: their registration, their data, their token.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{
    admission::check_registration,
    handle::Coordinator,
    speed::Speeds,
    state::{State, WorkerInfo},
};
use crate::{
    protocol::{DatasetInfo, Registered, Registration, Token},
    report::{Refusal, RefusalKind},
    transport::{Caller, Peer, Response},
};

impl Coordinator {
    pub(super) fn register(
        &self,
        peer: Peer,
        join_token: Option<Token>,
        registration: Registration,
    ) -> Result<Response, Refusal> {
        self.admit(&Caller::new(peer, join_token))?;
        let protocol = check_registration(&registration)?;
        let token = draw_token()?;
        let now = self.now();
        let mut state = self.state();
        if state.roster.live_count() >= self.0.config.max_workers {
            let detail = format!(
                "{} workers are registered already",
                self.0.config.max_workers
            );
            return Err(Refusal::new(RefusalKind::Busy, detail));
        }
        self.check_datasets(&state, &registration)?;
        tracing::info!(
            name = registration.name,
            ?peer,
            device = registration.device,
            "worker registered"
        );
        let info = WorkerInfo {
            registration: Arc::new(registration),
            protocol,
            token: token.clone(),
            wake: Arc::new(Notify::new()),
            speeds: Speeds::default(),
        };
        let (worker, replaces) = state.register(info, now);
        self.worker_joined(&mut state, worker, replaces);
        self.rearm(&mut state);
        Ok(Response::Registered(Registered {
            worker,
            protocol,
            token,
            heartbeat_ms: self.0.config.heartbeat.as_millis() as u64,
            poll_ms: self.longest_poll().as_millis() as u64,
        }))
    }

    /// A worker whose copy of a dataset is not the coordinator's, or not that of the workers before it, is refused:
    /// the same indices would mean other examples.
    pub(super) fn check_datasets(
        &self,
        state: &State,
        registration: &Registration,
    ) -> Result<(), Refusal> {
        if registration.local {
            return Ok(());
        }
        for dataset in &registration.datasets {
            for known in &self.0.datasets {
                check_copy(
                    dataset,
                    &known.name,
                    &known.fingerprint,
                    "the coordinator's",
                )?;
            }
            if let Some(other) = state.copies.other_than(dataset) {
                check_copy(dataset, &dataset.name, other, "the other workers'")?;
            }
            // A job's copy can be one that the coordinator opened for it alone.
            for job in state.jobs.values() {
                if job.ended.is_none() && !job.fingerprint.is_empty() {
                    check_copy(dataset, &job.spec.dataset, &job.fingerprint, "the job's")?;
                }
            }
        }
        Ok(())
    }
}

/// Refuses a worker's dataset that has the name of a known one and is another copy.
fn check_copy(
    dataset: &DatasetInfo,
    name: &str,
    fingerprint: &str,
    whose: &str,
) -> Result<(), Refusal> {
    if dataset.name != name || dataset.fingerprint == fingerprint {
        return Ok(());
    }
    let detail = format!(
        "dataset {:?} has fingerprint {:?}, and {whose} copy has {fingerprint:?}",
        dataset.name, dataset.fingerprint
    );
    Err(Refusal::new(RefusalKind::DatasetMismatch, detail))
}

fn draw_token() -> Result<Token, Refusal> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        Refusal::new(
            RefusalKind::Busy,
            format!("no randomness for a token: {error}"),
        )
    })?;
    Ok(Token(
        bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    ))
}
