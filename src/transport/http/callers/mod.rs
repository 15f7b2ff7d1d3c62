//! The limits of each caller: its address, and the worker that it is.

mod address;
mod admission;
mod answers;
mod bucket;
mod failures;
mod limits;
mod proxies;
mod requests;
mod table;

pub(super) use admission::{Admission, Connections};
pub(super) use answers::{RequestId, dress};
pub(super) use bucket::Received;
pub use limits::{AddressLimits, CallerLimits};
pub use proxies::{Network, NetworkError};
pub(super) use requests::{Asker, Requests, Upload};
