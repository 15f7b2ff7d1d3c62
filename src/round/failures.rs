//! Why clients take no further part in a round, and how that is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ClientId, WorkerId},
    words::{plural, without_numbers},
};

/// Why a client takes no further part in a round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Failure {
    /// The worker that acted for it, if any.
    pub worker: Option<WorkerId>,
    /// In the client's own words, if it gave any.
    pub reason: String,
}

/// Failures with the same reason.
struct Alike<'a> {
    first: ClientId,
    failure: &'a Failure,
    count: usize,
}

/// Returns the failures in words, if there are any: each reason once, with how many clients it is of. Reasons that
/// differ in their numbers alone count as one.
pub(super) fn describe<'a>(
    failures: impl Iterator<Item = (ClientId, &'a Failure)>,
) -> Option<String> {
    /// How many different reasons are told.
    const TOLD: usize = 3;
    // In the order of the first client that each is of.
    let mut reasons: Vec<Alike<'_>> = Vec::new();
    let mut places = BTreeMap::new();
    for (first, failure) in failures {
        let key = without_numbers(&failure.reason);
        let place = *places.entry(key).or_insert(reasons.len());
        match reasons.get_mut(place) {
            Some(alike) => alike.count += 1,
            None => reasons.push(Alike {
                first,
                failure,
                count: 1,
            }),
        }
    }
    let mut told = Vec::new();
    for alike in reasons.iter().take(TOLD) {
        told.push(alike.to_string());
    }
    if reasons.len() > TOLD {
        told.push("others failed for other reasons".to_string());
    }
    (!told.is_empty()).then(|| told.join("; "))
}

impl std::fmt::Display for Alike<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reason = &self.failure.reason;
        let mut first = format!("client {}", self.first);
        if let Some(worker) = self.failure.worker {
            first = format!("{first} (worker {worker})");
        }
        if self.count == 1 {
            return write!(formatter, "{first} failed: {reason}");
        }
        let clients = plural(self.count, "client");
        write!(
            formatter,
            "{clients} failed: {reason}; the first is {first}"
        )
    }
}
