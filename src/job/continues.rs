//! A job that goes on from another one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::ids::JobId;

/// Which job a job goes on from, and from which of its models.
///
/// From the final one, the job is what the other one would have been with more rounds, to the bit, as far as nothing else
/// differs: it has the other's state of the strategy, its numbers of rounds, and its clients' states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Continues {
    /// The other job, which has ended.
    pub job: JobId,
    /// Its final model or its best one. Default: the final one.
    #[serde(default)]
    pub version: ContinuedVersion,
}

/// A model of a job that has ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ContinuedVersion {
    /// The last one.
    #[default]
    Final,
    /// The best one, by the job's own metric. The strategy's state and the clients' begin again.
    Best,
}

impl fmt::Display for Continues {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            ContinuedVersion::Final => write!(formatter, "{}", self.job),
            ContinuedVersion::Best => write!(formatter, "{}:best", self.job),
        }
    }
}

impl FromStr for Continues {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (job, version) = text.split_once(':').unwrap_or((text, "final"));
        let version = match version {
            "final" => ContinuedVersion::Final,
            "best" => ContinuedVersion::Best,
            _ => return Err("must be a job's number, with or without :final or :best".to_string()),
        };
        let job = job
            .parse()
            .map_err(|_| "must begin with a job's number, such as 3 or 3:best".to_string())?;
        Ok(Self { job, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_value_are_inverses() {
        for (text, written) in [("3", "3"), ("3:final", "3"), ("7:best", "7:best")] {
            assert_eq!(text.parse::<Continues>().unwrap().to_string(), written);
        }
        for text in ["", "best", "3:", "3:worst", "-1"] {
            assert!(text.parse::<Continues>().is_err(), "{text}");
        }
    }
}
