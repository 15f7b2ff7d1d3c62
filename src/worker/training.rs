//! Training and evaluating a client of an open job, on a blocking thread.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

use tokio::runtime::Handle;

use super::{
    ClientContext, EvalTask, LocalTrainer, TrainError, TrainTask, failure::Failure, memory::Kept,
    open_job::OpenJob, payload, personal,
};
use crate::{
    backend::Metered,
    ids::{ClientId, RoundId},
    panics,
    parameters::{Parameters, Payloads},
    report::ReportMetadata,
    round::Evaluation,
};

/// What a client's training came to.
struct Trained {
    metadata: ReportMetadata,
    payloads: Payloads,
    residuals: BTreeMap<String, Parameters>,
    personal: Option<Parameters>,
}

impl OpenJob {
    /// Trains a client, and makes its report. The state that the report leads to is kept before it is sent, since nobody
    /// knows whether an answer will come.
    pub async fn train(
        self: &Arc<Self>,
        model: Arc<Parameters>,
        task: TrainTask,
        stop: &Arc<AtomicBool>,
    ) -> Result<(ReportMetadata, Payloads), Failure> {
        let (client, round) = (task.client, task.round);
        personal::check_payloads(&self.personal, &task.expects)?;
        // The state is copied, not taken: a training that fails must leave it as it was.
        let choice = self.states.choose(client, round, task.basis).await?;
        let Kept {
            state,
            residuals,
            personal,
        } = choice.kept;
        let trained = self.with_trainer(client, state, stop, move |trainer, context| {
            let model = personal::overlay(&task.personal, model, personal.as_ref())?;
            train_and_encode(trainer, &model, &task, residuals, context)
        });
        let (mut trained, state) = trained.await?;
        let kept = Kept {
            state,
            residuals: trained.residuals,
            personal: trained.personal,
        };
        let has_state = self.states.prepare(client, round, kept).await?;
        trained.metadata.state_lost = choice.is_unknown && has_state;
        Ok((trained.metadata, trained.payloads))
    }

    /// Evaluates a client's share of the test split: of the version that this round made, with what the client had then.
    pub async fn evaluate(
        self: &Arc<Self>,
        model: Arc<Parameters>,
        client: ClientId,
        (round, basis): (RoundId, Option<RoundId>),
        task: EvalTask,
        stop: &Arc<AtomicBool>,
    ) -> Result<Evaluation, Failure> {
        let kept = self.states.at(client, round, basis).await?;
        let (patterns, personal) = (self.personal.clone(), kept.personal);
        let evaluated = self.with_trainer(client, kept.state, stop, move |trainer, context| {
            let model = personal::overlay(&patterns, model, personal.as_ref())?;
            trainer.evaluate(&model, &task, context)
        });
        // An evaluation leaves no trace in the client's state.
        let (evaluation, _) = evaluated.await?;
        Ok(evaluation)
    }

    /// Runs `work` with an idle trainer, or a new one, on a blocking thread; the client's state as it leaves it comes back. A
    /// trainer that panicked is not used again.
    async fn with_trainer<R: Send + 'static>(
        self: &Arc<Self>,
        client: ClientId,
        mut state: BTreeMap<String, Parameters>,
        stop: &Arc<AtomicBool>,
        work: impl FnOnce(&mut dyn LocalTrainer, &mut ClientContext<'_>) -> Result<R, TrainError>
        + Send
        + 'static,
    ) -> Result<(R, BTreeMap<String, Parameters>), TrainError> {
        let (job, stop) = (self.clone(), stop.clone());
        let running = self.computing.spawn(&Handle::current(), move || {
            // The lock is free again while a trainer is made, which takes seconds.
            let idle = job.trainers.take(job.id);
            let result = panics::caught(|| {
                let mut trainer = match idle {
                    Some(trainer) => trainer,
                    None => job.factory.trainer(&job.spec)?,
                };
                let mut context = ClientContext {
                    client,
                    state: &mut state,
                    cancelled: &stop,
                    progress: &mut |_, _| {},
                };
                let result = work(&mut *trainer, &mut context);
                // Not after a panic, which passes this line by: the trainer may be in any state then.
                job.trainers.put(job.id, trainer);
                result
            });
            let result = result.unwrap_or_else(|panic| Err(TrainError::Panicked(panic)));
            result.map(|result| (result, state))
        });
        running
            .await
            .unwrap_or_else(|error| Err(TrainError::Panicked(error.to_string())))
    }
}

/// Trains a client and encodes its report. Both are on the thread that trains: taking a delta and encoding it pass over
/// the whole model.
fn train_and_encode(
    trainer: &mut dyn LocalTrainer,
    model: &Parameters,
    task: &TrainTask,
    mut residuals: BTreeMap<String, Parameters>,
    context: &mut ClientContext<'_>,
) -> Result<Trained, TrainError> {
    let metered = trainer.meter().map(|meter| meter.begin());
    // The wall's time, whatever a test does with tokio's.
    let start = std::time::Instant::now();
    let mut update = trainer.train(model, task, context)?;
    let seconds = start.elapsed().as_secs_f64();
    let energy_joules = metered.and_then(Metered::end);
    let mut metadata = ReportMetadata {
        base_version: task.version,
        examples: update.examples,
        steps: update.steps,
        metrics: update.metrics.clone(),
        device: trainer.device(),
        seconds: Some(seconds),
        energy_joules,
        state_lost: false,
    };
    // JSON has no form for the others, and a run in one process must have the same records as one over a network.
    metadata.metrics.retain(|_, value| value.is_finite());
    // Before anything is encoded: what is taken out can be in no payload of the worker's own making.
    let personal = personal::take_out(&task.personal, &mut update.parameters, model)?;
    let payloads = payload::encode_report(&task.expects, update, model, &mut residuals);
    Ok(Trained {
        metadata,
        payloads: payloads.map_err(TrainError::Report)?,
        residuals,
        personal,
    })
}
