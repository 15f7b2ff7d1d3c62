//! A job's progress: a bar on a terminal, lines elsewhere.

use std::{collections::BTreeSet, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

use super::{
    Screen,
    summary::divergence,
    values::{number, percent},
};
use crate::{
    ids::{RoundId, WorkerId},
    protocol::LoggedEvent,
    round::{JobEvent, Outcome},
    text::printable,
    words::{IF_IT_DIVERGES, plural, without_numbers},
};

/// The most characters of a line.
const LONGEST_LINE: usize = 2000;

/// The most different reasons that are remembered.
const MOST_REASONS: usize = 1000;

/// Follows a job's event log.
#[derive(Debug)]
pub struct JobProgress {
    screen: Screen,
    bar: Option<ProgressBar>,
    rounds: u32,
    round: OpenRound,
    measured: String,
    /// The reasons that were shown, without their numbers: eight clients that fail for one reason are one line.
    reasons: BTreeSet<String>,
    /// The training losses of the first and the last round, for a warning if they diverge.
    losses: Vec<f64>,
    /// The last test loss.
    test_loss: Option<f64>,
    warned: bool,
}

/// The round that collects reports.
#[derive(Debug, Default)]
struct OpenRound {
    number: RoundId,
    accepted: usize,
    goal: usize,
}

impl JobProgress {
    /// Progress of a job that is to commit this many rounds.
    pub fn new(screen: &Screen, rounds: u32) -> Self {
        let bar = screen.is_terminal().then(|| {
            let bar = screen.bar(rounds.into());
            let style =
                ProgressStyle::with_template("[{elapsed_precise}] {wide_bar} {pos}/{len}  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            // A round can take minutes without an event; the clock that goes on shows that the command lives.
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        let mut progress = Self::lines(screen, rounds);
        progress.bar = bar;
        progress
    }

    /// Progress in lines.
    pub(super) fn lines(screen: &Screen, rounds: u32) -> Self {
        Self {
            screen: screen.clone(),
            bar: None,
            rounds,
            round: OpenRound::default(),
            measured: String::new(),
            reasons: BTreeSet::new(),
            losses: Vec::new(),
            test_loss: None,
            warned: false,
        }
    }

    /// Takes the next entry of the log.
    pub fn show(&mut self, entry: &LoggedEvent) {
        match &entry.event {
            JobEvent::RoundStarted { round, goal, .. } => {
                self.round = OpenRound {
                    number: *round,
                    accepted: 0,
                    goal: *goal,
                };
            }
            JobEvent::ReportAccepted { .. } => self.round.accepted += 1,
            JobEvent::RoundCommitted {
                train_loss: Some(loss),
                ..
            } => {
                // The first stays to compare with; all losses of a long job would be megabytes.
                self.losses.truncate(1);
                self.losses.push(*loss);
            }
            JobEvent::Evaluated {
                split,
                evaluation: Some(evaluation),
                ..
            } => {
                self.test_loss = Some(evaluation.loss);
                self.measured = match evaluation.accuracy {
                    Some(accuracy) => format!(", {split} accuracy {}", percent(accuracy)),
                    None => format!(", {split} loss {}", number(evaluation.loss)),
                };
            }
            _ => {}
        }
        match &self.bar {
            Some(bar) => {
                // Versions, not rounds: an abandoned round is no progress.
                if let JobEvent::RoundCommitted { version, .. } = &entry.event {
                    bar.set_position(version.0);
                }
                bar.set_message(self.message());
                if is_unusual(&entry.event) {
                    self.note(&entry.event);
                }
            }
            None => self.note(&entry.event),
        }
        // After the line was made, or the first client's reason would count as shown before.
        if let JobEvent::ClientFailed { reason, .. } = &entry.event
            // Reasons come from other machines, and could be a new one each time. Beyond this many, each is shown.
            && self.reasons.len() < MOST_REASONS
        {
            self.reasons.insert(without_numbers(reason));
        }
        self.warn_of_divergence();
    }

    fn note(&self, event: &JobEvent) {
        if let Some(line) = self.line(event) {
            // Reasons and names are from other machines.
            self.screen.note(&printable(&line, LONGEST_LINE));
        }
    }

    fn warn_of_divergence(&mut self) {
        if !self.warned
            && let Some(warning) =
                divergence(self.losses.iter().copied(), self.test_loss.into_iter())
        {
            self.warned = true;
            self.screen.note(&format!("warning: {warning}"));
        }
    }

    fn message(&self) -> String {
        match self.round.goal {
            0 => "waiting".to_string(),
            goal => format!(
                "round {}: {} of {}{}",
                self.round.number,
                self.round.accepted,
                plural(goal, "report"),
                self.measured
            ),
        }
    }

    /// An event in words, if it is worth a line.
    pub(super) fn line(&self, event: &JobEvent) -> Option<String> {
        Some(match event {
            JobEvent::Waiting { reason } => reason.clone(),
            JobEvent::WorkerPassedOver { worker, lacks } => {
                format!("worker {worker} gets no tasks: it lacks {lacks}")
            }
            JobEvent::WorkerReturned {
                worker,
                replaces,
                name,
            } => format!(
                "warning: worker {worker} takes the place of worker {replaces}, which was lost, under its name {name:?}"
            ),
            JobEvent::DataResized { client, examples } => {
                format!("client {client} now has {}", plural(examples, "example"))
            }
            JobEvent::Paused => {
                "paused: the open round goes on, and none begins after it".to_string()
            }
            JobEvent::Unpaused => "rounds begin again".to_string(),
            JobEvent::Recovered { downtime_ms } => format!(
                "the coordinator is back after {} s, and the job goes on",
                downtime_ms / 1000
            ),
            JobEvent::Started { clients } => format!("started with {}", plural(clients, "client")),
            JobEvent::Dealt { round, examples } => format!(
                "before round {round}: the data was dealt again, {} to {} examples a client",
                examples.iter().min().copied().unwrap_or_default(),
                examples.iter().max().copied().unwrap_or_default()
            ),
            JobEvent::Leased {
                client,
                from: Some(from),
                to,
            } => format!(
                "client {client} moved from worker {from} to {}",
                holder(*to)
            ),
            JobEvent::ReportRefused {
                round,
                client,
                worker,
                refusal,
            } => format!(
                "round {round}: report of client {client} by worker {worker} refused: {refusal}"
            ),
            // The end of the round says how many clients a reason is of.
            JobEvent::ClientFailed { reason, .. }
                if self.reasons.contains(&without_numbers(reason)) =>
            {
                return None;
            }
            JobEvent::ClientFailed {
                round,
                client,
                worker: Some(worker),
                reason,
            } => format!("round {round}: client {client} (worker {worker}) failed: {reason}"),
            JobEvent::ClientFailed {
                round,
                client,
                worker: None,
                reason,
            } => format!("round {round}: client {client} failed: {reason}"),
            JobEvent::RoundCommitted {
                round,
                version,
                folded,
                excluded,
                train_loss,
                ..
            } => {
                let loss = train_loss.map_or(String::new(), |loss| {
                    format!(", train loss {}", number(loss))
                });
                let left_out = if excluded.is_empty() {
                    String::new()
                } else {
                    format!(" ({} excluded)", excluded.len())
                };
                format!(
                    "round {round}: version {version} of {} from {}{left_out}{loss}",
                    self.rounds,
                    plural(folded.len(), "client")
                )
            }
            JobEvent::RoundAbandoned { round, reason, .. } => {
                format!("round {round} abandoned: {reason}")
            }
            JobEvent::Evaluated {
                version,
                split,
                evaluation: Some(evaluation),
                ..
            } => {
                let mut line = format!(
                    "version {version}: {split} loss {}",
                    number(evaluation.loss)
                );
                if let Some(accuracy) = evaluation.accuracy {
                    line.push_str(&format!(", {split} accuracy {}", percent(accuracy)));
                }
                for (name, value) in &evaluation.metrics {
                    line.push_str(&format!(", {name} {}", number(*value)));
                }
                line
            }
            JobEvent::Evaluated {
                version,
                split,
                reason,
                ..
            } => format!(
                "version {version} is not evaluated on the {split} split: {}",
                reason.as_deref().unwrap_or("no reason was given")
            ),
            // How a job failed is said once: by the command, as its last line.
            JobEvent::Diverges { reason } => {
                format!("training diverges: {reason}; {IF_IT_DIVERGES}")
            }
            JobEvent::Ended(Outcome::Completed) => "completed".to_string(),
            _ => return None,
        })
    }
}

impl Drop for JobProgress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            // Or it would stay on the screen, above the table of results.
            bar.finish_and_clear();
        }
    }
}

/// How a job ended, in words.
pub(super) fn ended(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Completed => "completed".to_string(),
        Outcome::Stopped { reason, .. } => format!("stopped: {reason}"),
        Outcome::Failed { reason } => format!("failed: {reason}"),
        Outcome::Cancelled => "cancelled".to_string(),
    }
}

fn holder(worker: Option<WorkerId>) -> String {
    worker.map_or("nobody".to_string(), |worker| format!("worker {worker}"))
}

/// Whether an event is worth a line even if there is a bar.
fn is_unusual(event: &JobEvent) -> bool {
    // What is usual is listed, so that a new kind of event is shown.
    !matches!(
        event,
        JobEvent::Started { .. }
            | JobEvent::RoundCommitted { .. }
            | JobEvent::Evaluated {
                evaluation: Some(_),
                ..
            }
            | JobEvent::Ended(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{ClientId, ModelVersion, Timestamp},
        round::{Evaluation, Excluded},
        settings::EvalSplit,
    };

    fn line(event: JobEvent) -> Option<String> {
        JobProgress::lines(&Screen::new(), 20).line(&event)
    }

    #[test]
    fn a_reason_that_many_clients_have_is_shown_once() {
        let failed = |client, reason: &str| LoggedEvent {
            sequence: 1,
            time: Timestamp(0),
            event: JobEvent::ClientFailed {
                round: RoundId(1),
                client: ClientId(client),
                worker: None,
                reason: reason.to_string(),
            },
        };
        let mut progress = JobProgress::lines(&Screen::new(), 20);
        let mut shown = Vec::new();
        for entry in [
            failed(0, "the loss is NaN"),
            failed(1, "the loss is NaN"),
            failed(2, "no data"),
        ] {
            shown.extend(progress.line(&entry.event));
            progress.show(&entry);
        }
        assert_eq!(
            shown,
            [
                "round 1: client 0 failed: the loss is NaN",
                "round 1: client 2 failed: no data"
            ]
        );
    }

    #[test]
    fn what_matters_is_said_and_what_is_usual_is_not() {
        let moved = JobEvent::Leased {
            client: ClientId(3),
            from: Some(WorkerId(1)),
            to: Some(WorkerId(2)),
        };
        assert_eq!(
            line(moved).unwrap(),
            "client 3 moved from worker 1 to worker 2"
        );
        let committed = |excluded| JobEvent::RoundCommitted {
            round: RoundId(4),
            version: ModelVersion(3),
            accepted: vec![ClientId(0), ClientId(1)],
            folded: vec![ClientId(0)],
            excluded,
            train_loss: Some(0.5),
            metrics: Default::default(),
        };
        assert_eq!(
            line(committed(Vec::new())).unwrap(),
            "round 4: version 3 of 20 from 1 client, train loss 0.5000"
        );
        let far = Excluded {
            client: ClientId(1),
            reason: "too far".to_string(),
        };
        assert_eq!(
            line(committed(vec![far])).unwrap(),
            "round 4: version 3 of 20 from 1 client (1 excluded), train loss 0.5000"
        );
        let evaluated = |evaluation| JobEvent::Evaluated {
            version: ModelVersion(3),
            split: EvalSplit::Test,
            evaluation: Some(evaluation),
            reason: None,
            by_client: Vec::new(),
        };
        let regression = Evaluation::new(0.25, 10).with_metric("mae", 2.0);
        assert_eq!(
            line(evaluated(regression)).unwrap(),
            "version 3: test loss 0.2500, mae 2.0000"
        );
        let classifier = Evaluation::new(0.25, 10).with_accuracy(0.5);
        assert_eq!(
            line(evaluated(classifier)).unwrap(),
            "version 3: test loss 0.2500, test accuracy 50.00 %"
        );
        let first = JobEvent::Leased {
            client: ClientId(3),
            from: None,
            to: Some(WorkerId(2)),
        };
        assert_eq!(line(first), None);
    }
}
