//! A straggler that lies about its work.

use super::{Attack, AttackRound, Effort, Needs};
use crate::worker::{LocalUpdate, TrainError};

/// Takes `steps` optimizer steps, and claims `claim` times as many, on `claim` times as many
/// examples as it has trained on. It can't claim more examples than its client has: the coordinator knows their number, and refuses such
/// a report.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Lazy {
    /// How many steps it takes, at least 1.
    pub steps: u32,
    /// How many times as much it claims.
    pub claim: f64,
}

impl Lazy {
    /// With these steps and this claim.
    pub fn new(steps: u32, claim: f64) -> Self {
        Self { steps, claim }
    }
}

impl Attack for Lazy {
    fn needs(&self) -> Needs {
        Needs::default().with_effort(Effort::Steps(self.steps))
    }

    fn update(&self, update: &mut LocalUpdate, round: &AttackRound<'_>) -> Result<(), TrainError> {
        let partition = update.examples;
        let mut training = round.task.training.clone();
        training.local_steps = Some(self.steps);
        let trained = training.examples_trained(partition);
        // The conversions saturate.
        let claimed = (trained as f64 * self.claim) as u64;
        update.examples = claimed.clamp(1, partition.max(1));
        update.steps = (update.steps as f64 * self.claim) as u64;
        Ok(())
    }
}
