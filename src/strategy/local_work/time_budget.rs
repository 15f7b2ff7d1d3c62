//! As much as fits into a time.

use super::LocalWork;
use crate::{settings::TrainingSettings, strategy::ClientInfo};

/// Each client trains for about `seconds`, by the measured speed of its worker: at most as much as the job says, and at least one
/// step. So a slow worker does not hold up a round, and what it does counts. A client whose worker has not been measured yet trains
/// as much as the job says.
///
/// Clients with unequal work pull unequally: FedNova or FedProx take that into account. Speeds are measured, so two runs of one job
/// differ; a run that goes on after a restart does not, since a plan is journaled.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct TimeBudget {
    /// The time, above 0.
    pub seconds: f64,
}

impl TimeBudget {
    /// This time.
    pub fn new(seconds: f64) -> Self {
        Self { seconds }
    }
}

impl LocalWork for TimeBudget {
    fn training(
        &self,
        client: &ClientInfo,
        training: &TrainingSettings,
    ) -> Option<TrainingSettings> {
        let affordable = self.seconds * client.capacity?;
        let batch = f64::from(training.batch_size.max(1));
        let mut own = training.clone();
        if let Some(steps) = training.local_steps {
            // The conversion saturates: a very fast worker takes all steps.
            own.local_steps = Some(((affordable / batch) as u32).clamp(1, steps.max(1)));
        } else {
            let examples = client.examples.max(1) as f64;
            // No less than one batch, or all of a client that has fewer examples.
            let least = (batch / examples).min(1.0).min(training.local_epochs);
            own.local_epochs = (affordable / examples).clamp(least, training.local_epochs);
        }
        (own != *training).then_some(own)
    }

    fn uses_capacity(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientId;

    fn client(examples: u64, capacity: Option<f64>) -> ClientInfo {
        let mut client = ClientInfo::new(ClientId(0), examples);
        client.capacity = capacity;
        client
    }

    #[test]
    fn a_slow_client_trains_what_fits_and_a_fast_one_what_the_job_says() {
        let mut training = TrainingSettings {
            local_epochs: 2.0,
            batch_size: 10,
            ..TrainingSettings::default()
        };
        let budget = TimeBudget::new(3.0);
        let epochs = |examples, capacity| {
            let own = budget.training(&client(examples, capacity), &training);
            own.map(|own| own.local_epochs)
        };
        // 150 of 100 examples in three seconds.
        assert_eq!(epochs(100, Some(50.0)), Some(1.5));
        assert_eq!(epochs(100, Some(1000.0)), None);
        assert_eq!(epochs(100, None), None);
        assert_eq!(epochs(100, Some(1e-9)), Some(0.1));
        assert_eq!(epochs(5, Some(1e-9)), Some(1.0));
        training.local_steps = Some(40);
        let steps = |capacity| {
            let own = budget.training(&client(100, Some(capacity)), &training);
            own.map(|own| own.local_steps)
        };
        assert_eq!(steps(50.0), Some(Some(15)));
        assert_eq!(steps(1e-9), Some(Some(1)));
        assert_eq!(steps(1e30), None);
    }
}
