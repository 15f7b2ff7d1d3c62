//! How a worker joins.

use serde::{Deserialize, Serialize};

use super::{DatasetInfo, Hardware, OLDEST_PROTOCOL, PROTOCOL, Token};
use crate::ids::{CoordinatorId, WorkerId};

/// What a worker says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Registration {
    /// The newest version of the protocol that it speaks.
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub protocol: u32,
    /// The oldest version that it speaks; left out if it speaks no other than `protocol`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub protocol_min: Option<u32>,
    /// A name for people; a worker with data of its own is known by it when it comes back.
    pub name: String,
    /// How many clients it trains at once, from 1 to 1024.
    #[serde(default = "one")]
    #[cfg_attr(feature = "http", schema(minimum = 1, maximum = 1024, default = 1))]
    pub slots: u32,
    /// What it runs on.
    #[serde(default)]
    pub hardware: Hardware,
    /// What it trains with: `flex`, `libtorch:cuda:0`, `numpy`.
    #[serde(default)]
    pub device: String,
    /// The datasets that it has.
    #[serde(default)]
    pub datasets: Vec<DatasetInfo>,
    /// The names of the encodings that it knows, of `f32`, `f16`, `bf16`, `int8` and `top_k`; f32 alone if left out.
    #[serde(default = "plain")]
    pub encodings: Vec<String>,
    /// What it can do beyond training a delta: `payload:NAME` for each further payload that it can send, `objective:NAME` for each
    /// objective, and a name for each further setting of training that it knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Whether the data is its own: it then takes part in jobs with `local` data only, as one client.
    #[serde(default)]
    pub local: bool,
}

impl Registration {
    /// A worker of this name that speaks this crate's versions of the protocol, has one slot and no data, and knows no encoding
    /// but f32. The public fields change that.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            protocol: PROTOCOL,
            protocol_min: Some(OLDEST_PROTOCOL),
            name: name.into(),
            slots: one(),
            hardware: Hardware::default(),
            device: String::new(),
            datasets: Vec::new(),
            encodings: plain(),
            capabilities: Vec::new(),
            local: false,
        }
    }

    /// The oldest version of the protocol that the worker speaks.
    pub fn protocol_min(&self) -> u32 {
        self.protocol_min.unwrap_or(self.protocol)
    }
}

/// What a worker is told at registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Registered {
    /// Its number.
    pub worker: WorkerId,
    /// Who gave it; empty from a coordinator of version 0.1.
    #[serde(default)]
    pub coordinator: CoordinatorId,
    /// The version of the protocol that both speak from now on: the newest that both know.
    // A coordinator of protocol 1 does not say it.
    #[serde(default = "first_protocol")]
    pub protocol: u32,
    /// What it shows from now on.
    pub token: Token,
    /// How often to send a heartbeat, in milliseconds.
    pub heartbeat_ms: u64,
    /// How long to let a poll wait, in milliseconds.
    pub poll_ms: u64,
}

fn one() -> u32 {
    1
}

fn first_protocol() -> u32 {
    1
}

fn plain() -> Vec<String> {
    vec!["f32".to_string()]
}
