//! Federated averaging for Rust.

/// Where a worker computes: devices by name, and the hardware inventory.
pub mod backend;
/// Who gets which examples: labels in, one list of indices per client out.
pub mod partition;
