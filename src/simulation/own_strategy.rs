//! A strategy of an embedder's own, and how a job comes to ask for it.

use crate::{
    coordinator::{StrategyFactory, strategy_factory},
    job::{JobSpec, Settings, StrategySpec},
    strategy::{FederatedStrategy, StrategyError},
};

/// The name under which the run's own strategy is registered. Results have the strategy's real name instead.
pub(super) const STRATEGY: &str = "simulation";

/// A strategy of an embedder's own.
pub(super) struct OwnStrategy {
    /// Its real name.
    pub name: String,
    pub factory: StrategyFactory,
}

impl OwnStrategy {
    /// Of a factory of this type, whose name it has.
    pub fn new<S: FederatedStrategy + 'static>(
        make: impl Fn(&JobSpec, &Settings) -> Result<S, StrategyError> + Send + Sync + 'static,
    ) -> Self {
        let path = std::any::type_name::<S>();
        // Without the path and the type's parameters: `median::Median<f32>` is `Median`.
        let path = path.split('<').next().unwrap_or(path);
        let name = path.rsplit("::").next().unwrap_or(path).to_string();
        let factory = strategy_factory(make);
        Self { name, factory }
    }

    /// The job as it was asked for, with the name of this strategy.
    pub fn named_in(&self, mut asked: JobSpec) -> JobSpec {
        // A job that names a custom strategy has a name that means something to its author, and settings.
        if !matches!(asked.strategy, StrategySpec::Custom { .. }) {
            asked.strategy = StrategySpec::Custom {
                name: self.name.clone(),
                settings: Settings::new(),
            };
        }
        asked
    }
}

/// Lets the job ask for the run's own strategy by the name under which it is registered.
pub(super) fn ask_for_own(spec: &mut JobSpec) {
    // The factory of a job's own strategy looks for its settings there.
    let settings = match &mut spec.strategy {
        StrategySpec::Custom { settings, .. } => std::mem::take(settings),
        StrategySpec::Composed { .. } => Settings::new(),
    };
    spec.strategy = StrategySpec::Custom {
        name: STRATEGY.to_string(),
        settings,
    };
}
