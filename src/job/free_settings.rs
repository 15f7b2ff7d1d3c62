//! Settings that this crate hands on and does not read.

/// Free-form settings: names with JSON values, for a trainer or a custom strategy, which reads them.
pub type Settings = serde_json::Map<String, serde_json::Value>;

/// The most that settings may have, in bytes as JSON.
pub(super) const MOST_SETTINGS: usize = 64 << 10;
