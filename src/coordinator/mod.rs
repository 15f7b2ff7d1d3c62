//! The coordinator: carries out what the round machine orders, and answers workers and operators.
//!
//! All decisions are the machine's and the strategy's; this module has the clock, the threads, the queue of jobs and the
//! models. Everything that decides happens under one lock that is held for microseconds; whatever takes longer (dealing
//! data, planning, folding, evaluating, reading a body) runs outside of it and comes back as an event, so that
//! heartbeats are answered meanwhile.

mod access;
mod access_watch;
mod admission;
mod audit;
mod builder;
mod capacity;
mod carry_out;
mod claims;
mod clock;
mod config;
mod continuation;
mod continuing;
mod dataset_copies;
mod deal;
mod driver;
mod effects;
mod executor;
mod facts;
mod fold;
mod handle;
mod handler;
mod history;
mod job;
mod job_facts;
mod journaling;
mod lists;
mod name_index;
mod needs;
mod offers;
mod operator;
mod poll;
mod prepare;
mod queue;
mod recovery;
mod registration;
mod report;
mod retention;
mod room;
mod round_account;
mod speed;
mod state;
#[cfg(feature = "sqlite")]
pub mod state_dir;
mod step;
mod submission;
mod submission_key;
mod submitted_once;
#[cfg(all(test, feature = "http"))]
mod tests;
mod timekeeper;
mod training_pool;
mod turns;
mod under_way;
mod upload;
mod upload_offset;
mod upload_refusals;
mod work;
mod worker_access;

pub use builder::CoordinatorBuilder;
pub use config::{
    AccessConfig, AllowedWorker, ClaimLimits, CoordinatorConfig, JobLimits, JournalLimits,
    QuarantineLimits, RegistrationLimits, UploadLimits, WorkerLimits,
};
pub use executor::Threads;
pub use handle::Coordinator;
pub(crate) use handle::{StrategyFactory, strategy_factory};
pub use recovery::RecoveryError;
