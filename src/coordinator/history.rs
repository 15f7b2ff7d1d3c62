//! What happened in a job: its event log and the records of its rounds, each bounded in memory and complete in its file or in the journal.
//!
//! A record is appended once nothing more will be added to it. Until its version is evaluated it is open, and so are the rounds
//! after it; training waits while two versions wait for their evaluation, so that there are few of them. What is appended
//! never changes.

use std::{collections::VecDeque, io, mem::size_of, sync::Arc};

use tokio::runtime::Handle;

use super::facts::json;
use crate::{
    ids::{ClientId, JobId, ModelVersion, RoundId},
    protocol::{LoggedEvent, RoundRecord},
    round::{ClientEvaluation, Evaluation, Excluded, JobEvent, Outcome},
    settings::EvalSplit,
    store::{
        LogEntry, LogPage, LogPlace, WindowedLog,
        journal::{Body, Entry, Stream},
    },
    transport::Page,
};

/// The names of the two logs.
pub(super) const EVENTS: &str = "events";
pub(super) const ROUNDS: &str = "rounds";

/// The log and the records of one job.
pub(super) struct History {
    events: WindowedLog<LoggedEvent>,
    rounds: WindowedLog<RoundRecord>,
    /// The records of rounds whose version may still be measured, and of those after them.
    open: VecDeque<Arc<RoundRecord>>,
    /// With a journal: what it does not have yet.
    unwritten: Option<Vec<Entry>>,
}

/// Where a job's history is, and how much of it is in memory.
pub(super) struct HistoryPlace<'a> {
    pub job: JobId,
    /// Bytes of each of the two logs in memory, at most.
    pub window: usize,
    pub place: &'a LogPlace,
    pub runtime: &'a Handle,
}

/// What the journal has of a job that is recovered.
#[derive(Default)]
pub(super) struct Recorded {
    /// The number of the last event.
    pub last_event: u64,
    /// The last round to whose record nothing will be added.
    pub last_closed: RoundId,
    /// The records after it.
    pub open: Vec<RoundRecord>,
}

impl History {
    /// The history of a job: empty, or as it was recorded.
    pub fn new(place: HistoryPlace<'_>, recorded: Recorded) -> Self {
        let HistoryPlace {
            job,
            window,
            place,
            runtime,
        } = place;
        let is_journaled = matches!(place, LogPlace::Journal(_));
        let (event, round) = (recorded.last_event, recorded.last_closed.0);
        let stream = Stream::Job(job);
        let (places, runtimes) = (place.clone(), runtime.clone());
        Self {
            events: WindowedLog::after(event, window, places, stream, EVENTS, runtimes),
            rounds: WindowedLog::after(
                round,
                window,
                place.clone(),
                stream,
                ROUNDS,
                runtime.clone(),
            ),
            open: recorded.open.into_iter().map(Arc::new).collect(),
            unwritten: is_journaled.then(Vec::new),
        }
    }

    /// The log of events.
    pub fn events(&self) -> &WindowedLog<LoggedEvent> {
        &self.events
    }

    /// Something happened.
    pub fn add_event(&mut self, event: LoggedEvent) {
        let event = Arc::new(event);
        self.events.append(event.clone());
        self.write(EVENTS, event);
    }

    /// What the journal does not have yet.
    pub fn take_unwritten(&mut self) -> Vec<Entry> {
        self.unwritten
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// The events up to this number are durable, and all records that were closed before.
    pub fn settler(&self, event: u64) -> impl FnOnce() + Send + 'static {
        let (events, rounds) = (self.events.clone(), self.rounds.clone());
        let round = rounds.last();
        move || {
            events.settle(event);
            rounds.settle(round);
        }
    }

    fn write<T: LogEntry>(&mut self, log: &'static str, entry: Arc<T>) {
        if let Some(unwritten) = &mut self.unwritten {
            unwritten.push(Entry {
                log,
                number: entry.number(),
                // On the journal's thread: the record of a round with ten thousand clients is long.
                body: Body::Later(Box::new(move || json(&*entry))),
            });
        }
    }

    /// A round has ended.
    pub fn add_round(&mut self, record: RoundRecord) {
        let record = Arc::new(record);
        // At once, so that it is not lost with the process if it is open for long; once more when it is evaluated.
        self.write(ROUNDS, record.clone());
        self.open.push_back(record);
    }

    /// A version was evaluated. If its record is closed, as that of the best version at the job's end is, the log and the job's
    /// summary alone have it.
    pub fn note_evaluation(
        &mut self,
        version: ModelVersion,
        split: EvalSplit,
        evaluation: &Evaluation,
        by_client: &[ClientEvaluation],
    ) {
        let mut evaluated = None;
        for record in &mut self.open {
            if record.version == Some(version) {
                // Copies the record only if a reader or the journal holds it at this moment.
                let changed = Arc::make_mut(record);
                changed.set_evaluation(split, evaluation, by_client);
                evaluated = Some(record.clone());
            }
        }
        if let Some(record) = evaluated {
            self.write(ROUNDS, record);
        }
    }

    /// Nothing will be added to any record any more.
    pub fn close(&mut self) {
        for record in self.open.drain(..) {
            self.rounds.append(record);
        }
    }

    /// Versions are evaluated in order: nothing will be added to the records of those before this one, and to none without it.
    pub fn close_before(&mut self, first_unevaluated: Option<ModelVersion>) {
        while let Some(record) = self.open.front() {
            if let (Some(made), Some(first)) = (record.version, first_unevaluated)
                && made >= first
            {
                break;
            }
            if let Some(record) = self.open.pop_front() {
                self.rounds.append(record);
            }
        }
    }

    /// The records as they are at this moment, to be read without the coordinator's lock.
    pub fn records(&self) -> Records {
        Records {
            closed: self.rounds.clone(),
            open: self.open.iter().cloned().collect(),
        }
    }
}

/// A job's records as they were when it was asked for, and those that were closed since.
pub(super) struct Records {
    closed: WindowedLog<RoundRecord>,
    open: Vec<Arc<RoundRecord>>,
}

impl Records {
    /// At most this many of the records of rounds after this one.
    pub async fn page(
        &self,
        after: RoundId,
        limit: usize,
    ) -> io::Result<Page<RoundRecord, RoundId>> {
        let LogPage {
            mut entries,
            mut is_last,
        } = self.closed.page(after.0, limit).await?;
        if is_last {
            // Some of them may have been closed meanwhile, and are in the page already.
            let last = entries.last().map_or(after, |record| record.round);
            let first = self.open.partition_point(|record| record.round <= last);
            let room = limit.saturating_sub(entries.len());
            is_last = self.open.len() - first <= room;
            entries.extend(self.open[first..].iter().take(room).cloned());
        }
        let mut records = Vec::with_capacity(entries.len());
        for record in entries {
            records.push(Arc::unwrap_or_clone(record));
        }
        let last = records.last().map_or(after, |record| record.round);
        Ok(Page::new(records, (!is_last).then_some(last)))
    }
}

impl LogEntry for LoggedEvent {
    fn number(&self) -> u64 {
        self.sequence
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + beside(&self.event)
    }
}

/// Bytes of an event that are not in the value itself.
fn beside(event: &JobEvent) -> usize {
    match event {
        JobEvent::Waiting { reason } | JobEvent::ClientFailed { reason, .. } => reason.len(),
        JobEvent::Diverges { reason }
        | JobEvent::Ended(Outcome::Failed { reason } | Outcome::Stopped { reason, .. }) => {
            reason.len()
        }
        JobEvent::WorkerPassedOver { lacks, .. } => lacks.len(),
        JobEvent::WorkerReturned { name, .. } => name.len(),
        JobEvent::Dealt { examples, .. } => size_of::<u64>() * examples.len(),
        JobEvent::RoundStarted { cohort, .. } => clients(cohort),
        JobEvent::ReportRefused { refusal, .. } => refusal.detail.len(),
        JobEvent::RoundCommitted {
            accepted,
            folded,
            excluded,
            metrics,
            ..
        } => clients(accepted) + clients(folded) + left_out(excluded) + measured(metrics.keys()),
        JobEvent::RoundAbandoned {
            accepted,
            excluded,
            metrics,
            reason,
            ..
        } => clients(accepted) + left_out(excluded) + measured(metrics.keys()) + reason.len(),
        JobEvent::Evaluated {
            evaluation,
            reason,
            by_client,
            ..
        } => {
            let metrics = evaluation.iter().flat_map(|found| found.metrics.keys());
            let reason = reason.as_ref().map_or(0, String::len);
            measured(metrics) + reason + evaluated(by_client)
        }
        JobEvent::Started { .. }
        | JobEvent::Recovered { .. }
        | JobEvent::Paused
        | JobEvent::Unpaused
        | JobEvent::Leased { .. }
        | JobEvent::DataResized { .. }
        | JobEvent::TaskIssued { .. }
        | JobEvent::ReportAccepted { .. }
        | JobEvent::Ended(Outcome::Completed | Outcome::Cancelled) => 0,
    }
}

impl LogEntry for RoundRecord {
    fn number(&self) -> u64 {
        self.round.0
    }

    fn bytes(&self) -> usize {
        let mut bytes = size_of::<Self>();
        bytes += self.abandoned.as_ref().map_or(0, String::len);
        bytes += clients(&self.accepted) + clients(&self.folded) + clients(&self.state_lost);
        bytes += left_out(&self.excluded) + left_out(&self.not_counted);
        for metrics in [
            &self.test_metrics,
            &self.validation_metrics,
            &self.metrics,
            &self.client_metrics,
        ] {
            bytes += measured(metrics.keys());
        }
        bytes += evaluated(&self.test_by_client) + evaluated(&self.validation_by_client);
        for client in &self.by_client {
            bytes += size_of_val(client) + measured(client.metrics.keys());
        }
        for part in &self.contributions {
            bytes += size_of_val(part) + part.name.len() + clients(&part.clients);
            bytes += part.device.as_ref().map_or(0, String::len);
        }
        bytes
    }
}

fn evaluated(clients: &[ClientEvaluation]) -> usize {
    let mut bytes = size_of_val(clients);
    for client in clients {
        bytes += measured(client.evaluation.metrics.keys());
    }
    bytes
}

fn left_out(excluded: &[Excluded]) -> usize {
    let mut bytes = size_of_val(excluded);
    for excluded in excluded {
        bytes += excluded.reason.len();
    }
    bytes
}

fn clients(clients: &[ClientId]) -> usize {
    size_of_val(clients)
}

/// Bytes of a map from these names to numbers.
fn measured<'a>(names: impl Iterator<Item = &'a String>) -> usize {
    let mut bytes = 0;
    for name in names {
        bytes += size_of::<(String, f64)>() + name.len();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LogFiles;

    async fn rounds(records: &Records, limit: usize) -> Vec<(u64, Option<f64>)> {
        let mut found = Vec::new();
        let mut after = RoundId(0);
        loop {
            let page = records.page(after, limit).await.unwrap();
            for record in &page.entries {
                found.push((record.round.0, record.test_loss));
            }
            match page.next {
                Some(next) => after = next,
                None => return found,
            }
        }
    }

    #[tokio::test]
    async fn records_are_read_before_they_are_evaluated_and_none_comes_again() {
        let place = HistoryPlace {
            job: JobId(1),
            window: 0,
            place: &LogPlace::Files(LogFiles::temporary()),
            runtime: &Handle::current(),
        };
        let mut history = History::new(place, Recorded::default());
        for round in 1..=3 {
            history.add_round(RoundRecord::committed(RoundId(round), ModelVersion(round)));
        }
        history.add_round(RoundRecord::abandoned(RoundId(4), "no quorum"));
        let before = history.records();
        let open = [(1, None), (2, None), (3, None), (4, None)];
        for limit in [1, 3, 4, 100] {
            assert_eq!(rounds(&before, limit).await, open);
        }
        let evaluation = Evaluation::new(0.5, 10);
        history.note_evaluation(ModelVersion(2), EvalSplit::Test, &evaluation, &[]);
        history.close_before(Some(ModelVersion(3)));
        let evaluated = [(1, None), (2, Some(0.5)), (3, None), (4, None)];
        for limit in [1, 2, 3, 4, 100] {
            assert_eq!(rounds(&history.records(), limit).await, evaluated);
            // Asked for before two of them were closed, and read afterwards.
            assert_eq!(rounds(&before, limit).await, evaluated);
        }
        history.close_before(None);
        assert!(history.open.is_empty());
        assert_eq!(rounds(&history.records(), 100).await, evaluated);
    }
}
