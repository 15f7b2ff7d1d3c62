//! What a client minimizes beside its loss: the client's half of FedProx, SCAFFOLD and FedDyn, as a plan names it.
//!
//! This is data alone. How a worker carries it out is `worker`'s, and what the coordinator does with it is the strategy's.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a client minimizes in a round: its loss, and what this adds to it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Objective {
    /// The loss alone.
    #[default]
    Plain,
    /// The loss and `mu / 2` times the squared distance to the global model: FedProx (Li et al. 2020, "Federated
    /// Optimization in Heterogeneous Networks").
    Proximal {
        /// How strongly the local model is pulled to the global one, at least 0.
        #[cfg_attr(feature = "http", schema(minimum = 0))]
        mu: f64,
    },
    /// The loss with gradients corrected by control variates: SCAFFOLD (Karimireddy et al. 2020), option II. The payload
    /// `control` of the version is the server's control variate, and a report has the change of the client's as `control`.
    Scaffold {
        /// The number of restarts: at each, the server and all clients set their control variates to zero. A control variate that
        /// a client kept before the last restart does not count. Left out if it is 0.
        #[serde(default, skip_serializing_if = "is_zero")]
        restarts: u64,
    },
    /// The loss with a linear and a proximal term: FedDyn (Acar et al. 2021, "Federated Learning Based on Dynamic
    /// Regularization").
    #[serde(rename = "feddyn")]
    FedDyn {
        /// The weight of both terms, at least 0.
        #[cfg_attr(feature = "http", schema(minimum = 0))]
        alpha: f64,
        /// The number of restarts: at each, all clients set their linear terms to zero. A term that a client kept before the last
        /// restart does not count. Left out if it is 0.
        #[serde(default, skip_serializing_if = "is_zero")]
        restarts: u64,
    },
    /// An objective that an embedder registered with the workers under this name.
    Custom {
        /// The name.
        name: String,
        /// Settings that the objective reads. Left out if there are none.
        #[serde(default, skip_serializing_if = "Map::is_empty")]
        #[cfg_attr(feature = "http", schema(value_type = Object))]
        settings: Map<String, Value>,
    },
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Objective {
    /// Its name, as jobs and capabilities have it.
    pub fn name(&self) -> &str {
        match self {
            Self::Plain => "plain",
            Self::Proximal { .. } => "proximal",
            Self::Scaffold { .. } => "scaffold",
            Self::FedDyn { .. } => "feddyn",
            Self::Custom { name, .. } => name,
        }
    }

    /// What a worker must say that it can do, as in `objective:scaffold`; none for the loss alone, which every worker can.
    pub fn capability(&self) -> Option<String> {
        (!self.is_plain()).then(|| format!("objective:{}", self.name()))
    }

    /// Whether its numbers are in their ranges.
    pub fn is_valid(&self) -> bool {
        let number = match self {
            Self::Proximal { mu } => *mu,
            Self::FedDyn { alpha, .. } => *alpha,
            _ => 0.0,
        };
        number >= 0.0
    }

    /// Whether it is the loss alone.
    pub fn is_plain(&self) -> bool {
        *self == Self::Plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_has_a_kind_and_a_capability() {
        let text = r#"{"kind":"custom","name":"elastic","settings":{"l1":0.5}}"#;
        for (text, capability) in [
            (r#"{"kind":"plain"}"#, None),
            (
                r#"{"kind":"proximal","mu":0.01}"#,
                Some("objective:proximal"),
            ),
            (r#"{"kind":"scaffold"}"#, Some("objective:scaffold")),
            (
                r#"{"kind":"scaffold","restarts":2}"#,
                Some("objective:scaffold"),
            ),
            (r#"{"kind":"feddyn","alpha":0.1}"#, Some("objective:feddyn")),
            (text, Some("objective:elastic")),
        ] {
            let objective: Objective = serde_json::from_str(text).unwrap();
            assert_eq!(objective.capability().as_deref(), capability);
            assert_eq!(serde_json::to_string(&objective).unwrap(), text);
            // The journal's form.
            let packed = rmp_serde::to_vec_named(&objective).unwrap();
            assert_eq!(
                rmp_serde::from_slice::<Objective>(&packed).unwrap(),
                objective
            );
        }
    }
}
