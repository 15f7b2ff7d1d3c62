//! All that a journal has, read as a recovery reads it, and decoded down to the last entry.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::report::StateProblem;
use crate::{
    coordinator::{
        facts::{
            COORDINATOR, CoordinatorFact, DATA, DataFact, JOB, JobFact, LAYOUT, PARTITIONS, Stage,
            VERSION, WORKER, WorkerFact, from_hex, parse, parse_layout, parse_partitions,
        },
        handle::Coordinator,
        history::{EVENTS, ROUNDS},
    },
    ids::{JobId, ModelVersion, Timestamp, WorkerId},
    panics::caught,
    protocol::{LoggedEvent, RoundRecord},
    report::SpoolKey,
    round::RoundMachine,
    store::{
        Journal, PublishedVersion,
        journal::{JournalError, Stream, fact},
    },
};

/// The file that all of it is in.
pub(super) const JOURNAL: &str = "journal.db";

/// What a journal costs that can't be read.
pub(super) const NO_START: &str = "no coordinator can start on this folder";

/// Entries that are read at once.
const PAGE: usize = 64;

/// What a journal has.
#[derive(Default)]
pub(super) struct Contents {
    pub coordinator: Option<CoordinatorFact>,
    pub alive: Option<Timestamp>,
    pub workers: Vec<(WorkerId, WorkerFact)>,
    pub jobs: Vec<JobContents>,
    /// What can't be decoded.
    pub problems: Vec<StateProblem>,
}

/// What a journal has of a job.
pub(super) struct JobContents {
    pub id: JobId,
    pub fact: Option<JobFact>,
    pub machine: Option<RoundMachine>,
    pub versions: BTreeMap<ModelVersion, PublishedVersion>,
}

impl JobContents {
    /// The version of its model that it goes on with.
    pub fn latest(&self) -> ModelVersion {
        let machine = self.machine.as_ref();
        machine
            .map(|machine| machine.status().version)
            .unwrap_or_default()
    }

    /// The accepted reports of its open round.
    pub fn reports(&self) -> Vec<SpoolKey> {
        let mut keys = Vec::new();
        if let Some(machine) = &self.machine
            && let Some(round) = machine.round_under_way()
        {
            for (client, upload, _) in machine.accepted() {
                let job = self.id;
                keys.push(SpoolKey {
                    job,
                    round,
                    client,
                    upload,
                });
            }
        }
        keys
    }

    pub fn has_ended(&self) -> bool {
        self.fact
            .as_ref()
            .is_some_and(|fact| fact.stage == Stage::Ended)
    }
}

impl Contents {
    /// Whether a report of this job, round and client may still come.
    pub fn awaits(&self, key: SpoolKey) -> bool {
        let job = self.jobs.iter().find(|job| job.id == key.job);
        let machine = job.and_then(|job| job.machine.as_ref());
        machine.is_some_and(|machine| machine.awaits_report(key.round, key.client))
    }

    /// Reads all facts, machines and records: what says which files are needed. The logs of jobs are left out.
    pub fn read(journal: &dyn Journal) -> Result<Self, JournalError> {
        let mut contents = Self {
            alive: journal.noted_time(),
            ..Self::default()
        };
        contents.coordinator = contents.fact(journal, Stream::Coordinator, COORDINATOR)?;
        for (name, bytes) in journal.facts(Stream::Coordinator, WORKER)? {
            let number = name.strip_prefix(WORKER).and_then(|name| name.parse().ok());
            match (number, parse(&name, &bytes)) {
                (Some(worker), Ok(kept)) => contents.workers.push((worker, kept)),
                (_, Err(problem)) => contents.damaged(problem),
                (None, _) => contents.damaged(format!("{name:?} is no worker")),
            }
        }
        contents.workers.sort_by_key(|(worker, _)| *worker);
        for (stream, _) in journal.streams()? {
            if let Stream::Job(id) = stream {
                let job = contents.job(journal, id)?;
                contents.jobs.push(job);
            }
        }
        Ok(contents)
    }

    fn job(&mut self, journal: &dyn Journal, id: JobId) -> Result<JobContents, JournalError> {
        let stream = Stream::Job(id);
        let kept: Option<JobFact> = self.fact(journal, stream, JOB)?;
        if kept.is_none() {
            self.damaged(format!("job {id} has no fact \"job\" that can be read"));
        }
        if let Some(kept) = &kept
            && from_hex::<32>(&kept.secret).is_none()
        {
            self.damaged(format!("job {id}: its seed"));
        }
        let layout = fact(journal, stream, LAYOUT)?.unwrap_or_default();
        if let Err(problem) = parse_layout(&layout) {
            self.damaged(format!("job {id}: {problem}"));
        }
        let data: Option<DataFact> = self.fact(journal, stream, DATA)?;
        let partitions = fact(journal, stream, PARTITIONS)?;
        if data.is_some() && partitions.is_some_and(|bytes| parse_partitions(&bytes).is_none()) {
            self.damaged(format!("job {id}: its partitions"));
        }
        let mut versions = BTreeMap::new();
        for (name, bytes) in journal.facts(stream, VERSION)? {
            let version = name
                .strip_prefix(VERSION)
                .and_then(|name| name.parse().ok());
            match (version, parse(&name, &bytes)) {
                (Some(version), Ok(published)) => {
                    versions.insert(ModelVersion(version), published);
                }
                (None, Ok(_)) => {}
                (_, Err(problem)) => self.damaged(format!("job {id}: {problem}")),
            }
        }
        // A machine that replays events that it never had may panic.
        let machine = match caught(|| Coordinator::recover_machine(journal, id)) {
            Ok(Ok(machine)) => machine,
            Ok(Err(error)) => {
                self.problems
                    .push(StateProblem::new(JOURNAL, error.to_string(), NO_START));
                None
            }
            Err(panic) => {
                self.damaged(format!("job {id}, its machine: {panic}"));
                None
            }
        };
        let (machine, is_upgraded) = machine.unzip();
        let is_upgraded = is_upgraded == Some(true);
        let job = JobContents {
            id,
            fact: kept,
            machine,
            versions,
        };
        let is_open = job
            .machine
            .as_ref()
            .is_some_and(|machine| machine.round_under_way().is_some());
        if is_upgraded && is_open {
            self.problems.push(StateProblem::new(
                JOURNAL,
                format!("the last records of job {id} were written by another version of fedavg"),
                "its open round starts over, unless that version goes on with it",
            ));
        }
        Ok(job)
    }

    /// Reads the log and the records of every job.
    pub fn read_logs(&mut self, journal: &dyn Journal) -> Result<(), JournalError> {
        let ids: Vec<_> = self.jobs.iter().map(|job| job.id).collect();
        for id in ids {
            self.read_log::<LoggedEvent>(journal, id, EVENTS)?;
            self.read_log::<RoundRecord>(journal, id, ROUNDS)?;
        }
        Ok(())
    }

    fn read_log<T: DeserializeOwned>(
        &mut self,
        journal: &dyn Journal,
        id: JobId,
        log: &str,
    ) -> Result<(), JournalError> {
        let mut after = 0;
        loop {
            let page = journal.entries(Stream::Job(id), log, after, PAGE)?;
            for (number, body) in &page {
                after = *number;
                if let Err(error) = serde_json::from_slice::<T>(body) {
                    self.problems.push(StateProblem::new(
                        JOURNAL,
                        format!("entry {number} of the {log} of job {id}: {error}"),
                        format!("the {log} of job {id} can't be read to their end"),
                    ));
                }
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// A fact, if it is there and can be decoded.
    fn fact<T: DeserializeOwned>(
        &mut self,
        journal: &dyn Journal,
        stream: Stream,
        name: &str,
    ) -> Result<Option<T>, JournalError> {
        let Some(bytes) = fact(journal, stream, name)? else {
            return Ok(None);
        };
        match parse(name, &bytes) {
            Ok(value) => Ok(Some(value)),
            Err(problem) => {
                let of = match stream {
                    Stream::Coordinator => String::new(),
                    Stream::Job(id) => format!("job {id}: "),
                };
                self.damaged(format!("{of}{problem}"));
                Ok(None)
            }
        }
    }

    /// Something without which no recovery succeeds.
    fn damaged(&mut self, problem: String) {
        self.problems
            .push(StateProblem::new(JOURNAL, problem, NO_START));
    }
}
