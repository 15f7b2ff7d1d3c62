//! What unit tests do to the steps below a folder: look at them, make them fail, leave them out.

mod fault;
mod power;
mod scenario;
mod tests;
mod watch;

#[cfg(feature = "sqlite")]
pub(crate) use fault::EROFS;
pub(crate) use fault::{EIO, Fault};
pub(crate) use power::Power;
#[cfg(feature = "sqlite")]
pub(crate) use power::sync_sites;
pub(crate) use scenario::Scenario;
pub(super) use watch::around;
pub(crate) use watch::{Observer, Step, watch};
