//! One job, from its stream.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use super::{Recovered, RecoveryError};
use crate::{
    coordinator::{
        facts::{
            DATA, DataFact, JOB, JobFact, LAYOUT, MachineRecord, PARTITIONS, Stage, VERSION,
            from_hex, parse, parse_layout, parse_partitions,
        },
        fold::model_form,
        handle::Coordinator,
        history::{EVENTS, History, ROUNDS, Recorded},
        job::{Job, PreparedStrategy},
        state::State,
    },
    ids::{JobId, ModelVersion, RoundId},
    panics,
    parameters::Layout,
    protocol::RoundRecord,
    report::SpoolKey,
    round::{RoundMachine, SEMANTICS},
    store::{
        Journal, ModelForm, PublishedVersion, StoredModel,
        journal::{Stream, fact},
    },
    strategy::{FedAvg, FederatedStrategy, Seeds, StateSpec},
    worker::Partition,
};

/// How many records of rounds are looked at to find those that are open. Training waits while two versions wait for their
/// evaluation, and a few attempts may have been abandoned meanwhile.
const LAST_ROUNDS: u64 = 1024;

/// A version, or why it can't be opened.
type Opened = Result<Arc<dyn StoredModel>, String>;

impl Coordinator {
    /// Takes up one job, and does not go on with it yet.
    pub(super) fn recover_job(
        &self,
        state: &mut State,
        journal: &dyn Journal,
        id: JobId,
    ) -> Result<Recovered, RecoveryError> {
        let stream = Stream::Job(id);
        let damaged = |problem: String| RecoveryError::Damaged(format!("job {id}: {problem}"));
        let Some(bytes) = fact(journal, stream, JOB)? else {
            // Its stream has begun without the job: not by this crate.
            return Err(damaged("it has no fact \"job\"".to_string()));
        };
        let kept: JobFact = parse(JOB, &bytes).map_err(damaged)?;
        let layout = fact(journal, stream, LAYOUT)?.unwrap_or_default();
        let layout = parse_layout(&layout).map_err(damaged)?;
        // A machine that gets events that it never had may panic.
        let machine = panics::caught(|| Self::recover_machine(journal, id));
        let machine = machine.unwrap_or_else(|panic| Err(damaged(format!("its machine: {panic}"))));
        let (machine, is_upgraded) = machine?.unzip();
        let mut problem = None;
        let (strategy, spec_state) = match self.recover_strategy(&kept, &layout) {
            Ok(made) => made,
            Err(reason) => {
                problem = Some(reason);
                (
                    Arc::new(FedAvg::default()) as Arc<dyn FederatedStrategy>,
                    StateSpec::default(),
                )
            }
        };
        let form = model_form(&layout, kept.spec.encoding.models, &spec_state);
        let latest = machine.as_ref().map(|machine| machine.status().version);
        let latest = latest.unwrap_or_default();
        // Of a job that goes on, since all that comes would be trained on it. To read all models would make a start take as
        // long as they are large.
        let verified = (kept.stage != Stage::Ended).then_some(latest);
        let models = self.open_models(journal, id, &form, verified)?;
        let model = match models.get(&latest) {
            Some(Ok(model)) => Ok(model.clone()),
            Some(Err(error)) => Err(error.clone()),
            None => Err(format!(
                "version {latest} of the model is not in the journal"
            )),
        };
        let secret = from_hex(&kept.secret).ok_or_else(|| damaged("its seed".to_string()))?;
        let recorded = recorded(journal, stream, machine.as_ref()).map_err(damaged)?;
        let last_event = recorded.last_event;
        let history = History::new(self.history_place(id), recorded);
        let prepared = PreparedStrategy {
            strategy,
            state: Arc::new(spec_state),
            seeds: Seeds {
                public: kept.spec.seed,
                secret,
            },
        };
        let mut job = Job::recovered(id, kept.spec, layout, prepared, kept.evaluation, history);
        job.once = kept.once;
        job.continuation = kept.continuation;
        job.initial_digest = kept.initial_digest;
        job.submitted = kept.submitted;
        // A round that goes on counts its seconds from here.
        job.round_started = self.now();
        job.sequence = last_event;
        for (version, model) in models {
            if let Ok(model) = model {
                job.models.insert(version, model);
            }
        }
        if kept.stage != Stage::Ended {
            let clients = machine.as_ref().map_or(0, RoundMachine::client_count);
            self.recover_data(journal, &mut job, clients)?;
        }
        job.machine = machine;
        if let Some(plan) = job
            .machine
            .as_ref()
            .and_then(|machine| machine.last_plan())
            .cloned()
        {
            job.take_up(&plan);
        }
        if let Err(error) = model {
            problem.get_or_insert(error);
        }
        let mut unreadable = 0;
        match kept.stage {
            Stage::Ended => {
                if let Some(problem) = &problem {
                    tracing::warn!(job = %id, problem, "the model of a job that has ended can't be downloaded");
                }
                job.ended = kept.ended;
                job.over.store(true, Ordering::Relaxed);
            }
            Stage::Queued => {
                state.queue.push_back(id);
            }
            Stage::Running => {
                state.turns.start(id, job.spec.priority);
                unreadable = self.reopen_reports(state, &mut job);
            }
        }
        // All of it is durable.
        job.announcer()();
        state.jobs.insert(id, job);
        Ok(match problem {
            Some(reason) if kept.stage != Stage::Ended => Recovered::Broken(reason),
            _ if is_upgraded == Some(true) => Recovered::Upgraded,
            _ => Recovered::Whole { unreadable },
        })
    }

    /// The machine as it was after its last record, and whether there are records of another version of this program, which
    /// are not replayed.
    pub(in crate::coordinator) fn recover_machine(
        journal: &dyn Journal,
        id: JobId,
    ) -> Result<Option<(RoundMachine, bool)>, RecoveryError> {
        let stream = Stream::Job(id);
        let damaged =
            |problem: String| RecoveryError::Damaged(format!("job {id}, its machine: {problem}"));
        let Some(snapshot) = journal.snapshot(stream)? else {
            return Ok(None);
        };
        let mut machine: RoundMachine =
            rmp_serde::from_slice(&snapshot).map_err(|error| damaged(error.to_string()))?;
        for record in journal.records(stream)? {
            if record.semantics != SEMANTICS {
                return Ok(Some((machine, true)));
            }
            let MachineRecord { time, event } =
                rmp_serde::from_slice(&record.body).map_err(|error| damaged(error.to_string()))?;
            machine.handle(event, time);
            // They were carried out, or are given again.
            while machine.poll_command().is_some() {}
        }
        Ok(Some((machine, false)))
    }

    fn recover_strategy(
        &self,
        kept: &JobFact,
        layout: &Layout,
    ) -> Result<(Arc<dyn FederatedStrategy>, StateSpec), String> {
        let made = panics::caught(|| self.make_strategy(&kept.spec, layout));
        let made = made.map_err(|panic| format!("the strategy can't be made: a panic: {panic}"))?;
        let made = made.map_err(|refusal| refusal.detail)?;
        Ok((made.strategy, Arc::unwrap_or_clone(made.state)))
    }

    /// The versions that the journal has of a job, each with its files or why they can't be opened. One of them is read whole.
    fn open_models(
        &self,
        journal: &dyn Journal,
        id: JobId,
        form: &ModelForm,
        verified: Option<ModelVersion>,
    ) -> Result<BTreeMap<ModelVersion, Opened>, RecoveryError> {
        let mut models = BTreeMap::new();
        for (name, bytes) in journal.facts(Stream::Job(id), VERSION)? {
            let version = name
                .strip_prefix(VERSION)
                .and_then(|name| name.parse().ok());
            let published: PublishedVersion =
                parse(&name, &bytes).map_err(RecoveryError::Damaged)?;
            if let Some(version) = version.map(ModelVersion) {
                let mut opened = self.0.models.open(id, version, form, &published);
                if opened.is_ok()
                    && verified == Some(version)
                    && let Err(error) = self.0.models.verify(id, version, &published)
                {
                    opened = Err(error);
                }
                models.insert(version, opened.map_err(|error| error.to_string()));
            }
        }
        Ok(models)
    }

    /// `clients`: how many the machine knows.
    fn recover_data(
        &self,
        journal: &dyn Journal,
        job: &mut Job,
        clients: usize,
    ) -> Result<(), RecoveryError> {
        let stream = Stream::Job(job.id);
        let Some(bytes) = fact(journal, stream, DATA)? else {
            // Not dealt yet. The coordinator's own copy counts, as at the submission.
            if let (Ok(dataset), false) = (
                self.0.trainers.dataset(&job.spec.dataset),
                job.spec.partition.is_local(),
            ) {
                job.fingerprint = dataset.fingerprint;
            }
            return Ok(());
        };
        let data: DataFact = parse(DATA, &bytes).map_err(RecoveryError::Damaged)?;
        job.fingerprint = data.fingerprint;
        job.owners = data.owners;
        job.pinned = data.pinned;
        job.generation = data.generation;
        job.partitions = match fact(journal, stream, PARTITIONS)? {
            Some(bytes) => parse_partitions(&bytes)
                .ok_or_else(|| RecoveryError::Damaged(format!("job {}: its partitions", job.id)))?,
            // No more, whatever the number that was read: another version's machine may not know them yet, and then asks again.
            None => vec![Partition::Everything; data.local_clients.min(clients)],
        };
        Ok(())
    }

    /// Takes up the accepted reports of the round that is open. One that is missing is told of now, and fails the fold of its
    /// round. How many these are.
    fn reopen_reports(&self, state: &State, job: &mut Job) -> usize {
        let Some(machine) = &job.machine else {
            return 0;
        };
        let Some(round) = machine.round_under_way() else {
            return 0;
        };
        let mut unreadable = 0;
        for (client, upload, worker) in machine.accepted() {
            let key = SpoolKey {
                job: job.id,
                round,
                client,
                upload,
            };
            if let Err(error) = self.0.spool.reopen(key, &job.report_form) {
                unreadable += 1;
                tracing::warn!(job = %job.id, %round, %client, %error, "an accepted report can't be read");
            }
            if let Some(record) = state.roster.find(worker) {
                let registration = record.info.registration.clone();
                job.senders.insert(client, (worker, registration));
            }
        }
        unreadable
    }
}

/// What the logs of a job's stream have.
fn recorded(
    journal: &dyn Journal,
    stream: Stream,
    machine: Option<&RoundMachine>,
) -> Result<Recorded, String> {
    let last_event = journal.last_entry(stream, EVENTS);
    let last_round = journal.last_entry(stream, ROUNDS);
    let last_round = last_round.map_err(|error| error.to_string())?;
    let mut recorded = Recorded {
        last_event: last_event.map_err(|error| error.to_string())?,
        last_closed: RoundId(last_round),
        open: Vec::new(),
    };
    let Some(first) = machine.and_then(RoundMachine::first_unevaluated) else {
        return Ok(recorded);
    };
    let after = last_round.saturating_sub(LAST_ROUNDS);
    let limit = LAST_ROUNDS as usize;
    let rows = journal.entries(stream, ROUNDS, after, limit);
    for (number, body) in rows.map_err(|error| error.to_string())? {
        let record: RoundRecord = serde_json::from_slice(&body)
            .map_err(|error| format!("the record of round {number}: {error}"))?;
        let is_unevaluated = record.version.is_some_and(|version| version >= first);
        if is_unevaluated || !recorded.open.is_empty() {
            recorded.open.push(record);
        } else {
            recorded.last_closed = RoundId(number);
        }
    }
    if let Some(first) = recorded.open.first() {
        recorded.last_closed = recorded.last_closed.min(RoundId(first.round.0 - 1));
    }
    Ok(recorded)
}
