//! How long reports are.

use crate::{
    parameters::Role,
    report::DELTA,
    strategy::{AggregateContext, Inputs, StrategyError},
};

/// A measure of a report's length, over the trainable values of its delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Norm {
    /// The Euclidean norm.
    L2,
    /// The largest absolute value.
    Largest,
}

impl Norm {
    /// The length of each report that is read, in client order.
    ///
    /// # Errors
    ///
    /// As [`AggregateContext::scan`].
    pub fn of(
        self,
        round: &AggregateContext<'_>,
        inputs: &Inputs,
    ) -> Result<Vec<f64>, StrategyError> {
        let count = inputs.clients().len();
        match self {
            Self::L2 => {
                let mut norms = round.scan(inputs, count, &|rows, sums| {
                    if rows.role() == Role::Trainable {
                        rows.add_squares(DELTA, sums);
                    }
                })?;
                for norm in &mut norms {
                    *norm = norm.sqrt();
                }
                Ok(norms)
            }
            Self::Largest => round.scan_largest(inputs, count, &|rows, largest| {
                if rows.role() != Role::Trainable {
                    return;
                }
                rows.stretches(DELTA, |_, stretch| {
                    for (row, largest) in stretch.iter().zip(&mut *largest) {
                        *largest = largest.max(f64::from(largest_of(row)));
                    }
                });
            }),
        }
    }
}

fn largest_of(values: &[f32]) -> f32 {
    let mut largest = 0.0f32;
    for value in values {
        largest = largest.max(value.abs());
    }
    largest
}
