//! Saves what there is of a run from time to time. It must never hold up the rounds: one save at a time, on a thread of
//! its own.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use super::result::SimulationResult;
use crate::{protocol::LoggedEvent, round::JobEvent};

/// When to save, and how.
pub(super) struct Checkpoints {
    every: Duration,
    save: Arc<Mutex<dyn FnMut(SimulationResult) + Send>>,
    last: Instant,
    saving: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// Calls `save` about every so often.
    pub fn new(every: Duration, save: impl FnMut(SimulationResult) + Send + 'static) -> Self {
        Self {
            every,
            save: Arc::new(Mutex::new(save)),
            last: Instant::now(),
            saving: None,
        }
    }

    /// Whether to save at this event.
    pub fn is_due(&self, event: &LoggedEvent) -> bool {
        let is_commit = matches!(event.event, JobEvent::RoundCommitted { .. });
        // Saves that are slower than the rounds would pile up, each with a copy of the log.
        let is_idle = self.saving.as_ref().is_none_or(JoinHandle::is_finished);
        is_commit && is_idle && self.last.elapsed() >= self.every
    }

    /// Begins to save this.
    pub fn save(&mut self, result: SimulationResult) {
        self.last = Instant::now();
        let save = self.save.clone();
        self.saving = Some(tokio::task::spawn_blocking(move || {
            // A save that panicked does not keep the later ones from being tried.
            let mut save = save.lock().unwrap_or_else(PoisonError::into_inner);
            save(result);
        }));
    }

    /// Waits for the save under way, if any.
    pub async fn ended(self) {
        if let Some(saving) = self.saving {
            // A save that panicked takes nothing from the run's result.
            let _ = saving.await;
        }
    }
}
