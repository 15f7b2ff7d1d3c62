//! Drawing without replacement, with a weight for each client.

use rand::RngExt;

use super::{Cohort, CohortSize};
use crate::{
    rng::Purpose,
    strategy::{RoundContext, StrategyError},
};

/// Draws one client after the other, each with a probability in proportion to its weight among those that are left. A client
/// whose weight is not above 0 is taken only if all others are.
///
/// By exponential keys: Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006.
pub(super) fn draw(
    round: &RoundContext<'_>,
    size: CohortSize,
    weights: &[f64],
) -> Result<Cohort, StrategyError> {
    let (goal, chosen) = size.of(round)?;
    let mut generator = round.rng(Purpose::Cohort, 0);
    let mut keys = Vec::with_capacity(weights.len());
    for (place, weight) in weights.iter().enumerate() {
        // Above 0 and at most 1, so that its logarithm is finite. Drawn for every client, whatever its weight: the draws of
        // the others do not depend on it.
        let uniform = 1.0 - generator.random::<f64>();
        let key = if *weight > 0.0 {
            -uniform.ln() / weight
        } else {
            f64::INFINITY
        };
        keys.push((key, place));
    }
    // The smallest keys; of equal ones the client with the lower number.
    keys.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let places = keys.into_iter().take(chosen).map(|(_, place)| place);
    Ok(Cohort::at(round, places.collect(), goal))
}
