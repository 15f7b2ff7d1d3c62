//! What a client submits: metadata and named payloads, and the seam through which a strategy reads them.
//!
//! Reports are *spooled* as they arrive and read back, in client order and block by block, when the round closes. So
//! no strategy depends on the order of arrival, and none needs all reports in memory at once.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod executor;
mod memory;
mod partial;
mod refusal;
mod spool;

use std::{collections::BTreeMap, sync::Arc};

pub use executor::{Executor, Serial};
pub use memory::MemorySpool;
pub use partial::PartialKey;
pub use refusal::{Refusal, RefusalKind};
use serde::{Deserialize, Serialize};
pub use spool::{Spool, SpoolError, SpoolKey, SpoolWriter};
use thiserror::Error;

use crate::{
    ids::{ClientId, ModelVersion, RoundId},
    parameters::{BlockError, BlockReader},
};

/// The payload that every report has: local minus global parameters.
pub const DELTA: &str = "delta";

/// What comes before a tensor's name in the body of a report, for the payload [`DELTA`].
pub const DELTA_PREFIX: &str = "delta/";

/// The longest name of a device in a report, in bytes.
pub const LONGEST_DEVICE: usize = 64;

/// What a client says about its report, before the values.
///
/// Device, time and energy are for the record of the round and for dealing by measured capacity: no strategy weighs a
/// report by them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct ReportMetadata {
    /// The version of the global model that training started from.
    pub base_version: ModelVersion,
    /// Number of examples in the partition that it trained on; at most the partition's size.
    pub examples: u64,
    /// Number of optimizer steps taken.
    pub steps: u64,
    /// Measurements such as `train_loss` and `train_accuracy`; finite numbers.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// What trained it, such as `flex` or `libtorch:cuda:0`: at most 64 bytes, without control characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Seconds of wall-clock time that the local training took; finite, not negative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(minimum = 0))]
    pub seconds: Option<f64>,
    /// Joules that the device spent on the local training, if they were measured; finite, not negative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(minimum = 0))]
    pub energy_joules: Option<f64>,
    /// Whether the client had to start from its initial state, since the worker has not kept the state that the task's `basis`
    /// names. Left out if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub state_lost: bool,
}

impl ReportMetadata {
    /// A report on training from this version on this many examples, in one step. The public fields say more.
    pub fn new(base_version: ModelVersion, examples: u64) -> Self {
        Self {
            base_version,
            examples,
            steps: 1,
            ..Self::default()
        }
    }

    /// Checks that every number is finite, and that the device is a name that a terminal can show.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::Malformed`], with what is wrong.
    pub fn check(&self) -> Result<(), Refusal> {
        // JSON has no form for other numbers, so a record with one could not be written.
        if !self.metrics.values().all(|value| value.is_finite()) {
            return malformed("a metric is not a finite number");
        }
        if !is_measure(self.seconds) {
            return malformed("the seconds of training are not a finite number from 0");
        }
        if !is_measure(self.energy_joules) {
            return malformed("the joules of training are not a finite number from 0");
        }
        if let Some(device) = &self.device
            // Workers choose this text, and it goes to terminals, which obey control characters.
            && (device.len() > LONGEST_DEVICE || device.chars().any(char::is_control))
        {
            return malformed("a device has at most 64 bytes and no control characters");
        }
        Ok(())
    }

    /// The mean loss over the client's training, if it was measured.
    pub fn train_loss(&self) -> Option<f64> {
        self.metrics.get("train_loss").copied()
    }
}

fn malformed(detail: &str) -> Result<(), Refusal> {
    Err(Refusal::new(RefusalKind::Malformed, detail))
}

fn is_measure(value: Option<f64>) -> bool {
    value.is_none_or(|value| value.is_finite() && value >= 0.0)
}

/// One accepted report: who, in which round, what it says, and its payloads by block.
#[derive(Clone)]
pub struct Report {
    /// Who submitted it.
    pub client: ClientId,
    /// The round it belongs to.
    pub round: RoundId,
    /// What it says about itself.
    pub metadata: ReportMetadata,
    payloads: Vec<(String, Arc<dyn BlockReader + Send + Sync>)>,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let payloads: Vec<_> = self.payloads.iter().map(|(name, _)| name).collect();
        write!(formatter, "Report({}, {payloads:?})", self.client)
    }
}

impl Report {
    /// A report with these payloads.
    pub fn new(
        client: ClientId,
        round: RoundId,
        metadata: ReportMetadata,
        payloads: Vec<(String, Arc<dyn BlockReader + Send + Sync>)>,
    ) -> Self {
        Self {
            client,
            round,
            metadata,
            payloads,
        }
    }

    /// The payload of this name.
    ///
    /// # Errors
    ///
    /// [`ReportError::NoPayload`] if the client sent none.
    pub fn payload(&self, name: &str) -> Result<&(dyn BlockReader + Send + Sync), ReportError> {
        let found = self.payloads.iter().find(|(found, _)| found == name);
        found
            .map(|(_, reader)| &**reader)
            .ok_or_else(|| ReportError::NoPayload {
                client: self.client,
                name: name.into(),
            })
    }
}

/// Why reports can't be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A client did not send the payload that the strategy needs.
    #[error("client {client} sent no payload {name:?}")]
    NoPayload {
        /// The client.
        client: ClientId,
        /// The payload.
        name: String,
    },
    /// A payload's block could not be read.
    #[error("the report of client {client} is unreadable")]
    Block {
        /// The client.
        client: ClientId,
        /// What failed.
        source: BlockError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(change: impl FnOnce(&mut ReportMetadata)) -> Option<RefusalKind> {
        let mut metadata = ReportMetadata::default();
        change(&mut metadata);
        metadata.check().err().map(|refusal| refusal.kind)
    }

    #[test]
    fn what_is_not_a_measure_or_a_name_is_malformed() {
        let malformed = Some(RefusalKind::Malformed);
        for value in [f64::NAN, f64::INFINITY, -1.0, -f64::MIN_POSITIVE] {
            assert_eq!(
                kind(|said| said.seconds = Some(value)),
                malformed,
                "{value}"
            );
            assert_eq!(
                kind(|said| said.energy_joules = Some(value)),
                malformed,
                "{value}"
            );
        }
        let longest = "x".repeat(LONGEST_DEVICE);
        for device in [
            format!("{longest}x"),
            "a\nb".to_string(),
            "\u{1b}[31m".to_string(),
        ] {
            assert_eq!(
                kind(|said| said.device = Some(device.clone())),
                malformed,
                "{device:?}"
            );
        }
        let name = |text: &str| kind(|said| said.device = Some(text.to_string()));
        assert_eq!(
            (name(&longest), name(""), name("libtorch:cuda:0")),
            (None, None, None)
        );
        assert_eq!(
            kind(|said| (said.seconds, said.energy_joules) = (Some(0.0), Some(1e9))),
            None
        );
    }

    #[test]
    fn what_was_not_measured_is_not_in_the_json_and_an_older_report_is_read() {
        let old = r#"{"base_version":3,"examples":180,"steps":3,"metrics":{}}"#;
        let read: ReportMetadata = serde_json::from_str(old).unwrap();
        assert_eq!(
            (&read.device, read.seconds, read.energy_joules),
            (&None, None, None)
        );
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
        let measured = ReportMetadata {
            device: Some("flex".to_string()),
            seconds: Some(0.1 + 0.2),
            energy_joules: Some(12.5),
            ..read
        };
        let json = serde_json::to_string(&measured).unwrap();
        assert_eq!(
            serde_json::from_str::<ReportMetadata>(&json).unwrap(),
            measured
        );
    }
}
