//! A coordinator's state folder while no coordinator of this process has it: looked at, copied, put in place elsewhere.
//!
//! - [`check`] says what a coordinator would go on with, and reads every file for damage. It changes nothing.
//! - [`StateCopy`] is a consistent copy, made while a coordinator may write to the folder.
//! - [`StateImport`] puts such a copy into an empty folder, as a whole or not at all.

mod check;
mod contents;
mod copy;
mod error;
mod import;
mod report;

pub use check::check;
pub use copy::StateCopy;
pub use error::StateDirError;
pub use import::StateImport;
pub use report::{KeptJob, KeptWorker, StateProblem, StateReport};
