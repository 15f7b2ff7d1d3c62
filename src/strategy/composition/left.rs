//! The reports of a round that the filter leaves, and what the record says of the others.

use std::collections::BTreeSet;

use super::{AggregateContext, Aggregation, Composition, StrategyError};
use crate::{report::Report, strategy::Filtered, words::plural};

/// The reports that are left; none is copied if all are.
pub(super) struct Left {
    reports: Option<Vec<Report>>,
    filtered: Filtered,
}

impl Composition {
    /// What the filter leaves of a round.
    pub(super) fn left(&self, round: &AggregateContext<'_>) -> Result<Left, StrategyError> {
        if self.filter.keeps_all() {
            return Ok(Left {
                reports: None,
                filtered: Filtered::default(),
            });
        }
        let filtered = self.filter.exclude(round)?;
        let mut out = BTreeSet::new();
        for (client, _) in &filtered.excluded {
            out.insert(*client);
        }
        let mut reports = Vec::with_capacity(round.reports().len());
        for report in round.reports() {
            if !out.contains(&report.client) {
                // The values are shared, not copied.
                reports.push(report.clone());
            }
        }
        let fewest = self.reducer.fewest(round.plan().cohort_size());
        if reports.len() < fewest && !out.is_empty() {
            return Err(StrategyError::Aggregate(format!(
                "the filter leaves {} of {}, and the reducer needs at least {fewest}; the first that is left out: {}",
                reports.len(),
                plural(round.reports().len() as u64, "report"),
                first_reason(&filtered)
            )));
        }
        Ok(Left {
            reports: Some(reports),
            filtered,
        })
    }
}

fn first_reason(filtered: &Filtered) -> String {
    match filtered.excluded.first() {
        Some((client, reason)) => format!("client {client}, {reason}"),
        None => String::new(),
    }
}

impl Left {
    /// The round with these reports alone.
    pub fn context<'a>(&'a self, round: &AggregateContext<'a>) -> AggregateContext<'a> {
        match &self.reports {
            Some(reports) => AggregateContext { reports, ..*round },
            None => *round,
        }
    }

    /// Has the aggregation account for what is not left.
    pub fn add_to(self, aggregation: &mut Aggregation) {
        aggregation.excluded.extend(self.filtered.excluded);
        aggregation.excluded.sort_by_key(|(client, _)| *client);
        aggregation.metrics.extend(self.filtered.metrics);
    }
}
