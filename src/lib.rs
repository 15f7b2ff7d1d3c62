//! Federated averaging for Rust: several machines train one model without moving their data.

pub mod backend;
#[cfg(feature = "cli")]
pub mod cli;
pub mod coordinator;
pub mod data;
pub mod ids;
pub mod job;
pub mod model;
mod panics;
pub mod parameters;
pub mod partition;
pub mod report;
pub mod rng;
pub mod round;
pub mod settings;
pub mod simulation;
pub mod strategy;
pub mod telemetry;
pub mod transport;
pub mod worker;
