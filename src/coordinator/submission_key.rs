//! The key of a submission, as it is kept with its job.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    access::hex,
    parameters::Digest,
    transport::{Submission, SubmissionKey},
};

/// The key of a job's submission, and what was asked for under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SubmittedOnce {
    pub key: String,
    /// Of the specification as it came, and of the initial model's values.
    pub asked: String,
}

impl SubmittedOnce {
    pub fn new(key: &SubmissionKey, submission: &Submission) -> Self {
        let mut asked = Sha256::new();
        asked.update(serde_json::to_vec(&submission.spec).unwrap_or_default());
        if let Some(initial) = &submission.initial {
            let digest = Digest::of(bytemuck::cast_slice(initial.values()));
            asked.update(digest.to_string());
        }
        Self {
            key: key.to_string(),
            asked: hex(&asked.finalize()),
        }
    }
}
