//! What a report says of itself and nobody can check, held to what the coordinator knows: how long the worker had the task, and how
//! many steps the task has. Nothing here refuses a report: a claim that can't be true counts as the most that can.

use super::{config::ClaimLimits, job::Job};
use crate::{
    ids::{ClientId, Timestamp, WorkerId},
    report::ReportMetadata,
    settings::TrainingSettings,
    words::amount,
};

/// What the coordinator knows of a client's task.
pub(super) struct KnownTask {
    /// Seconds from the moment at which the worker got it; none if a coordinator before this one handed it out. Its moment is not
    /// known, and an honest worker must not pay for the restart.
    wall: Option<f64>,
    training: TrainingSettings,
}

impl KnownTask {
    /// The task of this client, of which a worker offers a report now.
    pub fn of(job: &Job, client: ClientId, worker: WorkerId, now: Timestamp) -> Self {
        let handed_out = job.handed_out.get(&client);
        let to_this_worker = handed_out.filter(|(holder, _)| *holder == worker);
        let training = match &job.plan {
            Some(plan) => plan.training_of(client).clone(),
            None => job.training.clone(),
        };
        Self {
            // Both moments are cut to milliseconds.
            wall: to_this_worker.map(|(_, since)| now.since(*since).as_secs_f64() + 0.001),
            training,
        }
    }

    /// Holds a report to it. Returns what was said and does not count, in words.
    pub fn hold(&self, said: &mut ReportMetadata, limits: &ClaimLimits) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(wall) = self.wall {
            hold_to_time(wall, said, limits, &mut notes);
        }
        let most = self.training.steps(said.examples);
        if said.steps > most {
            notes.push(format!(
                "its {} steps are more than its task has: {most} count",
                amount(said.steps as f64)
            ));
            said.steps = most;
        }
        notes
    }
}

/// Holds the time and the energy of a report to the seconds that its worker had the task.
fn hold_to_time(
    wall: f64,
    said: &mut ReportMetadata,
    limits: &ClaimLimits,
    notes: &mut Vec<String>,
) {
    if let Some(seconds) = said.seconds
        && seconds > wall
    {
        notes.push(format!(
            "its training time of {} s is longer than it had the task: {wall:.3} s count",
            amount(seconds)
        ));
        said.seconds = Some(wall);
    }
    if let Some(joules) = said.energy_joules
        && joules > limits.watts * wall
    {
        notes.push(format!(
            "its energy of {} J is more than {} W for the {wall:.3} s that it had the task: it does not count",
            amount(joules),
            amount(limits.watts)
        ));
        said.energy_joules = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ModelVersion;

    fn held(said: &ReportMetadata) -> (ReportMetadata, Vec<String>) {
        let known = KnownTask {
            wall: Some(2.0),
            training: TrainingSettings::default(),
        };
        let mut held = said.clone();
        let notes = known.hold(&mut held, &ClaimLimits::default());
        (held, notes)
    }

    #[test]
    fn what_can_be_true_counts_as_it_is() {
        let mut said = ReportMetadata::new(ModelVersion(0), 100);
        (said.seconds, said.energy_joules, said.steps) = (Some(2.0), Some(20_000.0), 2);
        assert_eq!(held(&said), (said, Vec::new()));
    }

    #[test]
    fn the_time_of_a_task_that_an_earlier_process_handed_out_is_not_known() {
        let known = KnownTask {
            wall: None,
            training: TrainingSettings::default(),
        };
        let mut said = ReportMetadata::new(ModelVersion(0), 100);
        (said.seconds, said.energy_joules) = (Some(50.0), Some(1000.0));
        let before = said.clone();
        assert!(known.hold(&mut said, &ClaimLimits::default()).is_empty());
        assert_eq!(said, before);
    }

    #[test]
    fn what_can_not_be_true_counts_as_the_most_that_can() {
        let mut said = ReportMetadata::new(ModelVersion(0), 100);
        said.seconds = Some(1e300);
        said.energy_joules = Some(1e300);
        said.steps = 1_000_000_000_000;
        let (held, notes) = held(&said);
        assert_eq!(
            (held.seconds, held.energy_joules, held.steps),
            (Some(2.0), None, 2)
        );
        assert_eq!(
            notes,
            [
                "its training time of 1.000e300 s is longer than it had the task: 2.000 s count",
                "its energy of 1.000e300 J is more than 10000 W for the 2.000 s that it had the task: it does not count",
                "its 1.000e12 steps are more than its task has: 2 count",
            ]
        );
    }
}
