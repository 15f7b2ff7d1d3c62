//! What a job leaves behind for people: how the record of a round is made, read back, and compared.

mod clients;
mod contribution;
mod record;

pub use clients::{ClientMetrics, ClientMetricsLimit};
pub use contribution::contributions;
pub use record::{canonical, parse_rounds};
