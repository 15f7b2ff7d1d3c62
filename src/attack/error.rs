//! Why an attack can't be made.

use thiserror::Error;

use crate::{data::DataError, partition::PartitionError, worker::TrainError};

/// Why an attack can't be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttackError {
    /// No attack of this name.
    #[error("no attack {kind:?} is known here{hint}; known are {known}")]
    Unknown {
        /// The name.
        kind: String,
        /// The name that was probably meant, in brackets; empty if none is alike.
        hint: String,
        /// The names that are known, separated by commas.
        known: String,
    },
    /// A parameter that the attack does not have, or a value that it can't have.
    #[error("attack {kind}: {key} {problem}")]
    Parameter {
        /// The attack.
        kind: String,
        /// The parameter.
        key: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The text does not name an attack, or it names clients that can't attack.
    #[error("{0}")]
    Clients(String),
    /// The attack does not fit the job or its data, and what to do about it.
    #[error("{0}")]
    Unusable(String),
    /// The poisoned dataset can't be made.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The honest trainers can't say what the attackers need to know.
    #[error(transparent)]
    Trainers(#[from] TrainError),
    /// The attackers can't be given the examples of their clients.
    #[error("attackers that collude deal the job's data themselves: {0}")]
    Partition(#[from] PartitionError),
}
