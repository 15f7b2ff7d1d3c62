//! What an operator can set for training and for rounds. A job has them; strategies and the round machine use them.

mod augment;
mod error;
mod limits;
mod metric;
mod reach;
mod schedule;
mod stop;
mod training;

pub use augment::Augment;
#[cfg(feature = "http")]
pub(crate) use augment::AugmentSpelling;
pub use error::SettingError;
pub use limits::RoundLimits;
pub use metric::{Direction, EvalSplit, Metric};
pub use schedule::Schedule;
pub use stop::{BestSettings, EvaluationPlan, StopSettings};
pub(crate) use training::StrictTrainingSettings;
pub use training::{InnerState, Normalize, OptimizerKind, TrainingSettings};
