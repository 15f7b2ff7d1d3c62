//! How rounds end: they commit what the strategy folded, or they are abandoned.

use std::collections::BTreeMap;

use super::{Phase, RoundMachine};
use crate::{
    ids::{ClientId, ModelVersion, RoundId, Timestamp},
    round::{Command, Excluded, JobEvent, collection::Collection, failures},
    strategy::Aggregation,
    words::plural,
};

/// Closed rounds whose verdicts are remembered, so that a report that is sent again gets the same answer.
pub(in crate::round) const REMEMBERED_ROUNDS: usize = 8;

impl RoundMachine {
    /// Closes the round if there is nothing more to wait for.
    pub(super) fn check_collection(&mut self, now: Timestamp) {
        let Some(current) = &mut self.current else {
            return;
        };
        let (accepted, outstanding) = (current.accepted_count(), current.outstanding());
        let quorum = current.plan.quorum;
        let is_due = now >= current.deadline;
        // Without anybody who may still report, waiting for the deadline would only lose time.
        let is_full = accepted >= current.plan.goal || outstanding == 0;
        let is_hopeless = accepted + outstanding < quorum;
        if !is_due && !is_full && !is_hopeless {
            return;
        }
        current.close();
        // A quorum at the deadline is enough: stragglers must not cost the work of the others.
        if accepted >= quorum {
            return self.aggregate();
        }
        // In this order: a round in which every client has answered is hopeless, too, and the first reason says more.
        let why = if outstanding == 0 {
            "every client has answered or failed"
        } else if is_hopeless {
            "too many clients have failed"
        } else {
            "the deadline has passed"
        };
        let mut reason = format!("{why} (reports accepted: {accepted}, needed: {quorum})");
        if let Some(failures) = failures::describe(current.failures()) {
            reason = format!("{reason}; {failures}");
        }
        self.abandon(reason, now);
    }

    /// Has the strategy fold the accepted reports.
    pub(super) fn aggregate(&mut self) {
        let Some(current) = &self.current else {
            return;
        };
        self.phase = Phase::Aggregating;
        self.commands.push_back(Command::Aggregate {
            round: current.round,
            base: current.version,
            accepted: current.accepted(),
        });
    }

    pub(super) fn aggregated(
        &mut self,
        round: RoundId,
        aggregation: Result<Aggregation, String>,
        joules: f64,
        now: Timestamp,
    ) {
        // An answer of a driver that is late: the round was abandoned or the job cancelled while it folded.
        if self.phase != Phase::Aggregating || round != self.round {
            return;
        }
        let aggregation = match aggregation {
            Ok(aggregation) => aggregation,
            Err(reason) => return self.abandon(reason, now),
        };
        if let Some(current) = &self.current {
            // A strategy is foreign code. The clients that it names as folded get this round as their basis: a
            // wrong list would make workers go on from a client state that no version contains.
            if let Err(problem) = check(current, &aggregation) {
                let reason = format!("the strategy's aggregation is not valid: {problem}");
                return self.abandon(reason, now);
            }
            if let Err(reason) = check_quorum(current, &aggregation) {
                let said = Said::of(aggregation.excluded, aggregation.metrics);
                return self.abandon_with(reason, said, now);
            }
        }
        // The version moves only once it is stored: before that, no worker could fetch it.
        self.phase = Phase::Publishing {
            aggregation,
            joules,
        };
        self.commands.push_back(Command::Publish {
            round,
            version: self.version.next(),
        });
    }

    pub(super) fn published(
        &mut self,
        version: ModelVersion,
        published: Result<(), String>,
        now: Timestamp,
    ) {
        let Phase::Publishing {
            aggregation,
            joules,
        } = &mut self.phase
        else {
            return;
        };
        // An answer to an order of an earlier attempt.
        if version != self.version.next() {
            return;
        }
        if let Err(reason) = published {
            return self.abandon(reason, now);
        }
        // Out of the phase, which the next steps change.
        let (aggregation, joules) = (std::mem::take(aggregation), *joules);
        self.version = version;
        self.last_committed = self.round;
        // Attempts count per version: a job that makes progress goes on.
        self.abandoned = 0;
        let round = self.round;
        let folded = &aggregation.folded;
        // Before the round is closed: `close_current` moves it to the rounds that are only remembered.
        let train_loss = self
            .current
            .as_ref()
            .and_then(|current| current.train_loss(folded));
        let accepted = self.close_current();
        // Before the next round is planned: its plan and its tasks carry the basis, by which a worker chooses the
        // state of its client.
        for client in folded {
            // Those that were folded alone: the state of a client that was left out has not advanced.
            self.basis.insert(*client, round);
        }
        let Said { excluded, metrics } = Said::of(aggregation.excluded, aggregation.metrics);
        self.log(JobEvent::RoundCommitted {
            round,
            version,
            accepted,
            folded: aggregation.folded,
            excluded,
            train_loss,
            metrics,
        });
        self.progress
            .committed(&self.config.progress, (version, round), train_loss, joules);
        self.tell_of_divergence();
        // Before the next round begins, which may have to wait for it.
        self.queue_evaluation(version, round, now);
        self.begin_round(now);
    }

    /// Ends the current round without a new version.
    pub(super) fn abandon(&mut self, reason: String, now: Timestamp) {
        self.abandon_with(reason, Said::default(), now);
    }

    /// The same for a round whose aggregation said something before it failed.
    fn abandon_with(&mut self, reason: String, said: Said, now: Timestamp) {
        // First, also if the job then fails: the senders get their verdicts, and the spool gets its space back.
        let accepted = self.close_current();
        self.log(JobEvent::RoundAbandoned {
            round: self.round,
            accepted,
            excluded: said.excluded,
            metrics: said.metrics,
            reason: reason.clone(),
        });
        self.abandoned += 1;
        if self.abandoned >= self.config.limits.max_attempts {
            return self.fail(format!(
                "attempt {} of {} was abandoned: {reason}",
                self.abandoned, self.config.limits.max_attempts
            ));
        }
        self.begin_round(now);
    }

    /// Takes no more reports, orders the accepted ones to be discarded, and returns the clients that sent them.
    pub(super) fn close_current(&mut self) -> Vec<ClientId> {
        let Some(mut current) = self.current.take() else {
            return Vec::new();
        };
        current.close();
        // Here, since `end_unneeded_uploads` looks at the current round alone, and this one is not current any more.
        for upload in current.take_unneeded() {
            self.commands.push_back(Command::EndUpload { upload });
        }
        // Accepted reports are kept until here, since the fold may read them more than once.
        self.commands.push_back(Command::Discard {
            round: current.round,
        });
        let accepted = current.accepted();
        self.closed.push_back(current);
        if self.closed.len() > REMEMBERED_ROUNDS {
            // A report that is sent again comes within a few rounds. Without a bound, memory would grow with the
            // rounds.
            self.closed.pop_front();
        }
        accepted.into_iter().map(|(client, _)| client).collect()
    }
}

/// What an aggregation said of its reports, as the log has it.
#[derive(Default)]
struct Said {
    excluded: Vec<Excluded>,
    metrics: BTreeMap<String, f64>,
}

impl Said {
    fn of(left_out: Vec<(ClientId, String)>, mut metrics: BTreeMap<String, f64>) -> Self {
        // JSON has no other numbers: a log with one could not be read back.
        metrics.retain(|_, value| value.is_finite());
        let mut excluded = Vec::new();
        for (client, reason) in left_out {
            excluded.push(Excluded { client, reason });
        }
        Self { excluded, metrics }
    }
}

/// Checks that an aggregation accounts for each accepted report once.
fn check(round: &Collection, aggregation: &Aggregation) -> Result<(), String> {
    let folded = &aggregation.folded;
    let excluded: Vec<_> = aggregation
        .excluded
        .iter()
        .map(|(client, _)| *client)
        .collect();
    // The log promises both lists in rising order, and the look-ups below need it.
    if !folded.is_sorted() || !excluded.is_sorted() {
        return Err("its clients are not in rising order".to_string());
    }
    let mut named = folded.clone();
    named.extend(&excluded);
    // A strategy is an embedder's code: a client that is folded twice would count twice, and nothing would show it.
    named.sort_unstable();
    if let Some(pair) = named.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("it names client {} more than once", pair[0]));
    }
    let mut accepted = Vec::new();
    for (client, _) in round.accepted() {
        accepted.push(client);
    }
    if let Some(stranger) = named
        .iter()
        .find(|client| accepted.binary_search(client).is_err())
    {
        return Err(format!("no report of client {stranger} was accepted"));
    }
    if let Some(missing) = accepted
        .iter()
        .find(|client| named.binary_search(client).is_err())
    {
        return Err(format!(
            "it neither folds nor excludes client {missing}, whose report was accepted"
        ));
    }
    Ok(())
}

/// Checks that an aggregation folded enough reports: a strategy may exclude some, but not so many that the version rests on fewer
/// than the job demands.
fn check_quorum(round: &Collection, aggregation: &Aggregation) -> Result<(), String> {
    let folded = aggregation.folded.len();
    let least = round.plan.least_folded.unwrap_or(round.plan.quorum);
    if folded >= least {
        return Ok(());
    }
    let demanded = match round.plan.least_folded {
        Some(least) => format!("the reducer selects at least {least} of a quorum"),
        None => format!("the quorum is {least}"),
    };
    let accepted = round.accepted_count();
    let mut problem =
        format!("{folded} of {accepted} accepted reports were folded, and {demanded}");
    // The others are in the record.
    if let Some((client, reason)) = aggregation.excluded.first() {
        let count = plural(aggregation.excluded.len(), "report");
        problem = format!("{problem}; {count} excluded, the first is of client {client}: {reason}");
    }
    Err(problem)
}
