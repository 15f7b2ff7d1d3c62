//! Following a job's events to its end, through connections that break.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep};

use super::Client;
use crate::{
    cli::{Failure, Interrupt, JobProgress, Screen},
    ids::{CoordinatorId, JobId},
    protocol::LoggedEvent,
    round::{JobEvent, Outcome},
    transport::{Events, Operator, OperatorError},
};

/// The pauses between tries to connect again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Follows a job.
pub(super) struct Follower<'a> {
    pub client: &'a Client,
    pub job: JobId,
    /// Who the coordinator was when the job was looked up.
    pub coordinator: CoordinatorId,
    /// How long the coordinator may be out of reach.
    pub patience: Duration,
}

impl Follower<'_> {
    /// Hands each event to `show`, once and in order, until the job's end.
    pub async fn follow(
        &self,
        mut show: impl FnMut(&LoggedEvent) -> Result<(), Failure>,
    ) -> Result<Outcome, Failure> {
        let mut last = 0;
        let mut pauses = growing_pauses();
        let mut heard = Instant::now();
        loop {
            match self.events(last).await {
                Ok(mut events) => {
                    // An error ends the stream only: the next one goes on after the last entry that came.
                    while let Some(Ok(entry)) = events.next().await {
                        last = entry.sequence;
                        pauses = growing_pauses();
                        show(&entry)?;
                        if let JobEvent::Ended(outcome) = entry.event {
                            return Ok(outcome);
                        }
                    }
                    // The connection was there until now, also if nothing happened in the job for long.
                    heard = Instant::now();
                    // A log that can't be read to its end (the coordinator's disk is broken) never has the event that ends
                    // this loop; the job's summary has its end all the same. If that fails, the next try tells why.
                    if let Ok(Some(outcome)) = self.outcome().await {
                        return Ok(outcome);
                    }
                }
                Err(OperatorError::OtherCoordinator { .. }) => {
                    return Err(Failure::OtherCoordinator {
                        coordinator: self.client.address.clone(),
                        job: self.job,
                    });
                }
                Err(OperatorError::Transport(error))
                    if error.is_transient() && heard.elapsed() < self.patience =>
                {
                    tracing::warn!(%error, "the events broke off: trying again");
                }
                Err(error) => return Err(self.client.failure(error)),
            }
            // Also after a stream that ended without an error: something in between may end each at once.
            sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        }
    }

    /// The events after this one. Whether the coordinator is the same comes first: the address may have got another one since
    /// the last connection broke.
    async fn events(&self, after: u64) -> Result<Events, OperatorError> {
        let operator = &self.client.operator;
        operator.check_coordinator(&self.coordinator).await?;
        operator.events(&self.client.caller, self.job, after).await
    }

    /// How the job ended, if it has.
    async fn outcome(&self) -> Result<Option<Outcome>, OperatorError> {
        let operator = &self.client.operator;
        operator.check_coordinator(&self.coordinator).await?;
        let summary = operator.job(&self.client.caller, self.job).await?;
        Ok(summary.outcome)
    }

    /// Shows the job to its end, or until Ctrl-C: then it says that the job goes on.
    pub async fn until(
        &self,
        interrupt: Interrupt,
        screen: &Screen,
        rounds: u32,
        as_json: bool,
    ) -> Result<Outcome, Failure> {
        tokio::select! {
            outcome = self.show(screen, rounds, as_json) => outcome,
            () = interrupt.wait() => {
                let job = self.job;
                screen.note(&format!(
                    "job {job} goes on; \"fedavg watch {job}\" shows it, \"fedavg cancel {job}\" ends it"
                ));
                Err(Failure::Interrupted)
            }
        }
    }

    /// Hands each event to the screen, as [`Self::follow`] does: for people, or as JSON lines.
    async fn show(&self, screen: &Screen, rounds: u32, as_json: bool) -> Result<Outcome, Failure> {
        if as_json {
            return self.follow(|entry| screen.print_json(entry)).await;
        }
        let mut progress = JobProgress::new(screen, rounds);
        self.follow(|entry| {
            progress.show(entry);
            Ok(())
        })
        .await
    }
}

/// Pauses that grow, with jitter: many who watch do not all come back at the same moment.
fn growing_pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .without_max_times()
        .with_jitter()
        .build()
}
