//! What takes long, on blocking threads: dealing data, planning, folding, evaluating.
//!
//! Panics of strategies and trainers end here, as the reason why a round is abandoned or a version not evaluated.

use std::collections::BTreeMap;

use super::{
    capacity::{Host, note_capacities},
    deal::{Deal, sizes},
    fold::{Fold, delta_of},
    handle::Coordinator,
    job::{Job, Next},
    needs::check_plan,
    prepare::{Prepared, check_clients, prepare},
    round_account::{AccountRules, RoundAccount, Sent},
    state::State,
};
use crate::{
    cause::chain,
    ids::{ClientId, JobId, ModelVersion, RequestId, RoundId},
    panics,
    round::{Event, RoundMachine},
    settings::EvalSplit,
    strategy::{ClientInfo, RoundContext},
    worker::{ClientContext, EvalTask, LocalTrainer},
};

/// Why work can't begin.
const NO_MODEL: &str = "the model is not kept any more";
const NO_PLAN: &str = "the round has no plan";

impl Coordinator {
    pub(super) fn spawn_prepare(&self, job: &Job, workers: Vec<Host>) {
        let coordinator = self.clone();
        let (id, spec, over) = (job.id, job.spec.clone(), job.over.clone());
        let strategy = job.strategy.clone();
        self.later(move || {
            let prepared = caught(|| {
                let prepared = prepare(
                    &spec,
                    &*coordinator.0.trainers,
                    &workers,
                    &coordinator.0.config,
                    &over,
                )?;
                check_clients(&spec, &*strategy, prepared.clients.len() as u32)?;
                Ok(prepared)
            });
            let mut state = coordinator.state();
            let clients = match (prepared, state.jobs.get_mut(&id)) {
                (
                    Ok(Prepared {
                        clients,
                        partitions,
                        fingerprint,
                        owners,
                        pinned,
                    }),
                    Some(job),
                ) => {
                    // In one step with the machine's clients: no task goes out whose partition is not there.
                    job.partitions = partitions;
                    job.fingerprint = fingerprint;
                    job.owners = owners;
                    job.pinned = pinned;
                    Ok(clients)
                }
                (Err(reason), _) => Err(reason),
                (_, None) => return,
            };
            coordinator.drive(&mut state, id, Event::Prepared(clients));
        });
    }

    /// Deals the data again, if that is worth it, and says so.
    pub(super) fn spawn_deal(&self, id: JobId, round: RoundId, deal: Deal) {
        let coordinator = self.clone();
        self.later(move || {
            let dealt = caught(|| deal.again()).unwrap_or_else(|reason| {
                tracing::warn!(job = %id, reason, "the data is not dealt again");
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
            // A list for each client is freed: outside of the lock.
            drop(before);
        });
    }

    pub(super) fn spawn_plan(
        &self,
        job: &mut Job,
        round: RoundId,
        version: ModelVersion,
        mut clients: Vec<ClientInfo>,
    ) -> Result<(), String> {
        let model = job.models.get(&version).cloned().ok_or(NO_MODEL)?;
        let (coordinator, id, spec) = (self.clone(), job.id, job.spec.clone());
        let (strategy, offered, seeds) = (job.strategy.clone(), job.state.clone(), job.seeds);
        self.later(move || {
            let delta = delta_of(&spec);
            // An embedder's code, and so guarded as the plan itself is.
            if caught(|| Ok(strategy.uses_capacity())) == Ok(true) {
                let spread = coordinator.0.config.claims.speed_spread;
                note_capacities(&coordinator.state(), id, &mut clients, spread);
            }
            let training = spec.training_at(version);
            let mut context = RoundContext::new(round, &clients, &training, &delta);
            context.version = version;
            context.quorum = spec.limits.min_updates as usize;
            context.goal = spec.limits.goal.map(|goal| goal as usize);
            context.numbers = model.numbers();
            context.seeds = seeds;
            let plan = caught(|| {
                let plan = strategy.plan(&context).map_err(|error| chain(&error))?;
                check_plan(&plan, &offered)?;
                Ok(plan)
            });
            let mut state = coordinator.state();
            // A plan that can't be carried out leaves no trace in what the job asks of its workers.
            let machine = state.jobs.get(&id).and_then(|job| job.machine.as_ref());
            if let (Ok(plan), Some(machine)) = (&plan, machine)
                && machine.check_plan(plan).is_ok()
            {
                coordinator.adopt(&mut state, id, plan);
            }
            coordinator.drive(&mut state, id, Event::Planned { round, plan });
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
        let fold = fold_of(job, round, base, accepted)?;
        let (coordinator, id) = (self.clone(), job.id);
        let encoding = job.spec.encoding.models;
        let sent = Sent {
            senders: std::mem::take(&mut job.senders),
            not_counted: std::mem::take(&mut job.not_counted),
        };
        let by_speed = job.spec.partition.is_measured();
        self.later(move || {
            let folded = coordinator.with_room(id, &fold.over, |room| {
                caught(|| {
                    let mut writer = coordinator.begin_version(&fold, encoding, room)?;
                    let folded = fold.run(&coordinator, &mut *writer, room)?;
                    let (aggregation, numbers) = (folded.aggregation, folded.numbers);
                    let said = &folded.said;
                    let uses_speeds =
                        by_speed || caught(|| Ok(fold.strategy.uses_capacity())) == Ok(true);
                    let rules = AccountRules {
                        plan: &fold.plan,
                        metrics: coordinator.0.config.jobs.client_metrics,
                        spread: uses_speeds.then_some(coordinator.0.config.claims.speed_spread),
                    };
                    let account = RoundAccount::new(said, &aggregation.folded, &sent, &rules);
                    Ok((
                        aggregation,
                        Next {
                            round,
                            writer,
                            numbers,
                        },
                        account,
                    ))
                })
            });
            let mut joules = 0.0;
            let aggregation = folded.map(|(aggregation, next, account)| {
                joules = account.said.joules();
                // A job that has ended has no use for it: what is written is dropped here, outside of the lock.
                let mut unwanted = Some(next);
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
            let event = Event::Aggregated {
                round,
                aggregation,
                joules,
            };
            coordinator.complete(id, event);
        });
        Ok(())
    }

    /// The aggregate of a round becomes a version of the global model, together with the strategy's state.
    pub(super) fn spawn_publish(
        &self,
        job: &mut Job,
        round: RoundId,
        version: ModelVersion,
    ) -> Result<(), String> {
        let next = job.next.take().filter(|next| next.round == round);
        let mut next = Some(next.ok_or("there is no aggregate")?);
        // For a disk that was full just at the end: the writer is gone then.
        let base = ModelVersion(version.0.saturating_sub(1));
        let again = fold_of(job, round, base, accepted_of(job))?;
        let encoding = job.spec.encoding.models;
        let (coordinator, id) = (self.clone(), job.id);
        self.later(move || {
            let published = coordinator.with_room(id, &again.over, |room| {
                caught(|| {
                    let (writer, numbers) = match next.take() {
                        Some(next) => (next.writer, next.numbers),
                        None => {
                            let mut writer = coordinator.begin_version(&again, encoding, room)?;
                            let folded = again.run(&coordinator, &mut *writer, room)?;
                            (writer, folded.numbers)
                        }
                    };
                    room.noted_by(writer.publish(&numbers))
                })
            });
            let published = {
                let mut held = coordinator.state();
                let job = held.jobs.get_mut(&id).filter(|job| job.ended.is_none());
                match (published, job) {
                    (Ok(model), Some(job)) => {
                        // Before the machine hears of it: the tasks of the next round name this version.
                        job.models.insert(version, model);
                        Ok(())
                    }
                    (Err(reason), Some(_)) => Err(reason),
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

    pub(super) fn spawn_evaluate(
        &self,
        job: &mut Job,
        version: ModelVersion,
        split: EvalSplit,
    ) -> Result<(), String> {
        let model = job.models.get(&version).cloned().ok_or(NO_MODEL)?;
        let (coordinator, id, spec, over) =
            (self.clone(), job.id, job.spec.clone(), job.over.clone());
        let idle = job.evaluator.take();
        self.later(move || {
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
                let mut task = EvalTask::test(version, 0, 1);
                if split == EvalSplit::Validation {
                    let count = coordinator.0.trainers.dataset(&spec.dataset);
                    let count = count.map_err(|error| error.to_string())?.train_examples;
                    let kept = spec.validation_split(count as usize);
                    let kept = kept.map_err(|error| error.to_string())?;
                    task.training = Some(kept.validation.into());
                }
                let model = model.parameters().map_err(|error| error.to_string())?;
                let evaluation = trainer
                    .evaluate(&model, &task, &mut context)
                    .map_err(|error| error.to_string())?;
                Ok((evaluation, trainer))
            });
            let evaluation = evaluated.map(|(evaluation, trainer)| {
                // A trainer that failed or panicked is not kept: nobody knows its state.
                coordinator.keep_evaluator(id, trainer);
                evaluation
            });
            coordinator.complete(
                id,
                Event::Evaluated {
                    version,
                    split,
                    evaluation,
                },
            );
        });
        Ok(())
    }

    /// Keeps a trainer for the next evaluation. One that is not needed is dropped outside of the lock.
    fn keep_evaluator(&self, id: JobId, trainer: Box<dyn LocalTrainer>) {
        let mut unwanted = Some(trainer);
        let mut state = self.state();
        if let Some(job) = state.jobs.get_mut(&id).filter(|job| job.ended.is_none()) {
            std::mem::swap(&mut job.evaluator, &mut unwanted);
        }
        drop(state);
    }
}

/// What a fold of a round needs.
fn fold_of(
    job: &Job,
    round: RoundId,
    base: ModelVersion,
    accepted: Vec<(ClientId, RequestId)>,
) -> Result<Fold, String> {
    Ok(Fold {
        job: job.id,
        round,
        accepted,
        version: base,
        global: job.models.get(&base).cloned().ok_or(NO_MODEL)?,
        plan: job.plan.clone().ok_or(NO_PLAN)?,
        population: job.population(),
        strategy: job.strategy.clone(),
        state: job.state.clone(),
        seeds: job.seeds,
        over: job.over.clone(),
    })
}

/// The reports that the round under way has accepted, in client order.
fn accepted_of(job: &Job) -> Vec<(ClientId, RequestId)> {
    let accepted = job.machine.as_ref().map(RoundMachine::accepted);
    let mut reports = Vec::new();
    for (client, upload, _) in accepted.unwrap_or_default() {
        reports.push((client, upload));
    }
    reports
}

/// Runs it, and makes a panic an error.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    panics::caught(work).unwrap_or_else(|panic| Err(format!("a panic: {panic}")))
}
