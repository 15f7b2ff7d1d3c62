//! A job on its way to a coordinator.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{job::JobSpec, parameters::Parameters};

/// The longest key of a submission, in bytes.
const LONGEST_KEY: usize = 128;

/// A job that is asked for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Submission {
    /// What is asked for.
    pub spec: JobSpec,
    /// The model that it starts from; without it, one that is drawn from the seed.
    pub initial: Option<Arc<Parameters>>,
    /// Makes it safe to submit again, after an answer that was lost: all submissions with one key are the same job.
    pub key: Option<SubmissionKey>,
}

impl Submission {
    /// A job that starts from a model that is drawn, and that is another job each time.
    pub fn new(spec: JobSpec) -> Self {
        Self {
            spec,
            initial: None,
            key: None,
        }
    }
}

/// What tells that two submissions are the same: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubmissionKey(String);

impl SubmissionKey {
    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SubmissionKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.is_empty() || text.len() > LONGEST_KEY || !is_visible {
            return Err(format!(
                "must have 1 to {LONGEST_KEY} visible characters of ASCII"
            ));
        }
        Ok(Self(text.to_string()))
    }
}

impl fmt::Display for SubmissionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
