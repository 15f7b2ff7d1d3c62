//! What the three binaries are made of: arguments, commands, progress, files, logging and exit codes (feature `cli`).
//!
//! Each binary parses its arguments, calls one function of this module and turns the result into an exit code by
//! [`exit`]. Everything here uses the crate's public API: what a command does, an embedder can do. It must never
//! decide anything about a job: that is the coordinator's business.
//!
//! Results go to standard output; progress, log lines and errors go to standard error. A reader that closes standard
//! output early is no reason for a panic.

mod access;
mod advice;
mod arguments;
mod attack;
mod attacks;
mod callers;
mod claims;
mod coordinator;
pub mod data;
mod device;
mod evaluate;
mod export;
mod failure;
mod init;
mod job;
mod listen;
mod logging;
pub mod model;
mod model_file;
pub mod operator;
mod output;
mod parameters;
mod plain;
mod plot;
mod process;
mod progress;
mod screen;
mod shell;
mod simulate;
mod state;
mod stop_flags;
mod strategies;
mod strategy_flags;
mod summary;
mod table;
mod tailscale;
mod task_limits;
#[cfg(test)]
mod tests;
mod text_file;
mod tls;
mod token;
mod trainers;
mod values;
mod whole_file;
mod worker;

pub use access::AccessArgs;
pub use arguments::arguments;
pub use attack::{AttackArgs, AttackSummary};
pub use attacks::AttacksArgs;
pub use callers::{CallerArgs, ProxyArgs};
pub use claims::ClaimArgs;
pub use coordinator::CoordinatorArgs;
pub use device::DeviceArgs;
pub use evaluate::EvaluateArgs;
pub use export::ExportArgs;
pub use failure::{COORDINATOR_EXIT_CODES, EXIT_CODES, Failure, WORKER_EXIT_CODES};
pub use init::{InitArgs, Template};
pub use job::{AskedJob, JobArgs};
pub use listen::{Advertise, Bind, Scheme};
pub use logging::{LogArgs, LogFilter};
pub use output::Results;
pub use plain::PlainArgs;
pub use plot::PlotArgs;
pub use process::{Interrupt, block_on, exit};
pub use progress::JobProgress;
pub use screen::Screen;
pub use shell::{CompletionsArgs, ManArgs};
pub use simulate::SimulateArgs;
pub use state::StateCommand;
pub use stop_flags::StopArgs;
pub use strategies::StrategiesArgs;
pub use strategy_flags::StrategyArgs;
pub use summary::RunSummary;
pub use table::{Align, Table, rounds_table};
pub use task_limits::TaskLimitArgs;
pub use tls::{ClientTlsArgs, Pin, ServerTlsArgs};
pub use token::{JoinTokenArgs, OperatorTokenArgs};
pub use trainers::TrainerArgs;
pub use worker::{WorkerArgs, WorkerStorageArgs};
