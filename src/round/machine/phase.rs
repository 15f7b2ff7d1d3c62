//! The phases of a job. Nothing here moves from one to the next.

use serde::{Deserialize, Serialize};

use crate::{ids::Timestamp, round::Outcome, strategy::Aggregation};

/// The picture in [`super`] shows which phase follows which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Phase {
    /// Until there are enough workers to begin with.
    Waiting { deadline: Timestamp },
    /// Until the driver has fixed the clients and dealt the data.
    Preparing,
    /// Until there are enough clients for a round.
    Gathering { deadline: Timestamp },
    /// Between rounds: the driver says whether the data is dealt again.
    Dealing,
    /// Between rounds: until the operator lets them go on.
    Paused,
    /// Between rounds: until fewer versions wait to be evaluated. Without this bound, rounds that are faster than the
    /// evaluation would keep ever more models.
    CatchingUp,
    /// Until the strategy has planned the round.
    Planning,
    /// Until no more reports are waited for.
    Collecting,
    /// Until the strategy has folded the accepted reports.
    Aggregating,
    /// Until the new version is stored and served.
    Publishing {
        /// What was folded, and checked.
        aggregation: Aggregation,
        /// Joules that it cost.
        #[serde(default)]
        joules: f64,
    },
    /// No further round begins; versions are still being evaluated.
    Finishing,
    /// Nothing follows but answers to requests.
    Ended(Outcome),
}
