//! How far SGD takes a client: [`TrainingSettings::reach`].

use super::TrainingSettings;

impl TrainingSettings {
    /// How far `steps` equal gradients move the weights, as a multiple of the learning rate times the gradient: the norm `|a_i|` of
    /// FedNova (Wang et al. 2020, section 4). `n` steps of plain SGD: `n`. With momentum `p`: `(n - p (1 - p^n) / (1 - p)) / (1 - p)`, and with
    /// Nesterov's, `n` plus `p` times that.
    ///
    /// For `sgd` alone, with a momentum below 1 that starts from zero in each round.
    pub fn reach(&self, steps: u64) -> f64 {
        let (steps, p) = (steps as f64, self.momentum);
        if p == 0.0 {
            return steps;
        }
        let reach = (steps - p * (1.0 - p.powf(steps)) / (1.0 - p)) / (1.0 - p);
        if self.nesterov {
            steps + p * reach
        } else {
            reach
        }
    }

    /// Checks that [`TrainingSettings::reach`] is right for these settings.
    ///
    /// # Errors
    ///
    /// Which setting is wrong, and what to choose instead.
    pub fn check_reach(&self) -> Result<(), String> {
        if self.optimizer != super::OptimizerKind::Sgd {
            return Err(format!(
                "it needs training.optimizer \"sgd\", and not {:?}: it computes how far the steps of sgd move the weights",
                self.optimizer.name()
            ));
        }
        if self.momentum >= 1.0 {
            return Err(format!(
                "it needs a training.momentum below 1, not {}",
                self.momentum
            ));
        }
        if self.inner_state == super::InnerState::Keep && self.momentum > 0.0 {
            let problem = "the momentum must start from zero in each round: training.inner_state must be \"new\", or training.momentum 0";
            return Err(problem.to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reach_is_the_sum_of_equal_steps() {
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true), (0.5, false)] {
            let settings = TrainingSettings {
                momentum,
                nesterov,
                ..TrainingSettings::default()
            };
            let (mut velocity, mut way) = (0.0, 0.0);
            assert_eq!(settings.reach(0), 0.0);
            for step in 1..50 {
                velocity = momentum * velocity + 1.0;
                way += if nesterov {
                    1.0 + momentum * velocity
                } else {
                    velocity
                };
                assert!((settings.reach(step) - way).abs() < 1e-9, "{step}");
            }
        }
    }
}
