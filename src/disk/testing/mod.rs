//! What unit tests do to the steps below a folder: look at them, make them fail, leave them out.

mod tests;
mod watch;

pub(super) use watch::around;
pub(crate) use watch::{Observer, Step, Watch, watch};
