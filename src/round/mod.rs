//! The control plane: what happens when, without doing any of it.
//!
//! [`RoundMachine`] is one job's control plane. It knows no clock, no socket and no thread: events and the time come in,
//! commands come out, and a driver carries them out. [`Roster`] knows which workers are alive; it outlives jobs.
//!
//! The driving contract: handle one event, drain [`RoundMachine::poll_command`] to `None`, then wait for an event or for
//! [`RoundMachine::poll_deadline`], at which [`Event::Tick`] is sent.

mod collection;
mod command;
mod evaluation;
mod event;
mod failures;
mod leases;
mod machine;
mod pending;
mod progress;
mod roster;
#[cfg(test)]
mod tests;

pub use command::{Command, Excluded, JobEvent, Outcome, Response, Task, TaskKind};
pub(crate) use evaluation::LOSS_NOT_FINITE;
pub use evaluation::{ClientEvaluation, Evaluation};
pub use event::{ClientSpec, Event};
pub use leases::first_holders;
pub use machine::{EvaluationBy, MachineConfig, RoundMachine, RoundStatus};
pub use progress::{BestVersion, MeasuredVersion, ProgressRules, StopRule};
pub use roster::{Roster, WorkerRecord, WorkerState};

/// The number of what [`RoundMachine`] makes of its events. It changes with every change after which the same events could lead
/// to another state, or after which a machine that was written down could not be read. A part that earlier machines do not have (the measured
/// versions) is no such change: it is empty in theirs, and nothing that they had decided follows from it.
pub const SEMANTICS: u32 = 1;
