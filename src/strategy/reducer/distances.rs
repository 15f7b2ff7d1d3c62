//! The distances between all reports of a round.

use crate::{
    parameters::Role,
    report::DELTA,
    strategy::{
        AggregateContext, Inputs, StrategyError,
        kernel::products::{pair, pairs},
    },
};

/// The squared Euclidean distance of each pair of reports, over the trainable values of their deltas: one pass over all values
/// for any number of reports, and 8 bytes for each pair.
#[derive(Debug, Clone, PartialEq)]
pub struct Distances {
    count: usize,
    squared: Vec<f64>,
}

impl Distances {
    /// The most reports whose distances are taken: 8 bytes for each of their two million pairs are 17 MB, and each thread has as many
    /// while it adds.
    pub const MOST: usize = 2048;

    /// Of the reports that are read, in client order.
    ///
    /// # Errors
    ///
    /// As [`AggregateContext::scan`]; [`StrategyError::Aggregate`] for more reports than [`Distances::MOST`].
    pub fn new(round: &AggregateContext<'_>, inputs: &Inputs) -> Result<Self, StrategyError> {
        Self::with_state(round, inputs, None)
    }

    /// The same with a tensor of the strategy's state as the last row.
    pub(super) fn with_state(
        round: &AggregateContext<'_>,
        inputs: &Inputs,
        state: Option<&str>,
    ) -> Result<Self, StrategyError> {
        let reports = inputs.clients().len();
        if reports > Self::MOST {
            let most = Self::MOST;
            let problem = format!("{reports} reports, and distances are taken of at most {most}");
            return Err(StrategyError::Aggregate(problem));
        }
        let count = reports + usize::from(state.is_some());
        let products = round.scan(inputs, pairs(count), &|rows, sums| {
            // Statistics are of other scales than weights, and would drown them.
            if rows.role() == Role::Trainable {
                rows.add_products(DELTA, state, sums);
            }
        })?;
        let mut squared = vec![0.0; products.len()];
        for a in 0..count {
            for b in 0..a {
                let distance =
                    products[pair(a, a)] + products[pair(b, b)] - 2.0 * products[pair(a, b)];
                // Rounding can leave a little less than nothing.
                squared[pair(a, b)] = distance.max(0.0);
            }
        }
        Ok(Self { count, squared })
    }

    /// Number of reports.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The squared distance of two reports, counted from 0 in client order.
    pub fn squared(&self, a: usize, b: usize) -> f64 {
        self.squared[pair(a, b)]
    }

    /// The distance of each report to the point that is their sum with these coefficients, which add up to 1. No value is
    /// read for it: Σ β_j |x_i - x_j|² - ½ Σ β_j β_k |x_j - x_k|².
    pub(super) fn to_sum(&self, coefficients: &[f64]) -> Vec<f64> {
        let mut to_each = vec![0.0; self.count];
        let mut spread = 0.0;
        for (report, sum) in to_each.iter_mut().enumerate() {
            for (other, coefficient) in coefficients.iter().enumerate() {
                *sum += coefficient * self.squared(report, other);
            }
            spread += coefficients[report] * *sum;
        }
        for sum in &mut to_each {
            *sum = (*sum - spread / 2.0).max(0.0).sqrt();
        }
        to_each
    }
}
