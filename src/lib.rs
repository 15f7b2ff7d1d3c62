//! Federated averaging for Rust: several machines train one model without moving their data.
//!
//! A [`Coordinator`] owns jobs: it hands out tasks, collects reports, folds them into the next global model and evaluates it. A
//! [`Worker`] trains clients for it, over a [`transport`]. [`Simulation`] is both in one process:
//!
//! ```
//! use std::sync::Arc;
//!
//! use fedavg::{Simulation, worker::NoopTrainers};
//!
//! // Trainers that don't train; `worker::BurnTrainers` has models and data.
//! let trainers = Arc::new(NoopTrainers::new(1000, 100)?);
//! let mut job = trainers.job();
//! job.clients = Some(4);
//! job.rounds = 3;
//! let result = Simulation::new(job, trainers).workers(2).run()?;
//! assert_eq!(result.rounds.len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What can be replaced: the algorithm ([`FederatedStrategy`]), whatever trains ([`LocalTrainer`], and for burn modules
//! `worker::Learner`), what clients of a simulation do to harm it ([`attack::Attack`]), the way to reach a coordinator
//! ([`Transport`]), the place for reports ([`report::Spool`]) and for models ([`store::ModelStore`]). `docs/extending.md` tells how, step by step; `ARCHITECTURE.md` has the layers and
//! `docs/glossary.md` the words.
//!
//! Programs ask a coordinator as [`Operator`], whether it is in the process or behind HTTP. burn is a feature, and re-exported: a
//! coordinator with trainers of one's own needs `default-features = false, features = ["http"]` alone.

// A file of `benches` names this crate from outside, and a test includes it.
#[cfg(test)]
extern crate self as fedavg;

mod access;
pub mod attack;
pub mod backend;
mod cause;
#[cfg(feature = "cli")]
pub mod cli;
mod computing;
pub mod coordinator;
pub mod data;
#[cfg(not(feature = "testing"))]
mod disk;
#[cfg(feature = "testing")]
pub mod disk;
pub mod ids;
pub mod job;
#[cfg(feature = "burn")]
pub mod model;
pub mod objective;
mod panics;
pub mod parameters;
pub mod partition;
mod plain;
pub mod protocol;
pub mod report;
pub mod rng;
pub mod round;
pub mod settings;
pub mod simulation;
mod spelling;
mod statistics;
pub mod store;
pub mod strategy;
pub mod telemetry;
#[cfg(test)]
mod testing;
mod text;
pub mod transport;
mod words;
pub mod worker;

// What a first program needs.
pub use backend::DeviceSpec;
#[cfg(feature = "burn")]
pub use burn;
pub use cause::Cause;
pub use coordinator::{Coordinator, CoordinatorConfig};
pub use ids::{ClientId, JobId, ModelVersion, RoundId};
pub use job::{JobSpec, Settings, StrategySpec};
pub use objective::Objective;
pub use parameters::{Layout, Parameters, Role};
pub use partition::PartitionSpec;
pub use protocol::{JobSummary, RoundRecord, Token};
pub use simulation::{Simulation, SimulationResult};
pub use strategy::{FedAvg, FederatedStrategy};
pub use transport::{Caller, Handler, InProcess, Operator, Transport};
#[cfg(feature = "burn")]
pub use worker::BurnTrainers;
pub use worker::{LocalTrainer, Worker, WorkerConfig};

/// The code of the README and of the guide is compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/extending.md")]
struct Extending;
