//! Federated averaging for Rust.

/// Where a worker computes: devices by name, and the hardware inventory.
pub mod backend;
/// Datasets: where they are looked for, what they hold, and batches of them.
pub mod data;
/// Who gets which examples: labels in, one list of indices per client out.
pub mod partition;
