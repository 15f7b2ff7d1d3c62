//! The safetensors form of parameters: <https://github.com/huggingface/safetensors>.
//!
//! A file is a length (8 bytes, little endian), a JSON header of that length and the values. [`header`] makes the bytes
//! before the values, so that a body is sent as two pieces without a copy; [`Decoder`] takes a body of f32 in pieces of
//! any size; [`super::BodyDecoder`], which it uses, takes one of any encoding. None of them does any IO.

mod error;
mod f32_file;
mod finite;
mod header_reader;
mod roles;

pub use error::SafetensorsError;
pub use f32_file::{Decoder, decode, encode, header};
pub use finite::check_finite;
pub(super) use header_reader::{HeaderReader, LENGTH_BYTES};
pub(super) use roles::{ROLES, is_batch_counter, role_of, roles_of};

#[cfg(not(target_endian = "little"))]
compile_error!("parameters travel as the memory of little-endian f32 values");
