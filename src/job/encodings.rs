//! In which encodings a job's parameters travel.

use serde::{Deserialize, Serialize};

use crate::parameters::Encoding;

/// How parameters travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(default)]
#[non_exhaustive]
pub struct Encodings {
    /// The deltas in reports.
    pub reports: Encoding,
    /// The global models that workers download; `top_k` is for reports alone. The coordinator's own model stays f32.
    pub models: Encoding,
}

/// [`Encodings`] in a job, if a field that is not known is misspelt.
#[derive(Deserialize)]
#[serde(
    remote = "Encodings",
    default = "Encodings::default",
    deny_unknown_fields
)]
pub(super) struct StrictEncodings {
    reports: Encoding,
    models: Encoding,
}
