//! What the tests of several modules share.

pub(crate) mod fuzz;
// Archives are read by what belongs to the programs.
#[cfg(feature = "cli")]
pub(crate) mod tar;
