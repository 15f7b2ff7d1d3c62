//! The workers of a run: tasks of this process, all alike.

use std::sync::Arc;

use tokio::{sync::watch, task::JoinSet};

use crate::{
    Cause,
    coordinator::Coordinator,
    transport::{InProcess, TransportError},
    worker::{TrainerFactory, Worker, WorkerConfig, WorkerError, WorkerTotals},
};

/// The workers of a run.
#[derive(Default)]
pub(super) struct Workers {
    running: JoinSet<Result<WorkerTotals, WorkerError>>,
    /// Turns true when they are to stop.
    stop: watch::Sender<bool>,
}

impl Workers {
    /// Starts this many, all alike.
    pub fn start(
        &mut self,
        count: usize,
        coordinator: &Coordinator,
        trainers: &Arc<dyn TrainerFactory>,
    ) {
        let handler = Arc::new(coordinator.clone());
        for index in 0..count {
            let config = WorkerConfig::new(format!("simulated-{index}"));
            let worker = Worker::new(InProcess::new(handler.clone()), trainers.clone(), config);
            let mut stopped = self.stop.subscribe();
            self.running.spawn(worker.run(async move {
                // An error means that the run itself is gone.
                let _ = stopped.wait_for(|stop| *stop).await;
            }));
        }
    }

    /// Why one of them ended by itself; as long as none has, this waits.
    pub async fn failed(&mut self) -> WorkerError {
        while let Some(ended) = self.running.join_next().await {
            match ended {
                Ok(Err(error)) => return error,
                Ok(Ok(_)) => {}
                // A panic of a trainer is caught before; this one is a defect of the worker. Without it the run would wait
                // for a worker that is gone.
                Err(error) => {
                    return WorkerError::Transport(TransportError::Protocol(Cause::of(error)));
                }
            }
        }
        // This is one branch of a `select!`: it must not end without an error to tell.
        std::future::pending().await
    }

    /// Tells all of them to stop, and waits for them: each waits for its trainings.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.running.join_next().await.is_some() {}
    }
}
