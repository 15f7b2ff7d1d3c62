//! Model parameters without a model: one flat `Vec<f32>` over a shared [`Layout`].
//!
//! Values have PyTorch's names and memory layout and in the safetensors file's order, everywhere: a model file on
//! disk, on the wire and in the fold is the same bytes. Only the burn bridge (`model`) transposes and renames.
//! Nothing here knows burn, files or sockets.

mod block;
mod digest;
mod encoding;
mod file;
mod header_limits;
mod layout;
mod patterns;
mod payload;
pub mod safetensors;

use std::sync::Arc;

pub use block::{Block, BlockBuffer, BlockError, BlockReader, BlockWriter};
pub(crate) use block::{checked, groups};
pub use digest::{Digest, DigestError, Digesting};
pub(crate) use encoding::RangeEncoder;
#[cfg(feature = "http")]
pub(crate) use encoding::check_stored;
pub use encoding::{
    BodyDecoder, BodyForm, BodySink, DEFAULT_FRACTION, Encoded, EncodedReader, Encoding,
    EncodingError, Form, GROUP, Memory, MemoryBody, MemorySink, Part, PayloadSource, Payloads,
    StoredBody, UnknownEncoding, Values, encode, encode_block, encode_top_k,
};
pub use file::{FileTensor, ModelFile, ReadModel};
pub use header_limits::{HeaderError, HeaderLimits};
pub use layout::{FOLD_BLOCK, FoldBlock, Layout, LayoutError, Role, TensorSpec};
pub use patterns::TensorPatterns;
pub use payload::{DType, LONGEST_PAYLOAD_NAME, PayloadSpec, Roles, Shape, VECTOR};

/// All parameters of one model: the values of every tensor of the layout, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters {
    layout: Arc<Layout>,
    values: Vec<f32>,
}

impl Parameters {
    /// Values over a layout.
    ///
    /// # Errors
    ///
    /// [`LayoutError::Length`] if there are not exactly `layout.len()` values.
    pub fn new(layout: Arc<Layout>, values: Vec<f32>) -> Result<Self, LayoutError> {
        if values.len() != layout.len() {
            return Err(LayoutError::Length {
                expected: layout.len(),
                found: values.len(),
            });
        }
        Ok(Self { layout, values })
    }

    /// All zero.
    pub fn zeros(layout: Arc<Layout>) -> Self {
        let values = vec![0.0; layout.len()];
        Self { layout, values }
    }

    /// Names, shapes, roles and order.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The values, in layout order.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The values, in layout order, to be changed in place.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The values alone.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// The values of one tensor, row-major; `None` if the layout has no such name.
    pub fn tensor(&self, name: &str) -> Option<&[f32]> {
        self.layout
            .find(name)
            .map(|spec| &self.values[spec.range()])
    }

    /// `self - base`, element by element, in place: what a client reports. Taken in the worker and nowhere else.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] names the first difference between the two layouts.
    pub fn into_delta(mut self, base: &Parameters) -> Result<Parameters, LayoutError> {
        base.layout.check_same(&self.layout)?;
        for (local, global) in self.values.iter_mut().zip(&base.values) {
            *local -= global;
        }
        // The base has the job's roles. A module's own layout may have others: it takes frozen tensors for buffers.
        self.layout = base.layout.clone();
        Ok(self)
    }
}
