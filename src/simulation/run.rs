//! Makes a run: a coordinator, a job, workers, and the job's events up to its end.

use std::{future::Future, io, pin::pin, sync::Arc};

use futures_util::StreamExt;

use super::{
    builder::Simulation,
    error::SimulationError,
    own_strategy::{OwnStrategy, STRATEGY, ask_for_own},
    replay::repeating,
    result::{SimulationResult, collect},
    workers::Workers,
};
use crate::{
    coordinator::Coordinator,
    job::JobSpec,
    round::{JobEvent, Outcome},
    transport::{Caller, Operator},
    worker::WorkerConfig,
};

impl Simulation {
    /// Makes the run, on a runtime of its own.
    ///
    /// # Errors
    ///
    /// [`SimulationError`]; a job that failed is one of them.
    ///
    /// # Panics
    ///
    /// Inside of a tokio runtime: there, await [`Simulation::run_until`].
    pub fn run(self) -> Result<SimulationResult, SimulationError> {
        // Without IO: nothing here uses a socket.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_time()
            .build()
            .map_err(SimulationError::Runtime)?;
        let result = runtime.block_on(self.run_until(std::future::pending()));
        // What computes has ended, or does not look at its flag: waiting longer is of no use.
        runtime.shutdown_background();
        result
    }

    /// Makes the run on the tokio runtime that this is called in; `cancelled` ends the job.
    ///
    /// However the run ends, its trainings and evaluations are told to stop, and this waits for them before it returns
    /// (at most [`WorkerConfig::stop_timeout`], for a trainer that does not look at
    /// [`ClientContext::is_cancelled`](crate::worker::ClientContext::is_cancelled)). If this future is dropped, they are told
    /// to stop, too, and end soon after.
    ///
    /// # Errors
    ///
    /// As [`Simulation::run`].
    pub async fn run_until(
        mut self,
        cancelled: impl Future<Output = ()>,
    ) -> Result<SimulationResult, SimulationError> {
        // First, since the next steps change the job: results have what the user asked for.
        let mut asked = match &self.strategy {
            Some(own) => own.named_in(self.spec.clone()),
            None => self.spec.clone(),
        };
        // What is wrong with it, the coordinator says.
        let _ = asked.strategy.complete(&self.catalogue);
        if let Some(records) = self.replay.take() {
            let own = self.strategy.take();
            self.strategy = Some(repeating(records, own, &mut self.spec, &self.catalogue)?);
        }
        if self.strategy.is_some() {
            ask_for_own(&mut self.spec);
        }
        if self.spec.partition.is_local() {
            return Err(SimulationError::LocalData);
        }
        // All of them, or the first round would be dealt to the workers that registered first.
        self.spec.limits.min_workers = self.workers as u32;
        // A coordinator without the data takes the job all the same, and waits for workers that bring it.
        self.check_dataset().await?;
        let mut builder = Coordinator::builder(self.trainers.clone())
            .config(self.config.clone())
            .catalogue(self.catalogue.clone());
        if let Some(OwnStrategy { factory, .. }) = self.strategy.take() {
            builder = builder.strategy(STRATEGY, move |job, settings| factory(job, settings));
        }
        let coordinator = builder.start();
        // Made outside of `follow`, so that whichever way it ends, its workers are stopped.
        let mut workers = Workers::default();
        let result = self
            .follow(asked, &coordinator, &mut workers, cancelled)
            .await;
        // Workers first: they still report to the coordinator what they stopped.
        workers.stop().await;
        coordinator.stop(WorkerConfig::default().stop_timeout).await;
        result
    }

    /// Submits the job, and follows it to its end.
    async fn follow(
        mut self,
        asked: JobSpec,
        coordinator: &Coordinator,
        workers: &mut Workers,
        cancelled: impl Future<Output = ()>,
    ) -> Result<SimulationResult, SimulationError> {
        let here = Caller::in_process();
        let initial = self.initial.take().map(Arc::new);
        let submitted = coordinator.submit(&here, self.spec, initial).await?;
        let (job, found) = (submitted.job, submitted.initial_digest);
        // Before any worker trains: the run would end at other bits than the record's.
        if let Some(expected) = self.expected_initial
            && found != Some(expected)
        {
            return Err(SimulationError::Replay(format!(
                "the initial model is another one than the recorded run's (digest {expected}): give the same with \
                 --initial, and the same seed"
            )));
        }
        workers.start(self.workers, coordinator, &self.trainers);

        // From the log's first entry on, so that what happened since the submission is not missed.
        let mut events = coordinator.events(&here, job, 0).await?;
        let mut cancelled = pin!(cancelled);
        let mut asked_to_cancel = false;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => {
                        let event = event?;
                        if let Some(observer) = &mut self.observer {
                            observer(&event);
                        }
                        if let JobEvent::WorkerPassedOver { lacks, .. } = &event.event {
                            // All workers are alike, and no other will come.
                            let lacks = lacks.clone();
                            return Err(SimulationError::Unsuited { lacks });
                        }
                        if let Some(checkpoints) = &mut self.checkpoints
                            && checkpoints.is_due(&event)
                        {
                            checkpoints.save(collect(coordinator, job, &asked).await?);
                        }
                    }
                    None => break,
                },
                // Once only: a future may not be polled after its end. Then the loop goes on to the job's last event,
                // and the run has a result.
                () = &mut cancelled, if !asked_to_cancel => {
                    asked_to_cancel = true;
                    // A refusal means that the job has just ended by itself.
                    let _ = coordinator.cancel(&here, job).await;
                }
                // All workers are alike: what ended one ends the others, too, and the job would wait without any.
                error = workers.failed() => return Err(SimulationError::Worker(error)),
            }
        }
        if let Some(checkpoints) = self.checkpoints {
            // The saving of a checkpoint must be over before the end is saved.
            checkpoints.ended().await;
        }
        let result = collect(coordinator, job, &asked).await?;
        if let Some(Outcome::Failed { reason }) = &result.job.outcome {
            let reason = reason.clone();
            let result = Box::new(result);
            return Err(SimulationError::Failed { reason, result });
        }
        Ok(result)
    }

    /// Whether the dataset is here: the workers are in this process, so that nobody else will bring it.
    async fn check_dataset(&self) -> Result<(), SimulationError> {
        let (trainers, name) = (self.trainers.clone(), self.spec.dataset.clone());
        // A factory is an embedder's own code and may read files of gigabytes.
        let found = tokio::task::spawn_blocking(move || trainers.dataset(&name).map(drop)).await;
        match found {
            Ok(found) => found.map_err(SimulationError::Dataset),
            // It panicked.
            Err(error) => Err(SimulationError::Runtime(io::Error::other(error))),
        }
    }
}
