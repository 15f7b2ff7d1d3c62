//! Names of things, and time: the vocabulary that every other module shares.
//!
//! All are small copyable values with a plain text form, so that they can stand in a URL, a log line and a JSON
//! document alike. Nothing here draws randomness or reads a clock: a [`Timestamp`] is always handed in.

use std::{fmt, num::ParseIntError, ops::Add, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

/// A coordinator's identity: drawn at its first start, and kept with its state. "Job 1" of another coordinator is another job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct CoordinatorId(pub String);

impl fmt::Display for CoordinatorId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

id!(
    /// One training run, numbered by the coordinator from 1.
    JobId(u64)
);
id!(
    /// A participant identity of one job: one data holder with one partition, numbered from 0. The order of these
    /// numbers is the order in which reports are folded.
    ClientId(u32)
);
id!(
    /// A process that hosts clients, numbered by the coordinator in the order of registration, from 1.
    WorkerId(u64)
);
id!(
    /// One attempt at a round of a job, from 1. An abandoned round's number is not used again.
    RoundId(u64)
);
id!(
    /// Counts the global models of a job: 0 is the initial one, and every committed round adds one.
    ModelVersion(u64)
);

id!(
    /// One request to a job's round machine, numbered by its driver: what a reply is addressed to.
    RequestId(u64)
);

id!(
    /// A token of a coordinator, numbered from 1. The token itself is a secret, and this is what it is called by.
    TokenId(u64)
);

impl RoundId {
    /// The number of the attempt after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl ModelVersion {
    /// The version that the next commit publishes.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A moment, in milliseconds since an origin that the driver chooses and never moves. Real drivers count from the
/// Unix epoch at their start plus a monotonic clock; tests count from 0.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[cfg_attr(
    feature = "http",
    schema(description = "A moment, in milliseconds since the Unix epoch.")
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time from `earlier` to here; zero if `earlier` is in fact later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}
