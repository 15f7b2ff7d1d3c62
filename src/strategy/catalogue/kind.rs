//! The kinds of parts that a strategy is composed of.

/// The parts of a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartKind {
    /// Who takes part.
    Sampler,
    /// How much each client trains.
    Work,
    /// Which reports are left out.
    Filter,
    /// How much each report counts.
    Weighting,
    /// What clients minimize.
    Objective,
    /// How reports become one update.
    Reducer,
    /// What moves the global model.
    Optimizer,
}

impl PartKind {
    /// All of them, in the order in which a round needs them.
    pub const ALL: [Self; 7] = [
        Self::Sampler,
        Self::Work,
        Self::Filter,
        Self::Weighting,
        Self::Objective,
        Self::Reducer,
        Self::Optimizer,
    ];

    /// The key in a job's `[strategy]` table that names a part of this kind.
    pub fn key(self) -> &'static str {
        match self {
            Self::Sampler => "sampler",
            Self::Work => "work",
            Self::Filter => "filter",
            Self::Weighting => "weighting",
            Self::Objective => "objective",
            Self::Reducer => "reducer",
            Self::Optimizer => "optimizer",
        }
    }

    pub(super) fn of_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.key() == key)
    }
}
