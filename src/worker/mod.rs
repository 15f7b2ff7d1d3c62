//! A worker: registers, polls for tasks, trains its clients, reports, and repeats.
//!
//! [`LocalTrainer`] is the seam to whatever trains; [`Worker`] is the loop around it. The loop decides nothing about
//! rounds: it does the tasks that it is given, and the coordinator says what a report is worth.

#[cfg(feature = "burn")]
mod burn_trainer;
mod busy;
mod client_states;
mod config;
mod connection;
mod failure;
mod home;
mod idle_trainers;
mod limits;
mod locked;
mod memory;
mod noop;
mod objective;
mod open_job;
mod open_jobs;
mod payload;
mod personal;
mod runner;
mod session;
mod session_loop;
mod state;
mod task;
mod trainer;
mod training;
mod whole_model;

#[cfg(feature = "burn")]
pub use burn_trainer::{
    BatchLoss, BurnTrainer, BurnTrainers, Learner, Minibatch, Randomness, Split,
};
pub use config::{Backoff, WorkerConfig, WorkerError};
pub use limits::TaskLimits;
pub use noop::{NOOP, NoopTrainers};
pub use objective::{Correction, LocalObjective, Objectives, Trained};
pub use runner::{Departure, Worker, WorkerTotals};
pub use state::StateError;
pub use trainer::{
    ClientContext, EvalTask, LOSS_BEFORE, LocalTrainer, LocalUpdate, Partition, PayloadValues,
    TrainError, TrainTask, TrainerFactory,
};
