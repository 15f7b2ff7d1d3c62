//! What the OpenAPI document has beside the routes: the title and the tokens before them, and what is made of the derived
//! schemas after them, so that generators of clients can use it.
//!
//! Everything here follows from the types and the routes; no operation and no field is described a second time.

mod base;
mod finish;
mod problems;
mod safetensors;
mod tidy;
mod unions;
mod walk;

pub(super) use base::base;
pub(super) use finish::finish;
pub(super) use safetensors::Safetensors;
