//! The client's half of objectives: what changes gradients while a client trains, what its report has beside the delta, and
//! what it keeps for its next round.
//!
//! Everything is in flat [`Parameters`](crate::parameters::Parameters), so that any trainer can use it. Nothing here knows
//! burn, a network or a strategy.

mod contract;
mod feddyn;
mod plain;
mod proximal;
mod registry;
mod scaffold;
#[cfg(test)]
mod tests;
mod values;

pub use contract::{Correction, LocalObjective, Trained};
pub use registry::Objectives;
pub(super) use scaffold::CONTROL;
