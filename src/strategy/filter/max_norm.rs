//! A bound of the reports' norms, as NormBounding of Sun et al., "Can You Really Backdoor Federated Learning?", 2019,
//! <https://arxiv.org/abs/1911.07963>, which scales long reports down; this leaves them out.

use super::{Filtered, ReportFilter};
use crate::{
    report::DELTA,
    statistics::median,
    strategy::{
        AggregateContext, Inputs, StrategyError,
        reducer::{Bound, Norm},
    },
    words::amount,
};

/// Leaves out reports whose Euclidean norm is above a bound: of the trainable values of `delta`. Statistics (BatchNorm's) and
/// further payloads, such as SCAFFOLD's control variates, are not measured. It costs one pass over the values.
///
/// A multiple of the median holds as long as fewer than half of the reports are an attacker's, and with three reports or more: of
/// two, the median is their mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaxNorm(Bound);

impl MaxNorm {
    /// With this bound.
    pub fn new(bound: Bound) -> Self {
        Self(bound)
    }
}

impl ReportFilter for MaxNorm {
    fn exclude(&self, round: &AggregateContext<'_>) -> Result<Filtered, StrategyError> {
        let clients = round.reports().iter().map(|report| report.client);
        let inputs = Inputs::new(DELTA, clients.map(|client| (client, 1.0)));
        let norms = Norm::L2.of(round, &inputs)?;
        let middle = median(&norms);
        let bound = match self.0 {
            Bound::Fixed(bound) => bound,
            Bound::OfMedian(factor) => factor * middle,
        };
        let mut filtered = Filtered::default();
        for (client, norm) in inputs.clients().zip(&norms) {
            if *norm <= bound {
                continue;
            }
            let above = match self.0 {
                Bound::Fixed(_) => amount(bound),
                Bound::OfMedian(factor) => {
                    format!("{factor} times the round's median of {}", amount(middle))
                }
            };
            let reason = format!("norm bound: its norm is {}, above {above}", amount(*norm));
            filtered.excluded.push((client, reason));
        }
        filtered.metrics.push(("max_norm".to_string(), bound));
        Ok(filtered)
    }
}
