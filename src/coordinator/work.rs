//! What takes long, on blocking threads: dealing data, planning, folding, evaluating.
//!
//! Panics of strategies and trainers end here, as the reason why a round is abandoned or a version not evaluated.

use std::collections::BTreeMap;

use super::{
    Coordinator,
    account::Account,
    deal::{Deal, Host, sizes},
    job::Job,
    prepare::{Prepared, prepare},
    state::State,
};
use crate::{
    ids::{ClientId, JobId, ModelVersion, RequestId, RoundId},
    job::JobSpec,
    panics,
    parameters::BlockReader,
    report::{ReportMetadata, Reports},
    round::Event,
    store::ModelWriter,
    strategy::{Aggregation, ClientInfo, FederatedStrategy, RoundContext, RoundRng},
    worker::{ClientContext, EvalTask, LocalTrainer},
};

/// Why work can't begin, where an earlier failure has taken what it needs.
const NO_STRATEGY: &str = "the strategy could not be built again after it had failed";
const NO_MODEL: &str = "the model is not kept any more";

impl Coordinator {
    pub(super) fn spawn_prepare(&self, id: JobId, spec: JobSpec, workers: Vec<Host>) {
        let coordinator = self.clone();
        self.0.runtime.spawn_blocking(move || {
            let prepared = caught(|| prepare(&spec, &*coordinator.0.trainers, &workers));
            let mut state = coordinator.state();
            let clients = match (prepared, state.jobs.get_mut(&id)) {
                (
                    Ok(Prepared {
                        clients,
                        partitions,
                        fingerprint,
                    }),
                    Some(job),
                ) => {
                    job.partitions = partitions;
                    job.fingerprint = fingerprint;
                    Ok(clients)
                }
                (Err(reason), _) => Err(reason),
                (_, None) => return,
            };
            coordinator.drive(&mut state, id, Event::Prepared(clients));
        });
    }

    /// Deals the data anew, where that is worth it, and says so.
    pub(super) fn spawn_deal(&self, id: JobId, round: RoundId, deal: Deal) {
        let coordinator = self.clone();
        self.0.runtime.spawn_blocking(move || {
            let dealt = caught(|| deal.anew()).unwrap_or_else(|reason| {
                tracing::warn!(job = %id, reason, "the data is not dealt anew");
                None
            });
            let mut state = coordinator.state();
            let Some(job) = state.jobs.get_mut(&id).filter(|job| job.ended.is_none()) else {
                return;
            };
            // In one step with the machine's sizes: nobody sees the one without the other.
            let (examples, before) = match dealt {
                Some(partitions) => {
                    let examples = sizes(&partitions);
                    job.generation += 1;
                    let before = std::mem::replace(&mut job.partitions, partitions);
                    (Some(examples), before)
                }
                None => (None, Vec::new()),
            };
            coordinator.drive(&mut state, id, Event::Dealt { round, examples });
            drop(state);
            drop(before);
        });
    }

    pub(super) fn spawn_plan(
        &self,
        job: &mut Job,
        round: RoundId,
        version: ModelVersion,
        clients: Vec<ClientInfo>,
    ) -> Result<(), String> {
        let mut strategy = job.strategy.take().ok_or(NO_STRATEGY)?;
        let (coordinator, id, spec) = (self.clone(), job.id, job.spec.clone());
        self.0.runtime.spawn_blocking(move || {
            let context = RoundContext {
                round,
                version,
                clients: &clients,
                training: &spec.training,
                quorum: spec.limits.min_updates as usize,
                goal: spec.limits.goal.map(|goal| goal as usize),
            };
            let mut rng = RoundRng::new(spec.seed, round);
            let plan = caught(|| {
                strategy
                    .plan(&context, &mut rng)
                    .map_err(|error| error.to_string())
            });
            coordinator.give_back(id, strategy, plan.is_ok());
            if let (Ok(plan), Some(job)) = (&plan, coordinator.state().jobs.get_mut(&id)) {
                job.local_epochs = plan.training.local_epochs;
            }
            coordinator.complete(id, Event::Planned { round, plan });
        });
        Ok(())
    }

    pub(super) fn spawn_aggregate(
        &self,
        job: &mut Job,
        round: RoundId,
        base: ModelVersion,
        accepted: Vec<(ClientId, RequestId)>,
    ) -> Result<(), String> {
        let global = job.models.get(&base).cloned().ok_or(NO_MODEL)?;
        let mut strategy = job.strategy.take().ok_or(NO_STRATEGY)?;
        let (coordinator, id) = (self.clone(), job.id);
        let encoding = job.spec.encoding.models;
        let (senders, local_epochs) = (std::mem::take(&mut job.senders), job.local_epochs);
        self.0.runtime.spawn_blocking(move || {
            let folded = caught(|| {
                let version = ModelVersion(base.0 + 1);
                let next = coordinator
                    .0
                    .models
                    .begin(id, version, global.layout(), encoding);
                let mut next = next.map_err(|error| error.to_string())?;
                let (aggregation, said) =
                    coordinator.fold(id, round, &accepted, &mut *strategy, &*global, &mut *next)?;
                let limit = coordinator.0.config.client_metrics;
                let folded = &aggregation.folded;
                let account = Account::new(&said, folded, &senders, local_epochs, limit);
                Ok((aggregation, next, account))
            });
            coordinator.give_back(id, strategy, folded.is_ok());
            let aggregation = folded.map(|(aggregation, next, account)| {
                // A job that has ended has no use for it: what is written is dropped here, outside of the lock.
                let mut unwanted = Some((round, next));
                let mut state = coordinator.state();
                let State { jobs, .. } = &mut *state;
                if let Some(job) = jobs.get_mut(&id).filter(|job| job.ended.is_none()) {
                    job.next = unwanted.take();
                    job.said = Some((round, account.said));
                    let (model, dataset) = (job.spec.model.clone(), job.spec.dataset.clone());
                    state.note_speeds(&model, &dataset, account.measured);
                }
                drop(state);
                drop(unwanted);
                aggregation
            });
            coordinator.complete(id, Event::Aggregated { round, aggregation });
        });
        Ok(())
    }

    fn fold(
        &self,
        job: JobId,
        round: RoundId,
        accepted: &[(ClientId, RequestId)],
        strategy: &mut dyn FederatedStrategy,
        global: &dyn BlockReader,
        next: &mut dyn ModelWriter,
    ) -> Result<(Aggregation, Vec<(ClientId, ReportMetadata)>), String> {
        let reports = self
            .0
            .spool
            .reports(job, round, accepted)
            .map_err(|error| error.to_string())?;
        let reports = Reports::new(global.layout(), &reports, &self.0.executor)
            .map_err(|error| error.to_string())?;
        let aggregation = strategy
            .aggregate(global, &reports, next)
            .map_err(|error| chain(&error))?;
        let said = reports
            .iter()
            .map(|report| (report.client, report.metadata.clone()));
        Ok((aggregation, said.collect()))
    }

    /// The aggregate of a round becomes a version of the global model, together with the strategy's state.
    pub(super) fn spawn_publish(
        &self,
        job: &mut Job,
        round: RoundId,
        version: ModelVersion,
    ) -> Result<(), String> {
        let next = job.next.take().filter(|(made_in, _)| *made_in == round);
        let (_, next) = next.ok_or("there is no aggregate")?;
        let strategy = job.strategy.take().ok_or(NO_STRATEGY)?;
        let (coordinator, id) = (self.clone(), job.id);
        self.0.runtime.spawn_blocking(move || {
            let published = caught(|| {
                let state = strategy.export_state();
                let model = next.publish(&state).map_err(|error| error.to_string())?;
                Ok((model, state))
            });
            let published = {
                let mut held = coordinator.state();
                let job = held.jobs.get_mut(&id).filter(|job| job.ended.is_none());
                match (published, job) {
                    (Ok((model, state)), Some(job)) => {
                        job.models.insert(version, model);
                        job.committed = state;
                        job.uncommitted = false;
                        job.strategy = Some(strategy);
                        Ok(())
                    }
                    (Err(reason), Some(job)) => {
                        job.strategy = Some(strategy);
                        Err(reason)
                    }
                    (published, None) => {
                        drop(held);
                        // The job was cancelled meanwhile.
                        if published.is_ok() {
                            coordinator.0.models.remove(id, Some(version));
                        }
                        return;
                    }
                }
            };
            coordinator.complete(id, Event::Published { version, published });
        });
        Ok(())
    }

    /// The strategy comes back from a thread; after a failure it is built anew from its last commit.
    fn give_back(&self, id: JobId, strategy: Box<dyn FederatedStrategy>, intact: bool) {
        let mut state = self.state();
        let Some(job) = state.jobs.get_mut(&id).filter(|job| job.ended.is_none()) else {
            return;
        };
        job.uncommitted = intact;
        job.strategy = if intact {
            Some(strategy)
        } else {
            self.rebuild_strategy(job)
        };
    }

    /// The strategy as it was at the job's last commit.
    pub(super) fn rebuild_strategy(&self, job: &Job) -> Option<Box<dyn FederatedStrategy>> {
        let mut strategy = self.make_strategy(&job.spec).ok()?;
        match strategy.import_state(job.committed.clone()) {
            Ok(()) => Some(strategy),
            Err(error) => {
                tracing::error!(job = %job.id, %error, "the strategy does not take its own state back");
                None
            }
        }
    }

    pub(super) fn spawn_evaluate(
        &self,
        job: &mut Job,
        version: ModelVersion,
    ) -> Result<(), String> {
        let model = job.models.get(&version).cloned().ok_or(NO_MODEL)?;
        let (coordinator, id, spec, over) =
            (self.clone(), job.id, job.spec.clone(), job.over.clone());
        let idle = job.evaluator.take();
        self.0.runtime.spawn_blocking(move || {
            let evaluated = caught(|| {
                let trainer = match idle {
                    Some(trainer) => Ok(trainer),
                    None => coordinator.0.trainers.trainer(&spec.description()),
                };
                let mut trainer = trainer.map_err(|error| error.to_string())?;
                let mut context = ClientContext {
                    client: ClientId(0),
                    state: &mut BTreeMap::new(),
                    cancelled: &over,
                    progress: &mut |_, _| {},
                };
                let task = EvalTask {
                    version,
                    share: 0,
                    shares: 1,
                };
                let model = model.parameters().map_err(|error| error.to_string())?;
                let evaluation = trainer
                    .evaluate(&model, &task, &mut context)
                    .map_err(|error| error.to_string())?;
                Ok((evaluation, trainer))
            });
            let evaluation = evaluated.map(|(evaluation, trainer)| {
                coordinator.keep_evaluator(id, trainer);
                evaluation
            });
            coordinator.complete(
                id,
                Event::Evaluated {
                    version,
                    evaluation,
                },
            );
        });
        Ok(())
    }

    fn keep_evaluator(&self, id: JobId, trainer: Box<dyn LocalTrainer>) {
        if let Some(job) = self
            .state()
            .jobs
            .get_mut(&id)
            .filter(|job| job.ended.is_none())
        {
            job.evaluator = Some(trainer);
        }
    }
}

/// Runs it, and makes a panic an error.
fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    panics::caught(work).unwrap_or_else(|panic| Err(format!("a panic: {panic}")))
}

/// An error and what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
