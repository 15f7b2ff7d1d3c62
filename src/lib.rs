//! Federated averaging for Rust.

/// Who gets which examples: labels in, one list of indices per client out.
pub mod partition;
