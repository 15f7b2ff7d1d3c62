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
    /// The dot product of each pair, in f64.
    products: Vec<f64>,
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
        Ok(Self { count, products })
    }

    /// Number of reports.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The squared distance of two reports, counted from 0 in client order.
    pub fn squared(&self, a: usize, b: usize) -> f64 {
        // Of these two reports' own products: the distances of honest reports are right beside an attacker's of any size.
        let own = self.product(a, a) + self.product(b, b);
        // Rounding can leave a little less than nothing.
        (own - 2.0 * self.product(a, b)).max(0.0)
    }

    fn product(&self, a: usize, b: usize) -> f64 {
        self.products[pair(a, b)]
    }

    /// The reports as seen from one of them, for distances to sums that are near it.
    pub(super) fn around(&self, origin: usize) -> Around {
        let mut products = vec![0.0; self.products.len()];
        let to_itself = self.product(origin, origin);
        for a in 0..self.count {
            for b in 0..=a {
                // (x_a - x_o) (x_b - x_o). In this order, it is 0 to the bit if one of them is the origin.
                let product = self.product(a, b) - self.product(a, origin);
                products[pair(a, b)] = product - (self.product(b, origin) - to_itself);
            }
        }
        Around {
            count: self.count,
            products,
        }
    }
}

/// The products of all pairs of differences to one report.
pub(super) struct Around {
    count: usize,
    products: Vec<f64>,
}

impl Around {
    /// The distance of each report to the point that is their sum with these coefficients, which add up to 1. No value is read for
    /// it: |y_i|² - 2 Σ β_j y_i y_j + Σ β_j β_k y_j y_k, of differences `y` to the origin.
    ///
    /// A report that is far away has a small coefficient in a robust sum, and its terms are of the size of the others'. In the same
    /// sum over squared distances, its terms are as large as its distance, and honest distances of 1 are lost beside one of 1e16.
    pub fn to_sum(&self, coefficients: &[f64]) -> Vec<f64> {
        let mut with_sum = vec![0.0; self.count];
        let mut of_sum = 0.0;
        for (report, with_sum) in with_sum.iter_mut().enumerate() {
            for (other, coefficient) in coefficients.iter().enumerate() {
                *with_sum += coefficient * self.products[pair(report, other)];
            }
            of_sum += coefficients[report] * *with_sum;
        }
        let mut lengths = with_sum;
        for (report, length) in lengths.iter_mut().enumerate() {
            let squared = self.products[pair(report, report)] - 2.0 * *length + of_sum;
            *length = squared.max(0.0).sqrt();
        }
        lengths
    }
}
