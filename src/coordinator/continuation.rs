//! What a job keeps of the one that it goes on from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ClientId, JobId, RoundId},
    protocol::ContinuedFrom,
};

/// What a job keeps of the one that it goes on from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Continuation {
    pub from: ContinuedFrom,
    /// The job under which workers keep the clients' states; none if clients begin without.
    pub states_of: Option<JobId>,
    /// The last round that folded each client.
    pub basis: BTreeMap<ClientId, RoundId>,
}
