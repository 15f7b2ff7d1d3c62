//! Each client independently of the others.

use rand::RngExt;

use super::{Cohort, Sampler};
use crate::{
    rng::Purpose,
    settings::RoundLimits,
    strategy::{RoundContext, StrategyError},
};

/// Chooses each client with the same probability, independently of all others, so that the size of the cohort is random. A round
/// may have no client at all: it commits without a report. Accounting for differential privacy needs this kind of sampling
/// (McMahan et al. 2018, "Learning Differentially Private Recurrent Language Models").
///
/// A round waits for its whole cohort, and at its deadline it commits with the reports that it has. So a job that sets a goal
/// (`--goal`) or a quorum above 1 (`--min-updates`) is refused.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Poisson {
    /// The probability, above 0 and at most 1.
    pub probability: f64,
    /// Whether to draw from the secret seed, which workers do not know, as privacy demands. Two runs of one job then draw other
    /// cohorts.
    pub secret: bool,
}

impl Poisson {
    /// With this probability, drawn from the job's seed.
    pub fn new(probability: f64) -> Self {
        Self {
            probability,
            secret: false,
        }
    }

    /// The same, drawn from the secret seed.
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}

impl Sampler for Poisson {
    fn is_sized(&self) -> bool {
        false
    }

    fn check(&self, limits: &RoundLimits) -> Result<(), String> {
        let waits = "sampler \"poisson\" waits for all clients that it draws, and commits a round with any number of reports";
        if limits.goal.is_some() {
            return Err(format!("{waits}: leave limits.goal out"));
        }
        // 1 is the default, and no job can say 0.
        if limits.min_updates > 1 {
            return Err(format!(
                "{waits}: limits.min_updates can't be {}, leave it out",
                limits.min_updates
            ));
        }
        Ok(())
    }

    fn sample(&self, round: &RoundContext<'_>) -> Result<Cohort, StrategyError> {
        let mut generator = if self.secret {
            round.secret_rng(Purpose::Cohort, 0)
        } else {
            round.rng(Purpose::Cohort, 0)
        };
        let mut clients = Vec::new();
        for client in round.clients {
            if generator.random_bool(self.probability) {
                clients.push(client.id);
            }
        }
        Ok(Cohort {
            goal: clients.len(),
            clients,
            quorum: 0,
        })
    }
}
