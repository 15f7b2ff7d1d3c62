//! Federated averaging for Rust: several machines train one model without moving their data.
//!
//! A [`coordinator::Coordinator`] owns jobs: it hands out tasks, collects reports, folds them into the next global model and
//! evaluates it. A [`worker::Worker`] trains clients for it, over a [`transport`]. [`simulation::Simulation`] is both in one process:
//!
//! ```
//! use std::sync::Arc;
//!
//! use fedavg::{simulation::Simulation, worker::NoopTrainers};
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
//! What can be replaced: the algorithm ([`strategy::FederatedStrategy`]), whatever trains ([`worker::LocalTrainer`], and for burn
//! modules [`worker::Learner`]), the way to reach a coordinator ([`transport::Transport`]), the place for reports ([`report::Spool`]).
//! `ARCHITECTURE.md` has the layers and the words.

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
pub mod store;
pub mod strategy;
pub mod telemetry;
pub mod transport;
pub mod worker;

/// The README's code is compiled with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
