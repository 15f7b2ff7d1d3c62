//! A coordinator and many clients in one process: the same coordinator, round machine, worker loop and strategy as over
//! a network, joined by the in-process transport.

mod builder;
mod checkpoints;
mod error;
mod own_strategy;
mod replay;
mod result;
mod run;
#[cfg(test)]
mod tests;
mod workers;

pub use builder::Simulation;
pub use error::SimulationError;
pub use result::SimulationResult;
