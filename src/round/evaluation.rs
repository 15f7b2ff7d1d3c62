//! Measurements of a model version, and the versions that the workers are still measuring.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{ClientId, ModelVersion, RoundId, Timestamp};

/// What a model does on test examples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub struct Evaluation {
    /// Mean loss over the examples.
    pub loss: f64,
    /// Share of the examples that are classified right, from 0 to 1.
    pub accuracy: f64,
    /// Number of examples.
    pub examples: u64,
}

impl Evaluation {
    /// The mean over parts, weighted by examples, in the order given; `None` where there is no example.
    pub fn mean<'a>(parts: impl IntoIterator<Item = &'a Evaluation>) -> Option<Evaluation> {
        let (mut loss, mut accuracy, mut examples) = (0.0, 0.0, 0);
        for part in parts {
            loss += part.loss * part.examples as f64;
            accuracy += part.accuracy * part.examples as f64;
            examples += part.examples;
        }
        let count = examples as f64;
        (examples > 0).then(|| Evaluation {
            loss: loss / count,
            accuracy: accuracy / count,
            examples,
        })
    }
}

/// A version whose measurements are not all in.
#[derive(Debug)]
pub(super) struct Pending {
    pub version: ModelVersion,
    /// The round that made it.
    pub round: RoundId,
    /// Given up at this moment; none where the driver evaluates, who always answers.
    pub deadline: Option<Timestamp>,
    shares: BTreeMap<ClientId, Share>,
}

#[derive(Debug)]
enum Share {
    Open,
    Done(Evaluation),
    Failed(String),
}

impl Pending {
    /// A version that these clients evaluate a share of each; no client: the driver does.
    pub fn new(
        version: ModelVersion,
        round: RoundId,
        clients: &[ClientId],
        deadline: Option<Timestamp>,
    ) -> Self {
        Self {
            version,
            round,
            deadline,
            shares: clients
                .iter()
                .map(|client| (*client, Share::Open))
                .collect(),
        }
    }

    /// Whether this client's share is still to be measured.
    pub fn is_open(&self, client: ClientId) -> bool {
        matches!(self.shares.get(&client), Some(Share::Open))
    }

    /// The client's share, counted from 0, and how many there are.
    pub fn share(&self, client: ClientId) -> Option<(u32, u32)> {
        let position = self.shares.keys().position(|found| *found == client)?;
        Some((position as u32, self.shares.len() as u32))
    }

    /// Takes a share's measurements. A second time, nothing changes.
    pub fn take(&mut self, client: ClientId, evaluation: Result<Evaluation, String>) {
        if let Some(share @ Share::Open) = self.shares.get_mut(&client) {
            *share = evaluation.map_or_else(Share::Failed, Share::Done);
        }
    }

    /// Whether there is nothing left to wait for.
    pub fn is_done(&self) -> bool {
        !self.shares.is_empty()
            && self
                .shares
                .values()
                .all(|share| !matches!(share, Share::Open))
    }

    /// The mean of all shares, or why there is none: part of a test split is not comparable with the whole.
    pub fn result(&self) -> Result<Evaluation, String> {
        let mut done = Vec::with_capacity(self.shares.len());
        let mut open = 0;
        for (client, share) in &self.shares {
            match share {
                Share::Done(evaluation) => done.push(evaluation),
                Share::Failed(reason) => {
                    return Err(format!("client {client} could not evaluate: {reason}"));
                }
                Share::Open => open += 1,
            }
        }
        match open {
            0 => Evaluation::mean(done).ok_or_else(|| "the test split has no examples".to_string()),
            _ => Err(format!(
                "{open} of {} shares of the test split were not evaluated in time",
                self.shares.len()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_weighted_by_their_examples_and_a_missing_one_spoils_the_mean() {
        let clients = [ClientId(0), ClientId(1)];
        let mut pending = Pending::new(ModelVersion(1), RoundId(1), &clients, None);
        pending.take(
            ClientId(0),
            Ok(Evaluation {
                loss: 1.0,
                accuracy: 0.5,
                examples: 30,
            }),
        );
        assert!(!pending.is_done() && pending.result().is_err());
        pending.take(
            ClientId(1),
            Ok(Evaluation {
                loss: 2.0,
                accuracy: 1.0,
                examples: 10,
            }),
        );
        pending.take(ClientId(1), Err("again".to_string()));
        assert!(pending.is_done());
        assert_eq!(
            pending.result(),
            Ok(Evaluation {
                loss: 1.25,
                accuracy: 0.625,
                examples: 40
            })
        );
    }
}
