//! Every step that makes something durable, or takes it away: writes, fsyncs, renames and removals of state.
//!
//! All of this crate's files that must survive something are written through these functions, each at a named [`Site`]. So a test
//! can end the process before or after any step (feature `testing`), make a step fail, and rebuild a folder from what was synced
//! alone, as a power failure leaves it. In a usual build the functions are the operating system's calls and nothing else.
//!
//! It must never decide what is durable when: that is for its callers.

#[cfg(feature = "testing")]
mod kill;
mod ops;
mod site;
mod step;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use ops::{
    Writer, make_folder, make_private, private_folder, remove_file, remove_folder, remove_tree,
    rename, sync_data, sync_file, sync_folder, write_at,
};
#[cfg(feature = "sqlite")]
pub(crate) use ops::{commit, temporary_folder};
#[cfg(any(test, feature = "testing"))]
pub use site::Operation;
pub use site::Site;
