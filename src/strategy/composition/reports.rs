//! How many reports a composition's rounds can have, and how many its reducer needs.

use super::{Composition, RoundPlan, StrategyError};
use crate::{settings::RoundLimits, words::plural};

/// What a reducer needs of a job's rounds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReducerNeeds {
    /// How many clients a round asks.
    pub cohort: usize,
    /// The fewest reports that the reducer can take.
    pub fewest: usize,
    /// How many attackers it tolerates; none if it has no such number.
    pub faults: Option<usize>,
    /// Which parameter makes it need as many, such as `f = 4`, if any.
    pub because: Option<String>,
    /// What to change so that a round can do with one report less, such as `f = 3 at most`, if anything.
    pub remedy: Option<String>,
}

/// The reducers of this crate that need no report, and so go with samplers that may draw no client.
const WITHOUT_REPORTS: &str =
    "median, geometric_median, norm_clipping, centered_clipping or zeroing";

impl Composition {
    /// What the reducer needs; none if it is the mean, or the size of the cohorts is not known.
    pub fn reducer_needs(
        &self,
        limits: &RoundLimits,
        clients: Option<u32>,
    ) -> Option<ReducerNeeds> {
        if self.reducer.is_mean() {
            return None;
        }
        let cohort = self.cohort_size(limits, clients)?;
        Some(ReducerNeeds {
            cohort,
            fewest: self.reducer.fewest(cohort),
            faults: self.reducer.faults(cohort),
            because: self.reducer.because(cohort),
            remedy: self.reducer.remedy(cohort.saturating_sub(1)),
        })
    }

    /// How many clients a round asks at least, if that is known.
    fn cohort_size(&self, limits: &RoundLimits, clients: Option<u32>) -> Option<usize> {
        let goal = limits.goal.map(|goal| goal as usize);
        let quorum = limits.min_updates as usize;
        self.sampler.size(clients? as usize, goal, quorum)
    }

    /// Checks before the first round that rounds can have as many reports as the reducer needs.
    pub(super) fn check_reports(
        &self,
        limits: &RoundLimits,
        clients: Option<u32>,
    ) -> Result<(), String> {
        if self.reducer.is_mean() {
            return Ok(());
        }
        // A catalogue refuses this, too, and names the parts.
        if let Some(reason) = self.objective.needs_mean() {
            return Err(format!("its objective goes with the mean alone: {reason}"));
        }
        let size = self.cohort_size(limits, clients);
        // Without a known size, what a rule needs for any cohort.
        let cohort = size.unwrap_or(0);
        let fewest = self.reducer.fewest(cohort);
        if fewest > 0 && !self.sampler.is_sized() {
            return Err(format!(
                "the reducer needs at least {}, and the sampler may draw fewer clients: choose another sampler, or {WITHOUT_REPORTS} as the \
                 reducer",
                plural(fewest, "report")
            ));
        }
        if let Some(goal) = limits.goal
            && (goal as usize) < fewest
        {
            let limit = format!("limits.goal (--goal) is {goal}");
            let instead = format!("give a goal of at least {fewest}");
            return Err(self.too_few(cohort, goal as usize, &limit, &instead));
        }
        if let Some(clients) = clients {
            let asked = size.unwrap_or(clients as usize);
            self.check_cohort(cohort, asked, "a round asks")?;
        }
        let quorum = limits.min_updates;
        // One is what jobs have that do not say: such a round waits for as many as are needed.
        if quorum > 1 && (quorum as usize) < fewest {
            let limit = format!("limits.min_updates (--min-updates) is {quorum}");
            let instead = format!("leave it out, or give at least {fewest}");
            return Err(self.too_few(cohort, quorum as usize, &limit, &instead));
        }
        Ok(())
    }

    /// Has a round wait for as many reports as the reducer needs.
    pub(super) fn require_reports(&self, plan: &mut RoundPlan) -> Result<(), StrategyError> {
        let cohort = plan.cohort_size();
        let fewest = self.reducer.fewest(cohort);
        self.check_cohort(cohort, cohort, "the cohort has")
            .map_err(StrategyError::Plan)?;
        plan.quorum = plan.quorum.max(fewest);
        plan.goal = plan.goal.max(plan.quorum);
        let selected = self.reducer.selects(plan.quorum, cohort);
        if selected < plan.quorum {
            plan.least_folded = Some(selected.max(1));
        }
        Ok(())
    }

    /// Whether the reducer can take the reports of this many clients. `cohort` is what it depends on.
    fn check_cohort(&self, cohort: usize, clients: usize, verb: &str) -> Result<(), String> {
        let asked = format!("{verb} {}", plural(clients, "client"));
        if clients < self.reducer.fewest(cohort) {
            let fewest = plural(self.reducer.fewest(cohort), "client");
            let instead = format!("have at least {fewest} in a round");
            return Err(self.too_few(cohort, clients, &asked, &instead));
        }
        match self.reducer.most() {
            Some(most) if clients > most => Err(format!(
                "the reducer takes at most {most} reports, and {asked}: choose a smaller fraction"
            )),
            _ => Ok(()),
        }
    }

    /// What is too few, and what to do about it: another value of the reducer's parameter, or `instead`.
    fn too_few(&self, cohort: usize, reports: usize, limit: &str, instead: &str) -> String {
        let mut needed = plural(self.reducer.fewest(cohort), "report");
        if let Some(because) = self.reducer.because(cohort) {
            needed = format!("{needed} with {because}");
        }
        let mut remedy = instead.to_string();
        if let Some(parameter) = self.reducer.remedy(reports) {
            remedy = format!("set {parameter}, or {instead}");
        }
        format!("the reducer needs at least {needed}, and {limit}: {remedy}")
    }
}
