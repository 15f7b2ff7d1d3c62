//! Federated averaging for Rust.
