//! The geometric median: Pillutla et al., "Robust Aggregation for Federated Learning", IEEE TSP 2022,
//! <https://arxiv.org/abs/1912.13445>, algorithm 2 (the smoothed Weiszfeld algorithm), with a start of its own.

use super::{Distances, Reducer, Reduction, krum::Neighbours, majority};
use crate::strategy::{AggregateContext, Counted, NextVersion, StrategyError};

/// The weighted mean whose weights are divided by each report's distance to it, again and again (RFA): what is far away counts
/// little. It holds as long as attackers have less than half of the weight, however long their reports are.
///
/// The paper starts at the weighted mean. An attacker can put that anywhere, and each iteration takes back a constant share of
/// the way only. So this one starts among the reports that have most of the weight close to them.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct GeometricMedian {
    /// How many times the weights are divided at most, at least 1. The paper has 3, since each is an exchange with the clients there;
    /// here, values are read once for any number.
    pub iterations: u32,
    /// It ends before if no report's share of the mean changes by more than this share of itself. 0: only if none changes at all.
    pub tolerance: f64,
    /// The least distance that a weight is divided by, above 0; in the units of updates.
    pub smoothing: f64,
}

impl Default for GeometricMedian {
    fn default() -> Self {
        Self {
            iterations: 100,
            tolerance: 1e-8,
            smoothing: 1e-6,
        }
    }
}

impl Reducer for GeometricMedian {
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
        let weights = counted.inputs.coefficients();
        if weights.is_empty() {
            return Ok(Reduction::mean(counted));
        }
        let distances = Distances::new(round, &counted.inputs)?;
        let start = Start::new(&distances, &weights);
        let points = distances.around(start.reports[0]);
        let mut coefficients = start.coefficients(&distances, &weights, self.smoothing);
        let mut done = 0;
        while done < self.iterations {
            round.check_cancelled()?;
            let lengths = points.to_sum(&coefficients);
            let mut next = weights.clone();
            for (coefficient, length) in next.iter_mut().zip(lengths) {
                *coefficient /= length.max(self.smoothing);
            }
            let next = shares(next);
            let change = largest_change(&coefficients, &next);
            coefficients = next;
            done += 1;
            if change <= self.tolerance {
                break;
            }
        }
        counted
            .metrics
            .insert("iterations".to_string(), f64::from(done));
        counted.inputs = counted.inputs.with_coefficients(coefficients);
        Ok(Reduction::mean(counted))
    }
}

/// Where it starts: the report with the smallest radius, which is the distance within which more than half of the weight is. If
/// attackers have less than half, some honest report is within that distance of it, and no sum with a huge distance is compared.
struct Start {
    /// The reports with the smallest radius, in client order: one, but for ties.
    reports: Vec<usize>,
    radius: f64,
}

impl Start {
    fn new(distances: &Distances, weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let mut start = Self {
            reports: Vec::new(),
            radius: f64::INFINITY,
        };
        for (report, others) in Neighbours::new(distances).each().enumerate() {
            let mut within = weights[report];
            let mut radius = 0.0;
            for (squared, other) in others {
                if within > total / 2.0 {
                    break;
                }
                within += weights[*other];
                radius = squared.sqrt();
            }
            if radius < start.radius {
                start.reports.clear();
                start.radius = radius;
            }
            if radius == start.radius {
                start.reports.push(report);
            }
        }
        start
    }

    /// The first mean: reports within the radius count whole, others less the farther away they are. All reports of a tie are
    /// taken, so that the result does not depend on the order of clients.
    fn coefficients(&self, distances: &Distances, weights: &[f64], smoothing: f64) -> Vec<f64> {
        let least = self.radius.max(smoothing);
        let mut coefficients = vec![0.0; weights.len()];
        for start in &self.reports {
            for (report, coefficient) in coefficients.iter_mut().enumerate() {
                let length = distances.squared(*start, report).sqrt();
                *coefficient += weights[report] / length.max(least);
            }
        }
        shares(coefficients)
    }
}

/// The largest change of a share, as a share of the new one.
fn largest_change(before: &[f64], after: &[f64]) -> f64 {
    let mut largest: f64 = 0.0;
    for (before, after) in before.iter().zip(after) {
        // A report without weight stays at 0.
        if before != after {
            largest = largest.max((after - before).abs() / after);
        }
    }
    largest
}

/// The same, adding up to 1.
pub(super) fn shares(weights: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut shares: Vec<f64> = weights.into_iter().collect();
    let total: f64 = shares.iter().sum();
    for share in &mut shares {
        *share /= total;
    }
    shares
}
