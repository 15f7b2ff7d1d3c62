//! The tokens of a coordinator: which there are, what each allows, and until when.
//!
//! Pure: the time and the randomness are arguments. What a caller without a token may do is the coordinator's business.

mod hash;
mod known;
mod secret;
mod tokens;

pub use hash::TokenHash;
pub use known::KnownToken;
pub use secret::{WORKER_PREFIX, hex, secret};
pub use tokens::Tokens;
