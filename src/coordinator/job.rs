//! One job as the coordinator keeps it: its machine, its models, its records and its log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use super::{
    continuation::Continuation, history::History, needs::Needs, round_account::Said,
    submission_key::SubmittedOnce, under_way::UnderWay,
};
use crate::{
    ids::{ClientId, JobId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    job::{JobSpec, TrainingSettings},
    parameters::{BodyForm, Digest, Layout, Role},
    protocol::{DatasetPartition, JobSummary, LoggedEvent, Registration, RoundRecord},
    report::{Refusal, RefusalKind},
    round::{EvaluationBy, JobEvent, Outcome, RoundMachine},
    store::{ModelWriter, StoredModel},
    strategy::{ClientInfo, FederatedStrategy, RoundPlan, Seeds, StateSpec},
    worker::{LocalTrainer, Partition},
};

/// A job, with all that the coordinator has of it.
///
/// What becomes of each field when the coordinator ends and the next one recovers the job:
///
/// - *journaled*: `id`, `spec`, `once`, `continuation`, `evaluation`, `initial_digest`, `seeds`, `submitted`, `ended` (fact `job`); `layout` (fact
///   `layout`); `fingerprint`, `owners`, `pinned`, `generation` (fact `data`); `partitions` (fact `partitions`, until the job ends); `machine` (snapshot and
///   records); `models` (facts `version/N`, and the files); `history` (the logs `events` and `rounds`);
/// - *derived*: `strategy` and `state` from the spec; `plan`, `needs`, `report_form` and `training` from the plan in the machine;
///   `senders` from the machine and the roster (`handed_out` and `not_counted` are not known again); `sequence` and `progress` from the log;
/// - *discarded*: `next`, `said` (the round is folded again), `evaluator`, `uploads` (their connections are gone), `bytes` and
///   `round_started` (they count again from 0), `over`.
pub(super) struct Job {
    pub id: JobId,
    pub spec: JobSpec,
    /// The key of its submission, if it had one.
    pub once: Option<SubmittedOnce>,
    /// What it goes on from.
    pub continuation: Option<Continuation>,
    pub layout: Arc<Layout>,
    /// Of the initial model's values.
    pub initial_digest: Digest,
    pub evaluation: EvaluationBy,
    /// None while it waits in the queue.
    pub machine: Option<RoundMachine>,
    pub strategy: Arc<dyn FederatedStrategy>,
    /// What the strategy keeps between rounds.
    pub state: Arc<StateSpec>,
    /// The seeds of its random draws.
    pub seeds: Seeds,
    /// What was planned for the round that is open.
    pub plan: Option<Arc<RoundPlan>>,
    /// What its workers must be able to do.
    pub needs: Needs,
    /// The form of its reports.
    pub report_form: Arc<BodyForm>,
    pub models: BTreeMap<ModelVersion, Arc<dyn StoredModel>>,
    /// The aggregate of a round that is not published yet.
    pub next: Option<Next>,
    /// A trainer for evaluations, if one has been made and is idle.
    pub evaluator: Option<Box<dyn LocalTrainer>>,
    /// The copy of the dataset that the examples are of; empty before it is known, and for `local` data.
    pub fingerprint: String,
    /// One for each client, once the data has been dealt.
    pub partitions: Vec<Partition>,
    /// The names of the workers whose own data the clients have; empty if the data was dealt.
    pub owners: BTreeSet<String>,
    /// The name of each worker that clients are pinned to or were: one that comes back as a new worker is known by it alone.
    pub pinned: BTreeMap<WorkerId, String>,
    /// How often the data has been dealt again.
    pub generation: u64,
    /// How the members of the round that is open train.
    pub training: TrainingSettings,
    /// The uploads under way.
    pub uploads: BTreeMap<RequestId, UnderWay>,
    /// Who sent the reports that the current round has accepted.
    pub senders: BTreeMap<ClientId, (WorkerId, Arc<Registration>)>,
    /// Who has the task of each client of the current round, and since when.
    pub handed_out: BTreeMap<ClientId, (WorkerId, Timestamp)>,
    /// What the reports of the current round say and does not count, in words.
    pub not_counted: BTreeMap<ClientId, Vec<String>>,
    /// What the reports of the round that was folded last say.
    pub said: Option<(RoundId, Said)>,
    pub history: History,
    /// The place of the log's last entry.
    pub sequence: u64,
    /// The place of the last entry that followers may be shown, and whether the job has ended.
    pub progress: watch::Sender<Progress>,
    /// Bytes of parameters sent and received since the round began.
    pub bytes: Arc<AtomicU64>,
    /// Set at the job's end, for work that is still under way.
    pub over: Arc<AtomicBool>,
    pub submitted: Timestamp,
    pub ended: Option<Timestamp>,
    pub round_started: Timestamp,
}

/// A job's initial model, once it is kept.
pub(super) struct KeptInitial {
    pub model: Arc<dyn StoredModel>,
    /// Of its values.
    pub digest: Digest,
}

/// A job's strategy, before its first round.
pub(super) struct PreparedStrategy {
    pub strategy: Arc<dyn FederatedStrategy>,
    pub state: Arc<StateSpec>,
    pub seeds: Seeds,
}

/// The version that a round makes, while it is not published.
pub(super) struct Next {
    pub round: RoundId,
    pub writer: Box<dyn ModelWriter>,
    /// The numbers of the strategy's state.
    pub numbers: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    pub sequence: u64,
    pub ended: bool,
}

impl Job {
    /// A job that has just been submitted.
    pub fn new(
        id: JobId,
        spec: JobSpec,
        initial: KeptInitial,
        strategy: PreparedStrategy,
        evaluation: EvaluationBy,
        history: History,
        now: Timestamp,
    ) -> Self {
        let layout = initial.model.layout().clone();
        let mut job = Self::recovered(id, spec, layout, strategy, evaluation, history);
        job.initial_digest = initial.digest;
        job.models.insert(ModelVersion(0), initial.model);
        (job.submitted, job.round_started) = (now, now);
        job
    }

    /// A job without what its journal has beside this.
    pub fn recovered(
        id: JobId,
        spec: JobSpec,
        layout: Arc<Layout>,
        strategy: PreparedStrategy,
        evaluation: EvaluationBy,
        history: History,
    ) -> Self {
        let needs = Needs::of(&spec, evaluation);
        Self {
            id,
            training: spec.training.clone(),
            spec,
            once: None,
            continuation: None,
            report_form: Arc::new(BodyForm::of(&[], &layout)),
            layout,
            initial_digest: Digest::of(&[]),
            evaluation,
            machine: None,
            strategy: strategy.strategy,
            state: strategy.state,
            seeds: strategy.seeds,
            plan: None,
            needs,
            models: BTreeMap::new(),
            next: None,
            evaluator: None,
            fingerprint: String::new(),
            partitions: Vec::new(),
            owners: BTreeSet::new(),
            pinned: BTreeMap::new(),
            generation: 0,
            uploads: BTreeMap::new(),
            senders: BTreeMap::new(),
            handed_out: BTreeMap::new(),
            not_counted: BTreeMap::new(),
            said: None,
            history,
            sequence: 0,
            progress: watch::Sender::default(),
            bytes: Arc::default(),
            over: Arc::default(),
            submitted: Timestamp(0),
            ended: None,
            round_started: Timestamp(0),
        }
    }

    /// Whether a worker has the dataset in the copy that the examples are of, and is able to do what the job needs.
    pub fn can_be_trained_by(&self, registration: &Registration) -> bool {
        self.has_its_data(registration) && self.needs.lacks(registration).is_none()
    }

    /// Whether a worker has the dataset in the copy that the examples are of.
    pub fn has_its_data(&self, registration: &Registration) -> bool {
        registration.local == self.spec.partition.is_local()
            && registration.datasets.iter().any(|dataset| {
                let same_copy =
                    self.fingerprint.is_empty() || dataset.fingerprint == self.fingerprint;
                dataset.name == self.spec.dataset && same_copy
            })
    }

    /// Why a worker can't train the job, in words; none if it can.
    pub fn lacks(&self, registration: &Registration) -> Option<String> {
        if self.has_its_data(registration) {
            return self
                .needs
                .lacks(registration)
                .map(|lacks| format!("without {lacks}"));
        }
        if registration.local && !self.spec.partition.is_local() {
            return Some(
                "data of its own, which only a job with partition local trains on".to_string(),
            );
        }
        if self.spec.partition.is_local() && !registration.local {
            return Some("no data of its own (--local)".to_string());
        }
        let mut names = Vec::new();
        // The line is for people: a few names are enough to see the mistake.
        for dataset in registration.datasets.iter().take(8) {
            if dataset.name == self.spec.dataset {
                return Some(format!("another copy of dataset {:?}", dataset.name));
            }
            names.push(dataset.name.as_str());
        }
        let has = if names.is_empty() {
            "no dataset at all".to_string()
        } else {
            format!("has: {}", names.join(", "))
        };
        Some(format!("no dataset {:?} ({has})", self.spec.dataset))
    }

    /// Takes up the plan of a round, and gives what was asked of the workers before.
    pub fn take_up(&mut self, plan: &RoundPlan) -> Needs {
        self.training = plan.training.clone();
        self.report_form = Arc::new(BodyForm::of(&plan.expects, &self.layout));
        self.plan = Some(Arc::new(plan.clone()));
        std::mem::replace(
            &mut self.needs,
            Needs::of_plan(&self.spec, self.evaluation, plan),
        )
    }

    /// The job under which workers keep the states of this one's clients.
    pub fn states_of(&self) -> JobId {
        let continuation = self.continuation.as_ref();
        continuation
            .and_then(|found| found.states_of)
            .unwrap_or(self.id)
    }

    /// Bytes of its models.
    pub fn model_bytes(&self) -> u64 {
        self.models
            .values()
            .map(|model| model.file().length())
            .sum()
    }

    pub fn outcome(&self) -> Option<&Outcome> {
        self.machine.as_ref().and_then(RoundMachine::outcome)
    }

    pub fn version(&self) -> ModelVersion {
        self.models.keys().next_back().copied().unwrap_or_default()
    }

    /// Whether the model has frozen tensors.
    pub fn has_frozen(&self) -> bool {
        self.layout
            .tensors()
            .iter()
            .any(|spec| spec.role == Role::Frozen)
    }

    /// All clients, in order.
    pub fn population(&self) -> Vec<ClientInfo> {
        self.machine
            .as_ref()
            .map(RoundMachine::population)
            .unwrap_or_default()
    }

    /// A model, the latest if no version is named.
    pub fn model(
        &self,
        version: Option<ModelVersion>,
    ) -> Result<(ModelVersion, Arc<dyn StoredModel>), Refusal> {
        let latest = self.version();
        let version = version.unwrap_or(latest);
        match self.models.get(&version) {
            Some(model) => Ok((version, model.clone())),
            None if version < latest => Err(Refusal::new(
                RefusalKind::Gone,
                format!("version {version} is not kept any more"),
            )),
            None => Err(Refusal::new(
                RefusalKind::NotFound,
                format!("there is no version {version} yet"),
            )),
        }
    }

    pub fn partition_of(&self, client: ClientId) -> Result<DatasetPartition, Refusal> {
        let indices = match self.partitions.get(client.0 as usize) {
            Some(Partition::Indices(indices)) => Some(indices.clone()),
            Some(Partition::Everything) => None,
            None => {
                let detail = format!("job {} has no client {client}", self.id);
                return Err(Refusal::new(RefusalKind::UnknownClient, detail));
            }
        };
        Ok(DatasetPartition {
            dataset: self.spec.dataset.clone(),
            fingerprint: self.fingerprint.clone(),
            indices,
        })
    }

    /// The versions that nobody will ask for any more, taken out.
    pub fn prune_models(&mut self) -> Vec<ModelVersion> {
        let latest = self.version();
        let Some(machine) = &self.machine else {
            return Vec::new();
        };
        // The latest is kept after the job's end as well: operators download it.
        let mut idle = Vec::new();
        for version in self.models.keys() {
            if *version != latest && !machine.needs(*version) {
                idle.push(*version);
            }
        }
        for version in &idle {
            self.models.remove(version);
        }
        idle
    }

    /// Adds to the log, and to the records what it says of them.
    pub fn record(&mut self, event: JobEvent, now: Timestamp) {
        match &event {
            JobEvent::RoundStarted { .. } => {
                self.round_started = now;
                self.senders.clear();
                self.handed_out.clear();
                self.not_counted.clear();
                self.bytes.store(0, Ordering::Relaxed);
            }
            JobEvent::RoundCommitted {
                round,
                version,
                accepted,
                folded,
                excluded,
                train_loss,
                metrics,
            } => {
                let mut record = RoundRecord::committed(*round, *version);
                record.accepted.clone_from(accepted);
                record.folded.clone_from(folded);
                record.excluded.clone_from(excluded);
                record.train_loss = *train_loss;
                record.lr = Some(self.training.lr);
                record.metrics.clone_from(metrics);
                if let Some((of, said)) = self.said.take()
                    && of == *round
                {
                    record.state_lost = said.state_lost;
                    record.not_counted = said.not_counted;
                    if !record.state_lost.is_empty() {
                        tracing::warn!(
                            job = %self.id, %round, clients = ?record.state_lost,
                            "clients began this round without what they had kept: their workers have lost it"
                        );
                    }
                    record = said
                        .metrics
                        .add_to(record.with_contributions(said.contributions));
                }
                self.push_record(record, now);
            }
            JobEvent::RoundAbandoned {
                round,
                accepted,
                excluded,
                metrics,
                reason,
            } => {
                let mut record = RoundRecord::abandoned(*round, reason);
                record.accepted.clone_from(accepted);
                record.excluded.clone_from(excluded);
                record.metrics.clone_from(metrics);
                self.said = None;
                self.push_record(record, now);
            }
            JobEvent::Evaluated {
                version,
                split,
                evaluation: Some(evaluation),
                by_client,
                ..
            } => self
                .history
                .note_evaluation(*version, *split, evaluation, by_client),
            JobEvent::TaskIssued { client, worker, .. } => {
                self.handed_out.insert(*client, (*worker, now));
            }
            _ => {}
        }
        self.sequence += 1;
        self.history.add_event(LoggedEvent {
            sequence: self.sequence,
            time: now,
            event,
        });
    }

    /// Shows followers all that has happened so far, once it is called.
    pub fn announcer(&self) -> impl FnOnce() + Send + 'static {
        let (sequence, ended) = (self.sequence, self.ended.is_some());
        let progress = self.progress.clone();
        let settle = self.history.settler(sequence);
        move || {
            settle();
            progress.send_modify(|progress| {
                progress.sequence = progress.sequence.max(sequence);
                progress.ended |= ended;
            });
        }
    }

    fn push_record(&mut self, mut record: RoundRecord, now: Timestamp) {
        record.bytes = self.bytes.load(Ordering::Relaxed);
        record.seconds = now.since(self.round_started).as_secs_f64();
        self.history.add_round(record);
    }

    /// Closes the records to which nothing will be added.
    pub fn close_records(&mut self) {
        let first = self.machine.as_ref();
        let first = first.and_then(RoundMachine::first_unevaluated);
        self.history.close_before(first);
    }

    pub fn end(&mut self, now: Timestamp) {
        self.history.close();
        self.ended = Some(now);
    }

    pub fn summary(&self) -> JobSummary {
        let status = self.machine.as_ref().map(RoundMachine::status);
        let clients = self.machine.as_ref().map(RoundMachine::client_count);
        let clients = clients.filter(|clients| *clients > 0);
        JobSummary {
            job: self.id,
            spec: self.spec.clone(),
            phase: status
                .as_ref()
                .map_or("queued", |status| status.phase)
                .to_string(),
            detail: status.as_ref().map_or(
                "waiting for one of the running jobs to end".to_string(),
                |status| status.detail.clone(),
            ),
            outcome: self.outcome().cloned(),
            continued: self.continuation.as_ref().map(|found| found.from.clone()),
            best: self.machine.as_ref().and_then(RoundMachine::best).cloned(),
            last_measured: self
                .machine
                .as_ref()
                .and_then(RoundMachine::last_measured)
                .cloned(),
            clients: clients.map(|clients| clients as u32),
            round: status
                .as_ref()
                .map(|status| status.round)
                .unwrap_or_default(),
            version: self.version(),
            accepted: status.as_ref().map_or(0, |status| status.accepted),
            goal: status.as_ref().map_or(0, |status| status.goal),
            parameters: self.layout.len() as u64,
            initial_digest: Some(self.initial_digest),
            last_event: self.progress.borrow().sequence,
            submitted: self.submitted,
            ended: self.ended,
        }
    }
}
