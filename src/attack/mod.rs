//! Clients that attack, for tests and simulations: what they train on, and what they send instead of an honest update.
//!
//! An [`Attack`] is a trait with a file for each implementation. [`Attackers`] wraps a trainer factory: the trainers of some clients
//! attack, and all others train as without it, to the bit. [`Attacks`] has the attacks by name.
//!
//! | name | attack | what the attackers send |
//! |---|---|---|
//! | `sign_flip` | [`SignFlip`] | the opposite of their honest change |
//! | `gaussian` | [`Gaussian`] | noise |
//! | `label_flip` | [`LabelFlip`] | what they learn from flipped labels |
//! | `backdoor` | [`Backdoor`] | what they learn from images with a trigger, scaled up |
//! | `alie` | [`Alie`] | their mean, some standard deviations away |
//! | `ipm` | [`Ipm`] | the opposite of their mean |
//! | `free_rider` | [`FreeRider`] | the last change of the global model; they train nothing |
//! | `lazy` | [`Lazy`] | what one step gives, as if it were ten |
//!
//! ```
//! use std::sync::Arc;
//!
//! use fedavg::{Simulation, attack::{Attackers, AttackingClients, SignFlip}, worker::NoopTrainers};
//!
//! let honest = Arc::new(NoopTrainers::new(1000, 100)?);
//! let mut job = honest.job();
//! (job.clients, job.rounds) = (Some(10), 3);
//! let who = AttackingClients::Fraction(0.2);
//! let attackers = Attackers::new(&job, Arc::new(SignFlip::new(4.0)), &who, honest)?;
//! assert_eq!(attackers.clients().len(), 2);
//! let result = Simulation::new(job, Arc::new(attackers)).run()?;
//! assert_eq!(result.rounds.len(), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It is a matter of simulations alone: no coordinator and no job knows attacks, and nothing here has a network or a clock.

mod alie;
mod attackers;
mod backdoor;
mod builtin;
mod clients;
mod collusion;
mod contract;
mod effort;
mod error;
mod free_rider;
mod gaussian;
mod history;
mod ipm;
mod label_flip;
mod lazy;
mod registry;
mod round;
mod sign_flip;
mod spec;
mod success;
#[cfg(test)]
mod tests;
mod trainer;

pub use alie::Alie;
pub use attackers::Attackers;
pub use backdoor::Backdoor;
pub use clients::AttackingClients;
pub use contract::{Attack, Needs};
pub use effort::Effort;
pub use error::AttackError;
pub use free_rider::FreeRider;
pub use gaussian::Gaussian;
pub use ipm::Ipm;
pub use label_flip::LabelFlip;
pub use lazy::Lazy;
pub use registry::Attacks;
pub use round::AttackRound;
pub use sign_flip::SignFlip;
pub use spec::AttackSpec;
pub use success::{poisoned, success_rate};
