//! What a strategy decides for a round, and what it says of an aggregation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{ClientId, RoundId},
    objective::Objective,
    parameters::{PayloadSpec, Roles},
    report::DELTA,
    settings::TrainingSettings,
};

/// What is known of a client.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ClientInfo {
    /// Its identity.
    pub id: ClientId,
    /// Number of examples in its partition.
    pub examples: u64,
    /// The last round whose commit folded this client's report; none if no commit has yet.
    pub basis: Option<RoundId>,
    /// How many examples a second the worker trains one client with that acts for it at this moment; none if that has not been
    /// measured, or the strategy does not [use](super::FederatedStrategy::uses_capacity) it.
    #[serde(default)]
    pub capacity: Option<f64>,
}

impl ClientInfo {
    /// A client that was never folded.
    pub fn new(id: ClientId, examples: u64) -> Self {
        Self {
            id,
            examples,
            basis: None,
            capacity: None,
        }
    }
}

/// One member of a cohort.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Member {
    /// The client to train.
    pub client: ClientId,
    /// Settings of its own, if they differ from the plan's.
    pub training: Option<TrainingSettings>,
}

impl Member {
    /// A member that trains with the plan's settings.
    pub fn new(client: ClientId) -> Self {
        Self {
            client,
            training: None,
        }
    }

    /// The same with settings of its own.
    pub fn with_training(mut self, training: TrainingSettings) -> Self {
        self.training = Some(training);
        self
    }
}

/// A strategy's decision for one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RoundPlan {
    /// The cohort, in strictly rising order of clients.
    pub members: Vec<Member>,
    /// How many reports the round waits for; at most the cohort.
    pub goal: usize,
    /// The fewest folded reports that may commit the round; at most the goal. At least the job's own quorum, or 0 for a
    /// strategy that can commit without any report.
    pub quorum: usize,
    /// How members train that have no settings of their own.
    pub training: TrainingSettings,
    /// The payloads beside the global model that a member needs: names of state tensors that are offered to clients.
    pub sends: Vec<String>,
    /// The payloads that a report must have, no more and no fewer.
    pub expects: Vec<PayloadSpec>,
    /// What members minimize beside their loss. Left out if it is the loss alone.
    #[serde(default, skip_serializing_if = "Objective::is_plain")]
    pub objective: Objective,
    /// The fewest reports that must be in the next model, if a strategy selects some of those that it needs: Krum needs many
    /// reports and takes one. None: as many as the quorum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_folded: Option<usize>,
    /// How many clients the strategy asked, if the members are fewer: in a replay, they are those that reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<usize>,
}

impl RoundPlan {
    /// A round of these clients, in rising order, that waits for all of them. It commits with one report or more, and expects the
    /// payload `delta` in f32.
    pub fn new(clients: impl IntoIterator<Item = ClientId>, training: TrainingSettings) -> Self {
        let members: Vec<_> = clients.into_iter().map(Member::new).collect();
        Self {
            goal: members.len(),
            members,
            quorum: 1,
            training,
            sends: Vec::new(),
            expects: vec![PayloadSpec::model(DELTA, Roles::TRAINED)],
            objective: Objective::Plain,
            least_folded: None,
            asked: None,
        }
    }

    /// How many clients the strategy asked.
    pub fn cohort_size(&self) -> usize {
        self.asked.unwrap_or(self.members.len())
    }

    /// The clients of the cohort, in order.
    pub fn clients(&self) -> impl ExactSizeIterator<Item = ClientId> + '_ {
        self.members.iter().map(|member| member.client)
    }

    /// How this client trains: with its own settings, or the plan's.
    pub fn training_of(&self, client: ClientId) -> &TrainingSettings {
        let found = self
            .members
            .binary_search_by_key(&client, |member| member.client);
        let own = found
            .ok()
            .and_then(|index| self.members[index].training.as_ref());
        own.unwrap_or(&self.training)
    }
}

/// What a strategy says of an aggregation, beside the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Aggregation {
    /// The clients whose reports are in the next model, in rising order.
    pub folded: Vec<ClientId>,
    /// The clients whose accepted reports are not, in rising order, and why. Each accepted report is in one of the two lists.
    pub excluded: Vec<(ClientId, String)>,
    /// Sum of the weights of the folded reports.
    pub total_weight: f64,
    /// Further measurements for the round's record.
    pub metrics: BTreeMap<String, f64>,
}

impl Aggregation {
    /// These clients were folded, with weights that add up to this.
    pub fn new(folded: impl IntoIterator<Item = ClientId>, total_weight: f64) -> Self {
        Self {
            folded: folded.into_iter().collect(),
            total_weight,
            ..Self::default()
        }
    }
}
