//! Federated averaging for Rust.

pub mod backend;
pub mod data;
pub mod partition;
