//! Centered clipping: Karimireddy et al., "Learning from History for Byzantine Robust Optimization", ICML 2021,
//! <https://arxiv.org/abs/2012.10333>, algorithm 2.

use super::{BlockReducer, Distances, Reducer, Reduction, geometric_median::shares, majority};
use crate::{
    parameters::Role,
    report::DELTA,
    strategy::{
        AggregateContext, Counted, NextVersion, Out, Rows, StateSpec, StateTensor, StrategyError,
    },
};

/// The last round's update, which is kept.
const CENTER: &str = "center";

/// Clips reports around the last round's update instead of around 0: an attacker moves the update by at most the radius times its
/// weight. Some times over: v += Σ share_i (x_i - v) min(1, radius / |x_i - v|).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct CenteredClipping {
    /// How far from the center a report counts whole, above 0; in the units of updates.
    pub radius: f64,
    /// How many times reports are clipped, at least 1. Values are read once for any number.
    pub iterations: u32,
}

impl CenteredClipping {
    /// With this radius, clipped once.
    pub fn new(radius: f64) -> Self {
        Self {
            radius,
            iterations: 1,
        }
    }
}

impl Reducer for CenteredClipping {
    fn state(&self) -> StateSpec {
        StateSpec::default().tensor(StateTensor::new(CENTER))
    }

    fn faults(&self, cohort: usize) -> Option<usize> {
        Some(majority::faults(cohort))
    }

    fn most(&self) -> Option<usize> {
        Some(Distances::MOST)
    }

    fn reduce(
        &self,
        round: &AggregateContext<'_>,
        mut counted: Counted,
        _: &mut NextVersion<'_>,
    ) -> Result<Reduction, StrategyError> {
        let distances = Distances::with_state(round, &counted.inputs, Some(CENTER))?;
        let weights = shares(counted.inputs.coefficients());
        let reports = weights.len();
        // The last update, which is the last row.
        let points = distances.around(reports);
        // The update as a sum of the reports and of the center, which is the last one.
        let mut coefficients = vec![0.0; reports];
        coefficients.push(1.0);
        let mut clipped = 0;
        for _ in 0..self.iterations {
            round.check_cancelled()?;
            let lengths = points.to_sum(&coefficients);
            clipped = 0;
            let mut moved = vec![0.0; reports];
            for (report, moved) in moved.iter_mut().enumerate() {
                let length = lengths[report];
                let factor = if length > self.radius {
                    clipped += 1;
                    self.radius / length
                } else {
                    1.0
                };
                *moved = weights[report] * factor;
            }
            let rest = 1.0 - moved.iter().sum::<f64>();
            for coefficient in &mut coefficients {
                *coefficient *= rest;
            }
            for (coefficient, moved) in coefficients.iter_mut().zip(moved) {
                *coefficient += moved;
            }
        }
        let center = coefficients.pop().unwrap_or_default();
        let metrics = [("radius", self.radius), ("clipped", f64::from(clipped))];
        for (name, value) in metrics {
            counted.metrics.insert(name.to_string(), value);
        }
        counted.inputs = counted.inputs.with_coefficients(coefficients).over(1.0);
        Ok(Reduction::by(counted, Center(center)))
    }
}

/// How much of the last update stays.
struct Center(f64);

impl BlockReducer for Center {
    fn reduce(&self, rows: &Rows<'_>, update: &mut [f64], out: &mut Out<'_>) {
        update.copy_from_slice(&rows.mean(DELTA));
        // Statistics have no center: the mean by the same coefficients.
        if rows.role() != Role::Trainable {
            return;
        }
        let center = rows.state(CENTER);
        for ((value, center), next) in update.iter_mut().zip(center).zip(out.state(CENTER)) {
            *value += self.0 * f64::from(*center);
            *next = *value as f32;
        }
    }
}
